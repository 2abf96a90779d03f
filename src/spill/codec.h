/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_CODEC_H
#define CBI_CODEC_H

#include "spill/spill.h"

enum { CBI_CODEC_WINDOW_BYTES = 32 * 1024 * 1024, CBI_CODEC_SAMPLE_BYTES = 8 * 1024 * 1024 };

/** What one window of writing raw looked like; all of it measured. */
typedef struct cbi_codec_figures {
    double cpus;        /* that this process may use */
    double wall_ns;     /* a byte spilled */
    double busy_ns;     /* of wall: the disk had at least one request of ours */
    double cpu_ns;      /* of all threads of the process */
    double ratio;       /* raw / compressed, from samples */
    double compress_ns; /* to compress one byte, from samples */
} cbi_codec_figures;

/** What the window would have taken a byte with lz4, if nobody else wants the cores. Pure. */
double cbi_codec_predict_lz4(const cbi_codec_figures *figures);

/** Collects the figures and holds the choice. Guarded by its owner; no clock and no lock inside. */
typedef struct cbi_codec_model {
    cb_codec wanted;
    cb_codec now;
    unsigned cpus;
    bool started;  /* the first write begins the first window: what was before it is not spilling */
    bool settling; /* the codec has just changed: the next window begins when what was under way is
                      done */
    bool trying;   /* `now` is on trial for one window */
    uint64_t window_wall_ns, window_cpu_ns, window_busy_ns; /* clocks when the window began */
    uint64_t window_bytes;
    double wall_ns[2];    /* a byte, when it was last measured: light, lz4; 0 = never */
    unsigned until_trial; /* windows */
    unsigned trial_every; /* grows with each trial that failed */
    uint64_t since_sample_bytes;
    uint64_t sampled_raw, sampled_stored, sampled_ns;
    cb_codec light;     /* none, delta or nibble: what is used where lz4 is not */
    double light_ratio; /* of the better of the two, by the last samples; 0 = none yet */
    size_t distance;    /* of rows, for delta; by the last sample */
} cbi_codec_model;

void cbi_codec_init(cbi_codec_model *model, cb_codec wanted, unsigned cpus);

/** After each batch. busy_ns: the disk's running total. */
void cbi_codec_note_write(cbi_codec_model *model, uint64_t raw_bytes, uint64_t now_ns,
                          uint64_t cpu_ns, uint64_t busy_ns);
/** The result of a compression with lz4, asked for or as a sample. */
void cbi_codec_note_sample(cbi_codec_model *model, uint64_t raw, uint64_t stored, uint64_t ns);
/** Is a sample due? Whenever not much was compressed lately and there is a question. */
bool cbi_codec_wants_sample(const cbi_codec_model *model);
/** What the light codec that suits it makes of a sample; may change `now` among light ones.
 * `distance` is for delta: that of its rows (delta.h). */
void cbi_codec_note_light(cbi_codec_model *model, cb_codec light, size_t distance, uint64_t raw,
                          uint64_t stored);
/** Raw bytes for each that `now` stores, as far as is known. */
double cbi_codec_ratio(const cbi_codec_model *model);
/** "none", "delta", "nibble", "lz4". */
const char *cbi_codec_name(cb_codec codec);

#endif
