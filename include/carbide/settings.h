/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CARBIDE_SETTINGS_H
#define CARBIDE_SETTINGS_H

#include "carbide/manager.h"

CB_EXTERN_C_BEGIN

/**
 * Spark's memory settings by the names and with the defaults that its users know, and the sizes
 * that Spark 4.2 (unified) and Spark 2.4.8 (static) compute from them. Caller-owned; start with
 * cb_settings_init. Sizes are bytes.
 */
typedef struct cb_settings {
    size_t struct_size;
    bool legacy_mode;         /**< spark.memory.useLegacyMode, false: the static policy */
    uint64_t executor_memory; /**< spark.executor.memory; 0 = it is not set, which is 1g */
    /** spark.testing.memory; 0 = as executor_memory. What a JVM reports of its -Xmx is a little
     * less than that (a survivor space with some collectors). */
    uint64_t system_memory;
    uint64_t reserved_memory; /**< spark.testing.reservedMemory, 300 MiB; unified only */
    double memory_fraction;   /**< spark.memory.fraction, 0.6; unified only */
    double storage_fraction;  /**< spark.memory.storageFraction, 0.5; static: of off-heap only */
    double shuffle_memory_fraction; /**< spark.shuffle.memoryFraction, 0.2; static only */
    double shuffle_safety_fraction; /**< spark.shuffle.safetyFraction, 0.8; static only */
    double storage_memory_fraction; /**< spark.storage.memoryFraction, 0.6; static only */
    double storage_safety_fraction; /**< spark.storage.safetyFraction, 0.9; static only */
    double unroll_fraction;         /**< spark.storage.unrollFraction, 0.2; static only */
    bool off_heap_enabled;          /**< spark.memory.offHeap.enabled, false */
    uint64_t off_heap_size;         /**< spark.memory.offHeap.size, 0; above 0 when enabled */
    uint64_t page_size;             /**< spark.buffer.pageSize; 0 = by cores and memory */
    unsigned cores;                 /**< spark.executor.cores; 0 = the process's */
    bool debug_fill;                /**< spark.memory.debugFill, false */
} cb_settings;

CB_API void cb_settings_init(cb_settings *settings);

/**
 * Sets one by its name in Spark. Sizes are written as Spark reads them: a whole number and b, k, m,
 * g, t or p (also kb ..., powers of 1024); with no unit spark.executor.memory is in MiB and all
 * others are in bytes. CB_ENOTFOUND: no memory setting is called so. CB_EINVAL: the value cannot be
 * read, or a fraction is outside [0, 1]; nothing has changed.
 */
CB_API CB_MUST_USE cb_status cb_settings_set(cb_settings *settings, const char *name,
                                             const char *value, cb_error *err);

/**
 * The options of a manager with these settings: Spark's rules, policy, sizes of all pools, page
 * size, mode (tungstenMemoryMode). CB_EINVAL names the rule that is broken: too little memory for
 * what is reserved, an off-heap size of 0 while enabled, nothing left for execution.
 */
CB_API CB_MUST_USE cb_status cb_settings_resolve(const cb_settings *settings,
                                                 cb_manager_options *options, cb_error *err);

CB_EXTERN_C_END

#endif
