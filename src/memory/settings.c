/* SPDX-License-Identifier: Apache-2.0 */
#include "carbide/settings.h"

#include <stdlib.h>
#include <string.h>

#include "base/base.h"

/* Spark: RESERVED_SYSTEM_MEMORY_BYTES; StaticMemoryManager.MIN_MEMORY_BYTES. */
static const uint64_t reserved_default = (uint64_t)300 * 1024 * 1024;
static const uint64_t static_memory_min = (uint64_t)32 * 1024 * 1024;
static const uint64_t size_max = INT64_MAX;

typedef enum value_kind { BOOLEAN, SIZE, SIZE_MIB, FRACTION, COUNT } value_kind;

static const struct {
    const char *name;
    value_kind kind;
    size_t offset;
} settings_table[] = {
    {"spark.memory.useLegacyMode", BOOLEAN, offsetof(cb_settings, legacy_mode)},
    {"spark.executor.memory", SIZE_MIB, offsetof(cb_settings, executor_memory)},
    {"spark.testing.memory", SIZE, offsetof(cb_settings, system_memory)},
    {"spark.testing.reservedMemory", SIZE, offsetof(cb_settings, reserved_memory)},
    {"spark.memory.fraction", FRACTION, offsetof(cb_settings, memory_fraction)},
    {"spark.memory.storageFraction", FRACTION, offsetof(cb_settings, storage_fraction)},
    {"spark.shuffle.memoryFraction", FRACTION, offsetof(cb_settings, shuffle_memory_fraction)},
    {"spark.shuffle.safetyFraction", FRACTION, offsetof(cb_settings, shuffle_safety_fraction)},
    {"spark.storage.memoryFraction", FRACTION, offsetof(cb_settings, storage_memory_fraction)},
    {"spark.storage.safetyFraction", FRACTION, offsetof(cb_settings, storage_safety_fraction)},
    {"spark.storage.unrollFraction", FRACTION, offsetof(cb_settings, unroll_fraction)},
    {"spark.memory.offHeap.enabled", BOOLEAN, offsetof(cb_settings, off_heap_enabled)},
    {"spark.memory.offHeap.size", SIZE, offsetof(cb_settings, off_heap_size)},
    {"spark.buffer.pageSize", SIZE, offsetof(cb_settings, page_size)},
    {"spark.executor.cores", COUNT, offsetof(cb_settings, cores)},
    {"spark.memory.debugFill", BOOLEAN, offsetof(cb_settings, debug_fill)},
};

void cb_settings_init(cb_settings *s) {
    *s = (cb_settings){.struct_size = sizeof *s,
                       .reserved_memory = reserved_default,
                       .memory_fraction = 0.6,
                       .storage_fraction = 0.5,
                       .shuffle_memory_fraction = 0.2,
                       .shuffle_safety_fraction = 0.8,
                       .storage_memory_fraction = 0.6,
                       .storage_safety_fraction = 0.9,
                       .unroll_fraction = 0.2};
}

/* ---- values ---- */

/** "512m", "2GB", "1024"; Spark knows no fractions of a unit. */
static bool read_size(const char *text, uint64_t unit, uint64_t *bytes) {
    static const char units[] = "bkmgtp";
    uint64_t value = 0;
    const char *at = text;
    for (; *at >= '0' && *at <= '9'; at++) {
        uint64_t digit = (uint64_t)(*at - '0');
        if (value > (size_max - digit) / 10) {
            return false;
        }
        value = 10 * value + digit;
    }
    if (at == text) {
        return false;
    }
    if (*at != '\0') {
        const char *known = strchr(units, *at | 0x20);
        if (known == NULL) {
            return false;
        }
        unit = UINT64_C(1) << (10 * (known - units));
        at++;
        at += unit > 1 && (*at == 'b' || *at == 'B');
    }
    if (*at != '\0' || value > size_max / unit) {
        return false;
    }
    *bytes = value * unit;
    return true;
}

static bool read_fraction(const char *text, double *fraction) {
    char *end = NULL;
    double value = strtod(text, &end);
    bool plain = text[0] != '\0' && text[strspn(text, "0123456789.eE+-")] == '\0' && *end == '\0';
    if (!plain || !(value >= 0 && value <= 1)) {
        return false;
    }
    *fraction = value;
    return true;
}

static bool read_boolean(const char *text, bool *value) {
    bool is_true = strcmp(text, "true") == 0;
    if (!is_true && strcmp(text, "false") != 0) {
        return false;
    }
    *value = is_true;
    return true;
}

static bool read_value(value_kind kind, const char *text, void *field) {
    uint64_t count = 0;
    switch (kind) {
        case BOOLEAN: return read_boolean(text, field);
        case SIZE: return read_size(text, 1, field);
        case SIZE_MIB: return read_size(text, CBI_MIB, field);
        case FRACTION: return read_fraction(text, field);
        case COUNT:
            if (!read_size(text, 1, &count) || count > INT32_MAX) {
                return false;
            }
            *(unsigned *)field = (unsigned)count;
            return true;
    }
    return false;
}

cb_status cb_settings_set(cb_settings *s, const char *name, const char *value, cb_error *err) {
    static const char *const kinds[] = {[BOOLEAN] = "true or false",
                                        [SIZE] = "a size such as 67108864, 64m or 2g",
                                        [SIZE_MIB] =
                                            "a size such as 4g or 512m (a number alone is MiB)",
                                        [FRACTION] = "a fraction in [0, 1]",
                                        [COUNT] = "a number"};
    for (size_t i = 0; i < sizeof settings_table / sizeof settings_table[0]; i++) {
        if (strcmp(name, settings_table[i].name) == 0) {
            if (!read_value(settings_table[i].kind, value, (char *)s + settings_table[i].offset)) {
                return cbi_fail(err, CB_EINVAL, "%s must be %s, not '%.60s'.", name,
                                kinds[settings_table[i].kind], value);
            }
            return CB_OK;
        }
    }
    return cbi_fail(err, CB_ENOTFOUND, "There is no memory setting '%.60s'.", name);
}

/* ---- sizes ---- */

static cb_status check_memory(uint64_t system, uint64_t executor, uint64_t least, cb_error *err) {
    if (system < least) {
        return cbi_fail_bytes(err, CB_EINVAL, least, system,
                              "System memory of %llu bytes must be at least %llu: give "
                              "spark.executor.memory more.",
                              (unsigned long long)system, (unsigned long long)least);
    }
    if (executor > 0 && executor < least) {
        return cbi_fail_bytes(err, CB_EINVAL, least, executor,
                              "Executor memory of %llu bytes must be at least %llu: give "
                              "spark.executor.memory more.",
                              (unsigned long long)executor, (unsigned long long)least);
    }
    return CB_OK;
}

static uint64_t system_memory(const cb_settings *s) {
    uint64_t executor = s->executor_memory > 0 ? s->executor_memory : CBI_GIB;
    return s->system_memory > 0 ? s->system_memory : executor;
}

/** As the JVM multiplies and cuts. */
static uint64_t part(uint64_t bytes, double a, double b) {
    return (uint64_t)((double)bytes * a * b);
}

static cb_status resolve_unified(const cb_settings *s, cb_manager_options *o, cb_error *err) {
    uint64_t system = system_memory(s);
    uint64_t least = s->reserved_memory + s->reserved_memory / 2 + s->reserved_memory % 2;
    CB_TRY(check_memory(system, s->executor_memory, least, err));
    if (!(s->storage_fraction < 1)) {
        return cbi_fail(err, CB_EINVAL, "spark.memory.storageFraction must be in [0, 1), not %g.",
                        s->storage_fraction);
    }
    o->heap_bytes = part(system - s->reserved_memory, s->memory_fraction, 1);
    o->heap_storage_bytes = part(o->heap_bytes, s->storage_fraction, 1);
    if (o->heap_storage_bytes >= o->heap_bytes) {
        return cbi_fail(err, CB_EINVAL,
                        "onHeapExecutionMemory must be > 0: %llu bytes for both and %llu of them "
                        "for storage leave none.",
                        (unsigned long long)o->heap_bytes,
                        (unsigned long long)o->heap_storage_bytes);
    }
    return CB_OK;
}

static cb_status resolve_static(const cb_settings *s, cb_manager_options *o, cb_error *err) {
    uint64_t system = system_memory(s);
    CB_TRY(check_memory(system, s->executor_memory, static_memory_min, err));
    o->policy = CB_POLICY_STATIC;
    o->heap_storage_bytes = part(system, s->storage_memory_fraction, s->storage_safety_fraction);
    o->heap_bytes = o->heap_storage_bytes +
                    part(system, s->shuffle_memory_fraction, s->shuffle_safety_fraction);
    o->unroll_fraction = s->unroll_fraction > 0 ? s->unroll_fraction : -1;
    return CB_OK;
}

cb_status cb_settings_resolve(const cb_settings *s, cb_manager_options *options, cb_error *err) {
    if (s->struct_size != sizeof *s) {
        return cbi_fail(err, CB_EINVAL, "cb_settings has %zu bytes here, struct_size says %zu.",
                        sizeof *s, s->struct_size);
    }
    cb_manager_options o = {.struct_size = sizeof o, .rules = CB_RULES_SPARK};
    CB_TRY(s->legacy_mode ? resolve_static(s, &o, err) : resolve_unified(s, &o, err));
    if (s->off_heap_enabled && s->off_heap_size == 0) {
        return cbi_fail(err, CB_EINVAL,
                        "spark.memory.offHeap.size must be > 0 when spark.memory.offHeap.enabled "
                        "is true.");
    }
    if (s->page_size > 0 && (s->page_size & (s->page_size - 1)) != 0) {
        return cbi_fail(err, CB_EINVAL, "spark.buffer.pageSize must be a power of two, not %llu.",
                        (unsigned long long)s->page_size);
    }
    o.mode = s->off_heap_enabled ? CB_OFF_HEAP : CB_HEAP;
    o.off_heap_bytes = s->off_heap_size;
    o.off_heap_storage_bytes = part(s->off_heap_size, s->storage_fraction, 1);
    o.page_bytes = (size_t)s->page_size;
    o.cores = s->cores;
    o.debug_fill = s->debug_fill;
    *options = o;
    return CB_OK;
}
