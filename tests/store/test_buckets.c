/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: a table that grows one bucket at a time finds everything at every size. Method: entries
 * that are moved as an owner moves them, and all of them looked for at sizes around powers of two.
 */
#include "store/buckets.h"

#include "support/test.h"

enum { MOST = 5000 };

typedef struct entry {
    struct entry *chain;
    uint64_t hash;
} entry;

static entry **bucket(const cbi_buckets *b, size_t i) {
    return (entry **)cbi_buckets_head(b, i);
}

static void link_in(const cbi_buckets *b, entry *e) {
    entry **head = bucket(b, cbi_buckets_index(b, e->hash));
    e->chain = *head;
    *head = e;
}

static void split(const cbi_buckets *b, size_t from) {
    entry *e = *bucket(b, from);
    *bucket(b, from) = NULL;
    for (entry *next = NULL; e != NULL; e = next) {
        next = e->chain;
        link_in(b, e);
    }
}

static bool finds(const cbi_buckets *b, const entry *wanted) {
    const entry *e = *bucket(b, cbi_buckets_index(b, wanted->hash));
    while (e != NULL && e != wanted) {
        e = e->chain;
    }
    return e != NULL;
}

static void test_buckets__everything_is_found_at_every_size(void **state) {
    (void)state;
    static entry entries[MOST];
    cbi_buckets b;
    assert_true(cbi_buckets_init(&b));
    for (size_t count = 0; count < MOST; count++) {
        size_t from = 0, was = b.count;
        if (count >= b.count) {
            assert_true(cbi_buckets_add(&b, &from));
            assert_int_equal(b.count, was + 1);
            assert_true(from < was);
            assert_null(*bucket(&b, was));
            split(&b, from);
        }
        entries[count].hash = (count + 1) * UINT64_C(0x9e3779b97f4a7c15) >> 13;
        link_in(&b, &entries[count]);
        bool look = (b.count & (b.count - 1)) < 2 || (b.count & (b.count + 1)) == 0;
        for (size_t i = 0; look && i <= count; i++) {
            assert_true(finds(&b, &entries[i]));
        }
    }
    assert_int_equal(b.count, MOST);
    size_t longest = 0, all = 0;
    for (size_t i = 0; i < b.count; i++) {
        size_t here = 0;
        for (const entry *e = *bucket(&b, i); e != NULL; e = e->chain) {
            here++;
        }
        all += here;
        longest = here > longest ? here : longest;
    }
    assert_int_equal(all, MOST);
    assert_true(longest < 20);
    cbi_buckets_fini(&b);
    cbi_buckets_fini(&b); /* of none */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_buckets__everything_is_found_at_every_size),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
