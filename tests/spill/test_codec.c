/* SPDX-License-Identifier: Apache-2.0 */
#include "spill/codec.h"
#include "support/test.h"

/* A machine of which everything is known: how long a byte takes with each codec, by formula. */
typedef struct machine {
    double cpus;        /* that are really there */
    double disk_ns;     /* a byte on disk */
    double work_ns;     /* CPU time of the workers a byte */
    double compress_ns; /* CPU time a byte */
    double ratio;
    double now_ns, cpu_ns, busy_ns;
} machine;

static double larger(double a, double b) {
    return a > b ? a : b;
}

static double wall_of(const machine *m, cb_codec codec) {
    bool packed = codec == CB_CODEC_LZ4;
    double disk = m->disk_ns / (packed ? m->ratio : 1);
    double cores = (m->work_ns + (packed ? m->compress_ns : 0)) / m->cpus;
    return larger(disk, cores);
}

/* Spills `mib` in batches of 512 KiB; answers which part of it was packed. */
static double spill(cbi_codec_model *model, machine *m, unsigned mib) {
    const uint64_t batch_bytes = (uint64_t)512 * 1024;
    const double batch = (double)batch_bytes;
    double packed = 0;
    for (unsigned i = 0; i < mib * 2; i++) {
        if (model->now == CB_CODEC_LZ4) {
            packed++;
            cbi_codec_note_sample(model, batch_bytes, (uint64_t)(batch / m->ratio),
                                  (uint64_t)(batch * m->compress_ns));
        } else if (cbi_codec_wants_sample(model)) {
            cbi_codec_note_sample(model, 32768, (uint64_t)(32768 / m->ratio),
                                  (uint64_t)(32768 * m->compress_ns));
        }
        bool lz4 = model->now == CB_CODEC_LZ4;
        m->now_ns += batch * wall_of(m, model->now);
        m->cpu_ns += batch * (m->work_ns + (lz4 ? m->compress_ns : 0));
        m->busy_ns += batch * m->disk_ns / (lz4 ? m->ratio : 1);
        cbi_codec_note_write(model, batch_bytes, (uint64_t)m->now_ns, (uint64_t)m->cpu_ns,
                             (uint64_t)m->busy_ns);
    }
    return packed / (mib * 2);
}

static const machine records_on_a_fast_disk = {
    .cpus = 2, .disk_ns = 0.67, .work_ns = 0.8, .compress_ns = 1.3, .ratio = 2.6};

static void test_a_fast_disk_gets_raw_frames_and_not_one_trial(void **state) {
    (void)state;
    machine m = records_on_a_fast_disk;
    cbi_codec_model model;
    cbi_codec_init(&model, CB_CODEC_AUTO, 2);
    assert_true(spill(&model, &m, 4096) == 0);
    m.disk_ns = 1.0;
    assert_true(spill(&model, &m, 4096) == 0);
}

static void test_a_slow_disk_gets_lz4_soon_and_keeps_it(void **state) {
    (void)state;
    machine m = records_on_a_fast_disk;
    m.disk_ns = 1 / 0.150;
    cbi_codec_model model;
    cbi_codec_init(&model, CB_CODEC_AUTO, 2);
    (void)spill(&model, &m, 100);
    assert_int_equal(model.now, CB_CODEC_LZ4);
    assert_true(spill(&model, &m, 8192) > 0.94);
}

static void test_a_disk_that_becomes_slow_gets_lz4(void **state) {
    (void)state;
    machine m = records_on_a_fast_disk;
    cbi_codec_model model;
    cbi_codec_init(&model, CB_CODEC_AUTO, 2);
    assert_true(spill(&model, &m, 2048) == 0);
    m.disk_ns = 1 / 0.150;
    (void)spill(&model, &m, 128);
    assert_true(spill(&model, &m, 1024) > 0.9);
    m.disk_ns = 0.67;
    (void)spill(&model, &m, 17 * 32);
    assert_true(spill(&model, &m, 1024) < 0.1);
}

/* The formula believes in two cores; somebody else has one and a half of them. */
static void test_a_trial_finds_out_that_the_cores_are_not_ours(void **state) {
    (void)state;
    machine m = records_on_a_fast_disk;
    m.cpus = 0.5;
    m.disk_ns = 2.2;
    cbi_codec_model model;
    cbi_codec_init(&model, CB_CODEC_AUTO, 2);
    double packed = spill(&model, &m, 4096);
    assert_true(packed > 0); /* it was tried */
    assert_true(packed < 0.06);
}

static void test_what_does_not_compress_is_never_tried(void **state) {
    (void)state;
    machine m = records_on_a_fast_disk;
    m.disk_ns = 20;
    m.ratio = 1;
    cbi_codec_model model;
    cbi_codec_init(&model, CB_CODEC_AUTO, 2);
    assert_true(spill(&model, &m, 1024) == 0);
}

static void test_orders_are_obeyed(void **state) {
    (void)state;
    machine m = records_on_a_fast_disk;
    cbi_codec_model model;
    cbi_codec_init(&model, CB_CODEC_LZ4, 2);
    assert_true(spill(&model, &m, 1024) == 1);
    m.disk_ns = 20;
    cbi_codec_init(&model, CB_CODEC_NONE, 2);
    assert_true(spill(&model, &m, 1024) == 0);
    assert_false(cbi_codec_wants_sample(&model));
}

static void test_empty_batches_say_nothing(void **state) {
    (void)state;
    cbi_codec_model model;
    cbi_codec_init(&model, CB_CODEC_LZ4, 2);
    cbi_codec_note_sample(&model, 0, 4096, 1000);
    assert_true(cbi_codec_ratio(&model) == 2);
    cbi_codec_note_sample(&model, 3000, 1000, 1000);
    cbi_codec_note_sample(&model, 0, 4096, 1000);
    assert_true(cbi_codec_ratio(&model) == 3);
}

static void test_the_prediction_is_the_slower_of_disk_and_cores(void **state) {
    (void)state;
    cbi_codec_figures f = {
        .cpus = 2, .wall_ns = 6.7, .busy_ns = 6.7, .cpu_ns = 0.8, .ratio = 2.6, .compress_ns = 1.3};
    assert_true(cbi_codec_predict_lz4(&f) > 2.5 && cbi_codec_predict_lz4(&f) < 2.6);
    f.wall_ns = f.busy_ns = 0.7;
    assert_true(cbi_codec_predict_lz4(&f) > 1.04 && cbi_codec_predict_lz4(&f) < 1.06);
}

static void test_padding_is_left_out_as_soon_as_a_sample_has_shown_it(void **state) {
    (void)state;
    machine m = records_on_a_fast_disk;
    cbi_codec_model model;
    cbi_codec_init(&model, CB_CODEC_AUTO, 2);
    assert_true(cbi_codec_wants_sample(&model));
    cbi_codec_note_light(&model, CB_CODEC_DELTA, 0, 32768, 16384);
    assert_int_equal(model.now, CB_CODEC_DELTA);
    assert_true(cbi_codec_ratio(&model) > 1.99);
    m.ratio = 1.3; /* of lz4 beyond delta: never worth it here */
    assert_true(spill(&model, &m, 1024) == 0);
    assert_int_equal(model.now, CB_CODEC_DELTA);
    for (int i = 0; i < 9; i++) { /* the padding ends */
        cbi_codec_note_light(&model, CB_CODEC_DELTA, 0, 32768, 36864);
    }
    assert_int_equal(model.now, CB_CODEC_NONE);
}

static void test_text_without_padding_stays_raw(void **state) {
    (void)state;
    cbi_codec_model model;
    cbi_codec_init(&model, CB_CODEC_AUTO, 2);
    cbi_codec_note_light(&model, CB_CODEC_DELTA, 0, 32768, 30000);
    cbi_codec_note_light(&model, CB_CODEC_DELTA, 0, 0, 0);
    assert_int_equal(model.now, CB_CODEC_NONE);
    cbi_codec_init(&model, CB_CODEC_LZ4, 2);
    cbi_codec_note_light(&model, CB_CODEC_DELTA, 0, 32768, 1000);
    assert_int_equal(model.now, CB_CODEC_LZ4);
    cbi_codec_init(&model, CB_CODEC_DELTA, 2);
    cbi_codec_note_light(&model, CB_CODEC_DELTA, 0, 32768, 36000);
    assert_int_equal(model.now, CB_CODEC_DELTA); /* as asked for */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_fast_disk_gets_raw_frames_and_not_one_trial),
        cmocka_unit_test(test_a_slow_disk_gets_lz4_soon_and_keeps_it),
        cmocka_unit_test(test_a_disk_that_becomes_slow_gets_lz4),
        cmocka_unit_test(test_a_trial_finds_out_that_the_cores_are_not_ours),
        cmocka_unit_test(test_what_does_not_compress_is_never_tried),
        cmocka_unit_test(test_orders_are_obeyed),
        cmocka_unit_test(test_empty_batches_say_nothing),
        cmocka_unit_test(test_the_prediction_is_the_slower_of_disk_and_cores),
        cmocka_unit_test(test_padding_is_left_out_as_soon_as_a_sample_has_shown_it),
        cmocka_unit_test(test_text_without_padding_stays_raw),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
