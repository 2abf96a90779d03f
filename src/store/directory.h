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

#endif
