/* SPDX-License-Identifier: Apache-2.0 */
#include "record/brief.h"

#include <string.h>

#include "support/test.h"

static uint32_t random_state = 7;

static uint32_t draw(uint32_t below) {
    random_state = random_state * 1664525 + 1013904223;
    return (uint32_t)((uint64_t)random_state * below >> 32);
}

/* Mostly digits; `strange` of a hundred bytes are any. */
static size_t make_text(uint8_t *p, uint32_t most, uint32_t strange) {
    size_t n = draw(most + 1);
    for (size_t i = 0; i < n; i++)
        p[i] = (uint8_t)(draw(100) < strange ? draw(256) : '0' + draw(10));
    return n;
}

static cbi_brief digits(void) {
    uint64_t times[256] = {0};
    cbi_brief b;
    for (unsigned c = '0'; c <= '9'; c++)
        times[c] = 100;
    times[','] = 10;
    times[0xe9] = 5;
    double others = cbi_brief_init(&b, times, NULL);
    assert_true(others > 0.004 && others < 0.006);
    return b;
}

enum { COUNT = 64, MOST = 150 };

static void texts_come_back_and_all_at_once_is_one_by_one(void **state) {
    (void)state;
    cbi_brief b = digits();
    for (unsigned round = 0; round < 500; round++) {
        static uint8_t text[COUNT][MOST], all[COUNT * (MOST + 1) + CBI_BRIEF_SLACK];
        const uint8_t *at[COUNT];
        uint32_t bytes[COUNT];
        size_t n[COUNT];
        for (size_t i = 0; i < COUNT; i++) {
            n[i] = make_text(text[i], MOST, round % 3 == 0 ? 0 : round % 3 == 1 ? 5 : 80);
            at[i] = text[i];
            bytes[i] = (uint32_t)n[i];
        }
        uint8_t *end = cbi_brief_put_all(&b, at, bytes, COUNT, all);
        assert_true(end == at[COUNT - 1] + bytes[COUNT - 1]);
        for (size_t i = 0; i < COUNT; i++) {
            uint8_t one[MOST + 1 + CBI_BRIEF_SLACK], back[MOST + 1];
            assert_int_equal(cbi_brief_put(&b, text[i], n[i], one), bytes[i]);
            assert_memory_equal(one, at[i], bytes[i]);
            assert_true(bytes[i] <= cbi_brief_most(n[i]));
            assert_int_equal(cbi_brief_text_bytes(one, bytes[i]), n[i]);
            back[n[i]] = 0xa5;
            cbi_brief_get(&b, one, bytes[i], back);
            assert_memory_equal(back, text[i], n[i]);
            assert_int_equal(back[n[i]], 0xa5);
        }
    }
}

/* "1", "1" and a zero byte, "1" and a byte of code 15: all different. */
static void different_texts_have_different_forms(void **state) {
    (void)state;
    enum { TEXTS = 2000 };
    static uint8_t text[TEXTS][4], form[TEXTS][8 + CBI_BRIEF_SLACK];
    size_t n[TEXTS], bytes[TEXTS];
    static const uint8_t some[] = {'0', '1', 0, 0xff, 'x'};
    cbi_brief b = digits();
    for (size_t i = 0; i < TEXTS; i++) {
        n[i] = draw(5);
        for (size_t k = 0; k < n[i]; k++)
            text[i][k] = some[draw(sizeof some)];
        bytes[i] = cbi_brief_put(&b, text[i], n[i], form[i]);
    }
    for (size_t i = 0; i < TEXTS; i++)
        for (size_t k = 0; k < i; k++) {
            bool same = n[i] == n[k] && memcmp(text[i], text[k], n[i]) == 0;
            bool same_form = bytes[i] == bytes[k] && memcmp(form[i], form[k], bytes[i]) == 0;
            assert_true(same == same_form);
        }
}

/* A digit is added where the pattern has none. */
static size_t make_patterned(uint8_t *p, uint32_t strange) {
    static const char pattern[] = "id-,id0000-----,";
    size_t n = sizeof pattern - 1;
    for (size_t i = 0; i < n; i++)
        p[i] = (uint8_t)(pattern[i] == '-' ? '0' + (int)draw(10) : pattern[i]);
    for (size_t more = draw(50); more > 0 && n < CBI_BRIEF_TEXT_MAX; more--)
        p[n++] = (uint8_t)('0' + draw(10));
    if (draw(100) < strange)
        p[draw((uint32_t)n)] = (uint8_t)draw(256);
    return draw(100) < strange ? draw((uint32_t)n + 1) : n;
}

static cbi_brief patterned(void) {
    uint64_t times[256] = {0};
    cbi_brief_common common = {.any = false};
    for (unsigned i = 0; i < 1000; i++) {
        uint8_t text[CBI_BRIEF_TEXT_MAX];
        size_t n = make_patterned(text, 0);
        for (size_t k = 0; k < n; k++)
            times[text[k]]++;
        cbi_brief_see(&common, text, n);
    }
    cbi_brief b;
    assert_true(cbi_brief_init(&b, times, &common) == 0);
    return b;
}

/* "id", ",id0000" and "," are 10 bytes, 5 when they have codes. */
static void what_all_texts_share_is_left_out(void **state) {
    (void)state;
    cbi_brief b = patterned();
    assert_int_equal(b.fixed, 0x83fb);
    uint8_t form[CBI_BRIEF_TEXT_MAX + 1 + CBI_BRIEF_SLACK];
    assert_int_equal(cbi_brief_put(&b, (const uint8_t *)"id7,id000012345,", 16, form), 1 + 3);
    assert_int_equal(cbi_brief_put(&b, (const uint8_t *)"id7;id000012345,", 16, form), 1 + 8 + 1);
    assert_int_equal(cbi_brief_put(&b, (const uint8_t *)"id7,id000012345", 15, form), 1 + 8);
}

static void texts_with_and_without_the_pattern_come_back_and_differ(void **state) {
    (void)state;
    cbi_brief b = patterned();
    for (unsigned round = 0; round < 1000; round++) {
        static uint8_t text[COUNT][CBI_BRIEF_TEXT_MAX],
            all[COUNT * (CBI_BRIEF_TEXT_MAX + 1) + CBI_BRIEF_SLACK];
        const uint8_t *at[COUNT];
        uint32_t bytes[COUNT];
        size_t n[COUNT];
        for (size_t i = 0; i < COUNT; i++) {
            n[i] = make_patterned(text[i], round % 3 * 30);
            if (i > 0 && draw(3) == 0) { /* one byte beside the one before */
                memcpy(text[i], text[i - 1], n[i] = n[i - 1]);
                if (n[i] > 0)
                    text[i][draw((uint32_t)n[i])] ^= (uint8_t)(draw(2) << draw(8));
            }
            at[i] = text[i];
            bytes[i] = (uint32_t)n[i];
        }
        (void)cbi_brief_put_all(&b, at, bytes, COUNT, all);
        for (size_t i = 0; i < COUNT; i++) {
            uint8_t one[CBI_BRIEF_TEXT_MAX + 1 + CBI_BRIEF_SLACK], back[CBI_BRIEF_TEXT_MAX];
            assert_int_equal(cbi_brief_put(&b, text[i], n[i], one), bytes[i]);
            assert_memory_equal(one, at[i], bytes[i]);
            assert_int_equal(cbi_brief_text_bytes(one, bytes[i]), n[i]);
            cbi_brief_get(&b, one, bytes[i], back);
            assert_memory_equal(back, text[i], n[i]);
            bool same = i > 0 && n[i] == n[i - 1] && memcmp(text[i], text[i - 1], n[i]) == 0;
            bool same_form =
                i > 0 && bytes[i] == bytes[i - 1] && memcmp(at[i], at[i - 1], bytes[i]) == 0;
            assert_true(same == same_form);
        }
    }
}

static void nothing_seen_is_all_others(void **state) {
    (void)state;
    uint64_t times[256] = {0};
    cbi_brief b;
    assert_true(cbi_brief_init(&b, times, NULL) == 1);
    uint8_t form[8 + CBI_BRIEF_SLACK];
    assert_int_equal(cbi_brief_put(&b, (const uint8_t *)"", 0, form), 1);
    assert_int_equal(cbi_brief_text_bytes(form, 1), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_come_back_and_all_at_once_is_one_by_one),
        cmocka_unit_test(different_texts_have_different_forms),
        cmocka_unit_test(what_all_texts_share_is_left_out),
        cmocka_unit_test(texts_with_and_without_the_pattern_come_back_and_differ),
        cmocka_unit_test(nothing_seen_is_all_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
