/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_ACCOUNTS_H
#define CBI_ACCOUNTS_H

#include "base/lock.h"
#include "carbide/manager.h"
#include "store/lru.h"

/*
 * Blocks as the manager sees them: entries that hold storage memory, in order of use, and a
 * cb_store that evicts them by the rules of lru.h. What a block *is* the owner knows; it is asked
 * to let one go, and may say no (a block that cannot be written to disk stays). Any thread.
 *
 * The lock is the owner's too: what it knows of a block (its place in the index, who reads it) and
 * what is known here change together. Functions marked [locked] are called with it held.
 */

/** Lets the block go for good; false: it stays. No lock is held. The entry is out of all lists when
 *  it is asked for, and is the callee's when the answer is true. */
typedef bool (*cbi_accounts_drop_fn)(void *ctx, cbi_lru_entry *entry);

/** [locked] It stays, or was only marked: whoever waits for it may look again. */
typedef void (*cbi_accounts_stay_fn)(void *ctx, cbi_lru_entry *entry);

typedef struct cbi_accounts {
    cb_manager *manager;
    cbi_lock lock; /* guards what follows */
    cbi_lru lru;
    uint64_t evicted; /* entries that left */
    cbi_accounts_drop_fn drop;
    cbi_accounts_stay_fn stay; /* NULL: nobody waits */
    /* Letting go may mean writing: by several threads, then, whose stacks are counted here. NULL:
     * by one. */
    _Atomic int64_t *overhead;
    void *ctx;
} cbi_accounts;

/** Becomes the manager's store; before the first storage request. */
void cbi_accounts_init(cbi_accounts *accounts, cb_manager *manager, cbi_accounts_drop_fn drop,
                       void *ctx);
/** No entries are left. The manager has no store then. */
void cbi_accounts_fini(cbi_accounts *accounts);

/** Acquires entry->bytes and makes it the newest; errors as cb_manager_acquire_storage. */
CB_MUST_USE cb_status cbi_accounts_add(cbi_accounts *accounts, cbi_lru_entry *entry, cb_error *err);

/** [locked] The same for one whose bytes are acquired already; its pins are as the caller set them.
 */
void cbi_accounts_enter(cbi_accounts *accounts, cbi_lru_entry *entry);
/** [locked] Takes it out; the caller gives its bytes back later, without the lock. */
void cbi_accounts_leave(cbi_accounts *accounts, cbi_lru_entry *entry);

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
