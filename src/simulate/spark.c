/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Spark's managers: the arbiter under its rules, a store of blocks that claim their size only, and
 * tasks without threads. A task that is blocked leaves its request in the arbiter; after every
 * operation the arbiter is asked who can go on.
 *
 * What the original leaves to chance is settled here: several waiters of one pool go on in the
 * order in which they came, and a line names those that woke in the order of their numbers.
 *
 * A `boundless` world has the same split of 2^60 bytes and more. Nothing is ever refused, evicted
 * or waited for in it, so what it holds is what the trace *wanted*, and the largest of it is how
 * much would have been enough:
 *
 *     all that is held            total >= execution + storage
 *     a task that has m of N      total - min(storage, region) >= N * m      (its share is 1/N)
 *
 * and with region = r * total the second is total >= min(N * m + storage, N * m / (1 - r)).
 */
#include <string.h>

#include "base/alloc.h"
#include "memory/arbiter.h"
#include "simulate/simulate.h"
#include "store/lru.h"

enum { BUCKETS_FIRST = 64 };
static const uint64_t boundless_bytes = UINT64_C(1) << 60;

typedef struct block {
    cbi_lru_entry entry; /* first: a block is found by a cast */
    struct block *next;  /* in its bucket */
    uint64_t hash;
    size_t name_bytes;
    char name[];
} block;

typedef struct task {
    uint64_t id;
    bool blocked, woke;
    cbi_party party;
    cbi_request request;
} task;

struct cbi_sim_spark {
    cbi_arbiter arbiter;
    bool no_off_heap_storage;
    bool failed; /* no memory */
    /* blocks */
    cbi_lru lru;
    block **buckets;
    size_t bucket_count; /* a power of two */
    /* tasks, by id */
    task **tasks;
    size_t task_count, task_cap;
    size_t blocked;
    /* of the current line */
    cbi_sim_text evicted;
    cbi_sim_effect *effect;
    /* a boundless world */
    bool boundless;
    double region_part[CB_MODE_COUNT];
    cbi_sim_need need;
};

/* ---- blocks ---- */

static uint64_t hash_of(const char *bytes, size_t count) {
    uint64_t hash = UINT64_C(0xcbf29ce484222325); /* FNV-1a */
    for (size_t i = 0; i < count; i++) {
        hash = (hash ^ (unsigned char)bytes[i]) * UINT64_C(0x100000001b3);
    }
    return hash ^ hash >> 29;
}

static block **find_place(cbi_sim_spark *s, const cbi_sim_name *name, uint64_t hash) {
    block **at = &s->buckets[hash & (s->bucket_count - 1)];
    while (*at != NULL && ((*at)->hash != hash || (*at)->name_bytes != name->bytes ||
                           memcmp((*at)->name, name->text, name->bytes) != 0)) {
        at = &(*at)->next;
    }
    return at;
}

static block *find_block(cbi_sim_spark *s, const cbi_sim_name *name) {
    return *find_place(s, name, hash_of(name->text, name->bytes));
}

static bool grow_buckets(cbi_sim_spark *s) {
    size_t count = 2 * s->bucket_count;
    block **buckets = cbi_calloc(count, sizeof(block *));
    if (buckets == NULL) {
        return false;
    }
    for (size_t i = 0; i < s->bucket_count; i++) {
        for (block *b = s->buckets[i], *next = NULL; b != NULL; b = next) {
            next = b->next;
            b->next = buckets[b->hash & (count - 1)];
            buckets[b->hash & (count - 1)] = b;
        }
    }
    cbi_free(s->buckets);
    s->buckets = buckets;
    s->bucket_count = count;
    return true;
}

/** A block with its name, in no list yet; NULL: no memory. */
static block *create_block(cbi_sim_spark *s, const cbi_sim_call *call) {
    if (s->lru.count >= s->bucket_count && !grow_buckets(s)) {
        return NULL;
    }
    block *b = cbi_calloc(1, sizeof *b + call->name.bytes);
    if (b != NULL) {
        b->entry = (cbi_lru_entry){
            .bytes = call->bytes, .data_set = call->name.data_set, .mode = call->mode};
        b->hash = hash_of(call->name.text, call->name.bytes);
        b->name_bytes = call->name.bytes;
        memcpy(b->name, call->name.text, call->name.bytes);
    }
    return b;
}

static void enter_block(cbi_sim_spark *s, block *b) {
    block **bucket = &s->buckets[b->hash & (s->bucket_count - 1)];
    b->next = *bucket;
    *bucket = b;
    cbi_lru_add(&s->lru, &b->entry);
}

static void remove_block(cbi_sim_spark *s, block *b) {
    block **at = &s->buckets[b->hash & (s->bucket_count - 1)];
    while (*at != b) {
        at = &(*at)->next;
    }
    *at = b->next;
    cbi_lru_remove(&s->lru, &b->entry);
    cbi_free(b);
}

/* ---- eviction, the three phases in one go ---- */

static void evict_and_settle(cbi_sim_spark *s, cbi_request *r, int64_t data_set) {
    cbi_lru_entry *victims = NULL;
    uint64_t freed = cbi_lru_choose(&s->lru, r->mode, r->evict_bytes, data_set, &victims);
    cbi_arbiter_marked(&s->arbiter, r, freed);
    for (cbi_lru_entry *e = victims, *next = NULL; e != NULL; e = next) {
        next = e->next_victim;
        block *b = (block *)e;
        cbi_sim_text_string(&s->evicted, s->evicted.used > 0 ? " " : "");
        cbi_sim_text_add(&s->evicted, b->name, b->name_bytes);
        cbi_sim_text_string(&s->evicted, ":");
        cbi_sim_text_number(&s->evicted, e->bytes);
        s->effect->evicted_blocks++;
        s->effect->evicted_bytes += e->bytes;
        remove_block(s, b);
    }
    (void)cbi_arbiter_settle(&s->arbiter, r, freed);
}

/* ---- tasks ---- */

/** Where the task is, or would be, in the order of numbers. */
static size_t task_place(const cbi_sim_spark *s, uint64_t id) {
    size_t low = 0, high = s->task_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (s->tasks[middle]->id < id) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static task *find_task(const cbi_sim_spark *s, uint64_t id) {
    size_t at = task_place(s, id);
    return at < s->task_count && s->tasks[at]->id == id ? s->tasks[at] : NULL;
}

/** NULL: no memory. */
static task *find_or_add_task(cbi_sim_spark *s, uint64_t id) {
    task *t = find_task(s, id);
    if (t != NULL) {
        return t;
    }
    if (s->task_count == s->task_cap) {
        size_t cap = cbi_max(16, 2 * s->task_cap);
        task **tasks = cbi_realloc(s->tasks, cap * sizeof(task *));
        if (tasks == NULL) {
            return NULL;
        }
        s->tasks = tasks;
        s->task_cap = cap;
    }
    t = cbi_calloc(1, sizeof *t);
    if (t != NULL) {
        size_t at = task_place(s, id);
        memmove(s->tasks + at + 1, s->tasks + at, (s->task_count - at) * sizeof(task *));
        s->tasks[at] = t;
        s->task_count++;
        t->id = id;
        cbi_arbiter_join(&s->arbiter, &t->party);
    }
    return t;
}

/** Tasks that hold nothing, wait for nothing and are not counted any more need no memory. */
static void forget_task(cbi_sim_spark *s, task *t) {
    const cbi_party *p = &t->party;
    if (p->bytes[CB_HEAP] + p->bytes[CB_OFF_HEAP] > 0 || t->blocked || p->counted[CB_HEAP] ||
        p->counted[CB_OFF_HEAP]) {
        return;
    }
    size_t at = task_place(s, t->id);
    cbi_arbiter_leave(&s->arbiter, &t->party);
    memmove(s->tasks + at, s->tasks + at + 1, (s->task_count - at - 1) * sizeof(task *));
    s->task_count--;
    cbi_free(t);
}

/** What a request that has its last verdict got. */
static void add_grant(const cbi_request *r, cbi_sim_text *out) {
    if (r->verdict == CBI_GRANTED) {
        cbi_sim_text_number(out, r->granted);
        return;
    }
    cb_assert(r->verdict == CBI_LOST || r->verdict == CBI_BROKEN);
    cbi_sim_text_string(out, r->verdict == CBI_LOST ? "error:NoSuchElementException"
                                                    : "error:IllegalArgumentException");
}

/** Lets those go on who can. */
static void wake(cbi_sim_spark *s, cbi_sim_text *out) {
    cbi_request *r;
    size_t woken = 0;
    while ((r = cbi_arbiter_next(&s->arbiter)) != NULL) {
        if (r->verdict == CBI_EVICT) {
            evict_and_settle(s, r, CBI_NO_DATA_SET);
        }
        if (r->verdict != CBI_BLOCKED) {
            task *t = (task *)(void *)((char *)r - offsetof(task, request));
            t->blocked = false;
            t->woke = true;
            woken++;
        }
    }
    cb_assert_slow((cbi_arbiter_check(&s->arbiter), true));
    s->effect->woken = woken;
    s->blocked -= woken;
    cbi_sim_text_string(out, woken > 0 ? " woke{" : "");
    for (size_t i = 0, named = 0; named < woken; i++) {
        task *t = s->tasks[i];
        if (t->woke) {
            cbi_sim_text_string(out, named > 0 ? " " : "");
            cbi_sim_text_number(out, t->id);
            cbi_sim_text_string(out, "=");
            add_grant(&t->request, out);
            t->woke = false;
            named++;
        }
    }
    cbi_sim_text_string(out, woken > 0 ? "}" : "");
}

/* ---- what would have been enough ---- */

static void raise(uint64_t *most, uint64_t value) {
    *most = value > *most ? value : *most;
}

/** The least size that has so many bytes beside its region, which is cut to whole bytes. */
static uint64_t size_for(uint64_t bytes, double region_part) {
    uint64_t low = bytes, high = cbi_sim_to_long((double)bytes / (1 - region_part) * 1.001) + 2;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (middle - cbi_sim_to_long((double)middle * region_part) < bytes) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static void note_need(cbi_sim_spark *s, const task *asker) {
    const cbi_arbiter *a = &s->arbiter;
    for (int mode = 0; mode < CB_MODE_COUNT; mode++) {
        uint64_t exec = a->pools[CB_EXECUTION][mode].used, stor = a->pools[CB_STORAGE][mode].used;
        uint64_t n = a->tasks[mode];
        uint64_t mine = asker != NULL ? asker->party.bytes[mode] : 0;
        double shares = (double)n * (double)mine;
        s->need.beyond = s->need.beyond || shares > (double)boundless_bytes;
        uint64_t all = s->need.beyond ? 0 : n * mine;
        raise(&s->need.execution[mode], exec > all ? exec : all);
        raise(&s->need.storage[mode], stor);
        uint64_t share = all == 0 ? 0 : cbi_min(all + stor, size_for(all, s->region_part[mode]));
        raise(&s->need.total[mode], exec + stor > share ? exec + stor : share);
    }
}

/* ---- operations ---- */

static void acquire_execution(cbi_sim_spark *s, const cbi_sim_call *call, cbi_sim_text *out) {
    task *t = find_or_add_task(s, call->task);
    if (t == NULL) {
        s->failed = true;
        return;
    }
    if (t->blocked || call->bytes == 0) {
        cbi_sim_text_string(out, t->blocked ? "error:busy" : "error:AssertionError");
        s->effect->error = true;
        forget_task(s, t);
        return;
    }
    cbi_request *r = &t->request;
    *r = (cbi_request){
        .party = &t->party, .mode = call->mode, .bytes = call->bytes, .may_wait = true};
    if (cbi_arbiter_acquire(&s->arbiter, r) == CBI_EVICT) {
        evict_and_settle(s, r, CBI_NO_DATA_SET);
    }
    s->effect->asked = call->bytes;
    if (r->verdict == CBI_BLOCKED) {
        t->blocked = s->effect->blocked = true;
        s->blocked++;
        cbi_sim_text_string(out, "blocked");
        return;
    }
    s->effect->granted = r->granted;
    s->effect->refused = r->granted < call->bytes;
    s->effect->error = r->verdict != CBI_GRANTED;
    add_grant(r, out);
    if (s->boundless) {
        s->need.beyond = s->need.beyond || s->effect->refused;
        note_need(s, t);
    }
}

static void release_execution(cbi_sim_spark *s, const cbi_sim_call *call, cbi_sim_text *out) {
    task *t = find_or_add_task(s, call->task); /* also a task that is not there wakes */
    if (t == NULL) {
        s->failed = true;
    } else if (call->op == CBI_SIM_RELEASE_ALL_EXECUTION) {
        cbi_sim_text_number(out, cbi_arbiter_release_all(&s->arbiter, &t->party));
    } else {
        (void)cbi_arbiter_release(&s->arbiter, &t->party, call->mode, call->bytes);
        cbi_sim_text_string(out, "ok");
    }
}

static bool acquire_storage(cbi_sim_spark *s, const cbi_sim_call *call, bool unroll) {
    cbi_request r = {.mode = call->mode, .bytes = call->bytes, .unroll = unroll};
    if (cbi_arbiter_acquire_storage(&s->arbiter, &r) == CBI_EVICT) {
        evict_and_settle(s, &r, call->name.data_set);
    }
    bool granted = r.verdict == CBI_GRANTED;
    s->effect->asked = call->bytes;
    s->effect->granted = granted ? call->bytes : 0;
    s->effect->refused = !granted;
    if (s->boundless) {
        s->need.beyond = s->need.beyond || !granted;
        note_need(s, NULL);
    }
    return granted;
}

/** acquireStorage, acquireUnroll, rawAcquireStorage */
static void run_acquire_storage(cbi_sim_spark *s, const cbi_sim_call *call, cbi_sim_text *out) {
    bool put = call->op == CBI_SIM_ACQUIRE_STORAGE;
    if (put && find_block(s, &call->name) != NULL) {
        cbi_sim_text_string(out, "error:exists");
        s->effect->error = true;
        return;
    }
    if (call->mode == CB_OFF_HEAP && s->no_off_heap_storage) {
        cbi_sim_text_string(out, "error:IllegalArgumentException");
        s->effect->error = true;
        return;
    }
    block *b = put ? create_block(s, call) : NULL;
    if (put && b == NULL) {
        s->failed = true;
        return;
    }
    bool granted = acquire_storage(s, call, call->op == CBI_SIM_ACQUIRE_UNROLL);
    if (put && granted) {
        enter_block(s, b);
    } else {
        cbi_free(b);
    }
    cbi_sim_text_string(out, granted ? "true" : "false");
}

static void release_block(cbi_sim_spark *s, block *b, cbi_sim_text *out) {
    if (b != NULL) {
        (void)cbi_arbiter_release_storage(&s->arbiter, b->entry.mode, b->entry.bytes);
        remove_block(s, b);
    }
    cbi_sim_text_string(out, b != NULL ? "true" : "false");
}

static void unpin_block(cbi_sim_spark *s, block *b, cbi_sim_text *out) {
    if (b != NULL && b->entry.pins > 0) {
        b->entry.pins--;
        cbi_sim_text_string(out, "ok");
        return;
    }
    s->effect->error = true; /* Spark 2.4, which has the static manager, throws another one */
    cbi_sim_text_string(out, b != NULL                               ? "error:AssertionError"
                             : s->arbiter.policy == CB_POLICY_STATIC ? "error:IllegalStateException"
                                                                     : "error:SparkException");
}

static void run_block_op(cbi_sim_spark *s, const cbi_sim_call *call, cbi_sim_text *out) {
    block *b = find_block(s, &call->name);
    if (call->op == CBI_SIM_RELEASE_STORAGE) {
        release_block(s, b, out);
        return;
    }
    if (call->op == CBI_SIM_UNPIN) {
        unpin_block(s, b, out);
        return;
    }
    if (b != NULL && call->op == CBI_SIM_PIN) {
        b->entry.pins++;
    } else if (b != NULL) {
        cbi_lru_touch(&s->lru, &b->entry);
    }
    cbi_sim_text_string(out, b != NULL ? "true" : "false");
}

static void run_op(cbi_sim_spark *s, const cbi_sim_call *call, cbi_sim_text *out) {
    cbi_arbiter *a = &s->arbiter;
    switch ((int)call->op) {
        case CBI_SIM_ACQUIRE_EXECUTION: acquire_execution(s, call, out); break;
        case CBI_SIM_RELEASE_EXECUTION:
        case CBI_SIM_RELEASE_ALL_EXECUTION: release_execution(s, call, out); break;
        case CBI_SIM_ACQUIRE_STORAGE:
        case CBI_SIM_ACQUIRE_UNROLL:
        case CBI_SIM_RAW_ACQUIRE_STORAGE: run_acquire_storage(s, call, out); break;
        case CBI_SIM_RELEASE_UNROLL:
            (void)cbi_arbiter_release_unroll(a, call->mode, call->bytes);
            cbi_sim_text_string(out, "ok");
            break;
        case CBI_SIM_RAW_RELEASE_STORAGE:
            (void)cbi_arbiter_release_storage(a, call->mode, call->bytes);
            cbi_sim_text_string(out, "ok");
            break;
        case CBI_SIM_MAX_STORAGE:
            cbi_sim_text_number(out, cbi_arbiter_storage_max(a, call->mode));
            break;
        case CBI_SIM_STATE: cbi_sim_text_string(out, "ok"); break;
        default: run_block_op(s, call, out); break;
    }
}

bool cbi_sim_spark_run(cbi_sim_spark *s, const cbi_sim_call *call, cbi_sim_text *out,
                       cbi_sim_effect *effect) {
    cbi_sim_text woke = {0};
    s->effect = effect;
    cbi_sim_text_clear(&s->evicted);
    run_op(s, call, out);
    if (!s->failed) {
        wake(s, &woke);
    }
    if (s->evicted.used > 0) {
        cbi_sim_text_string(out, " evicted{");
        cbi_sim_text_add(out, s->evicted.data, s->evicted.used);
        cbi_sim_text_string(out, "}");
    }
    cbi_sim_text_add(out, woke.used > 0 ? woke.data : "", woke.used);
    s->failed = s->failed || woke.failed || s->evicted.failed;
    cbi_sim_text_fini(&woke);
    bool of_task = call->op == CBI_SIM_ACQUIRE_EXECUTION || call->op == CBI_SIM_RELEASE_EXECUTION ||
                   call->op == CBI_SIM_RELEASE_ALL_EXECUTION;
    task *t = of_task ? find_task(s, call->task) : NULL;
    if (t != NULL) {
        forget_task(s, t);
    }
    return !s->failed;
}

/* ---- looking ---- */

static void print_pools(const cbi_sim_state *state, cbi_sim_text *out) {
    static const char *const names[] = {"on", "off"};
    for (int mode = 0; mode < CB_MODE_COUNT; mode++) {
        cbi_sim_text_string(out, names[mode]);
        cbi_sim_text_string(out, "{exec=");
        cbi_sim_text_number(out, state->used[CB_EXECUTION][mode]);
        cbi_sim_text_string(out, "/");
        cbi_sim_text_number(out, state->size[CB_EXECUTION][mode]);
        cbi_sim_text_string(out, " stor=");
        cbi_sim_text_number(out, state->used[CB_STORAGE][mode]);
        cbi_sim_text_string(out, "/");
        cbi_sim_text_number(out, state->size[CB_STORAGE][mode]);
        cbi_sim_text_string(out, "} ");
    }
}

void cbi_sim_spark_print(const cbi_sim_spark *s, cbi_sim_text *out) {
    cbi_sim_state state;
    cbi_sim_spark_state(s, &state);
    print_pools(&state, out);
    cbi_sim_text_string(out, "unroll=");
    cbi_sim_text_number(out, s->arbiter.unroll[CB_HEAP] + s->arbiter.unroll[CB_OFF_HEAP]);
    cbi_sim_text_string(out, " tasks{");
    const char *between = "";
    for (size_t i = 0; i < s->task_count; i++) {
        const cbi_party *p = &s->tasks[i]->party;
        if (p->bytes[CB_HEAP] + p->bytes[CB_OFF_HEAP] > 0) {
            cbi_sim_text_string(out, between);
            cbi_sim_text_number(out, s->tasks[i]->id);
            cbi_sim_text_string(out, "=");
            cbi_sim_text_number(out, p->bytes[CB_HEAP]);
            cbi_sim_text_string(out, "+");
            cbi_sim_text_number(out, p->bytes[CB_OFF_HEAP]);
            between = " ";
        }
    }
    cbi_sim_text_string(out, "}");
}

void cbi_sim_spark_print_nothing(cbi_sim_text *out) {
    print_pools(&(cbi_sim_state){0}, out);
    cbi_sim_text_string(out, "unroll=0 tasks{}");
}

void cbi_sim_spark_state(const cbi_sim_spark *s, cbi_sim_state *state) {
    for (int region = 0; region < 2; region++) {
        for (int mode = 0; mode < CB_MODE_COUNT; mode++) {
            state->size[region][mode] = s->arbiter.pools[region][mode].size;
            state->used[region][mode] = s->arbiter.pools[region][mode].used;
        }
    }
}

void cbi_sim_spark_need(const cbi_sim_spark *s, cbi_sim_need *need) {
    *need = s->need;
}

/* ---- from beginning to end ---- */

cbi_sim_spark *cbi_sim_spark_create(const cbi_sim_config *c, bool boundless) {
    cbi_sim_spark *s = cbi_calloc(1, sizeof *s);
    block **buckets = cbi_calloc(BUCKETS_FIRST, sizeof(block *));
    if (s == NULL || buckets == NULL) {
        cbi_free(s);
        cbi_free(buckets);
        return NULL;
    }
    s->buckets = buckets;
    s->bucket_count = BUCKETS_FIRST;
    s->boundless = boundless;
    uint64_t off_region =
        c->is_static ? 0 : cbi_sim_to_long((double)c->off_heap * c->storage_fraction);
    uint64_t total[CB_MODE_COUNT] = {c->execution + c->storage, c->off_heap};
    uint64_t region[CB_MODE_COUNT] = {c->storage, off_region};
    for (int mode = 0; mode < CB_MODE_COUNT; mode++) {
        double part = total[mode] > 0 ? (double)region[mode] / (double)total[mode] : 0.5;
        part = mode == CB_OFF_HEAP ? c->storage_fraction : part; /* not cut to whole bytes */
        s->region_part[mode] = part < 1 ? part : 0;
        if (boundless) {
            total[mode] = 4 * boundless_bytes;
            region[mode] = 2 * boundless_bytes;
        }
    }
    cbi_arbiter_init(&s->arbiter, CB_RULES_SPARK,
                     c->is_static ? CB_POLICY_STATIC : CB_POLICY_UNIFIED, total, region);
    s->no_off_heap_storage = c->is_static;
    s->arbiter.unroll_evict_max[CB_HEAP] = cbi_sim_to_long((double)c->storage * c->unroll_fraction);
    return s;
}

void cbi_sim_spark_destroy(cbi_sim_spark *s) {
    if (s == NULL) {
        return;
    }
    for (size_t i = 0; i < s->bucket_count; i++) {
        for (block *b = s->buckets[i], *next = NULL; b != NULL; b = next) {
            next = b->next;
            cbi_free(b);
        }
    }
    for (size_t i = 0; i < s->task_count; i++) {
        cbi_free(s->tasks[i]);
    }
    cbi_free(s->buckets);
    cbi_free(s->tasks);
    cbi_sim_text_fini(&s->evicted);
    cbi_free(s);
}
