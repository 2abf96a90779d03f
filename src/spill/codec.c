/* SPDX-License-Identifier: Apache-2.0 */
#include "spill/codec.h"

/*
 * Raw or lz4: which gets the work done sooner here and now.
 *
 * Compressing trades CPU time for disk time, and both are shared: the workers that fill segments
 * run on the same cores, the output and the input go over the same disk. So neither "is lz4 faster
 * than the disk" nor "are cores idle" is the question. What is known for a stretch of writing, per
 * byte spilled:
 *
 *     t   wall time                                    (clock)
 *     b   of that, the disk was busy with us           (clock around each request)
 *     u   CPU time of the whole process                (its CPU clock)
 *     r   ratio, c  CPU time to compress one byte      (samples: one frame in 8 MiB while writing
 * raw) P   cores                                        (affinity and cgroup quota)
 *
 * Writing raw took t. With lz4 the disk would have needed b/r where it needed b, and the cores
 * would have had u + c to do:
 *
 *     T(lz4) = max(t - b + b/r, (u + c) / P)
 *
 * and, when it is lz4 that is running, the same backwards: T(raw) = max(t - b + b*r, (u - c) / P).
 * The other one is taken when it promises to be a tenth faster; the tenth keeps noise from flapping
 * it. Reading back profits from lz4 as well (lz4 decompresses four to five times as fast as it
 * compresses); that is left out, so that in doubt nothing is compressed: the disk's figure is the
 * least certain of them all.
 *
 * What it decides on this project's measuring machine (2 cores, u = 0.8 ns, c = 1.3 ns, r = 2.6):
 * raw at 1.5 GB/s (0.67 ns raw against 1.05), raw at 1 GB/s, lz4 from about 0.85 GB/s down; at 150
 * MB/s 6.7 ns against 2.6.
 *
 * A window is 16 MiB; the first decision falls there. Nothing depends on it but time: each frame
 * carries its codec.
 */

enum { WINDOW_BYTES = 16 * 1024 * 1024, SAMPLE_EVERY_BYTES = 8 * 1024 * 1024 };
static const double ADVANTAGE = 0.9;

static double larger(double a, double b) {
    return a > b ? a : b;
}

cb_codec cbi_codec_choose(const cbi_codec_figures *f) {
    if (f->raw_bytes <= 0 || f->wall_ns <= 0 || f->ratio <= 1.0) {
        return CB_CODEC_NONE; /* nothing known, or nothing to gain */
    }
    double t = f->wall_ns / f->raw_bytes;
    double b = f->busy_ns / f->raw_bytes;
    double u = f->cpu_ns / f->raw_bytes;
    bool packed = f->now == CB_CODEC_LZ4;
    double other_b = packed ? b * f->ratio : b / f->ratio;
    double other_u = packed ? larger(u - f->compress_ns, 0) : u + f->compress_ns;
    double other_t = larger(t - b + other_b, other_u / f->cpus);
    bool change = other_t < t * ADVANTAGE;
    return packed == change ? CB_CODEC_NONE : CB_CODEC_LZ4;
}

static void begin_window(cbi_codec_model *model, uint64_t now_ns, uint64_t cpu_ns,
                         uint64_t busy_ns) {
    model->window_wall_ns = now_ns;
    model->window_cpu_ns = cpu_ns;
    model->window_busy_ns = busy_ns;
    model->window_raw_bytes = 0;
}

void cbi_codec_init(cbi_codec_model *model, cb_codec wanted) {
    *model = (cbi_codec_model){
        .wanted = wanted,
        .now = wanted == CB_CODEC_LZ4 ? CB_CODEC_LZ4 : CB_CODEC_NONE,
        .cpus = cbi_sys_cpus(),
        .since_sample_bytes = SAMPLE_EVERY_BYTES,
    };
}

void cbi_codec_note_write(cbi_codec_model *model, uint64_t raw_bytes, uint64_t now_ns,
                          uint64_t cpu_ns, uint64_t busy_ns) {
    if (!model->started) {
        model->started = true;
        begin_window(model, now_ns, cpu_ns, busy_ns);
        return;
    }
    model->window_raw_bytes += raw_bytes;
    model->since_sample_bytes += raw_bytes;
    if (model->wanted != CB_CODEC_AUTO || model->window_raw_bytes < WINDOW_BYTES) {
        return;
    }
    if (model->sampled_raw > 0 && model->sampled_stored > 0) {
        cbi_codec_figures figures = {
            .now = model->now,
            .cpus = model->cpus,
            .wall_ns = (double)(now_ns - model->window_wall_ns),
            .busy_ns = (double)(busy_ns - model->window_busy_ns),
            .cpu_ns = (double)(cpu_ns - model->window_cpu_ns),
            .raw_bytes = (double)model->window_raw_bytes,
            .ratio = (double)model->sampled_raw / (double)model->sampled_stored,
            .compress_ns = (double)model->sampled_ns / (double)model->sampled_raw,
        };
        model->now = cbi_codec_choose(&figures);
    }
    begin_window(model, now_ns, cpu_ns, busy_ns);
}

void cbi_codec_note_sample(cbi_codec_model *model, uint64_t raw, uint64_t stored, uint64_t ns) {
    enum { MEMORY_BYTES = 4 * 1024 * 1024 };
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

bool cbi_codec_wants_sample(const cbi_codec_model *model) {
    return model->wanted == CB_CODEC_AUTO && model->now == CB_CODEC_NONE &&
           model->since_sample_bytes >= SAMPLE_EVERY_BYTES;
}
