/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CARBIDE_BLOCK_H
#define CARBIDE_BLOCK_H

#include "carbide/level.h"

CB_EXTERN_C_BEGIN

/**
 * Names of blocks (Spark: BlockId). A block is known by its name, and names of the forms below mean
 * something to the store: rdd_2_7 is partition 7 of data set 2, and blocks of one data set never
 * push each other out. Any other name of 1 to CB_BLOCK_NAME_MAX bytes will do for a block without
 * kin.
 */
#define CB_BLOCK_KIND_MAP(X)                                                                       \
    X(CB_BLOCK_RDD, "rdd_%i_%i")                                                                   \
    X(CB_BLOCK_SHUFFLE, "shuffle_%i_%l_%i")                                                        \
    X(CB_BLOCK_SHUFFLE_BATCH, "shuffle_%i_%l_%i_%i")                                               \
    X(CB_BLOCK_SHUFFLE_DATA, "shuffle_%i_%l_%i.data")                                              \
    X(CB_BLOCK_SHUFFLE_INDEX, "shuffle_%i_%l_%i.index")                                            \
    X(CB_BLOCK_SHUFFLE_CHECKSUM, "shuffle_%i_%l_%i.checksum")                                      \
    X(CB_BLOCK_SHUFFLE_PUSH, "shufflePush_%i_%i_%i_%i")                                            \
    X(CB_BLOCK_SHUFFLE_MERGED, "shuffleMerged_%i_%i_%i")                                           \
    X(CB_BLOCK_SHUFFLE_MERGED_DATA, "shuffleMerged_%w_%i_%i_%i.data")                              \
    X(CB_BLOCK_SHUFFLE_MERGED_INDEX, "shuffleMerged_%w_%i_%i_%i.index")                            \
    X(CB_BLOCK_SHUFFLE_MERGED_META, "shuffleMerged_%w_%i_%i_%i.meta")                              \
    X(CB_BLOCK_SHUFFLE_CHUNK, "shuffleChunk_%i_%i_%i_%i")                                          \
    X(CB_BLOCK_BROADCAST, "broadcast_%l%f")                                                        \
    X(CB_BLOCK_TASK_RESULT, "taskresult_%l")                                                       \
    X(CB_BLOCK_STREAM, "input-%i-%l")                                                              \
    X(CB_BLOCK_PYTHON_STREAM, "python-stream-%i-%l")                                               \
    X(CB_BLOCK_TEMP_LOCAL, "temp_local_%h")                                                        \
    X(CB_BLOCK_TEMP_SHUFFLE, "temp_shuffle_%h")                                                    \
    X(CB_BLOCK_TEST_LOG, "test_log_%l_%s")                                                         \
    X(CB_BLOCK_TEST, "test_%s")                                                                    \
    X(CB_BLOCK_CACHE, "cache_%s")

typedef enum cb_block_kind {
    CB_BLOCK_OTHER = 0, /**< of no form: just a name */
#define CB_BLOCK_KIND_ENUM(kind, form) kind,
    CB_BLOCK_KIND_MAP(CB_BLOCK_KIND_ENUM)
#undef CB_BLOCK_KIND_ENUM
        CB_BLOCK_KIND_COUNT
} cb_block_kind;

enum { CB_BLOCK_NAME_MAX = 255, CB_BLOCK_NUMBERS_MAX = 4 };

/** A name taken apart: its numbers and its piece of text, in the order of the form. */
typedef struct cb_block_id {
    cb_block_kind kind;
    uint64_t numbers[CB_BLOCK_NUMBERS_MAX];
    const char *text; /**< borrowed; not terminated: text_bytes long. "" where there is none */
    size_t text_bytes;
} cb_block_id;

/** Takes a name of one of the forms apart; id->text is borrowed from `name`. CB_EINVAL: it is of
 *  none (Spark: UnrecognizedBlockId), or a number is too large for its place. */
CB_API CB_MUST_USE cb_status cb_block_id_parse(const char *name, cb_block_id *id, cb_error *err);

/** The name, terminated. CB_EINVAL: not a kind that has a form, or longer than
 *  CB_BLOCK_NAME_MAX. */
CB_API CB_MUST_USE cb_status cb_block_id_format(const cb_block_id *id,
                                                char name[CB_BLOCK_NAME_MAX + 1], cb_error *err);

/** "rdd_SET_PARTITION" for a partition of a data set: the name that is needed most. */
CB_API void cb_block_name_rdd(uint32_t data_set, uint32_t partition,
                              char name[CB_BLOCK_NAME_MAX + 1]);

CB_EXTERN_C_END

#endif
