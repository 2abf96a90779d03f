/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The line that starts a manager. Its words are name=value in any order. What can be read but no
 * manager can be made of is for the class to refuse: `refusal` says what it throws.
 */
#include <stdio.h>
#include <string.h>

#include "carbide/settings.h"
#include "simulate/simulate.h"

/* Values given in the line; `seen` has a bit for each. */
enum {
    HEAP = 1,
    STORAGE_REGION = 2,
    EXEC = 4,
    STORAGE = 8,
    OFF_HEAP = 16,
    STORAGE_FRACTION = 32,
    UNROLL_FRACTION = 64,
    CORES = 128,
    MEMORY = 256,
    PAGE = 512,
    SLOTS = 1024,
    TYPE = 2048,
    PREALLOCATE = 4096,
    SETTING = 8192 /* any spark.*: sizes not given are computed from them */
};

enum { PAGE_DEFAULT = 32 * 1024, PAGE_MIN = 4096 };

typedef struct reader {
    const cbi_sim_words *words;
    cbi_sim_config *config;
    cb_settings settings;
    unsigned seen;
    uint64_t heap, region, exec, storage, cores;
} reader;

static const char illegal[] = "IllegalArgumentException";
static const char spark_illegal[] = "SparkIllegalArgumentException"; /* 4.2: a bad setting */

/** The value of "name=value" in word i, when that is its name. */
static bool is_key(const cbi_sim_words *words, size_t i, const char *name, size_t *offset) {
    size_t length = strlen(name);
    *offset = length + 1;
    return words->length[i] > length && memcmp(words->line + words->at[i], name, length) == 0 &&
           words->line[words->at[i] + length] == '=';
}

static cb_status read_choice(const cbi_sim_words *words, size_t i, size_t offset, const char *no,
                             const char *yes, bool *value, cb_error *err) {
    const char *text = words->line + words->at[i] + offset;
    size_t length = words->length[i] - offset;
    bool is_yes = length == strlen(yes) && memcmp(text, yes, length) == 0;
    if (!is_yes && (length != strlen(no) || memcmp(text, no, length) != 0)) {
        return cbi_sim_complain(words, i, offset, err, "either %s or %s must stand here", no, yes);
    }
    *value = is_yes;
    return CB_OK;
}

static cb_status read_setting(reader *r, size_t i, cb_error *err) {
    char name[64], value[64];
    const cbi_sim_words *words = r->words;
    const char *text = words->line + words->at[i];
    const char *equals = memchr(text, '=', words->length[i]);
    size_t name_bytes = equals != NULL ? (size_t)(equals - text) : 0;
    size_t value_bytes = words->length[i] - name_bytes - 1;
    if (equals == NULL || name_bytes >= sizeof name || value_bytes >= sizeof value) {
        return cbi_sim_complain(words, i, 0, err, "config does not know this word");
    }
    memcpy(name, text, name_bytes);
    name[name_bytes] = '\0';
    memcpy(value, equals + 1, value_bytes);
    value[value_bytes] = '\0';
    cb_error why;
    if (cb_settings_set(&r->settings, name, value, &why) != CB_OK) {
        return cbi_sim_complain(words, i, 0, err, "%s", why.message);
    }
    r->seen |= SETTING;
    return CB_OK;
}

static cb_status read_spark_word(reader *r, size_t i, cb_error *err) {
    static const struct {
        const char *name;
        unsigned bit, of; /* of: 1 unified, 2 static, 3 both */
        uint64_t most;
    } keys[] = {
        {"heap", HEAP, 1, INT64_MAX},
        {"storageRegion", STORAGE_REGION, 1, INT64_MAX},
        {"exec", EXEC, 2, INT64_MAX},
        {"storage", STORAGE, 2, INT64_MAX},
        {"offheap", OFF_HEAP, 3, INT64_MAX},
        {"cores", CORES, 3, INT32_MAX},
        {"storageFraction", STORAGE_FRACTION, 3, 0},
        {"spark.storage.unrollFraction", UNROLL_FRACTION, 2, 0},
    };
    cbi_sim_config *c = r->config;
    uint64_t *const numbers[] = {&r->heap,    &r->region,   &r->exec,
                                 &r->storage, &c->off_heap, &r->cores};
    for (size_t k = 0; k < sizeof keys / sizeof keys[0]; k++) {
        size_t offset = 0;
        if (!is_key(r->words, i, keys[k].name, &offset)) {
            continue;
        }
        if ((keys[k].of & (c->is_static ? 2 : 1)) == 0) {
            return cbi_sim_complain(r->words, i, 0, err, "a %s manager has no %s",
                                    c->is_static ? "static" : "unified", keys[k].name);
        }
        r->seen |= keys[k].bit;
        if (keys[k].most > 0) {
            return cbi_sim_number(r->words, i, offset, keys[k].name, keys[k].most, numbers[k], err);
        }
        return cbi_sim_fraction(
            r->words, i, offset, keys[k].name,
            keys[k].bit == UNROLL_FRACTION ? &c->unroll_fraction : &c->storage_fraction, err);
    }
    return read_setting(r, i, err);
}

static cb_status read_flink_word(reader *r, size_t i, cb_error *err) {
    static const struct {
        const char *name;
        unsigned bit;
        uint64_t most;
    } keys[] = {
        {"memory", MEMORY, INT64_MAX}, {"page", PAGE, INT32_MAX}, {"slots", SLOTS, INT32_MAX}};
    cbi_sim_config *c = r->config;
    uint64_t *const numbers[] = {&c->memory, &c->page, &c->slots};
    size_t offset = 0;
    for (size_t k = 0; k < sizeof keys / sizeof keys[0]; k++) {
        if (is_key(r->words, i, keys[k].name, &offset)) {
            r->seen |= keys[k].bit;
            return cbi_sim_number(r->words, i, offset, keys[k].name, keys[k].most, numbers[k], err);
        }
    }
    if (is_key(r->words, i, "type", &offset)) {
        return read_choice(r->words, i, offset, "heap", "off", &c->off, err);
    }
    if (is_key(r->words, i, "preallocate", &offset)) {
        return read_choice(r->words, i, offset, "false", "true", &c->preallocate, err);
    }
    return cbi_sim_complain(r->words, i, 0, err, "config does not know this word");
}

/* ---- what the figures mean ---- */

static cb_status missing(const reader *r, const char *what, cb_error *err) {
    return cbi_sim_complain(r->words, r->words->count, 0, err, "%s is missing", what);
}

/** Sizes that were not given come from Spark's settings, when there are any. */
static void resolve_settings(reader *r) {
    cbi_sim_config *c = r->config;
    cb_manager_options o;
    cb_error why;
    r->settings.legacy_mode = c->is_static;
    if ((r->seen & STORAGE_FRACTION) != 0) {
        r->settings.storage_fraction = c->storage_fraction;
    }
    why.bytes_asked = 0;
    if (cb_settings_resolve(&r->settings, &o, &why) != CB_OK) {
        bool by_setting = why.bytes_asked > 0 || !(r->settings.storage_fraction < 1);
        c->refusal = by_setting && !c->is_static ? spark_illegal : illegal;
        return;
    }
    c->storage_fraction = r->settings.storage_fraction;
    if ((r->seen & UNROLL_FRACTION) == 0) {
        c->unroll_fraction = r->settings.unroll_fraction;
    }
    uint64_t execution = o.heap_bytes - o.heap_storage_bytes;
    r->exec = (r->seen & EXEC) != 0 ? r->exec : execution;
    r->storage = (r->seen & STORAGE) != 0 ? r->storage : o.heap_storage_bytes;
    r->heap = (r->seen & HEAP) != 0 ? r->heap : o.heap_bytes;
    r->region = (r->seen & STORAGE_REGION) != 0
                    ? r->region
                    : (uint64_t)((double)r->heap * r->settings.storage_fraction);
    c->off_heap = (r->seen & OFF_HEAP) != 0 ? c->off_heap : r->settings.off_heap_size;
}

static cb_status finish_spark(reader *r, cb_error *err) {
    cbi_sim_config *c = r->config;
    if ((r->seen & SETTING) != 0) {
        resolve_settings(r);
    } else if (c->is_static && (r->seen & (EXEC | STORAGE)) != (EXEC | STORAGE)) {
        return missing(r, (r->seen & EXEC) == 0 ? "exec=BYTES" : "storage=BYTES", err);
    } else if (!c->is_static && (r->seen & (HEAP | STORAGE_REGION)) != (HEAP | STORAGE_REGION)) {
        return missing(r, (r->seen & HEAP) == 0 ? "heap=BYTES" : "storageRegion=BYTES", err);
    }
    if (c->refusal != NULL) {
        return CB_OK;
    }
    if (c->is_static) {
        c->execution = r->exec;
        c->storage = r->storage;
        /* the pools are made before the class makes one of them */
        if (cbi_sim_to_long((double)c->off_heap * c->storage_fraction) > c->off_heap) {
            c->refusal = illegal;
        }
    } else {
        if (r->region >= r->heap) {
            c->refusal = illegal; /* onHeapExecutionMemory must be > 0 */
        } else if (!(c->storage_fraction < 1)) {
            c->refusal = spark_illegal; /* the setting must be in [0, 1) */
        }
        c->execution = r->heap - cbi_min(r->region, r->heap);
        c->storage = r->region;
    }
    return CB_OK;
}

static cb_status finish_flink(reader *r, cb_error *err) {
    cbi_sim_config *c = r->config;
    if ((r->seen & MEMORY) == 0) {
        return missing(r, "manager=unified, manager=static or memory=BYTES", err);
    }
    bool refused = c->memory == 0 || c->page < PAGE_MIN || (c->page & (c->page - 1)) != 0 ||
                   c->memory / c->page < 1 || c->memory / c->page > INT32_MAX;
    c->refusal = refused ? illegal : NULL;
    return CB_OK;
}

cb_status cbi_sim_read_config(const cbi_sim_words *words, cbi_sim_config *config, cb_error *err) {
    size_t offset = 0, manager = 0;
    *config = (cbi_sim_config){.kind = CBI_SIM_FLINK,
                               .storage_fraction = 0.5,
                               .unroll_fraction = 0.2,
                               .page = PAGE_DEFAULT,
                               .slots = 1};
    reader r = {.words = words, .config = config};
    cb_settings_init(&r.settings);
    for (size_t i = 1; i < words->count; i++) {
        if (is_key(words, i, "manager", &offset)) {
            manager = i;
            config->kind = CBI_SIM_SPARK;
            CB_TRY(read_choice(words, i, offset, "unified", "static", &config->is_static, err));
        }
    }
    for (size_t i = 1; i < words->count; i++) {
        if (i == manager) {
            continue;
        }
        CB_TRY(manager > 0 ? read_spark_word(&r, i, err) : read_flink_word(&r, i, err));
    }
    return manager > 0 ? finish_spark(&r, err) : finish_flink(&r, err);
}
