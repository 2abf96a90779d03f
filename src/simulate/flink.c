/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Flink's manager: a segment pool with owners (carbide/segment.h) on a task of a manager that has
 * as many bytes. Its segments are addresses, never touched, so that it costs its tables only.
 *
 * A pool that is larger than POOL_BYTES_MAX, or whose addresses the system refuses, is counted and
 * not made: the answers are the same. So is the boundless one of the summary.
 *
 * After a shutdown the pool holds nothing; who had what is what Flink's callers still believe, and
 * that is what the state shows.
 */
#include <string.h>

#include "base/alloc.h"
#include "carbide/manager.h"
#include "carbide/segment.h"
#include "carbide/task.h"
#include "simulate/simulate.h"

#define POOL_BYTES_MAX ((uint64_t)1 << 30)
enum { POOL_PAGES_MAX = 1 << 16 };

typedef struct owner {
    struct owner *next; /* by name */
    uint64_t pages;
    cb_segment_owner *of_pool; /* NULL: counted only */
    cbi_sim_name name;
} owner;

struct cbi_sim_flink {
    uint64_t page, total, taken, slots;
    bool shut_down;
    owner *owners;
    /* the pool, or NULL for all three */
    cb_manager *manager;
    cb_task *task;
    cb_segment_pool *pool;
    cb_segment *handles; /* as many as there are pages, for what is taken or given */
};

/* ---- owners ---- */

static owner **find_place(cbi_sim_flink *f, const cbi_sim_name *name) {
    owner **at = &f->owners;
    while (*at != NULL && strcmp((*at)->name.text, name->text) < 0) {
        at = &(*at)->next;
    }
    return at;
}

static owner *find_owner(cbi_sim_flink *f, const cbi_sim_name *name) {
    owner *o = *find_place(f, name);
    return o != NULL && strcmp(o->name.text, name->text) == 0 ? o : NULL;
}

/** NULL: no memory. */
static owner *find_or_add_owner(cbi_sim_flink *f, const cbi_sim_name *name) {
    owner *o = find_owner(f, name);
    if (o != NULL) {
        return o;
    }
    o = cbi_calloc(1, sizeof *o);
    if (o == NULL || (f->pool != NULL &&
                      cb_segment_owner_create(f->pool, name->text, &o->of_pool, NULL) != CB_OK)) {
        cbi_free(o);
        return NULL;
    }
    owner **at = find_place(f, name);
    o->name = *name;
    o->next = *at;
    *at = o;
    return o;
}

static void forget_owner(cbi_sim_flink *f, owner *o) {
    if (o->pages == 0) {
        *find_place(f, &o->name) = o->next;
        cb_segment_owner_destroy(o->of_pool);
        cbi_free(o);
    }
}

static void check_owner(const cbi_sim_flink *f, const owner *o) {
    cb_assert(o->of_pool == NULL || f->shut_down || cb_segment_owner_count(o->of_pool) == o->pages);
}

/* ---- operations ---- */

/** The pool's answer, or what the count says. */
static cb_status take(cbi_sim_flink *f, const owner *o, uint64_t pages) {
    if (o->of_pool == NULL || pages > f->total) {
        return pages > f->total - f->taken ? CB_EBUDGET : CB_OK;
    }
    return cb_segment_take(o->of_pool, (size_t)pages, f->handles, NULL);
}

static bool allocate(cbi_sim_flink *f, const cbi_sim_call *call, cbi_sim_text *out,
                     cbi_sim_effect *effect) {
    owner *o = find_or_add_owner(f, &call->name);
    if (o == NULL) {
        return false;
    }
    effect->asked = call->bytes;
    cb_status status = take(f, o, call->bytes);
    if (status == CB_OK) {
        o->pages += call->bytes;
        f->taken += call->bytes;
        effect->granted = call->bytes;
        cbi_sim_text_number(out, call->bytes);
    } else {
        effect->refused = true;
        cbi_sim_text_string(out, "refused");
    }
    check_owner(f, o);
    forget_owner(f, o);
    return status == CB_OK || status == CB_EBUDGET;
}

/** One by one, as a list, or all of them: as the operation is called. */
static void give(cbi_sim_flink *f, const owner *o, cbi_sim_op op, size_t pages) {
    if (o->of_pool == NULL || f->shut_down) {
        return;
    }
    cb_status status = CB_OK;
    if (op == CBI_SIM_RELEASE_ALL) {
        size_t given = cb_segment_owner_give_all(o->of_pool);
        cb_assert(given == pages);
        return;
    }
    (void)cb_segment_owner_list(o->of_pool, f->handles, pages);
    if (op == CBI_SIM_RELEASE_LIST) {
        status = cb_segment_give_list(f->handles, pages, NULL);
    }
    for (size_t i = 0; op == CBI_SIM_RELEASE && i < pages && status == CB_OK; i++) {
        status = cb_segment_give(&f->handles[i], NULL);
    }
    cb_assert(status == CB_OK);
}

static void release(cbi_sim_flink *f, const cbi_sim_call *call, cbi_sim_text *out) {
    owner *o = find_owner(f, &call->name);
    uint64_t held = o != NULL ? o->pages : 0;
    uint64_t pages = call->op == CBI_SIM_RELEASE_ALL || call->bytes > held ? held : call->bytes;
    if (pages > 0) {
        give(f, o, call->op, (size_t)pages);
        o->pages -= pages;
        f->taken -= pages;
        check_owner(f, o);
        forget_owner(f, o);
    }
    cbi_sim_text_string(out, call->op == CBI_SIM_RELEASE_ALL ? "ok freed=" : "");
    cbi_sim_text_number(out, pages);
}

static void shut_down(cbi_sim_flink *f, cbi_sim_text *out) {
    f->shut_down = true;
    if (f->pool != NULL) {
        cb_status status = cb_segment_pool_shutdown(f->pool, NULL);
        cb_assert(status == CB_OK);
    }
    cbi_sim_text_string(out, "ok");
}

/** Java's (int)(pages * fraction / slots), slots 0 included. */
static uint64_t share(const cbi_sim_flink *f, double fraction) {
    size_t segments = 0;
    if (f->pool != NULL && f->slots > 0) {
        cb_status status = cb_segment_pool_share(f->pool, fraction, &segments, NULL);
        cb_assert(status == CB_OK);
        return segments;
    }
    double pages = (double)f->total * fraction / (double)f->slots;
    return pages >= (double)INT32_MAX ? INT32_MAX : (uint64_t)pages;
}

bool cbi_sim_flink_run(cbi_sim_flink *f, const cbi_sim_call *call, cbi_sim_text *out,
                       cbi_sim_effect *effect) {
    bool ok = true;
    bool needs_life = call->op == CBI_SIM_ALLOCATE || call->op == CBI_SIM_RELEASE_LIST ||
                      call->op == CBI_SIM_RELEASE_ALL;
    bool is_fraction = call->op == CBI_SIM_NUM_PAGES || call->op == CBI_SIM_MEMORY_SIZE;
    if (needs_life && f->shut_down) {
        effect->error = true;
        cbi_sim_text_string(out, "error:IllegalStateException");
        return true;
    }
    if (is_fraction && !(call->fraction > 0 && call->fraction <= 1)) {
        effect->error = true;
        cbi_sim_text_string(out, "error:IllegalArgumentException");
        return true;
    }
    switch ((int)call->op) {
        case CBI_SIM_ALLOCATE: ok = allocate(f, call, out, effect); break;
        case CBI_SIM_RELEASE:
        case CBI_SIM_RELEASE_LIST:
        case CBI_SIM_RELEASE_ALL: release(f, call, out); break;
        case CBI_SIM_NUM_PAGES: cbi_sim_text_number(out, share(f, call->fraction)); break;
        case CBI_SIM_MEMORY_SIZE:
            cbi_sim_text_number(out, f->page * share(f, call->fraction));
            break;
        case CBI_SIM_ROUND_DOWN:
            cbi_sim_text_number(out, f->pool != NULL
                                         ? cb_segment_pool_round_down(f->pool, call->bytes)
                                         : call->bytes & ~(f->page - 1));
            break;
        case CBI_SIM_SHUTDOWN: shut_down(f, out); break;
        default: cbi_sim_text_string(out, "ok"); break;
    }
    return ok;
}

static void print_state(uint64_t taken, uint64_t total, uint64_t page, bool empty, bool shut_down,
                        const owner *owners, cbi_sim_text *out) {
    cbi_sim_text_print(out, "pages=%llu/%llu page=%llu empty=%s shutdown=%s owners{",
                       (unsigned long long)taken, (unsigned long long)total,
                       (unsigned long long)page, empty ? "true" : "false",
                       shut_down ? "true" : "false");
    for (const owner *o = owners; o != NULL; o = o->next) {
        cbi_sim_text_add(out, o->name.text, o->name.bytes);
        cbi_sim_text_string(out, "=");
        cbi_sim_text_number(out, o->pages);
        cbi_sim_text_string(out, o->next != NULL ? " " : "");
    }
    cbi_sim_text_string(out, "}");
}

void cbi_sim_flink_print(const cbi_sim_flink *f, cbi_sim_text *out) {
    bool empty = f->taken == 0 && !f->shut_down;
    if (f->pool != NULL) {
        cb_segment_pool_stats stats;
        cb_segment_pool_get_stats(f->pool, &stats);
        cb_assert(f->shut_down || stats.taken == f->taken);
        empty = stats.empty;
    }
    print_state(f->taken, f->total, f->page, empty, f->shut_down, f->owners, out);
}

void cbi_sim_flink_print_nothing(cbi_sim_text *out) {
    print_state(0, 0, 0, true, false, NULL, out);
}

void cbi_sim_flink_state(const cbi_sim_flink *f, cbi_sim_state *state) {
    *state = (cbi_sim_state){0};
    state->used[CB_EXECUTION][CB_HEAP] = f->taken;
    state->size[CB_EXECUTION][CB_HEAP] = f->total;
}

/* ---- from beginning to end ---- */

static void destroy_pool(cbi_sim_flink *f) {
    cb_segment_pool_destroy(f->pool);
    (void)cb_task_end(f->task, NULL, 0);
    cb_manager_destroy(f->manager);
    cbi_free(f->handles);
    f->pool = NULL;
    f->task = NULL;
    f->manager = NULL;
    f->handles = NULL;
}

/** The pool, its task and its manager; none of them when one cannot be had. */
static void create_pool(cbi_sim_flink *f, const cbi_sim_config *c) {
    uint64_t budget = f->total * f->page + 16 * CBI_MIB; /* and its tables */
    const cb_manager_options m = {.struct_size = sizeof m,
                                  .mode = c->off ? CB_OFF_HEAP : CB_HEAP,
                                  .heap_bytes = budget,
                                  .off_heap_bytes = budget};
    const cb_task_options t = {.struct_size = sizeof t, .name = "trace"};
    f->handles = cbi_calloc((size_t)f->total, sizeof *f->handles);
    bool ok = f->handles != NULL && cb_manager_create(&m, &f->manager, NULL) == CB_OK &&
              cb_task_create(f->manager, &t, &f->task, NULL) == CB_OK;
    const cb_segment_pool_options p = {.struct_size = sizeof p,
                                       .task = f->task,
                                       .segment_bytes = (size_t)f->page,
                                       .segments_max = (size_t)f->total,
                                       .slots = (unsigned)f->slots,
                                       .type = c->off ? CB_SEGMENTS_OFF_HEAP : CB_SEGMENTS_HEAP,
                                       .preallocate = c->preallocate};
    if (!ok || cb_segment_pool_create(&p, &f->pool, NULL) != CB_OK) {
        destroy_pool(f);
    }
}

cbi_sim_flink *cbi_sim_flink_create(const cbi_sim_config *c, bool boundless) {
    cbi_sim_flink *f = cbi_calloc(1, sizeof *f);
    if (f != NULL) {
        f->page = c->page;
        f->total = boundless ? INT32_MAX : c->memory / c->page;
        f->slots = c->slots;
        if (!boundless && c->memory <= POOL_BYTES_MAX && f->total <= POOL_PAGES_MAX) {
            create_pool(f, c);
        }
    }
    return f;
}

void cbi_sim_flink_destroy(cbi_sim_flink *f) {
    if (f == NULL) {
        return;
    }
    destroy_pool(f); /* its owners too */
    for (owner *o = f->owners, *next = NULL; o != NULL; o = next) {
        next = o->next;
        cbi_free(o);
    }
    cbi_free(f);
}
