/* SPDX-License-Identifier: Apache-2.0 */
#include "record/numbers.h"

#include <stdio.h>
#include <stdlib.h>

#include "support/test.h"

static uint32_t random_state = 1;

static uint32_t draw(uint32_t below) {
    random_state = random_state * 1664525 + 1013904223;
    return (uint32_t)((uint64_t)random_state * below >> 32);
}

/* Mostly numbers, of every shape; sometimes not. */
static size_t make_field(char *p) {
    static const char *const odd[] = {"",    "-",  ".",    "-.",    "1.2.3", " 7",  "7 ",
                                      "1e3", "+4", "0x1",  "--1",   "1-",    "1,2", "9e-05",
                                      "nan", "-0", "-0.0", "00.00", "5.",    ".5",  "-.5"};
    if (draw(8) == 0)
        return (size_t)sprintf(p, "%s", odd[draw(sizeof odd / sizeof odd[0])]);
    size_t n = 0;
    if (draw(4) == 0)
        p[n++] = '-';
    uint32_t whole = draw(18), part = draw(3) == 0 ? 0 : draw(10);
    for (uint32_t i = 0; i < whole; i++)
        p[n++] = (char)('0' + draw(10));
    if (part > 0 || draw(5) == 0)
        p[n++] = '.';
    for (uint32_t i = 0; i < part; i++)
        p[n++] = (char)('0' + draw(10));
    return n;
}

/* What is not odd is what cbi_decimal_parse reads, at the wanted scale. */
static void check_field(const cbi_numbers_want *want, uint64_t largest, const uint8_t *base,
                        cbi_span span, int64_t value, bool null, bool odd) {
    cbi_decimal d = {.value = 0};
    cbi_i128 shifted = 0;
    cbi_number_kind kind = cbi_decimal_parse(base, base + span.offset, span.bytes, &d);
    if (null) {
        assert_int_equal(kind, CBI_NUMBER_NULL);
        assert_true(value == 0 && !odd);
        return;
    }
    bool takes = kind == CBI_NUMBER && d.scale <= want->scale &&
                 cbi_decimal_shift(d.value, want->scale - d.scale, &shifted) &&
                 shifted <= (cbi_i128)largest && shifted >= -(cbi_i128)largest;
    if (odd) { /* allowed for anything, but the usual must not be */
        assert_false(takes && span.bytes <= 16 && d.scale < span.bytes &&
                     strspn((const char *)base + span.offset, "0123456789") >= span.bytes);
        return;
    }
    assert_true(takes);
    assert_true(shifted == value);
}

static void a_column_is_read_as_its_numbers_are_one_by_one(void **state) {
    (void)state;
    enum { COUNT = 300, COLUMNS = 3 };
    for (int round = 0; round < 400; round++) {
        static char text[COUNT * COLUMNS * 40 + 64];
        static cbi_span fields[COUNT * COLUMNS];
        static int64_t values[COUNT];
        static uint8_t nulls[COUNT], odd[COUNT];
        size_t at = 0;
        for (size_t i = 0; i < (size_t)COUNT * COLUMNS; i++) {
            size_t n = make_field(text + at);
            fields[i] = (cbi_span){.offset = (uint32_t)at, .bytes = (uint32_t)n};
            at += n;
            text[at++] = ',';
        }
        uint64_t largest = round % 3 == 0 ? INT64_MAX : round % 3 == 1 ? 1000000 : 12345;
        cbi_numbers_want want;
        cbi_numbers_want_init(&want, draw(19), largest);
        memset(odd, 0, sizeof odd);
        odd[7] = 1; /* stays */
        const uint8_t *base = (const uint8_t *)text;
        unsigned above =
            cbi_numbers_read(&want, base, fields + 1, COLUMNS, COUNT, values, nulls, odd);
        assert_true(odd[7] == 1 && (above == 0 || above > want.scale));
        for (size_t i = 0; i < COUNT; i++)
            if (i != 7)
                check_field(&want, largest, base, fields[1 + i * COLUMNS], values[i], nulls[i] != 0,
                            odd[i] != 0);
    }
}

static void the_largest_number_fits_and_the_next_does_not(void **state) {
    (void)state;
    static const char text[] = "................140737488355328,140737488355329,1.5,0.25";
    static const cbi_span fields[] = {{16, 15}, {32, 15}, {48, 3}, {52, 4}};
    int64_t values[4];
    uint8_t nulls[4], odd[4] = {0};
    cbi_numbers_want want;
    cbi_numbers_want_init(&want, 0, (uint64_t)1 << 47);
    assert_int_equal(
        cbi_numbers_read(&want, (const uint8_t *)text, fields, 1, 4, values, nulls, odd), 2);
    assert_true(values[0] == (int64_t)1 << 47 && !odd[0]);
    assert_true(odd[1] && odd[2] && odd[3]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_column_is_read_as_its_numbers_are_one_by_one),
        cmocka_unit_test(the_largest_number_fits_and_the_next_does_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
