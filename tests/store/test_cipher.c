/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: what is sealed on disk comes back, and only with its key and only as it was written; nobody
 * reads it there; no nonce is used twice. Method: blocks of all sizes through all codecs; bytes of
 * files changed; files and frames of one block in the place of another's; a cipher that remembers
 * what it was asked.
 */
#include "block_kit.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#define DISK CB_LEVEL_DISK_ONLY

static const uint8_t key[32] = {1, 2, 3, 4, 5}, other_key[32] = {1, 2, 3, 4, 6};

static cb_cipher *make_cipher(const uint8_t k[32]) {
    cb_cipher *cipher = NULL;
    if (cb_cipher_aes_gcm_create(k, &cipher, NULL) != CB_OK) {
        skip(); /* built without OpenSSL */
    }
    return cipher;
}

/** The only file of a block below. */
static bool find_file(const char *folder, char path[TEST_PATH_MAX]) {
    bool found = false;
    DIR *d = opendir(folder);
    for (struct dirent *e; d != NULL && !found && (e = readdir(d)) != NULL;) {
        char below[TEST_PATH_MAX];
        struct stat st;
        if (e->d_name[0] == '.' || strcmp(e->d_name, "owner") == 0) {
            continue;
        }
        test_path(below, folder, e->d_name);
        if (lstat(below, &st) == 0 && S_ISDIR(st.st_mode)) {
            found = find_file(below, path);
        } else {
            memcpy(path, below, sizeof below);
            found = true;
        }
    }
    if (d != NULL) {
        (void)closedir(d);
    }
    return found;
}

static size_t load(const char *path, uint8_t *bytes, size_t room) {
    FILE *f = fopen(path, "rb");
    size_t got = f != NULL ? fread(bytes, 1, room, f) : 0;
    if (f != NULL) {
        (void)fclose(f);
    }
    return got;
}

static void save(const char *path, const uint8_t *bytes, size_t count) {
    FILE *f = fopen(path, "wb");
    size_t put = f != NULL ? fwrite(bytes, 1, count, f) : 0;
    assert_int_equal(put, count);
    if (f != NULL) {
        (void)fclose(f);
    }
}

static void test_cipher__every_size_through_every_codec(void **state) {
    const size_t sizes[] = {0, 1, 100, 4096, 262143, 262144, 262145, 1000000};
    (void)state;
    cb_cipher *cipher = make_cipher(key);
    for (int codec = 0; codec < 3; codec++) {
        kit k;
        kit_open(&k, (kit_options){.heap = 8 << 20,
                                   .disk = true,
                                   .codec = (cb_block_codec)codec,
                                   .cipher = cipher});
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            char name[32];
            (void)snprintf(name, sizeof name, "disk_%zu", i);
            assert_ok(kit_put(&k, name, DISK, sizes[i]));
            assert_ok(kit_check(&k, name, sizes[i]));
        }
        assert_ok(kit_put_records(&k, "rdd_1_1", DISK, 3000, 200, NULL));
        assert_ok(kit_check_records(&k, "rdd_1_1", 3000, 200));
        kit_close(&k);
    }
    cb_cipher_aes_gcm_destroy(cipher);
}

static void test_cipher__nobody_reads_it_there(void **state) {
    static uint8_t bytes[1 << 17];
    char path[TEST_PATH_MAX];
    (void)state;
    cb_cipher *cipher = make_cipher(key);
    kit k;
    kit_open(&k, (kit_options){.heap = 8 << 20, .disk = true, .cipher = cipher});
    memset(bytes, 'Z', 60000);
    assert_ok(cb_blocks_put_bytes(k.blocks, k.task, "a", DISK, NULL, bytes, 60000, NULL, NULL));
    assert_true(find_file(k.folder, path));
    size_t count = load(path, bytes, sizeof bytes);
    assert_in_range(count, 60000, 61000);
    assert_null(memmem(bytes, count, "ZZZZ", 4));
    kit_close(&k);
    cb_cipher_aes_gcm_destroy(cipher);
}

static void test_cipher__a_changed_byte_or_another_key_is_found(void **state) {
    static uint8_t file[16384], changed[16384];
    char path[TEST_PATH_MAX];
    (void)state;
    cb_cipher *cipher = make_cipher(key), *other = make_cipher(other_key);
    kit k;
    kit_open(&k, (kit_options){.heap = 8 << 20, .disk = true, .cipher = cipher});
    for (size_t at = 0; at < 5000; at += at < 600 ? 1 : 37) {
        assert_ok(kit_put(&k, "a", DISK, 4000));
        assert_true(find_file(k.folder, path));
        size_t count = load(path, file, sizeof file);
        if (at >= count) {
            assert_ok(cb_blocks_remove(k.blocks, k.task, "a", NULL));
            break;
        }
        memcpy(changed, file, count);
        changed[at] ^= 0x10;
        save(path, changed, count);
        assert_int_equal(kit_check(&k, "a", 4000), CB_ECORRUPT);
        assert_false(kit_exists(&k, "a"));
    }
    kit_close(&k);
    /* the same file under another key, and where there is none */
    const cb_cipher *const readers[] = {other, NULL};
    for (int i = 0; i < 2; i++) {
        kit_open(&k,
                 (kit_options){.heap = 8 << 20, .disk = true, .files = true, .cipher = readers[i]});
        assert_ok(kit_put(&k, "a", DISK, 4000));
        assert_true(find_file(k.folder, path));
        size_t count = load(path, changed, 8192);
        save(path, file, count + (readers[i] == NULL ? 16 : 0));
        assert_int_equal(kit_check(&k, "a", 4000), CB_ECORRUPT);
        kit_close(&k);
        if (i == 1) { /* and a plain one where there is a key */
            kit_open(&k, (kit_options){.heap = 8 << 20, .disk = true, .cipher = cipher});
            assert_ok(kit_put(&k, "a", DISK, 4000));
            assert_true(find_file(k.folder, path));
            save(path, changed, count);
            assert_int_equal(kit_check(&k, "a", 4000), CB_ECORRUPT);
            kit_close(&k);
        }
    }
    cb_cipher_aes_gcm_destroy(cipher);
    cb_cipher_aes_gcm_destroy(other);
}

/* ---- what a cipher is asked ---- */

enum { ASKED_MAX = 4096 };

static struct asked {
    uint8_t salt[CB_CIPHER_SALT_BYTES];
    uint64_t number;
} asked[ASKED_MAX];
static size_t asked_count;

typedef struct watched {
    const cb_cipher *real;
    void *session;
    uint8_t salt[CB_CIPHER_SALT_BYTES];
} watched;

static cb_status watch_begin(void *ctx, uint8_t salt[CB_CIPHER_SALT_BYTES], bool fresh,
                             void **session, cb_error *err) {
    const cb_cipher *real = ctx;
    watched *w = calloc(1, sizeof *w);
    assert_non_null(w);
    w->real = real;
    cb_status status = real->begin(real->ctx, salt, fresh, &w->session, err);
    memcpy(w->salt, salt, sizeof w->salt);
    *session = w;
    return status;
}

static cb_status watch_seal(void *session, uint64_t number, const void *open_bytes,
                            size_t open_count, const void *bytes, size_t count, void *sealed,
                            cb_error *err) {
    const watched *w = session;
    assert_true(asked_count < ASKED_MAX);
    memcpy(asked[asked_count].salt, w->salt, sizeof w->salt);
    asked[asked_count++].number = number;
    return w->real->seal(w->session, number, open_bytes, open_count, bytes, count, sealed, err);
}

static cb_status watch_open(void *session, uint64_t number, const void *open_bytes,
                            size_t open_count, const void *sealed, size_t count, void *bytes,
                            cb_error *err) {
    const watched *w = session;
    return w->real->open(w->session, number, open_bytes, open_count, sealed, count, bytes, err);
}

static void watch_end(void *session) {
    watched *w = session;
    w->real->end(w->session);
    free(w);
}

static int by_bytes(const void *a, const void *b) {
    return memcmp(a, b, sizeof(struct asked));
}

static void test_cipher__no_nonce_is_used_twice(void **state) {
    (void)state;
    cb_cipher *real = make_cipher(key);
    const cb_cipher cipher = {.begin = watch_begin,
                              .seal = watch_seal,
                              .open = watch_open,
                              .end = watch_end,
                              .ctx = real};
    kit k;
    kit_open(&k, (kit_options){.heap = 8 << 20, .disk = true, .cipher = &cipher});
    asked_count = 0;
    for (int i = 0; i < 300; i++) { /* the same block again and again, and large ones */
        assert_ok(kit_put(&k, "a", DISK, i % 50 == 0 ? 3 << 20 : 100));
        assert_ok(kit_check(&k, "a", i % 50 == 0 ? 3 << 20 : 100));
        assert_ok(cb_blocks_remove(k.blocks, k.task, "a", NULL));
    }
    kit_close(&k);
    assert_in_range(asked_count, 600, ASKED_MAX);
    qsort(asked, asked_count, sizeof *asked, by_bytes);
    for (size_t i = 1; i < asked_count; i++) {
        assert_true(by_bytes(&asked[i - 1], &asked[i]) != 0);
    }
    cb_cipher_aes_gcm_destroy(real);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cipher__every_size_through_every_codec),
        cmocka_unit_test(test_cipher__nobody_reads_it_there),
        cmocka_unit_test(test_cipher__a_changed_byte_or_another_key_is_found),
        cmocka_unit_test(test_cipher__no_nonce_is_used_twice),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
