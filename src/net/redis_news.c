/* SPDX-License-Identifier: Apache-2.0 */
#include "net/redis_news.h"

#include <string.h>

void cbi_redis_state_set(cb_directory_state *state, cb_status status, const char *words) {
    size_t i = 0;
    for (; words[i] != '\0' && i < CB_DIRECTORY_WORDS_MAX; i++) {
        uint8_t byte = (uint8_t)words[i];
        state->words[i] = (char)(byte < ' ' || byte == 0x7f ? '?' : byte);
    }
    state->words[i] = '\0';
    state->status = status;
}

void cbi_redis_news_init(cbi_redis_news *n,
                         void (*changed)(void *ctx, const cb_directory_state *state),
                         void *changed_ctx) {
    *n = (cbi_redis_news){.changed = changed, .changed_ctx = changed_ctx, .said.status = CB_EAGAIN};
}

void cbi_redis_news_tell(cbi_redis_news *n, const cb_directory_state *now, uint64_t clock_ns) {
    const uint64_t pause_ns = UINT64_C(10) * 1000000000;
    bool same = now->status == n->said.status && strcmp(now->words, n->said.words) == 0;
    if (n->changed == NULL || now->status == CB_EAGAIN || same) {
        return;
    }
    if (now->status != CB_OK) {
        if (n->failure_ns != 0 && clock_ns < n->failure_ns + pause_ns) {
            return; /* it comes by again, if it lasts */
        }
        n->failure_ns = clock_ns;
    }
    n->said = *now;
    n->changed(n->changed_ctx, now);
}
