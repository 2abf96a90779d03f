/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A task's page table: 8192 rows of {first byte, block, owner}. The first bytes lie in an array of
 * their own, so that an address becomes a pointer with one load (cb_address_data); the rest is
 * needed only when pages come and go. Both arrays are mapped at once and resident as far as rows
 * were used: the lowest free number is always taken.
 */
#include "base/alloc.h"
#include "base/sys.h"
#include "memory/task.h"

static const size_t bases_bytes = CB_PAGE_TABLE_SIZE * sizeof(uint8_t *);
static const size_t entries_bytes = CB_PAGE_TABLE_SIZE * sizeof(cbi_page_entry);

/** What so many rows keep resident. */
static uint64_t rows_bytes(uint32_t rows) {
    return cbi_round_up(rows * sizeof(uint8_t *), 4096) +
           cbi_round_up(rows * sizeof(cbi_page_entry), 4096);
}

/** [locked] Native rules charge the rows to the ledger; Spark's budget knows nothing of such
 *  things. */
static void charge_rows(cb_task *t, uint32_t rows) {
    cb_manager *m = t->manager;
    if (m->rules == CB_RULES_NATIVE) {
        cbi_ledger_force(m->tables,
                         m->tables->bytes - rows_bytes(t->table_rows) + rows_bytes(rows));
    }
    t->table_rows = rows;
}

cb_status cbi_page_table_create(cb_task *t, cb_error *err) {
    uint8_t *tables = cbi_sys_map(bases_bytes + entries_bytes);
    if (tables == NULL) {
        return cbi_fail(err, CB_ENOMEM, "The system has no memory for a page table.");
    }
    t->bases = (uint8_t **)(void *)tables;
    t->entries = (cbi_page_entry *)(void *)(tables + bases_bytes);
    cbi_lock_take(&t->manager->lock);
    charge_rows(t, CBI_TABLE_STEP_ROWS);
    cbi_lock_give(&t->manager->lock);
    return CB_OK;
}

void cbi_page_table_destroy(cb_task *t) {
    cbi_lock_take(&t->manager->lock);
    charge_rows(t, 0);
    cbi_lock_give(&t->manager->lock);
    cbi_sys_unmap(t->bases, bases_bytes + entries_bytes);
}

void cb_address_invalid(const cb_page *page) {
    (void)page;
    cbi_assert_failed("encodePageNumberAndOffset called with invalid page", __FILE__, __LINE__,
                      __func__);
}

uint8_t *const *cb_task_page_table(const cb_task *t) {
    return t->bases;
}

/* ---- numbers ---- */

/** [locked] The lowest free number, now taken; -1: all are. */
static int32_t number_take(cb_task *t) {
    const uint32_t words = CB_PAGE_TABLE_SIZE / 64;
    uint32_t word = t->page_hint;
    while (word < words && t->page_bits[word] == UINT64_MAX) {
        word++;
    }
    t->page_hint = word;
    if (word == words) {
        return -1;
    }
    uint32_t bit = (uint32_t)__builtin_ctzll(~t->page_bits[word]);
    t->page_bits[word] |= (uint64_t)1 << bit;
    uint32_t number = word * 64 + bit;
    if (CBI_UNLIKELY(number >= t->table_rows)) {
        charge_rows(t, t->table_rows + CBI_TABLE_STEP_ROWS);
    }
    t->pages++;
    return (int32_t)number;
}

/** [locked] */
static void number_give(cb_task *t, uint32_t number) {
    t->page_bits[number / 64] &= ~((uint64_t)1 << (number % 64));
    if (number / 64 < t->page_hint) {
        t->page_hint = number / 64;
    }
    t->pages--;
}

/** [locked] */
static void row_set(cb_task *t, uint32_t number, cbi_block *block, cb_consumer *consumer,
                    size_t bytes, size_t charge) {
    t->bases[number] = block->base;
    t->entries[number] =
        (cbi_page_entry){.block = block, .consumer = consumer, .bytes = bytes, .charge = charge};
}

/* ---- allocate ---- */

/** What a page is accounted with: native, what really backs it; Spark, what was asked. */
static size_t charge_of(const cb_manager *m, const cb_allocator *allocator, size_t bytes) {
    return m->rules == CB_RULES_NATIVE ? cbi_allocator_capacity(allocator, bytes) : bytes;
}

/** The largest page that so many bytes of budget are enough for. */
static size_t page_within(const cb_manager *m, const cb_allocator *allocator, size_t bytes) {
    return m->rules == CB_RULES_NATIVE ? cbi_allocator_within(allocator, bytes) : bytes;
}

static cb_status check_request(const cb_consumer *c, size_t bytes_min, size_t bytes,
                               cb_error *err) {
    const cb_manager *m = c->task->manager;
    if (c->mode != m->mode) {
        return cbi_fail(err, CB_EMISUSE,
                        "Consumer \"%s\" cannot have pages: they come in the manager's mode only.",
                        c->name);
    }
    if (bytes == 0 || bytes > CB_PAGE_BYTES_MAX) {
        return cbi_fail_bytes(err, CB_EINVAL, bytes, CB_PAGE_BYTES_MAX,
                              "Cannot allocate a page of %zu bytes.", bytes);
    }
    if (bytes_min == 0 || bytes_min > bytes) {
        return cbi_fail(err, CB_EINVAL,
                        "A page of at most %zu bytes cannot have to have at least %zu.", bytes,
                        bytes_min);
    }
    if (cbi_task_is_spilling()) {
        cb_assert_debug(!cbi_task_is_spilling()); /* spilling never acquires */
        return cbi_fail(
            err, CB_EMISUSE,
            "Consumer \"%s\" was asked for a page by a spill function: spilling must not acquire.",
            c->name);
    }
    return CB_OK;
}

/** [locked] The bytes were granted: the number, and the block when an idle one fits. */
static cb_status place(cb_consumer *c, size_t capacity, size_t charge, int32_t *number,
                       cbi_block **block, cb_error *err) {
    cb_task *t = c->task;
    *number = number_take(t);
    if (CBI_UNLIKELY(*number < 0)) {
        (void)cbi_task_release(c, charge);
        return cbi_fail(err, CB_EBUDGET, "Have already allocated a maximum of %d pages",
                        (int)CB_PAGE_TABLE_SIZE);
    }
    *block = cbi_allocator_reuse(t->manager->allocators[c->mode], capacity);
    return CB_OK;
}

/**
 * The system refused what the budget had granted: there is less memory than was thought. The grant
 * is put aside so that it is not tried with again, and the next round gets other bytes, perhaps by
 * spilling.
 */
static void put_aside(cb_consumer *c, int32_t number, size_t charge) {
    cb_task *t = c->task;
    cbi_lock_take(&t->manager->lock);
    number_give(t, (uint32_t)number);
    t->aside += charge;
    atomic_fetch_sub_explicit(&c->used, charge, memory_order_relaxed);
    cbi_lock_give(&t->manager->lock);
}

/** Native: what was put aside is given back when the call ends, one way or the other; Spark keeps
 *  it until the task ends. */
static void give_aside(cb_consumer *c, uint64_t bytes) {
    cb_task *t = c->task;
    cb_manager *m = t->manager;
    if (bytes > 0 && m->rules == CB_RULES_NATIVE) {
        cbi_lock_take(&m->lock);
        t->aside -= bytes;
        (void)cbi_arbiter_release(&m->arbiter, &t->party, c->mode, bytes);
        cbi_manager_pass_on(m);
        cbi_lock_give(&m->lock);
    }
}

/** What a page is to be, and what one round made of it. */
typedef struct request {
    cb_consumer *consumer;
    size_t bytes_min, bytes;
    size_t charge;    /* of this round, accounted to the consumer */
    uint64_t granted; /* by the budget */
    int32_t number;
    cbi_block *block; /* NULL: still to be had from the system */
} request;

/** [locked] The bytes are granted, or some of them: cuts the page to what there is. False: that is
 *  less than it needs, and nothing is kept. */
static bool cut_to_grant(request *r, const cb_allocator *allocator) {
    const cb_manager *m = r->consumer->task->manager;
    if (CBI_LIKELY(r->granted == r->charge)) {
        return true;
    }
    size_t bytes = page_within(m, allocator, (size_t)r->granted);
    bool enough = bytes >= r->bytes_min;
    r->bytes = enough ? bytes : r->bytes;
    r->charge = enough ? charge_of(m, allocator, bytes) : 0;
    if (r->granted > r->charge) { /* of nothing: Spark's rules would take the task out of the N */
        (void)cbi_task_release(r->consumer, r->granted - r->charge);
    }
    return enough;
}

/** [locked] */
static void enter(const request *r) {
    row_set(r->consumer->task, (uint32_t)r->number, r->block, r->consumer, r->bytes, r->charge);
}

/** The budget's half of a round: bytes, number, and the block when an idle one fits. */
static cb_status account(request *r, cb_allocator *allocator, cb_error *err) {
    cb_consumer *c = r->consumer;
    cb_manager *m = c->task->manager;
    size_t asked = r->charge;
    bool enough = false;
    cbi_lock_take(&m->lock);
    cb_status status = cbi_task_acquire(c, r->charge, &r->granted, err);
    if (CBI_LIKELY(status == CB_OK && (enough = cut_to_grant(r, allocator)))) {
        size_t capacity = cbi_allocator_capacity(allocator, r->bytes);
        status = place(c, capacity, r->charge, &r->number, &r->block, err);
        if (CBI_LIKELY(r->block != NULL)) {
            enter(r);
        }
    }
    cbi_block *chain = cbi_manager_shed(m, c->mode);
    cbi_manager_note_peak(m);
    cbi_lock_give(&m->lock);
    if (CBI_UNLIKELY(chain != NULL)) {
        (void)cbi_allocator_drop(allocator, chain);
    }
    return status == CB_OK && !enough ? cbi_task_refuse(c, asked, r->granted, err) : status;
}

/** One round: *aside grows when the system, not the budget, had nothing. */
static cb_status allocate_once(cb_consumer *c, size_t bytes_min, size_t bytes, cb_page *page,
                               uint64_t *aside, cb_error *err) {
    cb_manager *m = c->task->manager;
    cb_allocator *allocator = m->allocators[c->mode];
    request r;
    r.consumer = c; /* one by one: a copy of a struct that was just written waits for the writes */
    r.bytes_min = bytes_min;
    r.bytes = bytes;
    r.charge = charge_of(m, allocator, bytes);
    r.granted = 0;
    r.block = NULL;
    CB_TRY(account(&r, allocator, err));
    if (r.block == NULL) {
        size_t capacity = cbi_allocator_capacity(allocator, r.bytes);
        cb_status status = cbi_allocator_fresh(allocator, capacity, &r.block, err);
        if (status != CB_OK) {
            put_aside(r.consumer, r.number, r.charge);
            *aside += r.charge;
            return status;
        }
        cbi_lock_take(&m->lock);
        enter(&r);
        cbi_lock_give(&m->lock);
    }
    cbi_allocator_enter(allocator, r.block, r.bytes, page);
    page->number = r.number;
    return CB_OK;
}

cb_status cb_page_alloc_least(cb_consumer *c, size_t bytes_min, size_t bytes, cb_page *page,
                              cb_error *err) {
    CB_TRY(check_request(c, bytes_min, bytes, err));
    cb_manager *m = c->task->manager;
    uint64_t aside = 0, before;
    cb_status status;
    do {
        before = aside;
        status = allocate_once(c, bytes_min, bytes, page, &aside, err);
        if (CBI_UNLIKELY(aside > before)) {
            for (int mode = 0; mode < CB_MODE_COUNT; mode++) {
                (void)cb_allocator_trim(m->allocators[mode], 0);
            }
        }
    } while (CBI_UNLIKELY(aside > before));
    if (CBI_UNLIKELY(aside > 0)) {
        give_aside(c, aside);
        if (status == CB_EBUDGET) { /* the budget ran out only because of what the system refused */
            return cbi_fail_bytes(
                err, CB_ENOMEM, bytes, 0,
                "The system refused a page of %zu bytes, after all spilled that would.", bytes);
        }
    }
    return status;
}

cb_status cb_page_alloc(cb_consumer *c, size_t bytes, cb_page *page, cb_error *err) {
    return cb_page_alloc_least(c, bytes, bytes, page, err);
}

/* ---- free ---- */

/** [locked] Spark's sentences; NULL when the page may be freed. */
static const char *find_misuse(const cb_consumer *c, const cb_page *page) {
    if (page->number == CB_PAGE_NONE) {
        return "Called freePage() on memory that wasn't allocated with allocatePage()";
    }
    if (page->number < 0 || page->number >= CB_PAGE_TABLE_SIZE) {
        return "Called freePage() on a memory block that has already been freed";
    }
    const cbi_page_entry *entry = &c->task->entries[page->number];
    if (entry->block == NULL || entry->block != page->block ||
        entry->block->generation != page->generation) {
        return "Called freePage() on a memory block that has already been freed";
    }
    return entry->consumer != c ? "Called freePage() on a page of another consumer" : NULL;
}

/** [locked] Takes a page out of the table; false: its block is not kept and must be dropped without
 *  the lock. */
static bool row_clear(cb_task *t, uint32_t number, cb_page *page) {
    cb_manager *m = t->manager;
    cbi_page_entry *entry = &t->entries[number];
    cb_consumer *owner = entry->consumer;
    cb_allocator *allocator = m->allocators[owner->mode];
    t->bases[number] = NULL;
    entry->block = NULL;
    number_give(t, number);
    page->number = CB_PAGE_FREED_BY_TASK;
    cbi_block *block = page->block;
    cbi_allocator_leave(allocator, block, page);
    bool kept = cbi_allocator_keep(allocator, block);
    (void)cbi_task_release(owner, entry->charge);
    return kept;
}

cb_status cb_page_free(cb_consumer *c, cb_page *page, cb_error *err) {
    cb_task *t = c->task;
    cb_manager *m = t->manager;
    cbi_lock_take(&m->lock);
    const char *misuse = find_misuse(c, page);
    if (CBI_UNLIKELY(misuse != NULL)) {
        cbi_lock_give(&m->lock);
        return cbi_fail(err, CB_EMISUSE, "%s", misuse);
    }
    cbi_block *block = page->block;
    bool kept = row_clear(t, (uint32_t)page->number, page);
    cbi_block *chain = cbi_manager_shed(m, c->mode);
    cbi_lock_give(&m->lock);
    if (CBI_UNLIKELY(!kept)) {
        (void)cbi_allocator_drop(m->allocators[c->mode], block);
    }
    if (CBI_UNLIKELY(chain != NULL)) {
        (void)cbi_allocator_drop(m->allocators[c->mode], chain);
    }
    cbi_manager_return_spare(m, c->mode);
    return CB_OK;
}

uint64_t cbi_page_free_all(cb_task *t, const cb_consumer *consumer) {
    cb_manager *m = t->manager;
    uint64_t freed = 0;
    for (uint32_t number = 0; number < t->table_rows; number++) {
        cbi_lock_take(&m->lock);
        cbi_page_entry entry = t->entries[number];
        bool mine = entry.block != NULL && (consumer == NULL || entry.consumer == consumer);
        bool kept = true;
        if (mine) {
            cb_page page;
            page.block = entry.block;
            page.bytes = entry.bytes;
            kept = row_clear(t, number, &page);
            freed += entry.charge;
        }
        cbi_lock_give(&m->lock);
        if (!kept) {
            (void)cbi_allocator_drop(m->allocators[entry.consumer->mode], entry.block);
        }
    }
    return freed;
}

/* ---- arrays ---- */

cb_status cb_array_alloc(cb_consumer *c, size_t count, cb_array *array, cb_error *err) {
    if (count > CB_PAGE_BYTES_MAX / sizeof(uint64_t)) {
        return cbi_fail(err, CB_EINVAL, "An array of %zu elements does not fit in a page.", count);
    }
    cb_page page = {0};
    CB_TRY(cb_page_alloc(c, count * sizeof(uint64_t), &page, err));
    *array =
        (cb_array){.items = (uint64_t *)(void *)cb_page_data(&page), .count = count, .page = page};
    return CB_OK;
}

cb_status cb_array_free(cb_consumer *c, cb_array *array, cb_error *err) {
    CB_TRY(cb_page_free(c, &array->page, err));
    array->items = NULL;
    array->count = 0;
    return CB_OK;
}
