/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store_simulate TRACE: the answers of `carbide simulate`, given by the real store of blocks.
 *
 * `simulate` runs its traces on the arbiter and an order of use, with blocks that are only sizes.
 * Here the same lines go to a manager with a cb_blocks on it: blocks are entered in its index and
 * locked, evicted and removed by its own code. Two things are not real. A block claims its bytes
 * and has one, as in the originals' driver, so that a trace may speak of terabytes. And tasks have
 * no threads: this program stands in for a thread that waits, and goes on with its request as
 * manager.c does once the arbiter has an answer.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "simulate/simulate.h"
#include "store/blocks.h"

enum { TASKS_MAX = 4096, PINS_MAX = 4096, NAMES_BYTES = 1 << 20 };

#define BUDGET_MAX (UINT64_C(1) << 60)

typedef struct task {
    uint64_t id;
    cbi_party party;
    cbi_waiter waiter;
    bool blocked, woke;
} task;

typedef struct pin {
    cb_block_ref ref;
    char name[CBI_SIM_NAME_MAX];
} pin;

typedef struct world {
    cb_manager *manager;
    cb_blocks *blocks;
    cb_block_task *holder;
    cb_store store; /* the store's own, behind the one that takes notes */
    bool is_static;
    task *tasks[TASKS_MAX]; /* by id */
    size_t task_count;
    pin *pins[PINS_MAX];
    size_t pin_count;
    char evicted[NAMES_BYTES];
    size_t evicted_bytes;
} world;

static void die(const char *what) {
    fprintf(stderr, "store_simulate: %s\n", what);
    exit(2);
}

/* ---- evictions, noted ---- */

static uint64_t note_choose(void *ctx, cb_mode mode, uint64_t bytes, const void *block,
                            void **victims) {
    const world *w = ctx;
    return w->store.choose(w->store.ctx, mode, bytes, block, victims);
}

static uint64_t note_drop(void *ctx, void *victims) {
    world *w = ctx;
    for (const cbi_lru_entry *e = victims; e != NULL; e = e->next_victim) {
        int n =
            snprintf(w->evicted + w->evicted_bytes, NAMES_BYTES - w->evicted_bytes, "%s%s:%" PRIu64,
                     w->evicted_bytes > 0 ? " " : "", ((const cbi_node *)e)->name, e->bytes);
        w->evicted_bytes += (size_t)n;
        if (w->evicted_bytes >= NAMES_BYTES) {
            die("too many evictions at once");
        }
    }
    return w->store.drop(w->store.ctx, victims);
}

static void note_undo(void *ctx, void *victims) {
    const world *w = ctx;
    w->store.undo(w->store.ctx, victims);
}

/* ---- a world ---- */

static void end_world(world *w) {
    if (w->manager == NULL) {
        return;
    }
    for (size_t i = 0; i < w->pin_count; i++) {
        cb_block_release(&w->pins[i]->ref);
        free(w->pins[i]);
    }
    cbi_lock_take(&w->manager->lock);
    for (size_t i = 0; i < w->task_count; i++) {
        if (w->tasks[i]->blocked) {
            cbi_arbiter_withdraw(&w->manager->arbiter, &w->tasks[i]->waiter.request);
        }
    }
    for (size_t i = 0; i < w->task_count; i++) {
        (void)cbi_arbiter_release_all(&w->manager->arbiter, &w->tasks[i]->party);
        cbi_arbiter_leave(&w->manager->arbiter, &w->tasks[i]->party);
        free(w->tasks[i]);
    }
    cbi_lock_give(&w->manager->lock);
    (void)cb_block_task_end(w->holder);
    cb_blocks_destroy(w->blocks);
    cb_manager_destroy(w->manager);
    *w = (world){.manager = NULL};
}

static void begin_world(world *w, const cbi_sim_config *c) {
    uint64_t off_region =
        c->is_static ? 0 : cbi_sim_to_long((double)c->off_heap * c->storage_fraction);
    cb_manager_options m = {.struct_size = sizeof m,
                            .rules = CB_RULES_SPARK,
                            .policy = c->is_static ? CB_POLICY_STATIC : CB_POLICY_UNIFIED,
                            .mode = CB_HEAP,
                            .heap_bytes = c->execution + c->storage,
                            .off_heap_bytes = c->off_heap,
                            .heap_storage_bytes = c->storage,
                            .off_heap_storage_bytes = off_region,
                            .unroll_fraction = -1};
    end_world(w);
    cb_error err = {.message = ""};
    const uint64_t total[] = {m.heap_bytes, m.off_heap_bytes}, region[] = {c->storage, off_region};
    m.heap_bytes = cbi_min(m.heap_bytes, BUDGET_MAX);
    m.heap_storage_bytes = m.heap_bytes < total[0] ? m.heap_bytes / 2 : c->storage;
    m.off_heap_bytes = cbi_min(m.off_heap_bytes, BUDGET_MAX);
    m.off_heap_storage_bytes = cbi_min(off_region, m.off_heap_bytes);
    if (cb_manager_create(&m, &w->manager, &err) != CB_OK) {
        die(err.message);
    }
    /* as simulate's: a manager takes no fraction above 1, and no budget above 2^61 bytes of both */
    cbi_arbiter_init(&w->manager->arbiter, CB_RULES_SPARK, m.policy, total, region);
    w->manager->arbiter.unroll_evict_max[CB_HEAP] =
        cbi_sim_to_long((double)c->storage * c->unroll_fraction);
    const cb_blocks_options b = {
        .struct_size = sizeof b, .manager = w->manager, .blocks_max = 1 << 16};
    if (cb_blocks_create(&b, &w->blocks, &err) != CB_OK ||
        cb_block_task_create(w->blocks, 0, 0, &w->holder, &err) != CB_OK) {
        die(err.message);
    }
    w->is_static = c->is_static;
    w->store = w->manager->store;
    const cb_store noting = {.choose = note_choose, .drop = note_drop, .undo = note_undo, .ctx = w};
    cb_manager_set_store(w->manager, &noting);
}

/* ---- tasks ---- */

static task *task_of(world *w, uint64_t id) {
    size_t at = 0;
    while (at < w->task_count && w->tasks[at]->id < id) {
        at++;
    }
    if (at < w->task_count && w->tasks[at]->id == id) {
        return w->tasks[at];
    }
    task *t = calloc(1, sizeof *t);
    if (t == NULL || w->task_count == TASKS_MAX) {
        die("too many tasks");
    }
    memmove(w->tasks + at + 1, w->tasks + at, (w->task_count - at) * sizeof *w->tasks);
    w->tasks[at] = t;
    w->task_count++;
    t->id = id;
    cbi_lock_take(&w->manager->lock);
    cbi_arbiter_join(&w->manager->arbiter, &t->party);
    cbi_lock_give(&w->manager->lock);
    return t;
}

/** [locked] What manager.c does for a request that must evict first. */
static void evict(cb_manager *m, cbi_request *r) {
    void *victims = NULL;
    cbi_lock_give(&m->lock);
    uint64_t chosen = m->store.choose(m->store.ctx, r->mode, r->evict_bytes, NULL, &victims);
    uint64_t dropped = 0;
    cbi_lock_take(&m->lock);
    if (chosen > 0) {
        cbi_arbiter_marked(&m->arbiter, r, chosen);
        cbi_lock_give(&m->lock);
        dropped = m->store.drop(m->store.ctx, victims);
        cbi_lock_take(&m->lock);
    }
    (void)cbi_arbiter_settle(&m->arbiter, r, dropped);
}

static void print_grant(const cbi_request *r, cbi_sim_text *out) {
    if (r->verdict == CBI_GRANTED) {
        cbi_sim_text_number(out, r->granted);
    } else {
        cbi_sim_text_string(out, r->verdict == CBI_LOST ? "error:NoSuchElementException"
                                                        : "error:IllegalArgumentException");
    }
}

static void acquire_execution(world *w, const cbi_sim_call *call, cbi_sim_text *out) {
    task *t = task_of(w, call->task);
    if (t->blocked || call->bytes == 0) {
        cbi_sim_text_string(out, t->blocked ? "error:busy" : "error:AssertionError");
        return;
    }
    cbi_request *r = &t->waiter.request;
    *r = (cbi_request){
        .party = &t->party, .mode = call->mode, .bytes = call->bytes, .may_wait = true};
    cbi_parker_close(&t->waiter.parker);
    cb_manager *m = w->manager;
    cbi_lock_take(&m->lock);
    if (cbi_arbiter_acquire(&m->arbiter, r) == CBI_EVICT) {
        evict(m, r);
    }
    cbi_lock_give(&m->lock);
    t->blocked = r->verdict == CBI_BLOCKED;
    if (t->blocked) {
        cbi_sim_text_string(out, "blocked");
    } else {
        print_grant(r, out);
    }
}

/** Answers are taken one by one: there is one eviction at a time, as there. The library's own calls
 *  take all at once, but none of those made here wakes anybody under these rules. */
static void wake(world *w, cbi_sim_text *out) {
    const char *between = " woke{";
    cbi_request *r = NULL;
    cbi_lock_take(&w->manager->lock);
    while ((r = cbi_arbiter_next(&w->manager->arbiter)) != NULL) {
        task *t = (task *)(void *)((char *)r - offsetof(task, waiter.request));
        if (r->verdict == CBI_EVICT) {
            evict(w->manager, r);
        }
        t->woke = r->verdict != CBI_BLOCKED;
        t->blocked = !t->woke;
    }
    cbi_lock_give(&w->manager->lock);
    for (size_t i = 0; i < w->task_count; i++) {
        task *t = w->tasks[i];
        if (t->woke) {
            cbi_sim_text_print(out, "%s%" PRIu64 "=", between, t->id);
            print_grant(&t->waiter.request, out);
            between = " ";
            t->woke = false;
        }
    }
    cbi_sim_text_string(out, *between == ' ' && between[1] == '\0' ? "}" : "");
}

static void release_execution(world *w, const cbi_sim_call *call, cbi_sim_text *out) {
    task *t = task_of(w, call->task);
    cb_manager *m = w->manager;
    cbi_lock_take(&m->lock);
    if (call->op == CBI_SIM_RELEASE_ALL_EXECUTION) {
        cbi_sim_text_number(out, cbi_arbiter_release_all(&m->arbiter, &t->party));
    } else {
        (void)cbi_arbiter_release(&m->arbiter, &t->party, call->mode, call->bytes);
        cbi_sim_text_string(out, "ok");
    }
    cbi_lock_give(&m->lock);
}

/* ---- blocks ---- */

static bool exists(const world *w, const char *name) {
    cb_block_status status;
    return cb_blocks_status(w->blocks, name, &status, NULL) == CB_OK;
}

/** A block of one byte that says it is larger; otherwise as cb_blocks_put_bytes. */
static void put(world *w, const cbi_sim_call *call, cbi_sim_text *out) {
    cbi_node *n = NULL;
    cbi_contents contents = {0};
    uint8_t *to = NULL;
    cb_level level = call->mode == CB_OFF_HEAP
                         ? CB_LEVEL(CB_LEVEL_IN_MEMORY | CB_LEVEL_IN_OFF_HEAP, 1)
                         : CB_LEVEL_MEMORY_ONLY_SER;
    cb_status status = cbi_put_begin(w->blocks, w->holder, call->name.text, level, NULL, &n, NULL);
    if (status != CB_OK) {
        cbi_sim_text_string(out, status == CB_EEXISTS ? "error:exists" : "?");
        return;
    }
    status =
        cb_manager_acquire_storage(w->manager, call->mode, call->bytes, &n->entry.data_set, NULL);
    if (status == CB_OK &&
        cbi_contents_bytes(&w->blocks->home, CB_HEAP, 1, &contents, &to, NULL) == CB_OK) {
        atomic_fetch_add(&w->blocks->home.overhead, 1 - (int64_t)call->bytes);
        contents.bytes = call->bytes;
        contents.mode = call->mode;
        cbi_put_done(w->holder, n, &contents, (cbi_on_disk){0}, NULL);
        cbi_sim_text_string(out, "true");
        return;
    }
    cbi_put_failed(w->blocks, n);
    cbi_sim_text_string(out,
                        status == CB_EUNSUPPORTED ? "error:IllegalArgumentException" : "false");
}

static size_t find_pin(const world *w, const char *name) {
    size_t at = w->pin_count;
    while (at > 0 && strcmp(w->pins[at - 1]->name, name) != 0) {
        at--;
    }
    return at;
}

static void drop_pin(world *w, size_t at) {
    cb_block_release(&w->pins[at]->ref);
    free(w->pins[at]);
    w->pins[at] = w->pins[--w->pin_count];
}

static void pin_block(world *w, const char *name, cbi_sim_text *out) {
    pin *p = calloc(1, sizeof *p);
    if (p == NULL || w->pin_count == PINS_MAX) {
        die("too many pins");
    }
    if (cb_blocks_lock(w->blocks, w->holder, name, false, false, &p->ref, NULL) != CB_OK) {
        free(p);
        cbi_sim_text_string(out, "false");
        return;
    }
    (void)snprintf(p->name, sizeof p->name, "%s", name);
    w->pins[w->pin_count++] = p;
    cbi_sim_text_string(out, "true");
}

static void unpin_block(world *w, const char *name, cbi_sim_text *out) {
    size_t at = find_pin(w, name);
    if (at > 0) {
        drop_pin(w, at - 1);
        cbi_sim_text_string(out, "ok");
        return;
    }
    cbi_sim_text_string(out, exists(w, name) ? "error:AssertionError"
                             : w->is_static  ? "error:IllegalStateException"
                                             : "error:SparkException");
}

static void touch_block(world *w, const char *name, cbi_sim_text *out) {
    cb_block_ref ref;
    bool there = cb_blocks_get(w->blocks, w->holder, name, &ref, NULL) == CB_OK;
    if (there) {
        cb_block_release(&ref);
    }
    cbi_sim_text_string(out, there ? "true" : "false");
}

static void remove_block(world *w, const char *name, cbi_sim_text *out) {
    for (size_t at = 0; (at = find_pin(w, name)) > 0;) {
        drop_pin(w, at - 1);
    }
    bool removed = cb_blocks_remove(w->blocks, w->holder, name, NULL) == CB_OK;
    cbi_sim_text_string(out, removed ? "true" : "false");
}

/* ---- lines ---- */

static void acquire_raw(world *w, const cbi_sim_call *call, cbi_sim_text *out) {
    int64_t kin = call->name.data_set;
    cb_status status =
        call->op == CBI_SIM_ACQUIRE_UNROLL
            ? cb_manager_acquire_unroll(w->manager, call->mode, call->bytes, &kin, NULL)
            : cb_manager_acquire_storage(w->manager, call->mode, call->bytes, &kin, NULL);
    cbi_sim_text_string(out, status == CB_OK             ? "true"
                             : status == CB_EUNSUPPORTED ? "error:IllegalArgumentException"
                                                         : "false");
}

static void run(world *w, const cbi_sim_call *call, cbi_sim_text *out) {
    const char *name = call->name.text;
    switch ((int)call->op) {
        case CBI_SIM_ACQUIRE_EXECUTION: acquire_execution(w, call, out); break;
        case CBI_SIM_RELEASE_EXECUTION:
        case CBI_SIM_RELEASE_ALL_EXECUTION: release_execution(w, call, out); break;
        case CBI_SIM_ACQUIRE_STORAGE: put(w, call, out); break;
        case CBI_SIM_ACQUIRE_UNROLL:
        case CBI_SIM_RAW_ACQUIRE_STORAGE: acquire_raw(w, call, out); break;
        case CBI_SIM_RELEASE_UNROLL:
            cb_manager_release_unroll(w->manager, call->mode, call->bytes);
            cbi_sim_text_string(out, "ok");
            break;
        case CBI_SIM_RAW_RELEASE_STORAGE:
            cb_manager_release_storage(w->manager, call->mode, call->bytes);
            cbi_sim_text_string(out, "ok");
            break;
        case CBI_SIM_MAX_STORAGE:
            cbi_sim_text_number(out, cb_manager_storage_max(w->manager, call->mode));
            break;
        case CBI_SIM_RELEASE_STORAGE: remove_block(w, name, out); break;
        case CBI_SIM_TOUCH: touch_block(w, name, out); break;
        case CBI_SIM_PIN: pin_block(w, name, out); break;
        case CBI_SIM_UNPIN: unpin_block(w, name, out); break;
        default: cbi_sim_text_string(out, "ok"); break;
    }
}

static void print_state(const world *w, cbi_sim_text *out) {
    static const char *const modes[] = {"on", "off"};
    static const cbi_arbiter nothing;
    const cbi_arbiter *a = w->manager != NULL ? &w->manager->arbiter : &nothing;
    cbi_sim_text_string(out, " | ");
    for (int mode = 0; mode < CB_MODE_COUNT; mode++) {
        const cbi_pool *e = &a->pools[CB_EXECUTION][mode], *s = &a->pools[CB_STORAGE][mode];
        cbi_sim_text_print(out, "%s{exec=%" PRIu64 "/%" PRIu64 " stor=%" PRIu64 "/%" PRIu64 "} ",
                           modes[mode], e->used, e->size, s->used, s->size);
    }
    cbi_sim_text_print(out, "unroll=%" PRIu64 " tasks{", a->unroll[0] + a->unroll[1]);
    const char *between = "";
    for (size_t i = 0; i < w->task_count; i++) {
        const cbi_party *p = &w->tasks[i]->party;
        if (p->bytes[CB_HEAP] + p->bytes[CB_OFF_HEAP] > 0) {
            cbi_sim_text_print(out, "%s%" PRIu64 "=%" PRIu64 "+%" PRIu64, between, w->tasks[i]->id,
                               p->bytes[CB_HEAP], p->bytes[CB_OFF_HEAP]);
            between = " ";
        }
    }
    cbi_sim_text_string(out, "}\n");
}

static void answer(world *w, const cbi_sim_words *words, cbi_sim_text *out) {
    cb_error err = {.message = ""};
    cbi_sim_text_print(out, "%" PRIu64 " %.*s -> ", words->number, (int)words->bytes, words->line);
    if (cbi_sim_word_is(words, 0, "config")) {
        cbi_sim_config config;
        if (cbi_sim_read_config(words, &config, &err) != CB_OK || config.kind != CBI_SIM_SPARK) {
            die(err.message);
        }
        if (config.refusal != NULL) {
            cbi_sim_text_print(out, "error:%s", config.refusal);
        } else {
            begin_world(w, &config);
            cbi_sim_text_string(out, "ok");
        }
    } else {
        cbi_sim_call call;
        cbi_sim_text woke = {0};
        if (cbi_sim_read_call(words, CBI_SIM_SPARK, &call, &err) != CB_OK || w->manager == NULL) {
            die(err.message);
        }
        w->evicted_bytes = 0;
        run(w, &call, out);
        wake(w, &woke);
        if (w->evicted_bytes > 0) {
            cbi_sim_text_print(out, " evicted{%s}", w->evicted);
        }
        cbi_sim_text_add(out, woke.used > 0 ? woke.data : "", woke.used);
        cbi_sim_text_fini(&woke);
    }
    print_state(w, out);
}

int main(int argc, char **argv) {
    static world w;
    FILE *in = argc == 2 ? fopen(argv[1], "r") : NULL;
    if (in == NULL) {
        fprintf(stderr, "usage: store_simulate TRACE\n");
        return 2;
    }
    char line[4096];
    cbi_sim_text out = {0};
    for (uint64_t number = 1; fgets(line, sizeof line, in) != NULL; number++) {
        cbi_sim_words words;
        cb_error err = {.message = ""};
        if (cbi_sim_split(line, strcspn(line, "\n"), number, &words, &err) != CB_OK) {
            die(err.message);
        }
        if (words.count > 0) {
            cbi_sim_text_clear(&out);
            answer(&w, &words, &out);
            (void)fputs(out.failed ? "no memory\n" : out.data, stdout);
        }
    }
    end_world(&w);
    cbi_sim_text_fini(&out);
    (void)fclose(in);
    return ferror(stdout) || fflush(stdout) != 0 ? 2 : 0;
}
