/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_CGROUP_H
#define CBI_CGROUP_H

#include "base/base.h"

/** What the process's control groups and their ancestors leave it. */
typedef struct cbi_cgroup {
    uint64_t memory_limit; /* of the tightest group; UINT64_MAX: none */
    uint64_t memory_used;  /* of that group, without clean file pages; 0: not known */
    unsigned cpus;         /* of the tightest quota, rounded up; 0: none */
    int version;           /* of the group that limits memory: 1, 2; 0: none */
} cbi_cgroup;

/** `root` is "" for the system's own /proc and /sys; tests give a folder that looks like one. */
void cbi_cgroup_read(const char *root, cbi_cgroup *group);

#endif
