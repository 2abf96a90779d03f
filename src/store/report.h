/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_REPORT_H
#define CBI_REPORT_H

#include "carbide/store.h"

/** A store as an executor of a directory. See the essay in report.c. */
typedef struct cbi_reporting {
    /* immutable while anybody else is inside */
    bool on;
    cb_directory directory;
    cb_executor_entry entry; /* of these: one byte more than may be, for what is too long */
    char name[CB_EXECUTOR_NAME_MAX + 2];
    char address[CB_EXECUTOR_ADDRESS_MAX + 2];
    char host[CB_EXECUTOR_NAME_MAX + 2];
    char rack[CB_EXECUTOR_NAME_MAX + 2];
    /* guarded by the store's lock */
    uint64_t generation; /* 0: it has not entered yet */
    bool entering;       /* somebody does, and tells everything after */
    uint64_t missed;     /* reports that were not taken, and enterings, */
    uint64_t made_up;    /* up to which all was told again */
} cbi_reporting;

/** What a directory is to know of it. */
cb_place cbi_place_of(const cb_block_status *status);

/** Enters, if the options have a directory, and tells of what is there already. Nobody else is
 *  inside. */
cb_status cbi_report_open(cb_blocks *blocks, const cb_blocks_options *options, cb_error *err);
/** After the last one was inside. */
void cbi_report_close(cb_blocks *blocks);
/** What has become of a block; the caller has it for himself. No lock of the store's is held. */
void cbi_report_change(cb_blocks *blocks, const cb_block_status *status);

#endif
