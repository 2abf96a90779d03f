/* SPDX-License-Identifier: Apache-2.0 */
#include "carbide/monitor.h"
#include "store/blocks.h"

static_assert(CB_LEVEL_FLAGS + 1 <= CB_FIGURES_ROWS_MAX, "there is a row for each level");

void cb_blocks_figures(cb_blocks *b, cb_figures *f) {
    f->has_blocks = true;
    f->level_count = 0;
    cb_blocks_stats_get(b, &f->blocks);
    cbi_lock_take(cbi_blocks_lock_of(b));
    for (unsigned flags = 0; flags <= CB_LEVEL_FLAGS; flags++) {
        const cbi_of_level *l = &b->levels[flags];
        if (l->memory_blocks + l->disk_blocks > 0) {
            f->levels[f->level_count++] = (cb_figures_level){.level = CB_LEVEL(flags, 1),
                                                             .memory_blocks = l->memory_blocks,
                                                             .memory_bytes = l->memory_bytes,
                                                             .disk_blocks = l->disk_blocks,
                                                             .disk_bytes = l->disk_bytes};
        }
    }
    cbi_lock_give(cbi_blocks_lock_of(b));
}
