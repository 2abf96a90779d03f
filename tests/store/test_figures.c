/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: what is published says what there is, and who reads while it is being written gets a whole
 * page or none. Method: a store with blocks at several levels whose figures are known; a thread
 * that publishes pages whose fields must agree while others read.
 */
#include "block_kit.h"

#include <pthread.h>
#include <unistd.h>

#include "carbide/monitor.h"

static void test_figures__say_what_there_is(void **state) {
    (void)state;
    static cb_figures f;
    static char text[1 << 16];
    kit k;
    kit_open(&k, (kit_options){.heap = 1 << 20, .disk = true});
    assert_ok(kit_put(&k, "rdd_1_1", CB_LEVEL_MEMORY_ONLY_SER, 1000));
    assert_ok(kit_put(&k, "rdd_1_2", CB_LEVEL_MEMORY_ONLY_SER, 2000));
    assert_ok(kit_put(&k, "rdd_1_3", CB_LEVEL_DISK_ONLY, 3000));
    assert_ok(kit_put_records(&k, "rdd_1_4", CB_LEVEL_MEMORY_AND_DISK, 10, 10, NULL));
    assert_ok(kit_put(&k, "rdd_1_5", CB_LEVEL_DISK_ONLY_2, 10));
    cb_manager_figures(k.manager, &f);
    cb_blocks_figures(k.blocks, &f);
    assert_int_equal(f.budget, 1 << 20);
    assert_int_equal(f.accounted, cb_manager_accounted(k.manager));
    assert_int_equal(f.pools[CB_STORAGE][CB_HEAP].used, kit_storage(&k, CB_HEAP));
    assert_int_equal(f.blocks.blocks, 5);
    assert_int_equal(f.level_count, 3);
    uint64_t memory = 0, memory_bytes = 0, disk = 0, disk_bytes = 0;
    for (uint32_t i = 0; i < f.level_count; i++) {
        const cb_figures_level *l = &f.levels[i];
        memory += l->memory_blocks;
        memory_bytes += l->memory_bytes;
        disk += l->disk_blocks;
        disk_bytes += l->disk_bytes;
        if (l->level == CB_LEVEL_MEMORY_ONLY_SER) {
            assert_int_equal(l->memory_blocks, 2);
            assert_int_equal(l->memory_bytes, 3000);
        } else if (l->level == CB_LEVEL_DISK_ONLY) {
            assert_int_equal(l->disk_blocks, 2);
        }
    }
    assert_int_equal(memory, f.blocks.memory_blocks);
    assert_int_equal(memory_bytes, f.blocks.memory_bytes);
    assert_int_equal(disk, f.blocks.disk_blocks);
    assert_int_equal(disk_bytes, f.blocks.disk_bytes);
    size_t bytes = cb_figures_write(&f, CB_FIGURES_JSON, text, sizeof text);
    assert_int_equal(bytes, strlen(text));
    assert_non_null(strstr(text, "\"levels\":[{\"level\":\""));
    assert_int_equal(cb_figures_write(&f, CB_FIGURES_JSON, text, 10), bytes);
    assert_int_equal(strlen(text), 9);
    bytes = cb_figures_write(&f, CB_FIGURES_OPENMETRICS, text, sizeof text);
    assert_in_range(bytes, 100, sizeof text - 1);
    assert_non_null(strstr(text, "carbide_block_store_hits_total 0\n"));
    uint64_t removed = 0;
    assert_ok(cb_blocks_remove_data_set(k.blocks, k.task, 1, &removed, NULL));
    cb_blocks_figures(k.blocks, &f);
    assert_int_equal(f.level_count, 0);
    kit_close(&k);
}

typedef struct publisher {
    cb_status_page *page;
    atomic_bool stop;
} publisher;

static void *publish(void *ctx) {
    publisher *p = ctx;
    static cb_figures f;
    for (uint64_t i = 1; !atomic_load(&p->stop); i++) {
        f.budget = f.accounted = f.accounted_peak = f.tasks = i;
        f.levels[CB_FIGURES_ROWS_MAX - 1].disk_bytes = i;
        if (cb_status_page_publish(p->page, &f, NULL) != CB_OK) {
            break;
        }
    }
    return NULL;
}

static void test_figures__a_reader_gets_a_whole_page(void **state) {
    (void)state;
    char path[TEST_PATH_MAX];
    pthread_t thread;
    publisher p = {.page = NULL};
    static cb_figures f;
    bool alive = false;
    test_path(path, test_folder(), "page");
    assert_int_equal(cb_status_page_read(path, &f, &alive, NULL), CB_ENOTFOUND);
    assert_ok(cb_status_page_create(path, &p.page, NULL));
    assert_int_equal(cb_status_page_read(path, &f, &alive, NULL), CB_EDATA); /* nothing yet */
    assert_int_equal(pthread_create(&thread, NULL, publish, &p), 0);
    unsigned whole = 0;
    for (int i = 0; i < 2000; i++) {
        cb_status status = cb_status_page_read(path, &f, &alive, NULL);
        if (status == CB_OK) {
            whole++;
            assert_int_equal(f.budget, f.accounted);
            assert_int_equal(f.budget, f.accounted_peak);
            assert_int_equal(f.budget, f.tasks);
            assert_int_equal(f.budget, f.levels[CB_FIGURES_ROWS_MAX - 1].disk_bytes);
            assert_int_equal(f.pid, getpid());
            assert_true(alive);
        } else {
            assert_int_equal(status, CB_EDATA); /* just now, every time */
        }
    }
    atomic_store(&p.stop, true);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_true(whole > 0);
    cb_status_page_destroy(p.page);
    assert_int_equal(cb_status_page_read(path, &f, &alive, NULL), CB_ENOTFOUND);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_figures__say_what_there_is),
        cmocka_unit_test(test_figures__a_reader_gets_a_whole_page),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
