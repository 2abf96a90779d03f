/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_BLOCK_SHARED_H
#define CBI_BLOCK_SHARED_H

#include "base/sys.h"
#include "carbide/store.h"
#include "store/claim.h"

/** cb_blocks_get_or_compute among the executors of a directory: where the block comes from. In the
 *  asker's memory, who is the block's writer in his own store. See the essay in block_shared.c. */

enum { CBI_SHARED_BAD_MAX = 8 };

typedef struct cbi_shared {
    const cb_block_lineage *lineage;
    cbi_claim claim;
    uint64_t life;                    /* of this executor, when it claimed */
    uint64_t at;                      /* who is being read; 0: nobody */
    uint64_t bad[CBI_SHARED_BAD_MAX]; /* lives of those who broke off */
    size_t bad_count;
    /* while it is being computed */
    cb_blocks *blocks;
    const char *name;
    cbi_thread renewer;
    cbi_mutex mutex; /* guards claim and computed */
    cbi_cond wake;
    bool renews, computed;
} cbi_shared;

/** Whether others are asked at all. */
bool cbi_shared_is_wanted(const cb_blocks *blocks, const cb_block_lineage *lineage);
void cbi_shared_init(cbi_shared *shared, const cb_block_lineage *lineage);
/** Waits until the block can be read elsewhere (`source`), or is to be computed here (*computes).
 *  CB_EDEADLINE: the task's. Then, whatever came of it, cbi_shared_end. */
cb_status cbi_shared_ask(cbi_shared *shared, cb_block_task *task, const char *name,
                         cb_record_source *source, bool *computes, cb_error *err);
/** Around the computation. */
void cbi_shared_renew_begin(cbi_shared *shared, cb_blocks *blocks, const char *name);
void cbi_shared_renew_end(cbi_shared *shared);
/** It is stored here, or not; the claim, if there is one, is let go. It may be asked again. */
void cbi_shared_end(cbi_shared *shared, const cb_blocks *blocks, const char *name, bool computes,
                    bool stored);

#endif
