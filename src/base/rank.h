/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_RANK_H
#define CBI_RANK_H

#include "base/base.h"

/*
 * The order in which locks may be taken, checked. Each lock has a rank, and a thread takes only
 * those that stand further down in this list than all it holds; so no two threads can ever wait for
 * each other, whichever way they came. Who breaks that in a build with CARBIDE_DEBUG ends the
 * process at once with the names of both, whether or not anybody else was there to wait for: one
 * run in one thread finds what would take a thousand runs of two. In a release build there is
 * neither rank nor check. ARCHITECTURE.md ("Locks") says what each of them guards.
 */
#define CBI_RANKS(RANK)                                                                            \
    RANK(OUTER, "a lock of who calls the library")                                                 \
    RANK(WEB, "web mutex")                                                                         \
    RANK(LOOK, "look mutex of the directory in Redis")                                             \
    RANK(TIER_END, "mutex of a tier that ends")                                                    \
    RANK(SORT, "sort mutex")                                                                       \
    RANK(JOB, "job mutex")                                                                         \
    RANK(DIVISION, "division mutex")                                                               \
    RANK(SHUFFLE, "shuffle mutex")                                                                 \
    RANK(INPUT, "input mutex")                                                                     \
    RANK(BAD_ROWS, "input mutex of malformed rows")                                                \
    RANK(SINK, "sink mutex")                                                                       \
    RANK(PARTITIONS, "partitions mutex")                                                           \
    RANK(PARTITION, "a partition's lock")                                                          \
    RANK(EXTENTS, "lock of the extents")                                                           \
    RANK(CHANNEL, "lock of a view on disk")                                                        \
    RANK(SPILL, "lock of the spill's figures")                                                     \
    RANK(PLACES, "lock of the spill's places")                                                     \
    RANK(IO, "queue of the I/O threads")                                                           \
    RANK(KEEP, "keep mutex of a store")                                                            \
    RANK(COPIES, "copies mutex")                                                                   \
    RANK(SERVER, "queue of the server")                                                            \
    RANK(STORE, "store lock")                                                                      \
    RANK(REPORT, "report lock of the directory in Redis")                                          \
    RANK(DIRECTORY, "directory lock")                                                              \
    RANK(PACK, "pack lock")                                                                        \
    RANK(CHARGE, "charge mutex of a store")                                                        \
    RANK(SEGMENTS, "segment pool lock")                                                            \
    RANK(MANAGER, "manager lock")                                                                  \
    RANK(ALLOCATOR, "lock of an allocator by itself")                                              \
    RANK(INNER, "a lock under which nothing is called")

typedef enum cbi_rank {
    CBI_RANK_NONE, /* it was not initialised: may not be taken */
#define CBI_RANK_AS_NAME(name, text) CBI_RANK_##name,
    CBI_RANKS(CBI_RANK_AS_NAME)
#undef CBI_RANK_AS_NAME
} cbi_rank;

#ifdef CARBIDE_DEBUG
/** Before the thread takes it. */
void cbi_rank_take(const void *lock, cbi_rank rank);
/** When it gives it away; in any order. */
void cbi_rank_give(const void *lock);
/** How many locks this thread holds. */
unsigned cbi_rank_held(void);
#endif

#endif
