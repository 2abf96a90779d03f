/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_HOST_H
#define CLI_HOST_H

#include "cli.h"

/** What this machine, or the container on it, gives to the process. */
typedef struct cli_host {
    uint64_t memory_total;     /* of the machine */
    uint64_t memory_available; /* of the machine, now */
    uint64_t cgroup_limit;   /* the tightest of this cgroup and those above it; UINT64_MAX = none */
    uint64_t cgroup_used;    /* what that cgroup holds now */
    unsigned cgroup_version; /* of the hierarchy that limits memory: 1, 2, or 0 when there is none
                                to be seen */
    char cgroup_path[256];   /* the folder of that limit, or of this process's own cgroup */
    unsigned cpus_online;
    unsigned cpus_allowed; /* by affinity */
    double cpu_quota;      /* CPUs' worth of time the cgroup may use; 0 = no limit */
    bool avx2, avx512;
} cli_host;

void cli_host_look(cli_host *host);
/** What percentages of memory mean: the machine's memory or the container's limit, whatever is
 * less. */
uint64_t cli_host_memory_whole(void);

#endif
