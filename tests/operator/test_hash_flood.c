/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "operator/group_table.h"
#include "operator/job.h"
#include "support/test.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

/*
 * Whoever knows a table's hash can send keys that all fall into one place of it: then each of n
 * rows goes past all before it. The keys here are such ones, for the hash that is used with a seed
 * that is known (0). What is counted is how many slots are looked at, which is the work itself; no
 * clock is asked.
 */

enum { KEYS = 1500, MASK = 2047, KEY_BYTES = 8, PARTS = 64 };

static char keys[KEYS][KEY_BYTES + 1];

static int find_keys(void **state) {
    (void)state;
    unsigned found = 0;
    for (unsigned n = 0; found < KEYS; n++) {
        char key[KEY_BYTES + 1];
        (void)snprintf(key, sizeof key, "%08x", n);
        uint64_t hash = XXH3_64bits_withSeed(key, KEY_BYTES, 0);
        /* one slot of the table, and few partitions */
        if ((hash & MASK) == 0 && cbi_job_part(hash, PARTS) < PARTS / 4)
            memcpy(keys[found++], key, sizeof key);
    }
    return 0;
}

/* How many slots are looked at to find every key once. */
static unsigned long long probes(const cbi_job *job) {
    static uint64_t memory[(MASK + 1) + (size_t)2 * KEYS * sizeof(group_entry)];
    group_table t;
    unsigned long long looked = 0;
    assert_true(group_table_init(&t, memory, sizeof memory, 0, KEYS / 3 * 2, 0) >= KEYS);
    assert_int_equal(t.mask, MASK);
    for (unsigned i = 0; i < KEYS; i++) {
        const uint8_t *key = (const uint8_t *)keys[i];
        uint64_t hash = cbi_job_hash(job, key, KEY_BYTES);
        size_t place = 0;
        assert_null(group_table_find(&t, hash, key, KEY_BYTES, &place));
        assert_non_null(group_table_add(&t, hash, key, KEY_BYTES, 0, place));
        looked += ((place - (size_t)hash) & MASK) + 1;
    }
    return looked;
}

static unsigned fullest_part(const cbi_job *job) {
    unsigned counts[PARTS] = {0}, most = 0;
    for (unsigned i = 0; i < KEYS; i++) {
        unsigned *count = &counts[cbi_job_part(cbi_job_hash(job, keys[i], KEY_BYTES), PARTS)];
        (*count)++;
        most = *count > most ? *count : most;
    }
    return most;
}

static void open_job(cbi_job *job) {
    cb_job_options options = {.memory_bytes = (uint64_t)64 << 20, .baseline_bytes = 1};
    assert_ok(cbi_job_init(job, &options, "test", NULL));
}

static void the_keys_flood_a_table_whose_seed_is_known(void **state) {
    (void)state;
    static cbi_job job;
    open_job(&job);
    job.seed = 0;
    assert_true(probes(&job) > (unsigned long long)KEYS * KEYS / 3); /* they are an attack */
    assert_true(fullest_part(&job) > 3 * KEYS / PARTS);
    cbi_job_fini(&job);
}

static void a_jobs_own_seed_spreads_them(void **state) {
    (void)state;
    static cbi_job jobs[4];
    for (unsigned i = 0; i < 4; i++) {
        open_job(&jobs[i]);
        assert_true(probes(&jobs[i]) < (unsigned long long)KEYS * 8);
        assert_true(fullest_part(&jobs[i]) < 3 * KEYS / PARTS);
        for (unsigned k = 0; k < i; k++)
            assert_true(jobs[k].seed != jobs[i].seed);
    }
    for (unsigned i = 0; i < 4; i++)
        cbi_job_fini(&jobs[i]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_keys_flood_a_table_whose_seed_is_known),
        cmocka_unit_test(a_jobs_own_seed_spreads_them),
    };
    return cmocka_run_group_tests(tests, find_keys, NULL);
}
