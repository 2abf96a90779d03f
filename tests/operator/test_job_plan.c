/* SPDX-License-Identifier: Apache-2.0 */
#include "operator/job.h"

#include "support/test.h"

static uint64_t state = 1;

static double between(double low, double high) {
    state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return low + (high - low) * (double)(state >> 40) / (double)(1 << 24);
}

/* Sizes are looked for in rounds: what one round divides must hold what the last one chose. */
static void test_batches_count_all_partitions_of_any_plan(void **ctx) {
    (void)ctx;
    unsigned planned = 0;
    for (int i = 0; i < 3000; i++) {
        cbi_job job = {.o = {.threads = 1 + (unsigned)between(0, 8)}};
        job.o.memory_bytes = (uint64_t)(between(12, 20) * (double)(1 << 20));
        for (int k = (int)between(0, 9); k > 0; k--)
            job.o.memory_bytes *= 2;
        job.ground.baseline = 6 << 20;
        double rows = between(1, 3e7), record = between(8, 60);
        job.demand = (cbi_job_demand){.stored_bytes = rows * record,
                                      .row_bytes = between(10, 200),
                                      .record_bytes = record,
                                      .fields = 1 + (size_t)between(0, 8),
                                      .read_extra = 32 * 1024,
                                      .work_factor = between(1, 8),
                                      .work_least = (size_t)between(0, 3e5),
                                      .work_wanted = (size_t)between(0, 3e6),
                                      .result_factor = between(0.1, 3),
                                      .result_rows = between(0, 2) < 1 ? 0 : rows,
                                      .outputs = between(0, 4) < 3 ? 0 : 2,
                                      .sides = between(0, 4) < 3 ? 0 : 2};
        cb_error err;
        if (cbi_job_size(&job, &err) != CB_OK)
            continue;
        planned++;
        const cbi_job_sizes *z = &job.sizes;
        size_t most = cbi_max(z->parts, z->ranges * cbi_job_outputs(&job));
        assert_true(cbi_batch_memory(z->batch, (uint32_t)most) <= z->batch_memory);
        assert_true(z->batch_memory + z->work <= z->worker);
        assert_true(z->work >= job.demand.work_least);
        assert_true(z->lean || z->work >= job.demand.work_wanted);
        assert_true(z->shared + z->threads * z->worker + z->segments * z->segment <= z->usable);
    }
    assert_true(planned > 1000);
}

/* What is only wanted turns no plan into a failure. */
static void test_a_plan_does_without_what_is_only_wanted(void **ctx) {
    (void)ctx;
    unsigned lean = 0;
    for (int i = 0; i < 1000; i++) {
        cbi_job job = {.o = {.threads = 1 + (unsigned)between(0, 4)}};
        job.o.memory_bytes = (uint64_t)(between(8, 40) * (double)(1 << 20));
        job.ground.baseline = 3 << 20;
        job.demand = (cbi_job_demand){.stored_bytes = between(1, 1e9),
                                      .row_bytes = 100,
                                      .record_bytes = 30,
                                      .work_factor = 2,
                                      .result_factor = 1};
        cb_error err;
        cb_status without = cbi_job_size(&job, &err);
        job.demand.work_wanted = (size_t)between(0, 2e7);
        assert_int_equal(cbi_job_size(&job, &err), without);
        lean += without == CB_OK && job.sizes.lean;
    }
    assert_true(lean > 50);
}

/* Twice any place of a range and a bit, at the ends of what so many bytes hold. */
static void a_place_of_any_range_fits_its_bytes(void **unused) {
    (void)unused;
    static const uint32_t ranges[] = {1, 2, 7, 293, 2048};
    for (unsigned bits = 0; bits < 46; bits++)
        for (unsigned r = 0; r < sizeof ranges / sizeof *ranges; r++)
            for (int more = -2; more <= 2; more++) {
                uint64_t input = (((uint64_t)1 << bits) + (uint64_t)(more + 2)) * ranges[r];
                unsigned bytes = cbi_place_bytes(input, ranges[r]);
                uint64_t most = (input / ranges[r] + 2) * 2 + 1;
                assert_in_range(bytes, 3, CBI_PLACE_BYTES_MAX);
                assert_int_equal(most >> (8 * bytes), 0);
                uint8_t record[32] = {0xff, 0xff, 0xff, 0xff, 0xff}, *key = record + 5;
                cbi_store_u64(key, __builtin_bswap64(most << (64 - 8 * bytes)));
                key[bytes] = 0xff;
                assert_int_equal(cbi_place_get(key, bytes), most);
            }
}

/* A set of pieces for each side and one more are planned for; those of all depths can be open. */
static void test_tables_of_pieces_at_any_depth_fit(void **ctx) {
    enum { ROUNDED = 32 << 10 }; /* requests have a size without any segment */
    (void)ctx;
    unsigned planned = 0;
    for (int i = 0; i < 20000; i++) {
        cbi_job job = {.o = {.threads = 1 + (unsigned)between(0, 8)}};
        job.o.memory_bytes = (uint64_t)(between(5, 10) * (double)(1 << 20));
        for (int k = (int)between(0, 9); k > 0; k--)
            job.o.memory_bytes *= 2;
        job.ground.baseline = 2 << 20;
        double record = between(8, 60);
        job.demand = (cbi_job_demand){.stored_bytes = between(0, 3) < 1 ? 0 : between(1, 3e9),
                                      .row_bytes = between(10, 200),
                                      .record_bytes = record,
                                      .fields = 1 + (size_t)between(0, 8),
                                      .read_extra = 32 * 1024,
                                      .work_factor = between(1, 8),
                                      .result_factor = between(0.1, 3),
                                      .sides = between(0, 4) < 2 ? 0 : 2};
        cb_error err;
        if (cbi_job_size(&job, &err) != CB_OK || !job.sizes.divides)
            continue;
        planned++;
        const cbi_job_sizes *z = &job.sizes;
        size_t sides = job.demand.sides > 1 ? 2 : 1;
        size_t first = cbi_partitions_bytes(CBI_PIECES_MAX, cbi_job_piece_batch(z, 0));
        size_t deeper =
            cbi_partitions_bytes(CBI_PIECES_MAX / CBI_DEEPER_SHARE, cbi_job_piece_batch(z, 1));
        size_t all = sides * first + sides * (CBI_DEPTH_MAX - 1) * deeper;
        assert_true(all <= (sides + 1) * first + ROUNDED);
    }
    assert_true(planned > 1000);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_place_of_any_range_fits_its_bytes),
        cmocka_unit_test(test_batches_count_all_partitions_of_any_plan),
        cmocka_unit_test(test_tables_of_pieces_at_any_depth_fit),
        cmocka_unit_test(test_a_plan_does_without_what_is_only_wanted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
