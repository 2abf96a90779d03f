/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_DIRECTORY_H
#define CBI_DIRECTORY_H

#include "base/base.h"
#include "carbide/directory.h"

/** Nanoseconds; never goes back. */
typedef uint64_t (*cbi_clock_fn)(void *ctx);

/** Another clock than the system's, for tests that make time themselves. Before the first call of
 *  the interface. */
void cbi_local_directory_clock(cb_local_directory *directory, cbi_clock_fn clock, void *ctx);

/* ---- what all directories do with executors ---- */

/** What is known of who enters before it reports anything. CB_EINVAL: a text is too long. */
cb_status cbi_directory_view(const cb_executor_entry *entry, cb_executor_view *view, cb_error *err);

/** Enters the view among the `found` there are, those with the most room first; with more than
 *  `max` the last one falls out. */
void cbi_directory_insert(cb_executor_view *views, size_t max, size_t found,
                          const cb_executor_view *view);

#endif
