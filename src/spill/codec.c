/* SPDX-License-Identifier: Apache-2.0 */
#include "spill/codec.h"

/*
 * Light (raw, delta or nibble) or lz4: which gets the work done sooner here and now.
 *
 * Compressing trades CPU time for disk time, and both are shared: the workers that fill segments
 * run on the same cores, input and output go over the same disk, other processes want both. So
 * neither "is lz4 faster than the disk" nor "is a core idle" is the question, and what cannot be
 * known beforehand is measured by trying.
 *
 * Writing goes on in windows of 32 MiB, and each window's wall time a byte is what counts. A trial
 * is one window with the other codec, next to one with this one, under the same load; the other one
 * stays if it was a tenth faster. On a disk of 1 GB/s a trial that fails costs some 20 ms; after
 * each the next one waits twice as long (4 windows to 256), since noise can spoil one.
 *
 * lz4 is not even tried when it cannot win. For a raw window there are, per byte spilled:
 *
 *     t  wall time                                 b  of that, the disk was busy with us
 *     u  CPU time of the whole process             P  cores (affinity and cgroup quota)
 *     r  ratio, c  time to compress one byte       (samples: 32 KiB in every 8 MiB)
 *
 * With lz4 the disk needs b/r where it needed b, and the cores have u + c to do, so at best
 *
 *     T(lz4) = max(t - b + b/r, (u + c) / P)
 *
 * With u = 0.8 ns, c = 1.3 ns, r = 2.6 on 2 cores (records of the sort benchmark on the machine
 * this was written on) that is never tried from 0.86 GB/s up (1.05 ns), and promises 2.6 ns for 6.7
 * at 150 MB/s. What the formula does not see is a core that belongs to somebody else: it was first
 * used alone, and chose lz4 on a busy machine where raw was twice as fast. Hence the trial.
 *
 * Measured with a disk throttled to 150 MB/s (bench/spill, 768 MiB of records, r = 1.85, a busy
 * machine): raw 5.3 s, lz4 3.3 s, auto 3.2 to 3.4 s; to 600 MB/s: raw 1.3 s, lz4 3.4 s, auto 1.3 s.
 *
 * Delta (delta.c) and nibble (nibble.c) are no question of time: they run at memory speed. The one
 * that makes less of a sample takes the place of raw wherever samples become a fifth smaller by it,
 * and all that is said above of raw holds for it.
 *
 * Reading back profits, too (lz4 decompresses four to five times as fast as it compresses); that is
 * left out, so that in doubt nothing is compressed. Nothing depends on the choice but time: each
 * frame carries its codec.
 */

enum { TRIAL_EVERY_MIN = 4, TRIAL_EVERY_MAX = 256 };
static const double ADVANTAGE = 0.9;

static double larger(double a, double b) {
    return a > b ? a : b;
}

double cbi_codec_predict_lz4(const cbi_codec_figures *f) {
    double disk = f->wall_ns - f->busy_ns + f->busy_ns / f->ratio;
    double cores = (f->cpu_ns + f->compress_ns) / f->cpus;
    return larger(disk, cores);
}

void cbi_codec_init(cbi_codec_model *model, cb_codec wanted, unsigned cpus) {
    *model = (cbi_codec_model){
        .wanted = wanted,
        .now = wanted == CB_CODEC_AUTO ? CB_CODEC_NONE : wanted,
        .light = wanted == CB_CODEC_DELTA || wanted == CB_CODEC_NIBBLE ? wanted : CB_CODEC_NONE,
        .cpus = cpus,
        .trial_every = TRIAL_EVERY_MIN,
        .since_sample_bytes = CBI_CODEC_SAMPLE_BYTES,
    };
}

static unsigned slot_of(cb_codec codec) {
    return codec == CB_CODEC_LZ4 ? 1 : 0;
}

static void change(cbi_codec_model *model) {
    model->now = model->now == CB_CODEC_LZ4 ? model->light : CB_CODEC_LZ4;
    model->settling = true;
}

static bool may_lz4_win(const cbi_codec_model *model, const cbi_codec_figures *figures) {
    if (model->sampled_stored == 0 || model->sampled_stored >= model->sampled_raw) {
        return false; /* nothing is known, or nothing is to be gained */
    }
    return cbi_codec_predict_lz4(figures) < figures->wall_ns * ADVANTAGE;
}

static void end_trial(cbi_codec_model *model) {
    double tried = model->wall_ns[slot_of(model->now)];
    double before = model->wall_ns[1 - slot_of(model->now)];
    model->trying = false;
    if (tried < before * ADVANTAGE) {
        model->trial_every = TRIAL_EVERY_MIN;
    } else {
        change(model);
        model->trial_every = (unsigned)cbi_min(model->trial_every * 2, TRIAL_EVERY_MAX);
    }
    model->until_trial = model->trial_every;
}

static void end_window(cbi_codec_model *model, const cbi_codec_figures *figures) {
    bool packed = model->now == CB_CODEC_LZ4;
    model->wall_ns[slot_of(model->now)] = figures->wall_ns;
    if (model->trying) {
        end_trial(model);
        return;
    }
    /* lz4 that has become slower than raw was before it is put to the test at once. */
    bool doubt = packed && figures->wall_ns > model->wall_ns[0];
    if (model->until_trial > 0 && !doubt) {
        model->until_trial--;
        return;
    }
    if (packed || may_lz4_win(model, figures)) {
        model->trying = true;
        change(model);
    }
}

static double lz4_ratio(const cbi_codec_model *model) {
    if (model->sampled_raw == 0 || model->sampled_stored == 0) {
        return model->wanted == CB_CODEC_LZ4 ? 2 : 1;
    }
    return (double)model->sampled_raw / (double)model->sampled_stored;
}

/* Of what is used where lz4 is not. */
static double light_ratio(const cbi_codec_model *model) {
    return model->light != CB_CODEC_NONE && model->light_ratio > 0 ? model->light_ratio : 1;
}

static void begin_window(cbi_codec_model *model, uint64_t now_ns, uint64_t cpu_ns,
                         uint64_t busy_ns) {
    model->window_wall_ns = now_ns;
    model->window_cpu_ns = cpu_ns;
    model->window_busy_ns = busy_ns;
    model->window_bytes = 0;
}

void cbi_codec_note_write(cbi_codec_model *model, uint64_t raw_bytes, uint64_t now_ns,
                          uint64_t cpu_ns, uint64_t busy_ns) {
    enum { SETTLE_BYTES = 4 * 1024 * 1024 };
    model->since_sample_bytes += raw_bytes;
    if (model->wanted != CB_CODEC_AUTO) {
        return;
    }
    if (!model->started) {
        model->started = true;
        begin_window(model, now_ns, cpu_ns, busy_ns);
        return;
    }
    model->window_bytes += raw_bytes;
    if (model->settling && model->window_bytes >= SETTLE_BYTES) {
        model->settling = false;
        begin_window(model, now_ns, cpu_ns, busy_ns);
    }
    if (model->settling || model->window_bytes < CBI_CODEC_WINDOW_BYTES) {
        return;
    }
    double bytes = (double)model->window_bytes;
    double raw = (double)model->sampled_raw;
    cbi_codec_figures figures = {
        .cpus = model->cpus,
        .wall_ns = (double)(now_ns - model->window_wall_ns) / bytes,
        .busy_ns = (double)(busy_ns - model->window_busy_ns) / bytes,
        .cpu_ns = (double)(cpu_ns - model->window_cpu_ns) / bytes,
        .ratio = lz4_ratio(model) / light_ratio(model),
        .compress_ns = model->sampled_raw > 0 ? (double)model->sampled_ns / raw : 0,
    };
    end_window(model, &figures);
    begin_window(model, now_ns, cpu_ns, busy_ns);
}

void cbi_codec_note_sample(cbi_codec_model *model, uint64_t raw, uint64_t stored, uint64_t ns) {
    enum { MEMORY_BYTES = 4 * 1024 * 1024 };
    if (raw == 0) { /* an empty batch says nothing */
        return;
    }
    if (model->sampled_raw > MEMORY_BYTES) { /* the past counts half as much from here on */
        model->sampled_raw /= 2;
        model->sampled_stored /= 2;
        model->sampled_ns /= 2;
    }
    model->sampled_raw += raw;
    model->sampled_stored += stored;
    model->sampled_ns += ns;
    model->since_sample_bytes = 0;
}

void cbi_codec_note_light(cbi_codec_model *model, cb_codec light, size_t distance, uint64_t raw,
                          uint64_t stored) {
    if (raw == 0) {
        return;
    }
    model->distance = distance;
    double ratio = (double)raw / (double)stored;
    model->light_ratio = model->light_ratio > 0 ? (model->light_ratio + ratio) / 2 : ratio;
    if (model->wanted != CB_CODEC_AUTO) {
        return;
    }
    /* A little more is asked for to begin than to go on: no hopping at the border. */
    double least = model->light != CB_CODEC_NONE ? 1.15 : 1.25;
    model->light = model->light_ratio >= least ? light : CB_CODEC_NONE;
    if (model->now != CB_CODEC_LZ4) {
        model->now = model->light;
    }
}

bool cbi_codec_wants_sample(const cbi_codec_model *model) {
    return model->wanted != CB_CODEC_NONE && model->since_sample_bytes >= CBI_CODEC_SAMPLE_BYTES;
}

double cbi_codec_ratio(const cbi_codec_model *model) {
    switch (model->now) {
        case CB_CODEC_LZ4: return lz4_ratio(model);
        case CB_CODEC_DELTA:
        case CB_CODEC_NIBBLE: return light_ratio(model);
        case CB_CODEC_NONE:
        case CB_CODEC_AUTO: break;
    }
    return 1;
}

const char *cbi_codec_name(cb_codec codec) {
    switch (codec) {
        case CB_CODEC_LZ4: return "lz4";
        case CB_CODEC_DELTA: return "delta";
        case CB_CODEC_NIBBLE: return "nibble";
        case CB_CODEC_NONE:
        case CB_CODEC_AUTO: break;
    }
    return "none";
}
