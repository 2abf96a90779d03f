/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_CODEC_H
#define CBI_CODEC_H

#include "spill/spill.h"

/** What one stretch of writing looked like; all of it measured. */
typedef struct cbi_codec_figures {
    cb_codec now; /* NONE or LZ4: what the stretch was written with */
    double cpus;  /* that this process may use */
    double wall_ns;
    double busy_ns;     /* of wall: the disk had at least one request of ours */
    double cpu_ns;      /* of all threads of the process */
    double raw_bytes;   /* that went into temporary files, before compression */
    double ratio;       /* raw / compressed, from samples */
    double compress_ns; /* CPU time to compress one byte, from samples */
} cbi_codec_figures;

/** Which codec would have done that stretch in less time. Pure. */
cb_codec cbi_codec_choose(const cbi_codec_figures *figures);

/** Collects the figures and holds the choice. Guarded by the spill's lock except where said. */
typedef struct cbi_codec_model {
    cb_codec wanted;
    cb_codec now;
    unsigned cpus;
    uint64_t window_wall_ns, window_cpu_ns, window_busy_ns; /* clocks when the window began */
    uint64_t window_raw_bytes;
    bool started; /* the first write begins the first window: what happened before it is none of the
                     disk's business */
    uint64_t since_sample_bytes;
    uint64_t sampled_raw, sampled_stored, sampled_ns;
} cbi_codec_model;

void cbi_codec_init(cbi_codec_model *model, cb_codec wanted);

/** After each batch. busy_ns: the disk's running total. */
void cbi_codec_note_write(cbi_codec_model *model, uint64_t raw_bytes, uint64_t now_ns,
                          uint64_t cpu_ns, uint64_t busy_ns);
/** The result of a compression, asked for or as a sample. */
void cbi_codec_note_sample(cbi_codec_model *model, uint64_t raw, uint64_t stored, uint64_t ns);
/** Is a sample due? (AUTO, writing raw.) */
bool cbi_codec_wants_sample(const cbi_codec_model *model);

#endif
