/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Limits of a container are found by path: /proc/self/cgroup names this process's group in each
 * hierarchy and /proc/self/mountinfo says where that hierarchy is mounted and which part of it can
 * be seen. The tightest limit on the way from there up to the mount point counts, since each group
 * is limited by all those above it.
 */
#include "host.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PATH_MAX_BYTES = 512, FILE_MAX_BYTES = 32 * 1024 };

/** The file's text (as much as fits), terminated; false when it cannot be read. */
static bool read_text(const char *path, char *text, size_t cap) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    size_t used = 0;
    ssize_t n;
    while (used < cap - 1 && (n = read(fd, text + used, cap - 1 - used)) > 0)
        used += (size_t)n;
    close(fd);
    text[used] = '\0';
    return used > 0;
}

/** The number in DIR/NAME; false when it is not there or "max". */
static bool read_number(const char *dir, const char *name, uint64_t *value) {
    char path[PATH_MAX_BYTES + 64];
    char text[64];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    if (!read_text(path, text, sizeof text) || text[0] < '0' || text[0] > '9')
        return false;
    *value = strtoull(text, NULL, 10);
    return true;
}

/** "MemTotal:  123 kB" in a text of such lines, in bytes. */
static uint64_t find_kib(const char *text, const char *name) {
    const char *line = strstr(text, name);
    return line == NULL ? 0 : strtoull(line + strlen(name), NULL, 10) * 1024;
}

/** This process's group in the hierarchy with that controller ("" = v2), out of /proc/self/cgroup's
 * text. */
static bool find_group(const char *text, const char *controller, char path[PATH_MAX_BYTES]) {
    for (const char *line = text; line != NULL && *line != '\0';) {
        const char *names = strchr(line, ':');
        const char *group = names != NULL ? strchr(names + 1, ':') : NULL;
        if (group == NULL)
            return false;
        int length = (int)strcspn(group + 1, "\n");
        bool found = controller[0] == '\0' && group == names + 1;
        for (const char *n = names + 1; !found && controller[0] != '\0' && n < group;) {
            size_t name_length = strcspn(n, ",:");
            found = name_length == strlen(controller) && memcmp(n, controller, name_length) == 0;
            n += name_length + 1;
        }
        if (found) {
            snprintf(path, PATH_MAX_BYTES, "%.*s", length, group + 1);
            return true;
        }
        line = strchr(group, '\n');
        line = line != NULL ? line + 1 : NULL;
    }
    return false;
}

/** Does a mount's line end in "- cgroup2 ..." or, for v1, in "- cgroup ... CONTROLLER"? */
static bool is_mount_of(const char *line, size_t length, const char *controller) {
    char tail[PATH_MAX_BYTES];
    const char *dash = memmem(line, length, " - ", 3);
    if (dash == NULL)
        return false;
    snprintf(tail, sizeof tail, "%.*s", (int)(length - (size_t)(dash - line) - 3), dash + 3);
    char *save = NULL;
    const char *type = strtok_r(tail, " ", &save);
    if (type == NULL || strcmp(type, controller[0] == '\0' ? "cgroup2" : "cgroup") != 0)
        return false;
    if (controller[0] == '\0')
        return true;
    const char *options = NULL;
    for (const char *t = type; t != NULL; t = strtok_r(NULL, " ", &save))
        options = t;
    for (const char *o = options; o != NULL && *o != '\0';) {
        size_t n = strcspn(o, ",");
        if (n == strlen(controller) && memcmp(o, controller, n) == 0)
            return true;
        o += n + (o[n] == ',');
    }
    return false;
}

/** Where that hierarchy is mounted, and which of its folders is at the mount point. */
static bool find_mount(const char *text, const char *controller, char mount[PATH_MAX_BYTES],
                       char root[PATH_MAX_BYTES]) {
    for (const char *line = text; *line != '\0';) {
        size_t length = strcspn(line, "\n");
        if (is_mount_of(line, length, controller) &&
            sscanf(line, "%*s %*s %*s %511s %511s", root, mount) == 2)
            return true;
        line += length + (line[length] == '\n');
    }
    return false;
}

/** Finds this process's folder of a hierarchy; the mount point's length tells where to stop on the
 * way up. */
static bool find_folder(const char *controller, char folder[PATH_MAX_BYTES], size_t *mount_length) {
    static char text[FILE_MAX_BYTES];
    char group[PATH_MAX_BYTES], mount[PATH_MAX_BYTES], root[PATH_MAX_BYTES];
    if (!read_text("/proc/self/cgroup", text, sizeof text) || !find_group(text, controller, group))
        return false;
    if (!read_text("/proc/self/mountinfo", text, sizeof text) ||
        !find_mount(text, controller, mount, root))
        return false;
    const char *rest = group;
    size_t root_length = strcmp(root, "/") == 0 ? 0 : strlen(root);
    if (root_length > 0 && strncmp(group, root, root_length) == 0)
        rest = group + root_length;
    else if (root_length > 0)
        rest = "";
    if (strcmp(rest, "/") == 0)
        rest = "";
    *mount_length = strlen(mount);
    int n = snprintf(folder, PATH_MAX_BYTES, "%s%s", mount, rest);
    return n > 0 && n < PATH_MAX_BYTES;
}

static bool go_up(char *folder, size_t mount_length) {
    char *slash = strrchr(folder, '/');
    if (slash == NULL || (size_t)(slash - folder) < mount_length)
        return false;
    *slash = '\0';
    return true;
}

static void look_at_memory_group(cli_host *host) {
    char folder[PATH_MAX_BYTES];
    size_t mount_length = 0;
    host->cgroup_limit = UINT64_MAX;
    bool v1 = find_folder("memory", folder, &mount_length);
    if (!v1 && !find_folder("", folder, &mount_length))
        return;
    host->cgroup_version = v1 ? 1 : 2;
    snprintf(host->cgroup_path, sizeof host->cgroup_path, "%.255s", folder);
    do {
        uint64_t limit = 0, used = 0;
        if (!read_number(folder, v1 ? "memory.limit_in_bytes" : "memory.max", &limit))
            continue;
        if (limit >= (UINT64_C(1) << 60) || limit >= host->cgroup_limit)
            continue; /* v1 says "none" with a very large number */
        host->cgroup_limit = limit;
        if (read_number(folder, v1 ? "memory.usage_in_bytes" : "memory.current", &used))
            host->cgroup_used = used;
        snprintf(host->cgroup_path, sizeof host->cgroup_path, "%.255s", folder);
    } while (go_up(folder, mount_length));
}

static double read_quota(const char *folder, bool v1) {
    char path[PATH_MAX_BYTES + 64], text[64];
    uint64_t quota = 0, period = 0;
    if (v1)
        return read_number(folder, "cpu.cfs_quota_us", &quota) &&
                       read_number(folder, "cpu.cfs_period_us", &period) && period > 0
                   ? (double)quota / (double)period
                   : 0;
    snprintf(path, sizeof path, "%s/cpu.max", folder);
    unsigned long long q = 0, p = 0;
    if (read_text(path, text, sizeof text) && sscanf(text, "%llu %llu", &q, &p) == 2 && p > 0)
        return (double)q / (double)p;
    return 0;
}

static void look_at_cpus(cli_host *host) {
    cpu_set_t set;
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    host->cpus_online = online > 0 ? (unsigned)online : 1;
    host->cpus_allowed = host->cpus_online;
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        host->cpus_allowed = (unsigned)CPU_COUNT(&set);
    char folder[PATH_MAX_BYTES];
    size_t mount_length = 0;
    bool v1 = find_folder("cpu", folder, &mount_length);
    if (v1 || find_folder("", folder, &mount_length)) {
        do {
            double quota = read_quota(folder, v1);
            if (quota > 0 && (host->cpu_quota <= 0 || quota < host->cpu_quota))
                host->cpu_quota = quota;
        } while (go_up(folder, mount_length));
    }
#if defined(__x86_64__)
    host->avx2 = __builtin_cpu_supports("avx2") != 0;
    host->avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                   __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                   __builtin_cpu_supports("avx512vbmi2");
#endif
}

static void look_at_memory(cli_host *host) {
    char text[4096];
    if (!read_text("/proc/meminfo", text, sizeof text))
        return;
    host->memory_total = find_kib(text, "MemTotal:");
    host->memory_available = find_kib(text, "MemAvailable:");
}

void cli_host_look(cli_host *host) {
    *host = (cli_host){0};
    look_at_memory(host);
    look_at_memory_group(host);
    look_at_cpus(host);
}

uint64_t cli_host_memory_whole(void) {
    cli_host host = {0};
    look_at_memory(&host);
    look_at_memory_group(&host);
    return host.cgroup_limit < host.memory_total ? host.cgroup_limit : host.memory_total;
}
