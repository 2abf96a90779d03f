/* SPDX-License-Identifier: Apache-2.0 */
#ifndef OPERATOR_KIT_H
#define OPERATOR_KIT_H

/*
 * What the tests of this room share: a stage (a small budget, its segments, a spill over a folder
 * of its own) that partitions and sinks stand on, stored rows, and chance from the kit of the
 * format's tests.
 */

#include "base/alloc.h"
#include "carbide/carbide.h"
#include "format/input_kit.h"
#include "operator/partition.h"
#include "spill/spill.h"

/* ---- layouts ---- */

static const cbi_layout kit_by_row = {.shape = CBI_KEY_ROW, .tie = CBI_TIE_INPUT};
static const cbi_layout kit_encoded = {.shape = CBI_KEY_ENCODED, .tie = CBI_TIE_INPUT};
static const cbi_layout kit_ordered = {
    .shape = CBI_KEY_ENCODED, .tie = CBI_TIE_INPUT, .ordered = true};

static inline cbi_stored kit_stored(const void *key, size_t key_bytes, const void *row,
                                    size_t row_bytes, uint64_t order) {
    return (cbi_stored){.key = key,
                        .row = row,
                        .key_bytes = (uint32_t)key_bytes,
                        .row_bytes = (uint32_t)row_bytes,
                        .order = order};
}

static inline unsigned kit_names_in(const char *folder) {
    char command[TEST_PATH_MAX + 32];
    (void)snprintf(command, sizeof command, "ls -A '%s' | wc -l", folder);
    FILE *pipe = popen(command, "r");
    assert_non_null(pipe);
    unsigned count = 0;
    assert_int_equal(fscanf(pipe, "%u", &count), 1);
    (void)pclose(pipe);
    return count;
}

/* ---- stage ---- */

enum { KIT_SEGMENT = 4096 };

typedef struct stage {
    cb_manager *manager;
    cb_task *task;
    cb_segment_pool *pool;
    cbi_spill *spill;
    size_t segments;
    atomic_bool stop;
    const char *folder;
} stage;

static inline void stage_open(stage *s, size_t segments, uint64_t disk_limit) {
    static const char *folder; /* one a program: every stage must leave it empty */
    if (folder == NULL)
        folder = test_folder();
    *s = (stage){.segments = segments, .folder = folder};
    cb_manager_options options = cb_manager_options_native(segments * KIT_SEGMENT + 64 * CBI_KIB);
    assert_ok(cb_manager_create(&options, &s->manager, NULL));
    cb_task_options task = {.struct_size = sizeof task, .id = 1, .name = "test"};
    assert_ok(cb_task_create(s->manager, &task, &s->task, NULL));
    cb_segment_pool_options pool = {.struct_size = sizeof pool,
                                    .task = s->task,
                                    .name = "segments",
                                    .segment_bytes = KIT_SEGMENT,
                                    .segments_max = segments,
                                    .preallocate = true};
    assert_ok(cb_segment_pool_create(&pool, &s->pool, NULL));
    cbi_spill_options spill = {.dirs = &s->folder,
                               .dir_count = 1,
                               .limit_bytes = disk_limit,
                               .codec = CB_CODEC_NONE,
                               .io_threads = 2,
                               .segment_bytes = KIT_SEGMENT,
                               .allow_memory_fs = true};
    assert_ok(cbi_spill_open(&spill, &s->spill, NULL));
}

/* What waits for the spill goes first, what the spill may still write to afterwards. */
static inline void stage_close(stage *s, cbi_partitions *p) {
    cbi_spill_close(s->spill);
    cbi_partitions_destroy(p);
    assert_int_equal(cb_segment_pool_free_count(s->pool), s->segments);
    cb_segment_pool_destroy(s->pool);
    assert_int_equal(cb_task_end(s->task, NULL, 0), 0);
    cb_manager_destroy(s->manager);
    assert_int_equal(kit_names_in(s->folder), 0);
}

static inline cbi_partitions *stage_partitions(stage *s, uint32_t count, const cbi_layout *layout,
                                               size_t batch) {
    cbi_partitions_options options = {.count = count,
                                      .layout = layout,
                                      .pool = s->pool,
                                      .segment_bytes = KIT_SEGMENT,
                                      .segments_max = s->segments,
                                      .spill = s->spill,
                                      .batch_segments_max = batch,
                                      .low_water = s->segments / 8,
                                      .cancelled = &s->stop};
    cbi_partitions *p = NULL;
    assert_ok(cbi_partitions_create(&options, &p, NULL));
    return p;
}

#endif
