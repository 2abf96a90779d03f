/* SPDX-License-Identifier: Apache-2.0 */
#include "net/redis_take.h"

#include <stdlib.h>
#include <string.h>

bool cbi_redis_take_number(const cbi_redis_value *v, uint64_t *number) {
    char *end = NULL;
    if (v->kind != CBI_REDIS_TEXT || v->text[0] < '0' || v->text[0] > '9') {
        return false;
    }
    *number = strtoull(v->text, &end, 10);
    return *end == '\0';
}

bool cbi_redis_take_text(const cbi_redis_value *v, char *to, size_t room) {
    if (v->kind != CBI_REDIS_TEXT || v->count >= room || memchr(v->text, '\0', v->count) != NULL) {
        return false;
    }
    memcpy(to, v->text, (size_t)v->count + 1);
    return true;
}

bool cbi_redis_take_place(const cbi_redis_value *v, cb_place *place) {
    uint64_t numbers[5];
    const char *at = v->kind == CBI_REDIS_TEXT ? v->text : "";
    for (size_t i = 0; i < 5; i++) {
        char *end = NULL;
        if (*at < '0' || *at > '9') {
            return false;
        }
        numbers[i] = strtoull(at, &end, 10);
        if (*end != (i < 4 ? ' ' : '\0')) {
            return false;
        }
        at = end + (i < 4);
    }
    if (numbers[0] > UINT16_MAX || cb_level_check((cb_level)numbers[0], NULL) != CB_OK) {
        return false;
    }
    *place = (cb_place){.level = (cb_level)numbers[0],
                        .memory_bytes = numbers[1],
                        .disk_bytes = numbers[2],
                        .block_generation = numbers[3],
                        .checksum = numbers[4]};
    return true;
}

bool cbi_redis_take_location(const cbi_redis_value *v, cb_location *l) {
    *l = (cb_location){.generation = 0};
    return cbi_redis_take_text(&v[0], l->executor, sizeof l->executor) &&
           cbi_redis_take_number(&v[1], &l->generation) && cbi_redis_take_place(&v[2], &l->place);
}

bool cbi_redis_take_view(const cbi_redis_value *v, cb_executor_view *e) {
    uint64_t lease_ms = 0;
    *e = (cb_executor_view){.generation = 0};
    if (!cbi_redis_take_text(&v[0], e->name, sizeof e->name) ||
        !cbi_redis_take_number(&v[1], &lease_ms) || !cbi_redis_take_number(&v[2], &e->generation) ||
        !cbi_redis_take_text(&v[3], e->address, sizeof e->address) ||
        !cbi_redis_take_text(&v[4], e->host, sizeof e->host) ||
        !cbi_redis_take_text(&v[5], e->rack, sizeof e->rack) ||
        !cbi_redis_take_number(&v[6], &e->memory_max) ||
        !cbi_redis_take_number(&v[7], &e->memory_bytes) ||
        !cbi_redis_take_number(&v[8], &e->disk_bytes) ||
        !cbi_redis_take_number(&v[9], &e->blocks)) {
        return false;
    }
    e->lease_ns = cbi_sys_clock_ns() + lease_ms * 1000000;
    return true;
}
