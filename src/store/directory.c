/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The directory of one process: executors in a list (there are few), blocks in the same index that
 * stores use, each with a list of the places it lies in. One lock; watchers are told after it was
 * given away. Nothing is charged: it belongs to whoever runs it.
 */
#include "store/directory.h"

#include <string.h>

#include "base/alloc.h"
#include "base/sys.h"
#include "store/index.h"

enum { BLOCKS_MAX = 1 << 24 };

/** That an executor computes a block. They are few, and looked for one by one. */
typedef struct claim {
    struct claim *next;
    uint64_t until_ns;
    char block[];
} claim;

typedef struct executor {
    cb_executor_view view;
    struct executor *next;
    claim *claims;
} executor;

typedef struct place {
    struct place *next;
    executor *owner;
    cb_place what;
} place;

struct cb_local_directory {
    cbi_lock lock; /* guards everything below */
    executor *executors;
    cbi_index blocks; /* a node's contents: its places */
    uint64_t generation;
    /* immutable */
    uint64_t lease_ns;
    cb_directory_watch_fn watch;
    void *watch_ctx;
    cbi_clock_fn clock;
    void *clock_ctx;
};

static uint64_t now_of(const cb_local_directory *d) {
    return d->clock(d->clock_ctx);
}

static bool charge_nothing(void *ctx, int64_t bytes, cb_error *err) {
    (void)ctx;
    (void)bytes;
    (void)err;
    return true;
}

static cb_location location_of(const place *p, const executor *owner) {
    cb_location l = {.generation = owner->view.generation, .place = p->what};
    memcpy(l.executor, owner->view.name, sizeof l.executor);
    return l;
}

static void tell(const cb_local_directory *d, const char *block, const cb_location *location) {
    if (d->watch != NULL) {
        d->watch(d->watch_ctx, block, location);
    }
}

/* ---- places ---- */

static cbi_node *find_block(const cb_local_directory *d, const char *block) {
    size_t bytes = strlen(block);
    return cbi_index_find(&d->blocks, block, bytes, cbi_index_hash(block, bytes));
}

static place **find_place(cbi_node *n, const executor *owner) {
    place **at = (place **)&n->contents;
    while (*at != NULL && (*at)->owner != owner) {
        at = &(*at)->next;
    }
    return at;
}

static void count(executor *e, const place *p, bool in) {
    uint64_t sign = in ? 1 : (uint64_t)-1;
    e->view.memory_bytes += sign * p->what.memory_bytes;
    e->view.disk_bytes += sign * p->what.disk_bytes;
    e->view.blocks += sign;
}

/** [locked] Takes a place out; answers the node when it was its last, to be freed without the lock.
 */
static cbi_node *drop_place(cb_local_directory *d, cbi_node *n, place **at, place **dropped) {
    place *p = *at;
    *at = p->next;
    count(p->owner, p, false);
    *dropped = p;
    if (n->contents != NULL) {
        return NULL;
    }
    cbi_index_leave(&d->blocks, n);
    return n;
}

/** [locked] The next of an executor's places, from bucket *at on. */
static cbi_node *next_of(cb_local_directory *d, const executor *e, size_t *at) {
    cbi_node *n = NULL;
    while ((n = cbi_index_scan(&d->blocks, at)) != NULL) {
        for (; n != NULL; n = n->next) {
            if (*find_place(n, e) != NULL) {
                return n;
            }
        }
    }
    return NULL;
}

/** Forgets all that it reported, then itself; it is out of the list. No lock is held. */
static void forget(cb_local_directory *d, executor *e) {
    size_t at = 0;
    cbi_lock_take(&d->lock);
    while (e->view.blocks > 0) {
        cbi_node *n = next_of(d, e, &at);
        at = n != NULL && at > 0 ? at - 1 : 0; /* buckets are joined as blocks leave */
        if (n == NULL) {
            continue;
        }
        char block[CB_BLOCK_NAME_MAX + 1];
        memcpy(block, n->name, (size_t)n->name_bytes + 1);
        place *p = NULL;
        cbi_node *freed = drop_place(d, n, find_place(n, e), &p);
        cbi_lock_give(&d->lock);
        if (freed != NULL) {
            cbi_index_free(&d->blocks, freed);
        }
        p->what = (cb_place){.level = CB_LEVEL_NONE};
        cb_location gone = location_of(p, e);
        cbi_free(p);
        tell(d, block, &gone);
        cbi_lock_take(&d->lock);
    }
    cbi_lock_give(&d->lock);
    for (claim *c = e->claims, *next = NULL; c != NULL; c = next) {
        next = c->next;
        cbi_free(c);
    }
    cbi_free(e);
}

/* ---- executors ---- */

/** [locked] Out of the list: the one of that name, or NULL. */
static executor *take_out(cb_local_directory *d, const char *name) {
    executor **at = &d->executors;
    while (*at != NULL && strcmp((*at)->view.name, name) != 0) {
        at = &(*at)->next;
    }
    executor *e = *at;
    if (e != NULL) {
        *at = e->next;
    }
    return e;
}

static bool has_expired(const cb_local_directory *d, const executor *e) {
    return d->lease_ns > 0 && now_of(d) > e->view.lease_ns;
}

/** [locked] NULL: it is not there (any more). */
static executor *find_executor(const cb_local_directory *d, const char *name, uint64_t generation) {
    executor *e = d->executors;
    while (e != NULL && (e->view.generation != generation || strcmp(e->view.name, name) != 0)) {
        e = e->next;
    }
    return e != NULL && !has_expired(d, e) ? e : NULL;
}

static cb_status unknown(const char *name, uint64_t generation, cb_error *err) {
    return cbi_fail(err, CB_ENOTFOUND,
                    "Executor %.63s is not (any more) in the directory in generation %llu: it "
                    "enters again and reports all it has.",
                    name, (unsigned long long)generation);
}

/** false: too long. */
static bool copy_label(char *to, size_t room, const char *from) {
    size_t bytes = from != NULL ? strnlen(from, room) : 0;
    if (bytes == room) {
        return false;
    }
    if (bytes > 0) {
        memcpy(to, from, bytes);
    }
    to[bytes] = 0;
    return true;
}

cb_status cbi_directory_view(const cb_executor_entry *entry, cb_executor_view *view,
                             cb_error *err) {
    *view = (cb_executor_view){.memory_max = entry->memory_max};
    if (!copy_label(view->name, sizeof view->name, entry->name) || view->name[0] == 0) {
        return cbi_fail(err, CB_EINVAL, "The name of an executor has 1 to %d bytes.",
                        CB_EXECUTOR_NAME_MAX);
    }
    if (!copy_label(view->address, sizeof view->address, entry->address)) {
        return cbi_fail(err, CB_EINVAL, "The address of executor %s has more than %d bytes.",
                        view->name, CB_EXECUTOR_ADDRESS_MAX);
    }
    if (!copy_label(view->host, sizeof view->host, entry->host) ||
        !copy_label(view->rack, sizeof view->rack, entry->rack)) {
        return cbi_fail(err, CB_EINVAL, "Host or rack of executor %s has more than %d bytes.",
                        view->name, CB_EXECUTOR_NAME_MAX);
    }
    return CB_OK;
}

/** [locked] Larger than all before; the clock is for those of a directory before this one. */
static uint64_t next_generation(cb_local_directory *d, uint64_t last, uint64_t now_ns) {
    uint64_t floor = cbi_max(last, d->generation);
    d->generation = cbi_max(floor + 1, now_ns / 1000000);
    return d->generation;
}

static cb_status enter(void *ctx, const cb_executor_entry *entry, uint64_t *generation,
                       cb_error *err) {
    cb_local_directory *d = ctx;
    cb_executor_view view;
    cb_status status = cbi_directory_view(entry, &view, err);
    if (status != CB_OK) {
        return status;
    }
    executor *e = cbi_calloc(1, sizeof *e);
    if (e == NULL) {
        return cbi_fail(err, CB_ENOMEM, "The system has no memory for an executor.");
    }
    e->view = view;
    uint64_t now_ns = now_of(d);
    cbi_lock_take(&d->lock);
    executor *old = take_out(d, view.name);
    e->view.generation = next_generation(d, *generation, now_ns);
    e->view.lease_ns = now_ns + d->lease_ns;
    e->next = d->executors;
    d->executors = e;
    *generation = e->view.generation;
    cbi_lock_give(&d->lock);
    if (old != NULL) {
        forget(d, old);
    }
    return CB_OK;
}

static void leave(void *ctx, const char *name, uint64_t generation) {
    cb_local_directory *d = ctx;
    cbi_lock_take(&d->lock);
    executor *e = find_executor(d, name, generation) != NULL ? take_out(d, name) : NULL;
    cbi_lock_give(&d->lock);
    if (e != NULL) {
        forget(d, e);
    }
}

static cb_status renew(void *ctx, const char *name, uint64_t generation, cb_error *err) {
    cb_local_directory *d = ctx;
    cbi_lock_take(&d->lock);
    executor *e = find_executor(d, name, generation);
    if (e != NULL) {
        e->view.lease_ns = now_of(d) + d->lease_ns;
    }
    cbi_lock_give(&d->lock);
    return e != NULL ? CB_OK : unknown(name, generation, err);
}

uint32_t cb_local_directory_expire(cb_local_directory *d) {
    uint32_t expired = 0;
    for (;;) {
        cbi_lock_take(&d->lock);
        executor *e = d->executors;
        while (e != NULL && !has_expired(d, e)) {
            e = e->next;
        }
        e = e != NULL ? take_out(d, e->view.name) : NULL;
        cbi_lock_give(&d->lock);
        if (e == NULL) {
            return expired;
        }
        forget(d, e);
        expired++;
    }
}

/* ---- reports ---- */

typedef struct spares {
    cbi_node *node;
    place *place;
} spares;

/** [locked] What a report changes; uses or fills `spare`. CB_ENOTFOUND: no such generation. */
static cb_status apply(cb_local_directory *d, const char *name, uint64_t generation,
                       const place *news, spares *spare, cb_location *told) {
    executor *e = find_executor(d, name, generation);
    if (e == NULL) {
        return CB_ENOTFOUND;
    }
    cbi_node *n = find_block(d, spare->node->name);
    place **at = n != NULL ? find_place(n, e) : NULL;
    *told = location_of(news, e);
    if (at != NULL && *at != NULL && news->what.level == CB_LEVEL_NONE) {
        cbi_free(spare->place);
        cbi_node *freed = drop_place(d, n, at, &spare->place);
        if (freed != NULL) { /* two to free: this one without being asked */
            freed->contents = NULL;
            freed->next = spare->node;
            spare->node = freed;
        }
        return CB_OK;
    }
    if (news->what.level == CB_LEVEL_NONE) {
        return CB_OK;
    }
    place *p = at != NULL ? *at : NULL;
    if (p != NULL) {
        count(e, p, false);
    } else {
        if (n == NULL) {
            n = spare->node;
            spare->node = NULL;
            cbi_index_enter(&d->blocks, n);
        }
        p = spare->place;
        spare->place = NULL;
        p->owner = e;
        p->next = n->contents;
        n->contents = p;
    }
    p->what = news->what;
    count(e, p, true);
    return CB_OK;
}

static cb_status report(void *ctx, const char *name, uint64_t generation, const char *block,
                        const cb_place *what, cb_error *err) {
    cb_local_directory *d = ctx;
    const place news = {.what = *what};
    spares spare = {.place = cbi_calloc(1, sizeof(place))};
    if (spare.place == NULL) {
        return cbi_fail(err, CB_ENOMEM, "The system has no memory for a block's place.");
    }
    cb_status status = cbi_index_node(&d->blocks, block, &spare.node, err);
    cb_location told;
    if (status == CB_OK) {
        cbi_lock_take(&d->lock);
        status = apply(d, name, generation, &news, &spare, &told);
        cbi_lock_give(&d->lock);
        status = status == CB_ENOTFOUND ? unknown(name, generation, err) : status;
    }
    for (cbi_node *n = spare.node, *next = NULL; n != NULL; n = next) {
        next = n->next;
        cbi_index_free(&d->blocks, n);
    }
    cbi_free(spare.place);
    if (status == CB_OK) {
        tell(d, block, &told);
    }
    return status;
}

/* ---- looking ---- */

static cb_status locate(void *ctx, const char *block, cb_location *locations, size_t max,
                        size_t *count_out, cb_error *err) {
    cb_local_directory *d = ctx;
    (void)err;
    size_t found = 0;
    cbi_lock_take(&d->lock);
    const cbi_node *n = find_block(d, block);
    for (int pass = 0; pass < 2; pass++) { /* in memory; then the others */
        for (const place *p = n != NULL ? n->contents : NULL; p != NULL; p = p->next) {
            if (((p->what.level & CB_LEVEL_IN_MEMORY) != 0) == (pass == 0) &&
                !has_expired(d, p->owner)) {
                if (found < max) {
                    locations[found] = location_of(p, p->owner);
                }
                found++;
            }
        }
    }
    cbi_lock_give(&d->lock);
    *count_out = found;
    return CB_OK;
}

static uint64_t room_of(const cb_executor_view *v) {
    return v->memory_max > v->memory_bytes ? v->memory_max - v->memory_bytes : 0;
}

void cbi_directory_insert(cb_executor_view *views, size_t max, size_t found,
                          const cb_executor_view *view) {
    size_t at = found < max ? found : max;
    while (at > 0 && room_of(&views[at - 1]) < room_of(view)) {
        if (at < max) {
            views[at] = views[at - 1];
        }
        at--;
    }
    if (at < max) {
        views[at] = *view;
    }
}

static cb_status peers(void *ctx, const char *name, cb_executor_view *views, size_t max,
                       size_t *count_out, cb_error *err) {
    cb_local_directory *d = ctx;
    (void)err;
    size_t found = 0;
    cbi_lock_take(&d->lock);
    for (const executor *e = d->executors; e != NULL; e = e->next) {
        if (strcmp(e->view.name, name) != 0 && !has_expired(d, e)) {
            cbi_directory_insert(views, max, found, &e->view);
            found++;
        }
    }
    cbi_lock_give(&d->lock);
    *count_out = found;
    return CB_OK;
}

/* ---- claims ---- */

/** [locked] Where the link to it is; it may be NULL there. */
static claim **find_claim(executor *e, const char *block) {
    claim **at = &e->claims;
    while (*at != NULL && strcmp((*at)->block, block) != 0) {
        at = &(*at)->next;
    }
    return at;
}

/** [locked] How long another one still has it. */
static uint64_t claimed_for(const cb_local_directory *d, const executor *me, const char *block,
                            uint64_t now_ns) {
    for (executor *e = d->executors; e != NULL; e = e->next) {
        const claim *c = e != me && !has_expired(d, e) ? *find_claim(e, block) : NULL;
        if (c != NULL && c->until_ns > now_ns) {
            return c->until_ns - now_ns;
        }
    }
    return 0;
}

static cb_status claim_block(void *ctx, const char *name, uint64_t generation, const char *block,
                             uint64_t claim_ns, bool *granted, uint64_t *wait_ns, cb_error *err) {
    cb_local_directory *d = ctx;
    size_t bytes = strlen(block) + 1;
    claim *spare = cbi_calloc(1, sizeof *spare + bytes);
    if (spare == NULL) {
        return cbi_fail(err, CB_ENOMEM, "The system has no memory for a claim.");
    }
    memcpy(spare->block, block, bytes);
    uint64_t now_ns = now_of(d), left_ns = 0;
    cbi_lock_take(&d->lock);
    executor *e = find_executor(d, name, generation);
    if (e != NULL) {
        left_ns = claimed_for(d, e, block, now_ns);
        claim **at = find_claim(e, block);
        if (left_ns == 0 && *at == NULL) {
            *at = spare;
            spare = NULL;
        }
        if (left_ns == 0) {
            (*at)->until_ns = now_ns + claim_ns;
        }
    }
    cbi_lock_give(&d->lock);
    cbi_free(spare);
    if (e == NULL) {
        return unknown(name, generation, err);
    }
    *granted = left_ns == 0;
    *wait_ns = left_ns;
    return CB_OK;
}

static cb_status unclaim(void *ctx, const char *name, uint64_t generation, const char *block,
                         cb_error *err) {
    cb_local_directory *d = ctx;
    claim *ended = NULL;
    cbi_lock_take(&d->lock);
    executor *e = find_executor(d, name, generation);
    if (e != NULL) {
        claim **at = find_claim(e, block);
        ended = *at;
        *at = ended != NULL ? ended->next : NULL;
    }
    cbi_lock_give(&d->lock);
    cbi_free(ended);
    return e != NULL ? CB_OK : unknown(name, generation, err);
}

/* ---- from beginning to end ---- */

static uint64_t monotonic(void *ctx) {
    (void)ctx;
    return cbi_sys_clock_ns();
}

void cbi_local_directory_clock(cb_local_directory *d, cbi_clock_fn clock, void *ctx) {
    d->clock = clock;
    d->clock_ctx = ctx;
}

cb_status cb_local_directory_create(uint64_t lease_ns, cb_directory_watch_fn watch, void *watch_ctx,
                                    cb_local_directory **directory, cb_error *err) {
    cb_local_directory *d = cbi_calloc(1, sizeof *d);
    if (d == NULL) {
        return cbi_fail(err, CB_ENOMEM, "The system has no memory for a directory.");
    }
    cbi_lock_init(&d->lock, CBI_RANK_DIRECTORY);
    d->lease_ns = lease_ns;
    d->watch = watch;
    d->watch_ctx = watch_ctx;
    d->clock = monotonic;
    cb_status status = cbi_index_init(&d->blocks, &d->lock, BLOCKS_MAX, charge_nothing, NULL, err);
    if (status != CB_OK) {
        cbi_free(d);
        return status;
    }
    *directory = d;
    return CB_OK;
}

void cb_local_directory_destroy(cb_local_directory *d) {
    if (d == NULL) {
        return;
    }
    d->watch = NULL; /* nobody is told of the end */
    while (d->executors != NULL) {
        executor *e = d->executors;
        d->executors = e->next;
        forget(d, e);
    }
    cbi_index_fini(&d->blocks);
    cbi_free(d);
}

cb_directory cb_local_directory_interface(cb_local_directory *d) {
    return (cb_directory){.enter = enter,
                          .leave = leave,
                          .report = report,
                          .renew = renew,
                          .locate = locate,
                          .peers = peers,
                          .claim = claim_block,
                          .unclaim = unclaim,
                          .ctx = d};
}
