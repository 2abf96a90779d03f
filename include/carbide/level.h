/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CARBIDE_LEVEL_H
#define CARBIDE_LEVEL_H

#include "carbide/allocator.h"

CB_EXTERN_C_BEGIN

/**
 * Where a block may lie, in what form, how often (Spark: StorageLevel): four flags and a count of
 * replicas. The flags' values and the two-byte form are Spark's.
 */
typedef uint16_t cb_level;

enum {
    CB_LEVEL_IS_DESERIALISED = 1, /**< in memory as the caller's records, not as bytes */
    CB_LEVEL_IN_OFF_HEAP = 2,     /**< its memory is off-heap */
    CB_LEVEL_IN_MEMORY = 4,
    CB_LEVEL_ON_DISK = 8,
    CB_LEVEL_FLAGS = 15,
    CB_LEVEL_REPLICAS_MAX = 39
};

/** Any combination; flags are CB_LEVEL_* joined by |. */
#define CB_LEVEL(flags, replicas) ((cb_level)((unsigned)(flags) | (unsigned)(replicas) << 8))

/* The named ones of Spark. */
#define CB_LEVEL_NONE CB_LEVEL(0, 1)
#define CB_LEVEL_DISK_ONLY CB_LEVEL(CB_LEVEL_ON_DISK, 1)
#define CB_LEVEL_DISK_ONLY_2 CB_LEVEL(CB_LEVEL_ON_DISK, 2)
#define CB_LEVEL_DISK_ONLY_3 CB_LEVEL(CB_LEVEL_ON_DISK, 3)
#define CB_LEVEL_MEMORY_ONLY CB_LEVEL(CB_LEVEL_IN_MEMORY | CB_LEVEL_IS_DESERIALISED, 1)
#define CB_LEVEL_MEMORY_ONLY_2 CB_LEVEL(CB_LEVEL_IN_MEMORY | CB_LEVEL_IS_DESERIALISED, 2)
#define CB_LEVEL_MEMORY_ONLY_SER CB_LEVEL(CB_LEVEL_IN_MEMORY, 1)
#define CB_LEVEL_MEMORY_ONLY_SER_2 CB_LEVEL(CB_LEVEL_IN_MEMORY, 2)
#define CB_LEVEL_MEMORY_AND_DISK                                                                   \
    CB_LEVEL(CB_LEVEL_ON_DISK | CB_LEVEL_IN_MEMORY | CB_LEVEL_IS_DESERIALISED, 1)
#define CB_LEVEL_MEMORY_AND_DISK_2                                                                 \
    CB_LEVEL(CB_LEVEL_ON_DISK | CB_LEVEL_IN_MEMORY | CB_LEVEL_IS_DESERIALISED, 2)
#define CB_LEVEL_MEMORY_AND_DISK_SER CB_LEVEL(CB_LEVEL_ON_DISK | CB_LEVEL_IN_MEMORY, 1)
#define CB_LEVEL_MEMORY_AND_DISK_SER_2 CB_LEVEL(CB_LEVEL_ON_DISK | CB_LEVEL_IN_MEMORY, 2)
#define CB_LEVEL_OFF_HEAP CB_LEVEL(CB_LEVEL_ON_DISK | CB_LEVEL_IN_MEMORY | CB_LEVEL_IN_OFF_HEAP, 1)

static inline unsigned cb_level_replicas(cb_level level) {
    return level >> 8;
}

/** The memory it takes (Spark: memoryMode). */
static inline cb_mode cb_level_mode(cb_level level) {
    return level & CB_LEVEL_IN_OFF_HEAP ? CB_OFF_HEAP : CB_HEAP;
}

/** Whether anything can be stored at that level: memory or disk, at least one replica. NONE is not.
 */
static inline bool cb_level_is_valid(cb_level level) {
    return (level & (CB_LEVEL_IN_MEMORY | CB_LEVEL_ON_DISK)) != 0 && level >> 8 > 0;
}

/** Whether such a level may be made at all: CB_EINVAL names the rule that it breaks (fewer
 *  than 40 replicas, no other flags). Deserialised off-heap blocks are allowed, as in Spark 4: the
 *  caller's records, counted off-heap. */
CB_API CB_MUST_USE cb_status cb_level_check(cb_level level, cb_error *err);

/** "MEMORY_AND_DISK_SER_2"; NULL when it has no name of its own. A constant. */
CB_API const char *cb_level_name(cb_level level);

enum { CB_LEVEL_TEXT_MAX = 64 };

/** "StorageLevel(disk, memory, offheap, deserialized, 2 replicas)", terminated (Spark: toString).
 */
CB_API void cb_level_format(cb_level level, char text[CB_LEVEL_TEXT_MAX]);

/** "Disk Memory (off heap) Serialized 1x Replicated" (Spark: description). */
CB_API void cb_level_describe(cb_level level, char text[CB_LEVEL_TEXT_MAX]);

/** Reads a name, or what cb_level_format writes. CB_EINVAL: neither, or not a level that may be. */
CB_API CB_MUST_USE cb_status cb_level_parse(const char *text, cb_level *level, cb_error *err);

/** Two bytes, flags and replicas (Spark: writeExternal and readExternal). CB_EINVAL as for
 *  cb_level_check. */
CB_API void cb_level_encode(cb_level level, uint8_t bytes[2]);
CB_API CB_MUST_USE cb_status cb_level_decode(const uint8_t bytes[2], cb_level *level,
                                             cb_error *err);

CB_EXTERN_C_END

#endif
