/* SPDX-License-Identifier: Apache-2.0 */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cgroup.h"
#include "base/proc_file.h"
#include "base/sys.h"

static unsigned cpus_by_affinity(void) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) {
        return (unsigned)CPU_COUNT(&set);
    }
    long online = sysconf(_SC_NPROCESSORS_ONLN); /* a machine of more than 1,024 CPUs */
    return online > 0 ? (unsigned)online : 1;
}

unsigned cbi_sys_cpus(void) {
    unsigned cpus = cpus_by_affinity();
    cbi_cgroup group;
    cbi_cgroup_read("", &group);
    if (group.cpus != 0 && group.cpus < cpus) {
        cpus = group.cpus;
    }
    return cpus > 0 ? cpus : 1;
}

static uint64_t read_kib(const char *path, const char *name) {
    uint64_t kib = 0;
    return cbi_proc_number(path, name, &kib) ? kib * 1024 : 0;
}

uint64_t cbi_sys_memory_total(void) {
    return read_kib("/proc/meminfo", "MemTotal:");
}

uint64_t cbi_sys_memory_available(void) {
    return read_kib("/proc/meminfo", "MemAvailable:");
}

uint64_t cbi_sys_cgroup_limit(void) {
    cbi_cgroup group;
    cbi_cgroup_read("", &group);
    return group.memory_limit;
}

uint64_t cbi_sys_cgroup_used(void) {
    cbi_cgroup group;
    cbi_cgroup_read("", &group);
    return group.memory_used;
}

/* Both out of one file: statm is quicker, but its figure and VmHWM are summed in different ways by
 * some kernels. */
uint64_t cbi_sys_rss(void) {
    return read_kib("/proc/self/status", "VmRSS:");
}

uint64_t cbi_sys_rss_peak(void) {
    return read_kib("/proc/self/status", "VmHWM:");
}

mode_t cbi_sys_umask(void) {
    uint64_t digits = 0;
    if (cbi_proc_number("/proc/self/status", "Umask:", &digits)) { /* octal, as "0022" */
        return (mode_t)(digits / 100 % 10 * 64 + digits / 10 % 10 * 8 + digits % 10);
    }
    mode_t mask = umask(077); /* before Linux 4.7: other threads' new files are private meanwhile */
    (void)umask(mask);
    return mask;
}

/* ---- what the CPU can do ---- */

static cbi_cpu cpu;
static pthread_once_t cpu_once = PTHREAD_ONCE_INIT;

static void detect_cpu(void) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    cpu.avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") &&
               __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("popcnt");
    cpu.avx512 = cpu.avx2 && __builtin_cpu_supports("avx512f") &&
                 __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                 __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vbmi") &&
                 __builtin_cpu_supports("avx512vbmi2");
#endif
    const char *cap = getenv("CARBIDE_CPU");
    if (cap == NULL) {
        return;
    }
    if (strcmp(cap, "baseline") == 0) {
        cpu = (cbi_cpu){.avx2 = false};
    } else if (strcmp(cap, "avx2") == 0) {
        cpu.avx512 = false;
    }
}

const cbi_cpu *cbi_sys_cpu(void) {
    (void)pthread_once(&cpu_once, detect_cpu);
    return &cpu;
}
