/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_GROUND_H
#define CBI_GROUND_H

/*
 * What the sort and every job stand on: one manager with the whole budget, one task, the ledger's
 * entries, one pool of segments of which the first are scratch, the spill, and where it puts its
 * files.
 */

#include "base/sys.h"
#include "carbide/ledger.h"
#include "carbide/monitor.h"
#include "carbide/segment.h"
#include "carbide/sort.h"
#include "spill/spill.h"

typedef struct cbi_ground {
    uint64_t baseline; /* resident before anything was done */
    cb_task *lodging;  /* of a manager of somebody else's, which the budget comes from; or NULL */
    cb_manager *manager;
    atomic_bool open; /* manager, task and consumer are whole: others may look */
    cb_task *task;
    cb_consumer *consumer; /* of pages that are there before the plan is */
    cb_segment_pool *pool;
    uint8_t *scratch; /* a run of the pool's segments: buffers of formats, output and spill */
    cbi_spill *spill;
    const char *dir[1]; /* temporary folder when none was named */
    char *dir_text;
} cbi_ground;

/** Sizes of the plan that matter here: scratch is `threads` times `worker`, then `shared`, which
 * begins with the spill's `staging`. Bytes; `segments` beside scratch. */
typedef struct cbi_ground_sizes {
    uint64_t budget;
    unsigned threads, io_threads;
    size_t worker, shared, staging, segment, segments;
    size_t tier; /* of the segments: memory for what is spilled (cbi_spill_options.tier) */
    bool in_memory;
    bool huge_always; /* large pages though everything fits */
} cbi_ground_sizes;

/** What is there to be used when nobody names a budget. */
uint64_t cbi_ground_auto_budget(void);
/** The most that a decoder of compressed input may hold. */
size_t cbi_ground_decoder_bytes(uint64_t budget);
/** A budget with which a decoder that may have `share` of that has `need` bytes, beside the rest of
 * a plan; 0: none. */
uint64_t cbi_ground_decoder_budget(uint64_t need, double share);

/** The budget is what `host` grants, at most *budget; all of it until cbi_ground_fini. */
cb_status cbi_ground_lodge(cbi_ground *g, cb_manager *host, const char *name, uint64_t *budget,
                           cb_error *err);
/** Manager, task, consumer; `name` is borrowed. */
cb_status cbi_ground_open(cbi_ground *g, uint64_t budget, const char *name, cb_error *err);
/** For whoever looks on meanwhile, any thread, from before open until fini: the memory tree; the
 * figures of a status page. */
void cbi_ground_tree(const cbi_ground *g, char *text, size_t bytes);
void cbi_ground_figures_now(const cbi_ground *g, const cb_progress *p, cb_figures *f);
/** Names the folder for temporary files when there is none: CARBIDE_TMPDIR, TMPDIR, the output's
 * own unless that lives in memory, /var/tmp. */
cb_status cbi_ground_temp_dirs(cbi_ground *g, const char *output, const char *const **dirs,
                               size_t *count, cb_error *err);
/** Takes all the memory of the plan and opens the spill. `spill`: folders, limit, codec and
 * allow_memory_fs; the rest is filled in here. */
cb_status cbi_ground_build(cbi_ground *g, const cbi_ground_sizes *sizes, cbi_spill_options spill,
                           cb_error *err);

typedef struct cbi_ground_figures {
    uint64_t accounted_peak_bytes, spilled_bytes, spilled_stored_bytes;
    const char *codec;
    bool direct_temp;
} cbi_ground_figures;
void cbi_ground_measure(cbi_ground *g, cbi_ground_figures *figures);

/** The spill first: it waits for what is under way. Then what used it goes, then the pool. */
void cbi_ground_close_spill(cbi_ground *g);
void cbi_ground_close_pool(cbi_ground *g);
/** The rest. Zeroed is fine for all three. */
void cbi_ground_fini(cbi_ground *g);

/* ---- sentences ---- */

/** There is no plan for a budget: `fixed` is what the program itself takes. */
cb_status cbi_ground_refuse(uint64_t budget, uint64_t fixed, uint64_t least, cb_error *err);
/** A refusal that came from deep below tells of pages; what helps is a budget: `least`. */
void cbi_ground_name_budget(uint64_t budget, uint64_t least, cb_error *err);
cb_status cbi_ground_no_space(uint64_t need, uint64_t bytes_free, const char *dir, cb_error *err);

/* ---- copies of options: strings in one allocation ---- */

/** Bytes for a list with its slots and its end, and for a text (NULL: none). */
size_t cbi_list_bytes(const char *const *list, size_t count);
size_t cbi_text_bytes(const char *text);
/** Both move `at`; lists take count + 1 of the slots. */
const char *cbi_text_copy(char **at, const char *text);
const char *const *cbi_list_copy(const char ***slots, char **at, const char *const *list,
                                 size_t count);

#endif
