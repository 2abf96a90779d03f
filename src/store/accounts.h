/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_ACCOUNTS_H
#define CBI_ACCOUNTS_H

#include "base/sys.h"
#include "carbide/manager.h"
#include "store/lru.h"

/*
 * Blocks as the manager sees them: entries that hold storage memory, in order of use, and a
 * cb_store that evicts them by the rules of lru.h. What a block *is* the owner knows; it is asked
 * to let one go, and may say no (a block that cannot be written to disk stays). Any thread.
 */

/** Lets the block go for good; false: it stays. No lock is held. The entry is out of all lists when
 *  it is asked for, and is the callee's when the answer is true. */
typedef bool (*cbi_accounts_drop_fn)(void *ctx, cbi_lru_entry *entry);

typedef struct cbi_accounts {
    cb_manager *manager;
    cbi_mutex mutex; /* guards what follows; nothing is called with it held */
    cbi_lru lru;
    cbi_accounts_drop_fn drop;
    void *ctx;
} cbi_accounts;

/** Becomes the manager's store; before the first storage request. */
void cbi_accounts_init(cbi_accounts *accounts, cb_manager *manager, cbi_accounts_drop_fn drop,
                       void *ctx);
/** No entries are left. The manager has no store then. */
void cbi_accounts_fini(cbi_accounts *accounts);

/** Acquires entry->bytes and makes it the newest; errors as cb_manager_acquire_storage. */
CB_MUST_USE cb_status cbi_accounts_add(cbi_accounts *accounts, cbi_lru_entry *entry, cb_error *err);

/** Bytes to unroll a block of that data set with; cb_manager_release_unroll gives them back. */
CB_MUST_USE cb_status cbi_accounts_acquire_unroll(cbi_accounts *accounts, cb_mode mode,
                                                  uint64_t bytes, int64_t data_set, cb_error *err);

/** Takes it out and gives its bytes back. false: it is being evicted (or is not in) and not the
 *  caller's any more. */
bool cbi_accounts_remove(cbi_accounts *accounts, cbi_lru_entry *entry);

/** A reader comes (the newest now) and goes. false: it is being evicted. */
bool cbi_accounts_pin(cbi_accounts *accounts, cbi_lru_entry *entry);
void cbi_accounts_unpin(cbi_accounts *accounts, cbi_lru_entry *entry);

#endif
