/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CARBIDE_LEDGER_H
#define CARBIDE_LEDGER_H

#include "carbide/manager.h"

CB_EXTERN_C_BEGIN

/*
 * The ledger holds what is neither a page nor a block: code and libraries (the baseline), thread
 * stacks, tables, small objects, the state of codecs. An entry takes its bytes from the execution
 * pool of the manager's own mode, so that
 *
 *     ledger + pools' used + idle pages <= budget
 *
 * holds at every moment, or by as much as cb_manager_debt says when bytes were charged that nobody
 * could refuse.
 */

typedef struct cb_ledger_entry cb_ledger_entry;

/** Answers what an entry holds now, in bytes. Called with no lock held, any thread; must not call
 *  the manager. */
typedef uint64_t (*cb_ledger_measure_fn)(void *ctx);

/**
 * A new entry of 0 bytes. `name` is copied (at most 47 bytes are kept) and appears in the memory
 * tree. With a `measure` function the entry follows it, see cb_ledger_refresh. Owned by the manager
 * until cb_ledger_remove. CB_ENOMEM.
 */
CB_API CB_MUST_USE cb_status cb_ledger_add(cb_manager *manager, const char *name,
                                           cb_ledger_measure_fn measure, void *ctx,
                                           cb_ledger_entry **entry, cb_error *err);

/** Sets what the entry holds. CB_EBUDGET, and nothing changed, when the pools have less free than
 *  it grows by. Never waits, never spills. Any thread. */
CB_API CB_MUST_USE cb_status cb_ledger_set(cb_ledger_entry *entry, uint64_t bytes, cb_error *err);

/** The same for bytes that are there already (a measured baseline): cannot be refused. What does
 *  not fit becomes the manager's debt, which the next releases pay. Any thread. */
CB_API void cb_ledger_force(cb_ledger_entry *entry, uint64_t bytes);

CB_API uint64_t cb_ledger_bytes(const cb_ledger_entry *entry);
CB_API uint64_t cb_ledger_peak(const cb_ledger_entry *entry);

/** Gives the bytes back and forgets the entry. NULL is fine. Not while somebody refreshes the
 *  ledger. */
CB_API void cb_ledger_remove(cb_ledger_entry *entry);

/** A measure function: what the library's own small objects (handles, tables, codecs) hold in this
 *  process. ctx unused. */
CB_API uint64_t cb_ledger_small_objects(void *ctx);

/** Asks every measure function and charges what it says, as cb_ledger_force does. Any thread. */
CB_API void cb_ledger_refresh(cb_manager *manager);

CB_EXTERN_C_END

#endif
