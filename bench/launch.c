/* SPDX-License-Identifier: Apache-2.0 */

/*
 * launch: runs one command and measures it from outside.
 *
 * What wait4 says of a child's peak memory includes what the parent had before exec, so the one who
 * measures has to be small: this program is a few hundred KiB, a Python script would be 10 MiB.
 * With --cgroup the child runs in a memory cgroup of its own (v1 or v2) whose limit IS the given
 * figure, without swap: code, stacks, page tables and the page cache that it dirties are all
 * inside. The cgroup is removed afterwards.
 *
 *     launch [--cgroup BYTES] [--timeout SECONDS] [--json FILE] [--in FILE] [--out FILE] [--err
 * FILE] [--] COMMAND... launch --probe         says whether a memory cgroup can be made here:
 * prints v1, v2 or none
 *
 * The result is one line of JSON on FILE (standard error without --json). launch itself ends with 0
 * when the child was started, whatever became of it; 125 when no cgroup could be made, 126 when the
 * child could not be started.
 */

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { EXIT_NO_CGROUP = 125, EXIT_NO_START = 126, PATH_SPACE = PATH_MAX };

typedef struct cgroup {
    int version; /* 0 = none */
    char path[PATH_SPACE];
} cgroup;

typedef struct request {
    uint64_t cgroup_bytes; /* 0 = no cgroup */
    unsigned timeout_s;    /* 0 = for ever */
    const char *json, *in, *out, *err;
    char **argv;
} request;

/* Files of a cgroup are named far below PATH_MAX; a longer one is simply not there. */
static bool file_path(char *out, const char *folder, const char *name) {
    int n = snprintf(out, PATH_SPACE, "%s/%s", folder, name);
    return n > 0 && n < PATH_SPACE;
}

static bool file_write(const char *folder, const char *name, const char *text) {
    char path[PATH_SPACE];
    if (!file_path(path, folder, name)) {
        return false;
    }
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) {
        return false;
    }
    size_t length = strlen(text);
    bool ok = write(fd, text, length) == (ssize_t)length;
    close(fd);
    return ok;
}

static bool file_read(const char *folder, const char *name, char *text, size_t bytes) {
    char path[PATH_SPACE];
    if (!file_path(path, folder, name)) {
        return false;
    }
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return false;
    }
    ssize_t n = read(fd, text, bytes - 1);
    close(fd);
    text[n > 0 ? n : 0] = '\0';
    return n > 0;
}

static uint64_t file_number(const char *folder, const char *name) {
    char text[64];
    return file_read(folder, name, text, sizeof text) ? strtoull(text, NULL, 10) : 0;
}

/* The figure behind `word` in a file of "word figure" lines. */
static uint64_t file_field(const char *folder, const char *name, const char *word) {
    char text[4096];
    if (!file_read(folder, name, text, sizeof text)) {
        return 0;
    }
    size_t length = strlen(word);
    for (char *line = strtok(text, "\n"); line != NULL; line = strtok(NULL, "\n")) {
        if (strncmp(line, word, length) == 0 && line[length] == ' ') {
            return strtoull(line + length, NULL, 10);
        }
    }
    return 0;
}

static bool cgroup_limit_v1(const cgroup *group, uint64_t bytes) {
    char figure[32];
    snprintf(figure, sizeof figure, "%" PRIu64, bytes);
    if (!file_write(group->path, "memory.limit_in_bytes", figure)) {
        return false;
    }
    /* Not there when the kernel counts no swap: then swappiness 0 has to do. */
    (void)file_write(group->path, "memory.memsw.limit_in_bytes", figure);
    (void)file_write(group->path, "memory.swappiness", "0");
    return file_number(group->path, "memory.limit_in_bytes") <= bytes;
}

static bool cgroup_limit_v2(const cgroup *group, uint64_t bytes) {
    char figure[32];
    snprintf(figure, sizeof figure, "%" PRIu64, bytes);
    if (!file_write(group->path, "memory.max", figure)) {
        return false;
    }
    (void)file_write(group->path, "memory.swap.max", "0");
    (void)file_write(group->path, "memory.oom.group", "1");
    return true;
}

/* Makes `parent`/carbide-launch-PID and sets its limit; on refusal nothing is left. */
static bool cgroup_try(cgroup *group, int version, const char *parent, uint64_t bytes) {
    char name[64];
    snprintf(name, sizeof name, "carbide-launch-%ld", (long)getpid());
    if (!file_path(group->path, parent, name)) {
        return false;
    }
    if (version == 2) {
        (void)file_write(parent, "cgroup.subtree_control", "+memory");
    }
    if (mkdir(group->path, 0755) != 0) {
        return false;
    }
    group->version = version;
    if (version == 1 ? cgroup_limit_v1(group, bytes) : cgroup_limit_v2(group, bytes)) {
        return true;
    }
    rmdir(group->path);
    group->version = 0;
    return false;
}

/*
 * Where memory cgroups are mounted stands in /proc/self/mounts, where this process is in
 * /proc/self/cgroup. The first place that takes a new group wins: the mount's root, this process's
 * own group, and the group above it (v2 gives no controllers to a group that holds processes
 * itself).
 */
static bool cgroup_own_folder(char *out, int version, const char *mount) {
    FILE *f = fopen("/proc/self/cgroup", "re");
    if (f == NULL) {
        return false;
    }
    char line[PATH_SPACE];
    bool found = false;
    while (!found && fgets(line, sizeof line, f) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        char *controllers = strchr(line, ':');
        char *path = controllers == NULL ? NULL : strchr(controllers + 1, ':');
        if (path == NULL) {
            continue;
        }
        *path++ = '\0';
        bool mine =
            version == 2 ? strcmp(controllers, ":") == 0 : strstr(controllers, "memory") != NULL;
        if (mine) {
            int n = snprintf(out, PATH_SPACE, "%s%s", mount, path);
            found = n > 0 && n < PATH_SPACE;
        }
    }
    fclose(f);
    return found;
}

static bool cgroup_make_below(cgroup *group, int version, const char *mount, uint64_t bytes) {
    char own[PATH_SPACE];
    if (cgroup_try(group, version, mount, bytes)) {
        return true;
    }
    if (!cgroup_own_folder(own, version, mount)) {
        return false;
    }
    if (cgroup_try(group, version, own, bytes)) {
        return true;
    }
    char *slash = strrchr(own, '/');
    if (slash == NULL || (size_t)(slash - own) <= strlen(mount)) {
        return false;
    }
    *slash = '\0';
    return cgroup_try(group, version, own, bytes);
}

static bool cgroup_make(cgroup *group, uint64_t bytes) {
    *group = (cgroup){.version = 0};
    FILE *f = fopen("/proc/self/mounts", "re");
    if (f == NULL) {
        return false;
    }
    char line[PATH_SPACE];
    bool made = false;
    while (!made && fgets(line, sizeof line, f) != NULL) {
        char mount[1024], type[64], options[1024];
        if (sscanf(line, "%*s %1023s %63s %1023s", mount, type, options) != 3) {
            continue;
        }
        if (strcmp(type, "cgroup") == 0 && strstr(options, "memory") != NULL) {
            made = cgroup_make_below(group, 1, mount, bytes);
        } else if (strcmp(type, "cgroup2") == 0) {
            char controllers[1024];
            if (file_read(mount, "cgroup.controllers", controllers, sizeof controllers) &&
                strstr(controllers, "memory") != NULL) {
                made = cgroup_make_below(group, 2, mount, bytes);
            }
        }
    }
    fclose(f);
    return made;
}

/* The kernel takes a moment to let go of the last process. */
static void cgroup_remove(const cgroup *group) {
    if (group->version == 0) {
        return;
    }
    for (int attempt = 0; attempt < 200 && rmdir(group->path) != 0 && errno == EBUSY; attempt++) {
        nanosleep(&(struct timespec){.tv_nsec = 10 * 1000 * 1000}, NULL);
    }
}

static double seconds_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double seconds_of(struct timeval t) {
    return (double)t.tv_sec + (double)t.tv_usec / 1e6;
}

static void redirect(const char *path, int flags, int to) {
    if (path == NULL) {
        return;
    }
    int fd = open(path, flags, 0644);
    if (fd < 0 || dup2(fd, to) < 0) {
        fprintf(stderr, "launch: cannot open %s: %s\n", path, strerror(errno));
        _exit(EXIT_NO_START);
    }
    if (fd != to) {
        close(fd);
    }
}

static _Noreturn void run_child(const request *r, const cgroup *group, int report) {
    setpgid(0, 0);
    if (group->version != 0 && !file_write(group->path, "cgroup.procs", "0")) {
        fprintf(stderr, "launch: cannot enter %s: %s\n", group->path, strerror(errno));
        _exit(EXIT_NO_CGROUP);
    }
    redirect(r->in, O_RDONLY, STDIN_FILENO);
    redirect(r->out, O_WRONLY | O_CREAT | O_TRUNC, STDOUT_FILENO);
    redirect(r->err, O_WRONLY | O_CREAT | O_TRUNC, STDERR_FILENO);
    execvp(r->argv[0], r->argv);
    int reason = errno;
    if (write(report, &reason, sizeof reason) < 0) {
        _exit(EXIT_NO_START);
    }
    _exit(EXIT_NO_START);
}

static volatile sig_atomic_t timed_out; /* set by the alarm only */
static volatile pid_t child_group;

static void on_alarm(int signal_number) {
    (void)signal_number;
    timed_out = 1;
    kill(-child_group, SIGKILL);
}

static void print_result(const request *r, const cgroup *group, int status,
                         const struct rusage *use, double wall) {
    FILE *f = r->json == NULL ? stderr : fopen(r->json, "we");
    if (f == NULL) {
        fprintf(stderr, "launch: cannot write %s: %s\n", r->json, strerror(errno));
        exit(EXIT_NO_START);
    }
    uint64_t peak = 0, kills = 0;
    if (group->version == 1) {
        peak = file_number(group->path, "memory.max_usage_in_bytes");
        kills = file_field(group->path, "memory.oom_control", "oom_kill");
    } else if (group->version == 2) {
        peak = file_number(group->path, "memory.peak");
        kills = file_field(group->path, "memory.events", "oom_kill");
    }
    fprintf(f, "{\"wall_s\": %.4f, \"user_s\": %.4f, \"sys_s\": %.4f, \"rss_peak_kib\": %ld, ",
            wall, seconds_of(use->ru_utime), seconds_of(use->ru_stime), use->ru_maxrss);
    fprintf(f, "\"exit\": %d, \"signal\": %d, \"timed_out\": %s, ",
            WIFEXITED(status) ? WEXITSTATUS(status) : -1,
            WIFSIGNALED(status) ? WTERMSIG(status) : 0, timed_out ? "true" : "false");
    fprintf(f, "\"read_blocks\": %ld, \"written_blocks\": %ld, ", use->ru_inblock, use->ru_oublock);
    fprintf(f,
            "\"cgroup\": %d, \"cgroup_limit\": %" PRIu64 ", \"cgroup_peak\": %" PRIu64
            ", \"oom_kills\": %" PRIu64 "}\n",
            group->version, r->cgroup_bytes, peak, kills);
    if (r->json != NULL) {
        fclose(f);
    }
}

static int run(const request *r, const cgroup *group) {
    int report[2];
    if (pipe2(report, O_CLOEXEC) != 0) {
        perror("launch: pipe");
        return EXIT_NO_START;
    }
    double start = seconds_now();
    pid_t child = fork();
    if (child < 0) {
        perror("launch: fork");
        return EXIT_NO_START;
    }
    if (child == 0) {
        close(report[0]);
        run_child(r, group, report[1]);
    }
    close(report[1]);
    child_group = child;
    if (r->timeout_s != 0) {
        signal(SIGALRM, on_alarm);
        alarm(r->timeout_s);
    }
    int reason = 0;
    ssize_t told = read(report[0], &reason,
                        sizeof reason); /* ends with exec: close-on-exec shuts the other side */
    int status = 0;
    struct rusage use;
    while (wait4(child, &status, 0, &use) < 0 && errno == EINTR) {
    }
    double wall = seconds_now() - start;
    alarm(0);
    kill(-child, SIGKILL); /* what it may have left behind holds the cgroup */
    if (told == (ssize_t)sizeof reason) {
        fprintf(stderr, "launch: cannot run %s: %s\n", r->argv[0], strerror(reason));
        return EXIT_NO_START;
    }
    print_result(r, group, status, &use, wall);
    return 0;
}

static uint64_t parse_bytes(const char *text) {
    char *end;
    uint64_t n = strtoull(text, &end, 10);
    switch (*end) {
        case 'K': return n << 10;
        case 'M': return n << 20;
        case 'G': return n << 30;
        default: return n;
    }
}

static int usage(void) {
    fputs("usage: launch [--cgroup BYTES] [--timeout SECONDS] [--json FILE] [--in FILE] [--out "
          "FILE] [--err FILE]\n"
          "              [--] COMMAND...\n"
          "       launch --probe\n",
          stderr);
    return EXIT_NO_START;
}

static int probe(void) {
    cgroup group;
    if (cgroup_make(&group, (uint64_t)64 << 20)) {
        printf("v%d\n", group.version);
        cgroup_remove(&group);
    } else {
        puts("none");
    }
    return 0;
}

int main(int argc, char **argv) {
    request r = {.cgroup_bytes = 0};
    int i = 1;
    for (; i < argc && strncmp(argv[i], "--", 2) == 0; i++) {
        const char *option = argv[i];
        if (strcmp(option, "--") == 0) {
            i++;
            break;
        }
        if (strcmp(option, "--probe") == 0) {
            return probe();
        }
        const char *value = i + 1 < argc ? argv[++i] : NULL;
        if (value == NULL) {
            return usage();
        }
        if (strcmp(option, "--cgroup") == 0) {
            r.cgroup_bytes = parse_bytes(value);
        } else if (strcmp(option, "--timeout") == 0) {
            r.timeout_s = (unsigned)strtoul(value, NULL, 10);
        } else if (strcmp(option, "--json") == 0) {
            r.json = value;
        } else if (strcmp(option, "--in") == 0) {
            r.in = value;
        } else if (strcmp(option, "--out") == 0) {
            r.out = value;
        } else if (strcmp(option, "--err") == 0) {
            r.err = value;
        } else {
            return usage();
        }
    }
    if (i >= argc) {
        return usage();
    }
    r.argv = argv + i;
    cgroup group = {.version = 0};
    if (r.cgroup_bytes != 0 && !cgroup_make(&group, r.cgroup_bytes)) {
        fputs("launch: NO MEMORY CGROUP CAN BE MADE HERE (not root, or none delegated): nothing "
              "was run\n",
              stderr);
        return EXIT_NO_CGROUP;
    }
    int answer = run(&r, &group);
    cgroup_remove(&group);
    return answer;
}
