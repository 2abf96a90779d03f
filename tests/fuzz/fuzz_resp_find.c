/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes, cut anywhere: a request that is found in a part of them is the same that is found in
 * all, its arguments lie inside it, and what is refused once stays refused when more comes.
 */
#include <stdlib.h>
#include <string.h>

#include "serve/resp.h"

static void check_args(const uint8_t *bytes, const cbi_resp_request *r) {
    size_t at = r->start;
    cb_assert(r->whole <= r->count && r->count <= CBI_RESP_ARGS_MAX);
    for (uint32_t i = 0; i < r->whole; i++) {
        cbi_resp_word w = cbi_resp_next(bytes, r, &at);
        cb_assert(at <= r->taken && w.bytes >= bytes && w.bytes + w.count <= bytes + r->taken);
        int64_t value = 0;
        (void)cbi_resp_integer(w, &value);
        (void)cbi_resp_is(w, "SET");
    }
}

static void check_pattern(const uint8_t *bytes, size_t size) {
    size_t half = cbi_min(size / 2, 255);
    (void)cbi_resp_matches((cbi_resp_word){bytes, half}, (cbi_resp_word){bytes + half, half});
}

static void check_rest(const uint8_t *bytes, size_t size, uint32_t args) {
    cbi_resp_request r;
    const char *why = NULL;
    if (cbi_resp_find_rest(bytes, size, args, &r, &why) == CBI_RESP_WHOLE) {
        cb_assert(r.taken <= size && r.whole == args);
        check_args(bytes, &r);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    cbi_resp_request whole, part;
    const char *why = NULL;
    cbi_resp_found found = cbi_resp_find(data, size, &whole, &why);
    bool ended = false;
    size_t step = size / 64 + 1;
    for (size_t count = 0; count <= size; count += step) {
        uint8_t *copy = malloc(count + 1); /* exactly: what is read behind it shows */
        uint8_t *at = copy + 1;
        memcpy(at, data, count);
        cbi_resp_found now = cbi_resp_find(at, count, &part, &why);
        cb_assert(!ended || now != CBI_RESP_MORE);
        ended = ended || now != CBI_RESP_MORE;
        cb_assert(!ended || now == found);
        if (now == CBI_RESP_WHOLE || now == CBI_RESP_LONG) {
            cb_assert(part.taken == whole.taken && part.count == whole.count);
            cb_assert(part.long_bytes == whole.long_bytes && part.taken <= count);
            check_args(at, &part);
        }
        free(copy);
    }
    if (found == CBI_RESP_LONG) {
        check_rest(data + whole.taken, size - whole.taken, whole.count - whole.whole - 1);
    }
    check_pattern(data, size);
    return 0;
}
