/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: cbi_order_numbers sorts, whatever the numbers, and touches nothing behind its scratch.
 * Method: numbers of several kinds beside qsort.
 */
#include "operator/order.h"
#include "operator_kit.h"

static int by_size(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

enum { SPREAD, DENSE, CROWDED, FEW, ASCENDING, KINDS };

/* Places in a range above where rows lie, as the last pass has them; and what is not so kind. */
static uint64_t number(kit_random *r, unsigned kind, size_t i) {
    switch (kind) {
        case SPREAD: return kit_next(r);
        case DENSE: return (uint64_t)(i * 48271 % 65537) << 32 | kit_below(r, 1000);
        case CROWDED: /* all but a few of one bucket, on several levels */
            return kit_below(r, 50) == 0 ? kit_next(r) : kit_next(r) >> (8 * kit_below(r, 7));
        case FEW: return kit_below(r, 3) << 40;
        default: return i * 7;
    }
}

static void check(kit_random *r, size_t n, size_t more, unsigned kind) {
    enum { GUARD = 4 };
    size_t room = cbi_order_numbers_room(n) + more;
    uint64_t *v = malloc((room + GUARD) * sizeof *v), *want = malloc((n + 1) * sizeof *want);
    assert_non_null(v);
    assert_non_null(want);
    memset(v, 0xa5, (room + GUARD) * sizeof *v);
    for (size_t i = 0; i < n; i++)
        v[i] = want[i] = number(r, kind, i);
    qsort(want, n, sizeof *want, by_size);
    cbi_order_numbers(v, n, room);
    if (n > 0)
        assert_memory_equal(v, want, n * sizeof *v);
    for (size_t i = room; i < room + GUARD; i++)
        assert_int_equal(v[i], UINT64_C(0xa5a5a5a5a5a5a5a5));
    free(v);
    free(want);
}

static void numbers_come_in_order(void **state) {
    (void)state;
    kit_random r = {.state = 20};
    for (unsigned round = 0; round < 40; round++)
        for (unsigned kind = 0; kind < KINDS; kind++) {
            size_t n = kit_below(&r, round < 20 ? 100 : 20000);
            check(&r, n, kit_below(&r, 3) * kit_below(&r, n + 1), kind);
        }
    for (unsigned kind = 0; kind < KINDS; kind++)
        check(&r, 70000, 40000, kind);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(numbers_come_in_order)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
