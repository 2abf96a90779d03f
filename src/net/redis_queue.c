/* SPDX-License-Identifier: Apache-2.0 */
#include "net/redis_queue.h"

#include <string.h>

#include "base/base.h"

enum { NUMBERS_BYTES = 5 * (CBI_REDIS_WORD_BYTES + 24) };

size_t cbi_redis_report_bytes(size_t name_bytes) {
    return cbi_round_up(sizeof(cbi_redis_report) + name_bytes, _Alignof(cbi_redis_report));
}

static cbi_redis_report report_at(const cbi_redis_queue *q, size_t at) {
    cbi_redis_report r;
    memcpy(&r, q->at + at, sizeof r);
    return r;
}

static bool is_meant(const cbi_redis_report *r, bool removals) {
    return !removals || r->place.level == CB_LEVEL_NONE;
}

bool cbi_redis_queue_add(cbi_redis_queue *q, const char *block, const cb_place *place) {
    size_t name_bytes = strlen(block), bytes = cbi_redis_report_bytes(name_bytes);
    if (name_bytes == 0 || name_bytes > CB_BLOCK_NAME_MAX) {
        return true; /* no store has it */
    }
    if (bytes > sizeof q->at - q->bytes) {
        return false;
    }
    const cbi_redis_report r = {.place = *place, .name_bytes = (uint8_t)name_bytes};
    memcpy(q->at + q->bytes, &r, sizeof r);
    memcpy(q->at + q->bytes + sizeof r, block, name_bytes);
    q->bytes += bytes;
    return true;
}

bool cbi_redis_queue_append(cbi_redis_queue *q, cbi_redis_queue *from) {
    if (from->bytes > sizeof q->at - q->bytes) {
        return false;
    }
    memcpy(q->at + q->bytes, from->at, from->bytes);
    q->bytes += from->bytes;
    from->bytes = 0;
    return true;
}

void cbi_redis_queue_drop(cbi_redis_queue *q, size_t at) {
    q->bytes -= at;
    memmove(q->at, q->at + at, q->bytes);
}

size_t cbi_redis_queue_fitting(const cbi_redis_queue *q, size_t at, size_t room, bool removals,
                               size_t *end) {
    size_t count = 0;
    while (at < q->bytes) {
        const cbi_redis_report r = report_at(q, at);
        if (is_meant(&r, removals)) {
            size_t needed = r.name_bytes + (size_t)CBI_REDIS_WORD_BYTES + NUMBERS_BYTES;
            if (needed > room) {
                break;
            }
            room -= needed;
            count++;
        }
        at += cbi_redis_report_bytes(r.name_bytes);
    }
    *end = at;
    return count;
}

static void put_report(cbi_redis_link *l, const cbi_redis_report *r, const uint8_t *name) {
    cbi_redis_word(l, name, r->name_bytes);
    if (r->place.level == CB_LEVEL_NONE) {
        cbi_redis_text(l, "");
    } else {
        cbi_redis_number(l, r->place.level);
    }
    cbi_redis_number(l, r->place.memory_bytes);
    cbi_redis_number(l, r->place.disk_bytes);
    cbi_redis_number(l, r->place.block_generation);
    cbi_redis_number(l, r->place.checksum);
}

void cbi_redis_queue_put(const cbi_redis_queue *q, size_t at, size_t end, bool removals,
                         cbi_redis_link *l) {
    while (at < end) {
        const cbi_redis_report r = report_at(q, at);
        if (is_meant(&r, removals)) {
            put_report(l, &r, q->at + at + sizeof r);
        }
        at += cbi_redis_report_bytes(r.name_bytes);
    }
}
