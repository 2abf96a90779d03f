/* SPDX-License-Identifier: Apache-2.0 */
#include "carbide/level.h"

#include <stdio.h>
#include <string.h>

#include "base/base.h"

static const struct {
    const char *name;
    cb_level level;
} named[] = {
    {"NONE", CB_LEVEL_NONE},
    {"DISK_ONLY", CB_LEVEL_DISK_ONLY},
    {"DISK_ONLY_2", CB_LEVEL_DISK_ONLY_2},
    {"DISK_ONLY_3", CB_LEVEL_DISK_ONLY_3},
    {"MEMORY_ONLY", CB_LEVEL_MEMORY_ONLY},
    {"MEMORY_ONLY_2", CB_LEVEL_MEMORY_ONLY_2},
    {"MEMORY_ONLY_SER", CB_LEVEL_MEMORY_ONLY_SER},
    {"MEMORY_ONLY_SER_2", CB_LEVEL_MEMORY_ONLY_SER_2},
    {"MEMORY_AND_DISK", CB_LEVEL_MEMORY_AND_DISK},
    {"MEMORY_AND_DISK_2", CB_LEVEL_MEMORY_AND_DISK_2},
    {"MEMORY_AND_DISK_SER", CB_LEVEL_MEMORY_AND_DISK_SER},
    {"MEMORY_AND_DISK_SER_2", CB_LEVEL_MEMORY_AND_DISK_SER_2},
    {"OFF_HEAP", CB_LEVEL_OFF_HEAP},
};

enum { NAMED_COUNT = sizeof named / sizeof *named };

cb_status cb_level_check(cb_level level, cb_error *err) {
    unsigned flags = level & 0xffu, replicas = level >> 8;
    if ((flags & ~(unsigned)CB_LEVEL_FLAGS) != 0) {
        return cbi_fail(err, CB_EINVAL, "Storage level 0x%x has flags that are not known.", level);
    }
    if (replicas > CB_LEVEL_REPLICAS_MAX) {
        return cbi_fail(err, CB_EINVAL, "Storage level with %u replicas: must be less than %d.",
                        replicas, CB_LEVEL_REPLICAS_MAX + 1);
    }
    return CB_OK;
}

const char *cb_level_name(cb_level level) {
    for (int i = 0; i < NAMED_COUNT; i++) {
        if (named[i].level == level) {
            return named[i].name;
        }
    }
    return NULL;
}

void cb_level_format(cb_level level, char text[CB_LEVEL_TEXT_MAX]) {
    (void)snprintf(
        text, CB_LEVEL_TEXT_MAX, "StorageLevel(%s%s%s%s%u replicas)",
        level & CB_LEVEL_ON_DISK ? "disk, " : "", level & CB_LEVEL_IN_MEMORY ? "memory, " : "",
        level & CB_LEVEL_IN_OFF_HEAP ? "offheap, " : "",
        level & CB_LEVEL_IS_DESERIALISED ? "deserialized, " : "", cb_level_replicas(level));
}

void cb_level_describe(cb_level level, char text[CB_LEVEL_TEXT_MAX]) {
    const char *memory = level & CB_LEVEL_IN_OFF_HEAP ? "Memory (off heap) " : "Memory ";
    (void)snprintf(
        text, CB_LEVEL_TEXT_MAX, "%s%s%s %ux Replicated", level & CB_LEVEL_ON_DISK ? "Disk " : "",
        level & CB_LEVEL_IN_MEMORY ? memory : "",
        level & CB_LEVEL_IS_DESERIALISED ? "Deserialized" : "Serialized", cb_level_replicas(level));
}

/** There are 16 * 40 of them: the one whose form it is. */
static bool find_by_form(const char *text, cb_level *level) {
    for (unsigned flags = 0; flags <= CB_LEVEL_FLAGS; flags++) {
        for (unsigned replicas = 0; replicas <= CB_LEVEL_REPLICAS_MAX; replicas++) {
            char form[CB_LEVEL_TEXT_MAX];
            cb_level_format(CB_LEVEL(flags, replicas), form);
            if (strcmp(form, text) == 0) {
                *level = CB_LEVEL(flags, replicas);
                return true;
            }
        }
    }
    return false;
}

cb_status cb_level_parse(const char *text, cb_level *level, cb_error *err) {
    for (int i = 0; i < NAMED_COUNT; i++) {
        if (strcmp(named[i].name, text) == 0) {
            *level = named[i].level;
            return CB_OK;
        }
    }
    cb_level found = CB_LEVEL_NONE;
    if (strncmp(text, "StorageLevel(", strlen("StorageLevel(")) != 0 ||
        !find_by_form(text, &found)) {
        return cbi_fail(err, CB_EINVAL,
                        "Invalid storage level: %s. There are NONE, DISK_ONLY, MEMORY_ONLY, "
                        "MEMORY_ONLY_SER, MEMORY_AND_DISK, MEMORY_AND_DISK_SER (each but NONE also "
                        "with _2, DISK_ONLY with _3) and OFF_HEAP.",
                        text);
    }
    CB_TRY(cb_level_check(found, err));
    *level = found;
    return CB_OK;
}

void cb_level_encode(cb_level level, uint8_t bytes[2]) {
    bytes[0] = (uint8_t)(level & 0xff);
    bytes[1] = (uint8_t)(level >> 8);
}

cb_status cb_level_decode(const uint8_t bytes[2], cb_level *level, cb_error *err) {
    cb_level read = CB_LEVEL(bytes[0], bytes[1]);
    CB_TRY(cb_level_check(read, err));
    *level = read;
    return CB_OK;
}
