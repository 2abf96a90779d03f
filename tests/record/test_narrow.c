/* SPDX-License-Identifier: Apache-2.0 */
#include "record/narrow.h"

#include <stdlib.h>

#include "support/test.h"

static uint64_t random_state = 1;

static uint64_t draw(void) {
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return random_state ^ random_state >> 29;
}

/* The same rows into narrow states and into states: widened, they are the same to the last bit. */
static void narrow_states_mean_what_states_do(void **state) {
    (void)state;
    enum { GROUPS = 5, ROWS = 64, COLUMNS = 4, STATE_WORDS = 192 };
    static const char *const texts[] = {
        "count()",  "count(a)", "sum(a)",     "mean(b)",    "min(b)", "max(b)",
        "sd(c)",    "var(c)",   "min(c)",     "corr(b,c)",  "sum(d)", "corr(c,d)",
        "count(d)", "top3(a)",  "bottom1(a)", "bottom8(d)", "top8(b)"};
    static const char *const names[] = {"a", "b", "c", "d"};
    cbi_aggregates *a;
    cb_error err;
    assert_ok(cbi_aggregates_parse(texts, sizeof texts / sizeof texts[0], &a, &err));
    assert_ok(cbi_aggregates_bind(a, names, COLUMNS, COLUMNS, &err));
    assert_true(a->state_bytes <= STATE_WORDS * 8);
    uint8_t scales[COLUMNS] = {0, 2, 6, 3};
    for (int round = 0; round < 200; round++) {
        bool nulls_seen[COLUMNS] = {true, true, round % 2 == 0, round % 2 == 0};
        cbi_narrow n;
        assert_true(cbi_narrow_init(&n, a, scales, nulls_seen));
        uint64_t narrow[GROUPS][STATE_WORDS], wide[GROUPS][STATE_WORDS] = {{0}}, *places[ROWS];
        uint64_t rows[GROUPS] = {0};
        int64_t values[COLUMNS * ROWS];
        uint8_t nulls[COLUMNS * ROWS];
        for (size_t i = 0; i < GROUPS; i++)
            cbi_narrow_clear(&n, narrow[i]);
        for (size_t i = 0; i < ROWS; i++) {
            size_t group = draw() % GROUPS, column = 0;
            cbi_value row[COLUMNS];
            places[i] = narrow[group];
            rows[group]++;
            for (size_t c = 0; c < COLUMNS; c++) {
                bool null = nulls_seen[c] && draw() % 4 == 0;
                int64_t v = (int64_t)(draw() >> (17 + draw() % 47));
                v = null ? 0 : draw() % 2 == 0 ? v : -v;
                values[c * ROWS + i] = v;
                nulls[c * ROWS + i] = null;
                row[c] = (cbi_value){.number = {.value = v, .scale = scales[c]}, .null = null};
            }
            assert_true(cbi_state_add(a, scales, wide[group], row, &column));
        }
        cbi_narrow_add(&n, places, ROWS, values, nulls, ROWS);
        for (size_t i = 0; i < GROUPS; i++) {
            uint64_t widened[STATE_WORDS];
            cbi_narrow_widen(&n, narrow[i], rows[i], widened);
            assert_memory_equal(widened, wide[i], a->state_bytes);
        }
    }
    cbi_aggregates_destroy(a);
}

static void texts_are_left_to_others(void **state) {
    (void)state;
    static const char *const names[] = {"a", "b"};
    static const char *const texts[] = {"argmax(a,b)"};
    uint8_t scales[2] = {0};
    bool nulls[2] = {false};
    cbi_aggregates *a;
    cbi_narrow n;
    cb_error err;
    assert_ok(cbi_aggregates_parse(texts, 1, &a, &err));
    assert_ok(cbi_aggregates_bind(a, names, 2, 2, &err));
    assert_false(cbi_narrow_init(&n, a, scales, nulls));
    cbi_aggregates_destroy(a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(narrow_states_mean_what_states_do),
        cmocka_unit_test(texts_are_left_to_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
