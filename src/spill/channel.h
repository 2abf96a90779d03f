/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_CHANNEL_H
#define CBI_CHANNEL_H

#include "carbide/channel.h"

/** Nothing was written, and nobody is about to. */
bool cbi_channel_is_empty(const cb_channel *channel);

/**
 * For a writer that was just opened with segments that are written already, each up to its limit:
 * they go to disk in their order. *segment is the first that can be written again.
 */
cb_status cbi_channel_writer_adopt(cb_channel_writer *writer, const uint32_t *limits,
                                   cb_segment *segment, cb_error *err);

#endif
