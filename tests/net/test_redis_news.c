/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: who wants to know how an executor stands in its directory hears each change once, and a
 * directory that fails in ever new ways fills no log. Method: states, and a clock that is a number.
 */
#include "net/redis_news.h"

#include <string.h>

#include "support/test.h"

#define SECOND UINT64_C(1000000000)

typedef struct heard {
    int count;
    cb_directory_state last;
} heard;

static void hear(void *ctx, const cb_directory_state *state) {
    heard *h = ctx;
    h->count++;
    h->last = *state;
}

static int say(cbi_redis_news *n, const heard *h, cb_status status, const char *words,
               uint64_t clock) {
    cb_directory_state now = {0};
    int before = h->count;
    cbi_redis_state_set(&now, status, words);
    cbi_redis_news_tell(n, &now, clock * SECOND);
    return h->count - before;
}

static void test_redis_news__each_change_is_told_once(void **state) {
    (void)state;
    heard h = {0};
    cbi_redis_news n;
    cbi_redis_news_init(&n, hear, &h);
    assert_int_equal(say(&n, &h, CB_EAGAIN, "", 1), 0);
    assert_int_equal(say(&n, &h, CB_EIO, "refused", 1), 1);
    for (uint64_t clock = 2; clock < 100; clock++) {
        assert_int_equal(say(&n, &h, CB_EIO, "refused", clock), 0);
    }
    assert_int_equal(say(&n, &h, CB_EAGAIN, "", 100), 0);
    assert_int_equal(say(&n, &h, CB_OK, "", 100), 1);
    assert_int_equal(say(&n, &h, CB_EAGAIN, "", 101), 0);
    assert_int_equal(say(&n, &h, CB_OK, "", 101), 0);
    assert_int_equal(say(&n, &h, CB_EIO, "refused", 102), 1);
    assert_int_equal(h.last.status, CB_EIO);
    assert_string_equal(h.last.words, "refused");
    assert_int_equal(say(&n, &h, CB_OK, "", 103), 1);
}

static void test_redis_news__failures_wait_for_their_turn(void **state) {
    (void)state;
    heard h = {0};
    cbi_redis_news n;
    cbi_redis_news_init(&n, hear, &h);
    for (uint64_t clock = 1; clock <= 100; clock++) { /* each another one */
        const char words[] = {(char)('!' + clock % 90), '\0'};
        (void)say(&n, &h, CB_EIO, words, clock);
    }
    assert_int_equal(h.count, 10);
    h.count = 0;
    for (uint64_t clock = 101; clock <= 200; clock++) { /* it comes and goes */
        (void)say(&n, &h, clock % 2 == 0 ? CB_EIO : CB_OK, clock % 2 == 0 ? "gone" : "", clock);
    }
    assert_in_range(h.count, 2, 21);
}

static void test_redis_news__words_are_for_people(void **state) {
    (void)state;
    cb_directory_state s;
    char text[2 * CB_DIRECTORY_WORDS_MAX];
    cbi_redis_state_set(&s, CB_EIO, "a\x1b[2J\r\nb\x7f\xc3\xa4");
    assert_string_equal(s.words, "a?[2J??b?\xc3\xa4");
    memset(text, 'x', sizeof text);
    text[sizeof text - 1] = '\0';
    cbi_redis_state_set(&s, CB_EIO, text);
    assert_int_equal(strlen(s.words), CB_DIRECTORY_WORDS_MAX);
    cbi_redis_news n;
    cbi_redis_news_init(&n, NULL, NULL);
    cbi_redis_news_tell(&n, &s, SECOND); /* nobody listens */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_redis_news__each_change_is_told_once),
        cmocka_unit_test(test_redis_news__failures_wait_for_their_turn),
        cmocka_unit_test(test_redis_news__words_are_for_people),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
