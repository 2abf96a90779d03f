/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"

#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FOLDERS_MAX = 64 };
static char folders[FOLDERS_MAX][TEST_PATH_MAX];
static int folder_count;
static pid_t folder_owner;

static int remove_entry(const char *path, const struct stat *st, int kind, struct FTW *walk) {
    (void)st;
    (void)kind;
    (void)walk;
    return remove(path);
}

static void remove_folders(void) {
    if (getpid() != folder_owner) { /* a child of the test that ends by exit */
        return;
    }
    for (int i = 0; i < folder_count; i++) {
        (void)nftw(folders[i], remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    }
}

const char *test_folder(void) {
    if (folder_count == 0) {
        folder_owner = getpid();
        (void)atexit(remove_folders);
    }
    assert_true(folder_count < FOLDERS_MAX);
    const char *base = getenv("CARBIDE_TEST_DIR");
    if (base == NULL || base[0] == '\0') {
        base = getenv("TMPDIR");
    }
    if (base == NULL || base[0] == '\0') {
        base = "."; /* ctest starts tests in the build folder: a disk, where /tmp may be memory */
    }
    char *folder = folders[folder_count];
    (void)snprintf(folder, TEST_PATH_MAX, "%s/carbide-test.XXXXXX", base);
    assert_non_null(mkdtemp(folder));
    folder_count++;
    return folder;
}

char *test_path(char *path, const char *folder, const char *name) {
    int length = snprintf(path, TEST_PATH_MAX, "%s/%s", folder, name);
    assert_true(length > 0 && length < TEST_PATH_MAX);
    return path;
}

static void make_folders(const char *path) {
    char part[TEST_PATH_MAX];
    (void)snprintf(part, sizeof part, "%s", path);
    for (char *slash = strchr(part + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        assert_true(mkdir(part, 0777) == 0 || errno == EEXIST);
        *slash = '/';
    }
}

void test_write_file(const char *path, const void *bytes, size_t count) {
    make_folders(path);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, count, file), count);
    assert_int_equal(fclose(file), 0);
}

void test_write_text(const char *path, const char *text) {
    test_write_file(path, text, strlen(text));
}

char *test_read_file(const char *path, size_t *count) {
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    struct stat st;
    assert_int_equal(fstat(fileno(file), &st), 0);
    size_t size = (size_t)st.st_size;
    char *bytes = malloc(size + 1);
    assert_non_null(bytes);
    assert_int_equal(fread(bytes, 1, size, file), size);
    bytes[size] = '\0';
    (void)fclose(file);
    if (count != NULL) {
        *count = size;
    }
    return bytes;
}
