/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: a directory knows what its executors' stores have, whatever happens to either. Method: a
 * store on a real directory behind a wrapper that refuses, forgets and runs out of memory when told
 * to; then threads that change blocks while somebody throws the executor out all the time.
 */
#include "store/report.h"

#include "base/sys.h"
#include "store/block_kit.h"

#define SER CB_LEVEL_MEMORY_ONLY_SER

typedef struct office {
    cb_local_directory *local;
    cb_directory inner, outer;
    _Atomic int enters;
    cb_status refuse; /* what the next report is answered, once; CB_ENOTFOUND: and it forgets all */
    cb_level refuse_from; /* if it is of such a level */
} office;

static cb_status office_enter(void *ctx, const cb_executor_entry *entry, uint64_t *generation,
                              cb_error *err) {
    office *o = ctx;
    o->enters++;
    return o->inner.enter(o->inner.ctx, entry, generation, err);
}

static void office_leave(void *ctx, const char *name, uint64_t generation) {
    const office *o = ctx;
    o->inner.leave(o->inner.ctx, name, generation);
}

static void forget(const office *o, const char *name) {
    const cb_executor_entry other = {.name = name, .memory_max = 1};
    uint64_t generation = 0;
    assert_ok(o->inner.enter(o->inner.ctx, &other, &generation, NULL));
    o->inner.leave(o->inner.ctx, name, generation);
}

static cb_status office_report(void *ctx, const char *name, uint64_t generation, const char *block,
                               const cb_place *place, cb_error *err) {
    office *o = ctx;
    cb_status answer = o->refuse;
    if (answer != CB_OK && place->level == o->refuse_from) {
        o->refuse = CB_OK;
        if (answer == CB_ENOTFOUND) {
            forget(o, name);
        }
        return answer;
    }
    return o->inner.report(o->inner.ctx, name, generation, block, place, err);
}

static cb_status office_renew(void *ctx, const char *name, uint64_t generation, cb_error *err) {
    const office *o = ctx;
    return o->inner.renew(o->inner.ctx, name, generation, err);
}

static void office_open(office *o) {
    *o = (office){.local = NULL};
    assert_ok(cb_local_directory_create(0, NULL, NULL, &o->local, NULL));
    o->inner = cb_local_directory_interface(o->local);
    o->outer = (cb_directory){.enter = office_enter,
                              .leave = office_leave,
                              .report = office_report,
                              .renew = office_renew,
                              .ctx = o};
}

/** What the directory says of a block at the only executor there is. */
static cb_place known(const office *o, const char *block) {
    cb_location at[2];
    size_t count = 0;
    assert_ok(o->inner.locate(o->inner.ctx, block, at, 2, &count, NULL));
    assert_true(count <= 1);
    return count == 1 ? at[0].place : (cb_place){.level = CB_LEVEL_NONE};
}

static cb_executor_view view_of(const office *o) {
    cb_executor_view view = {.blocks = 0};
    size_t count = 0;
    assert_ok(o->inner.peers(o->inner.ctx, "nobody", &view, 1, &count, NULL));
    assert_true(count <= 1);
    return view;
}

static void open_in(kit *k, office *o, uint64_t bytes, const char *keep) {
    static const char *folder;
    *k = (kit){.manager = NULL};
    folder = folder != NULL ? folder : test_folder();
    const cb_manager_options m = {.struct_size = sizeof m,
                                  .rules = CB_RULES_NATIVE,
                                  .mode = CB_HEAP,
                                  .heap_bytes = bytes,
                                  .storage_fraction = 0.5};
    assert_ok(cb_manager_create(&m, &k->manager, NULL));
    char name[] = "one";
    const cb_executor_entry as = {.name = name, .address = "here:1", .host = "h", .rack = "r"};
    const cb_blocks_options b = {.struct_size = sizeof b,
                                 .manager = k->manager,
                                 .folder = folder,
                                 .keep = keep,
                                 .directory = &o->outer,
                                 .executor = &as};
    assert_ok(cb_blocks_create(&b, &k->blocks, NULL));
    name[0] = '?'; /* it was copied */
    assert_ok(cb_block_task_create(k->blocks, 0, 0, &k->task, NULL));
}

static void test_report__the_directory_hears_of_each_change(void **state) {
    (void)state;
    office o;
    kit k;
    office_open(&o);
    open_in(&k, &o, 4 * CBI_MIB, NULL);
    cb_executor_view view = view_of(&o);
    assert_string_equal(view.name, "one");
    assert_string_equal(view.address, "here:1");
    assert_string_equal(view.host, "h");
    assert_string_equal(view.rack, "r");
    assert_true(view.memory_max > 3 * CBI_MIB && view.memory_max <= 4 * CBI_MIB);
    assert_ok(kit_put(&k, "a", SER, 1000));
    assert_ok(kit_put(&k, "b", CB_LEVEL_DISK_ONLY_2, 2000));
    assert_ok(kit_put(&k, "c", CB_LEVEL_MEMORY_AND_DISK_SER, 1500000));
    assert_int_equal(known(&o, "a").level, SER);
    assert_int_equal(known(&o, "a").memory_bytes, 1000);
    assert_int_equal(known(&o, "b").level, CB_LEVEL_DISK_ONLY_2);
    assert_int_equal(view_of(&o).blocks, 3);
    for (int i = 0; i < 4; i++) { /* c has to leave for others */
        char name[8];
        (void)snprintf(name, sizeof name, "d%d", i);
        assert_ok(kit_put(&k, name, SER, 900000));
    }
    assert_int_equal(known(&o, "c").level, CB_LEVEL_DISK_ONLY);
    assert_int_equal(known(&o, "a").level, CB_LEVEL_NONE); /* a left as well, and for good */
    assert_ok(cb_blocks_remove(k.blocks, k.task, "b", NULL));
    assert_int_equal(known(&o, "b").level, CB_LEVEL_NONE);
    assert_int_equal(o.enters, 1);
    kit_close(&k);
    assert_int_equal(view_of(&o).generation, 0); /* it has left */
    cb_local_directory_destroy(o.local);
}

static void test_report__who_is_forgotten_enters_again_and_tells_everything(void **state) {
    (void)state;
    office o;
    kit k;
    office_open(&o);
    open_in(&k, &o, 64 * CBI_MIB, NULL);
    enum { MANY = 1000 };
    char name[16];
    for (int i = 0; i < MANY; i++) {
        (void)snprintf(name, sizeof name, "block_%d", i);
        assert_ok(kit_put(&k, name, SER, 100));
    }
    forget(&o, "one");
    assert_int_equal(known(&o, "block_0").level, CB_LEVEL_NONE);
    assert_ok(cb_blocks_remove(k.blocks, k.task, "block_7", NULL)); /* which finds it out */
    assert_int_equal(o.enters, 2);
    assert_int_equal(view_of(&o).blocks, MANY - 1);
    forget(&o, "one");
    assert_ok(cb_blocks_renew(k.blocks, NULL)); /* as does this */
    assert_int_equal(o.enters, 3);
    assert_int_equal(view_of(&o).blocks, MANY - 1);
    assert_string_equal(view_of(&o).address, "here:1");
    assert_ok(cb_blocks_renew(k.blocks, NULL));
    assert_int_equal(o.enters, 3);
    kit_close(&k);
    cb_local_directory_destroy(o.local);
}

/* A block whose own report is what finds it out is there when all are told, and one whose end is
 * reported is not. */
static void test_report__what_comes_or_goes_just_then_is_told_right(void **state) {
    (void)state;
    office o;
    kit k;
    office_open(&o);
    open_in(&k, &o, 4 * CBI_MIB, NULL);
    o.refuse = CB_ENOTFOUND;
    o.refuse_from = SER;
    assert_ok(kit_put(&k, "comes", SER, 100));
    assert_int_equal(known(&o, "comes").level, SER);
    assert_ok(kit_put(&k, "on disk", CB_LEVEL_DISK_ONLY, 100));
    o.refuse = CB_ENOTFOUND;
    o.refuse_from = CB_LEVEL_NONE;
    assert_ok(cb_blocks_remove(k.blocks, k.task, "on disk", NULL));
    assert_int_equal(known(&o, "on disk").level, CB_LEVEL_NONE);
    assert_int_equal(known(&o, "comes").level, SER);
    o.refuse = CB_ENOTFOUND;
    assert_ok(cb_blocks_remove(k.blocks, k.task, "comes", NULL));
    assert_int_equal(view_of(&o).blocks, 0);
    assert_int_equal(o.enters, 4);
    cb_block_ref ref = {0};
    assert_ok(kit_put(&k, "locked", SER, 100));
    assert_ok(cb_blocks_lock(k.blocks, k.task, "locked", true, true, &ref, NULL));
    forget(&o, "one");
    assert_ok(cb_blocks_renew(k.blocks, NULL));
    assert_int_equal(known(&o, "locked").level, SER); /* whoever may be about to write to it */
    cb_block_release(&ref);
    kit_close(&k);
    cb_local_directory_destroy(o.local);
}

static void test_report__what_could_not_be_reported_is_made_up_for(void **state) {
    (void)state;
    office o;
    kit k;
    office_open(&o);
    open_in(&k, &o, 4 * CBI_MIB, NULL);
    o.refuse = CB_ENOMEM;
    o.refuse_from = SER;
    assert_ok(kit_put(&k, "a", SER, 100)); /* whose block it is does not suffer */
    assert_int_equal(known(&o, "a").level, CB_LEVEL_NONE);
    o.refuse = CB_ENOMEM;
    assert_status(cb_blocks_renew(k.blocks, NULL), CB_EAGAIN);
    assert_int_equal(known(&o, "a").level, CB_LEVEL_NONE);
    assert_ok(cb_blocks_renew(k.blocks, NULL));
    assert_int_equal(known(&o, "a").level, SER);
    kit_close(&k);
    cb_local_directory_destroy(o.local);
}

static void test_report__kept_blocks_are_told_at_the_start(void **state) {
    (void)state;
    office o;
    kit k;
    office_open(&o);
    open_in(&k, &o, 4 * CBI_MIB, "told");
    assert_ok(kit_put(&k, "stays", CB_LEVEL_DISK_ONLY, 300));
    assert_ok(cb_blocks_keep(k.blocks, k.task, "stays", NULL));
    kit_close(&k);
    assert_int_equal(known(&o, "stays").level, CB_LEVEL_NONE);
    open_in(&k, &o, 4 * CBI_MIB, "told");
    assert_int_equal(known(&o, "stays").level, CB_LEVEL_DISK_ONLY);
    assert_ok(cb_blocks_remove(k.blocks, k.task, "stays", NULL));
    assert_int_equal(known(&o, "stays").level, CB_LEVEL_NONE);
    kit_close(&k);
    cb_local_directory_destroy(o.local);
}

static void test_report__an_executor_needs_a_name_that_fits(void **state) {
    (void)state;
    office o;
    kit k;
    char name[CB_EXECUTOR_NAME_MAX + 10];
    office_open(&o);
    kit_open(&k, (kit_options){.heap = 4 * CBI_MIB});
    memset(name, 'x', sizeof name);
    name[sizeof name - 1] = 0;
    const cb_executor_entry as = {.name = name};
    cb_blocks_options b = {
        .struct_size = sizeof b, .manager = k.manager, .directory = &o.outer, .executor = &as};
    cb_blocks *blocks = NULL;
    (void)cb_block_task_end(k.task);
    k.task = NULL;
    cb_blocks_destroy(k.blocks);
    k.blocks = NULL;
    assert_status(cb_blocks_create(&b, &blocks, NULL), CB_EINVAL);
    b.executor = NULL;
    assert_status(cb_blocks_create(&b, &blocks, NULL), CB_EINVAL);
    assert_null(blocks);
    cb_manager_destroy(k.manager);
    cb_local_directory_destroy(o.local);
}

/* ---- all at once ---- */

enum { CHANGERS = 3, TURNS = 4000, NAMES = 64 };

typedef struct crowd {
    kit *k;
    const office *o;
    uint64_t id;
    _Atomic bool *stop;
} crowd;

static void change(void *ctx) {
    const crowd *c = ctx;
    cb_block_task *task = NULL;
    uint64_t x = c->id * 77 + 1;
    uint8_t bytes[6000] = {0};
    if (cb_block_task_create(c->k->blocks, c->id, 0, &task, NULL) != CB_OK) {
        return;
    }
    for (int i = 0; i < TURNS; i++) {
        char name[16];
        cb_block_ref ref = {0};
        x = x * 6364136223846793005u + 1442695040888963407u;
        (void)snprintf(name, sizeof name, "block_%u", (unsigned)(x >> 40) % NAMES);
        cb_level level = x >> 62 == 0 ? CB_LEVEL_MEMORY_AND_DISK_SER : SER;
        cb_status status = CB_OK;
        switch ((x >> 33) % 4) {
            case 0: status = cb_blocks_remove(c->k->blocks, task, name, NULL); break;
            case 1: status = cb_blocks_get(c->k->blocks, task, name, &ref, NULL); break;
            default:
                status = cb_blocks_put_bytes(c->k->blocks, task, name, level, NULL, bytes,
                                             (size_t)(x >> 20) % sizeof bytes, NULL, NULL);
        }
        if (status == CB_OK) {
            cb_block_release(&ref);
        }
    }
    (void)cb_block_task_end(task);
}

static void throw_out(void *ctx) {
    const crowd *c = ctx;
    while (!atomic_load(c->stop)) {
        const cb_executor_entry other = {.name = "one", .memory_max = 1};
        uint64_t generation = 0;
        (void)c->o->inner.enter(c->o->inner.ctx, &other, &generation, NULL);
        cbi_sys_sleep_ns(50000);
    }
}

static bool compare(void *ctx, const cb_block_status *status) {
    const office *o = ctx;
    cb_place expected = cbi_place_of(status), place = known(o, status->name);
    assert_int_equal(place.level, expected.level);
    assert_int_equal(place.memory_bytes, expected.memory_bytes);
    assert_int_equal(place.disk_bytes, expected.disk_bytes);
    return true;
}

static void test_report__in_the_end_it_knows_what_is_there_whoever_threw_it_out(void **state) {
    (void)state;
    office o;
    kit k;
    _Atomic bool stop = false;
    office_open(&o);
    open_in(&k, &o, 700 * 1024, NULL); /* evictions too */
    cbi_thread threads[CHANGERS + 1];
    crowd crowds[CHANGERS + 1];
    for (uint64_t i = 0; i <= CHANGERS; i++) {
        crowds[i] = (crowd){.k = &k, .o = &o, .id = i + 1, .stop = &stop};
        assert_ok(cbi_thread_start(&threads[i], i < CHANGERS ? change : throw_out, &crowds[i],
                                   "crowd", NULL));
    }
    for (int i = 0; i < CHANGERS; i++) {
        cbi_thread_join(&threads[i]);
    }
    atomic_store(&stop, true);
    cbi_thread_join(&threads[CHANGERS]);
    assert_ok(cb_blocks_renew(k.blocks, NULL));
    cb_blocks_stats stats;
    cb_blocks_stats_get(k.blocks, &stats);
    assert_int_equal(view_of(&o).blocks, stats.blocks);
    assert_int_equal(view_of(&o).memory_bytes, stats.memory_bytes);
    assert_int_equal(view_of(&o).disk_bytes, stats.disk_bytes);
    assert_ok(cb_blocks_list(k.blocks, compare, &o, NULL));
    kit_close(&k);
    cb_local_directory_destroy(o.local);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_report__the_directory_hears_of_each_change),
        cmocka_unit_test(test_report__who_is_forgotten_enters_again_and_tells_everything),
        cmocka_unit_test(test_report__what_comes_or_goes_just_then_is_told_right),
        cmocka_unit_test(test_report__what_could_not_be_reported_is_made_up_for),
        cmocka_unit_test(test_report__kept_blocks_are_told_at_the_start),
        cmocka_unit_test(test_report__an_executor_needs_a_name_that_fits),
        cmocka_unit_test(test_report__in_the_end_it_knows_what_is_there_whoever_threw_it_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
