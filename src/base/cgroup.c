/* SPDX-License-Identifier: Apache-2.0 */
#include "base/cgroup.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/proc_file.h"

/*
 * Where a process's limit stands takes two files to find. /proc/self/cgroup has its path in each
 * hierarchy, as seen from the root of the cgroup namespace; /proc/self/mountinfo says where the
 * hierarchy is mounted and which of its groups the mount shows (a container often sees its own
 * group as the top). The group's own folder is the mount point plus what is left of the path when
 * the mount's root is taken off; where that folder is not there, the mount point is the best there
 * is. From there all ancestors count: any of them may be the tight one, and v1 does not pass limits
 * down.
 *
 * A machine may have v1 and v2 mounted at once, with memory in either of them; both are asked and
 * the tighter one counts.
 */
enum { PATH_BYTES = 1024, FULL_PATH_BYTES = 3 * PATH_BYTES };

typedef struct hierarchy {
    int version;
    const char *controller; /* v1 */
    char mount[PATH_BYTES];
    char mount_root[PATH_BYTES];
    char group[PATH_BYTES];
} hierarchy;

/* Whether `word` is one of the comma-separated words of `list`. */
static bool has_word(const char *list, const char *word) {
    size_t length = strlen(word);
    for (const char *at = list; at != NULL; at = strchr(at, ',')) {
        at += *at == ',';
        if (strncmp(at, word, length) == 0 && (at[length] == ',' || at[length] == '\0')) {
            return true;
        }
    }
    return false;
}

/* "4:memory:/path" of v1, "0::/path" of v2. */
static bool find_group(const char *root, hierarchy *h) {
    char path[FULL_PATH_BYTES];
    (void)snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    cbi_proc_file file;
    if (!cbi_proc_open(&file, path)) {
        return false;
    }
    bool found = false;
    for (char *line; !found && (line = cbi_proc_line(&file)) != NULL;) {
        char *controllers = strchr(line, ':');
        char *group = controllers != NULL ? strchr(controllers + 1, ':') : NULL;
        if (group == NULL) {
            continue;
        }
        controllers++;
        *group++ = '\0';
        found = h->version == 2 ? *controllers == '\0' : has_word(controllers, h->controller);
        if (found) {
            (void)snprintf(h->group, sizeof h->group, "%s", group);
        }
    }
    cbi_proc_close(&file);
    return found;
}

/* "35 31 0:32 ROOT MOUNT rw,relatime - cgroup cgroup rw,memory" */
static bool parse_mount(char *line, hierarchy *h) {
    char *fields[5];
    char *rest = NULL;
    for (int i = 0; i < 5; i++) {
        fields[i] = strtok_r(i == 0 ? line : NULL, " ", &rest);
        if (fields[i] == NULL) {
            return false;
        }
    }
    const char *separator = rest != NULL ? strstr(rest, "- ") : NULL;
    if (separator == NULL) {
        return false;
    }
    char kind[16];
    char options[512];
    if (sscanf(separator, "- %15s %*s %511s", kind, options) != 2) {
        return false;
    }
    bool wanted = h->version == 2 ? strcmp(kind, "cgroup2") == 0
                                  : strcmp(kind, "cgroup") == 0 && has_word(options, h->controller);
    if (wanted) {
        (void)snprintf(h->mount_root, sizeof h->mount_root, "%s", fields[3]);
        (void)snprintf(h->mount, sizeof h->mount, "%s", fields[4]);
    }
    return wanted;
}

static bool find_mount(const char *root, hierarchy *h) {
    char path[FULL_PATH_BYTES];
    (void)snprintf(path, sizeof path, "%s/proc/self/mountinfo", root);
    cbi_proc_file file;
    if (!cbi_proc_open(&file, path)) {
        return false;
    }
    bool found = false;
    for (char *line; !found && (line = cbi_proc_line(&file)) != NULL;) {
        found = parse_mount(line, h);
    }
    cbi_proc_close(&file);
    return found;
}

/* The group's folder below the mount point: "" or "/a/b". */
static void relative_group(const hierarchy *h, char *relative, size_t bytes) {
    const char *path = h->group;
    if (strcmp(h->mount_root, "/") != 0) {
        size_t length = strlen(h->mount_root);
        bool inside = strncmp(path, h->mount_root, length) == 0 &&
                      (path[length] == '/' || path[length] == '\0');
        path = inside ? path + length : "";
    }
    if (strstr(path, "..") != NULL || strcmp(path, "/") == 0) {
        path = "";
    }
    (void)snprintf(relative, bytes, "%s", path);
}

typedef void (*group_fn)(const char *folder, const hierarchy *h, cbi_cgroup *group);

/* Calls fn for the process's group and each ancestor, innermost first. */
static void walk(const char *root, hierarchy *h, group_fn fn, cbi_cgroup *group) {
    if (!find_group(root, h) || !find_mount(root, h)) {
        return;
    }
    char relative[PATH_BYTES];
    relative_group(h, relative, sizeof relative);
    for (;;) {
        char folder[FULL_PATH_BYTES];
        (void)snprintf(folder, sizeof folder, "%s%s%s", root, h->mount, relative);
        fn(folder, h, group);
        char *slash = strrchr(relative, '/');
        if (slash == NULL) {
            return;
        }
        *slash = '\0';
    }
}

/* A number, or UINT64_MAX where the file is missing or says "max" or v1's way of saying it. */
static uint64_t read_limit(const char *folder, const char *name) {
    char path[FULL_PATH_BYTES + 64];
    char line[64];
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    if (!cbi_proc_first_line(path, line, sizeof line)) {
        return UINT64_MAX;
    }
    char *end = NULL;
    uint64_t value = strtoull(line, &end, 10);
    return end != line && value < UINT64_C(1) << 62 ? value : UINT64_MAX;
}

static uint64_t read_stat(const char *folder, const char *name) {
    char path[FULL_PATH_BYTES + 64];
    (void)snprintf(path, sizeof path, "%s/memory.stat", folder);
    uint64_t value = 0;
    return cbi_proc_number(path, name, &value) ? value : 0;
}

/* Charged bytes less file pages that are clean: those the kernel drops at once when it needs the
 * room. */
static uint64_t memory_used(const char *folder, int version) {
    bool v1 = version == 1;
    uint64_t used = read_limit(folder, v1 ? "memory.usage_in_bytes" : "memory.current");
    if (used == UINT64_MAX) {
        return 0;
    }
    uint64_t file = read_stat(folder, v1 ? "total_inactive_file" : "inactive_file") +
                    read_stat(folder, v1 ? "total_active_file" : "active_file");
    uint64_t dirty = read_stat(folder, v1 ? "total_dirty" : "file_dirty") +
                     read_stat(folder, v1 ? "total_writeback" : "file_writeback");
    uint64_t clean = file > dirty ? file - dirty : 0;
    return used > clean ? used - clean : 0;
}

static void take_memory(const char *folder, const hierarchy *h, cbi_cgroup *group) {
    uint64_t limit = UINT64_MAX;
    if (h->version == 1) {
        limit = read_limit(folder, "memory.limit_in_bytes");
    } else { /* above "high" a process is slowed down until it stands still: a limit in all but name
              */
        uint64_t max = read_limit(folder, "memory.max");
        uint64_t high = read_limit(folder, "memory.high");
        limit = max < high ? max : high;
    }
    if (limit < group->memory_limit) {
        group->memory_limit = limit;
        group->memory_used = memory_used(folder, h->version);
        group->version = h->version;
    }
}

static void take_quota(uint64_t quota, uint64_t period, cbi_cgroup *group) {
    if (quota == 0 || quota == UINT64_MAX || period == 0 || period == UINT64_MAX) {
        return;
    }
    uint64_t cpus = (quota + period - 1) / period;
    if (cpus < UINT_MAX && (group->cpus == 0 || cpus < group->cpus)) {
        group->cpus = (unsigned)cpus;
    }
}

static void take_cpus(const char *folder, const hierarchy *h, cbi_cgroup *group) {
    if (h->version == 1) { /* no quota is -1, which is above any limit when read as unsigned */
        take_quota(read_limit(folder, "cpu.cfs_quota_us"), read_limit(folder, "cpu.cfs_period_us"),
                   group);
        return;
    }
    char path[FULL_PATH_BYTES + 64];
    char line[64];
    unsigned long long quota = 0;
    unsigned long long period = 0;
    (void)snprintf(path, sizeof path, "%s/cpu.max", folder);
    if (cbi_proc_first_line(path, line, sizeof line) &&
        sscanf(line, "%llu %llu", &quota, &period) == 2) { /* "max 100000" is no number */
        take_quota(quota, period, group);
    }
}

static void take_both(const char *folder, const hierarchy *h, cbi_cgroup *group) {
    take_memory(folder, h, group);
    take_cpus(folder, h, group);
}

void cbi_cgroup_read(const char *root, cbi_cgroup *group) {
    *group = (cbi_cgroup){.memory_limit = UINT64_MAX};
    hierarchy h = {.version = 1, .controller = "memory"};
    walk(root, &h, take_memory, group);
    h = (hierarchy){.version = 1, .controller = "cpu"};
    walk(root, &h, take_cpus, group);
    h = (hierarchy){.version = 2};
    walk(root, &h, take_both, group);
}
