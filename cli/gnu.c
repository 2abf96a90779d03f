/* SPDX-License-Identifier: Apache-2.0 */
/*
 * In a locale other than C, GNU sort orders by strcoll, takes the decimal point and the names of
 * months from the locale and asks it which bytes are letters. carbide knows bytes only, so it
 * refuses wherever the answer would differ. A locale that is named but not installed is no reason:
 * GNU sort runs in the C locale then. C.UTF-8 collates by byte.
 */
#include "gnu.h"

#include <errno.h>
#include <fcntl.h>
#include <langinfo.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool is_byte_locale(const char *name) {
    return name == NULL || strcmp(name, "C") == 0 || strcmp(name, "POSIX") == 0 ||
           strncmp(name, "C.", 2) == 0;
}

static bool refuse(const char *what, const char *name) {
    cli_complain("%s in the locale '%s' is not supported, only the C locale's order of bytes is; "
                 "set LC_ALL=C (or "
                 "call another sort)",
                 what, name);
    return false;
}

static bool installed_locale_allows(void) {
    const char *name = setlocale(LC_COLLATE, "");
    bool allowed = true;
    if (!is_byte_locale(name))
        allowed = refuse("sorting", name);
    name = allowed ? setlocale(LC_CTYPE, "") : NULL;
    if (!is_byte_locale(name) && MB_CUR_MAX == 1)
        allowed = refuse("text", name);
    name = allowed ? setlocale(LC_NUMERIC, "") : NULL;
    if (!is_byte_locale(name)) {
        const struct lconv *conventions = localeconv();
        if (strcmp(conventions->decimal_point, ".") != 0 || conventions->thousands_sep[0] != '\0')
            allowed = refuse("the form of numbers", name);
    }
    name = allowed ? setlocale(LC_TIME, "") : NULL;
    if (!is_byte_locale(name) && strcasecmp(nl_langinfo(ABMON_5), "May") != 0)
        allowed = refuse("the months' names", name);
    (void)setlocale(LC_ALL, "C");
    return allowed;
}

/** Who names a collation wants it; what LANG and the like name may not even be installed, which is
 * looked up. */
static bool check_locale(void) {
    static const char *const demands[] = {"LC_ALL", "LC_COLLATE"};
    static const char *const others[] = {"LC_CTYPE", "LC_NUMERIC", "LC_TIME"};
    for (size_t i = 0; i < CLI_COUNT(demands); i++) {
        const char *name = getenv(demands[i]);
        if (name == NULL || name[0] == '\0')
            continue;
        if (!is_byte_locale(name))
            return refuse("sorting", name);
        if (i == 0)
            return true; /* LC_ALL is above all others */
    }
    const char *lang = getenv("LANG");
    bool bytes = lang == NULL || lang[0] == '\0' || is_byte_locale(lang);
    for (size_t i = 0; i < CLI_COUNT(others); i++) {
        const char *name = getenv(others[i]);
        bytes = bytes && (name == NULL || name[0] == '\0' || is_byte_locale(name));
    }
    return bytes || installed_locale_allows();
}

static bool fail(const char *what, const char *path, int why) {
    cli_complain("%s: %s: %s", what, path, strerror(why));
    return false;
}

static bool check_inputs(const cb_sort_options *o) {
    for (size_t i = 0; i < o->input_count; i++) {
        struct stat st;
        const char *path = o->inputs[i];
        if (strcmp(path, "-") == 0)
            continue;
        if (faccessat(AT_FDCWD, path, R_OK, AT_EACCESS) != 0)
            return fail("cannot read", path, errno);
        if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
            return fail("read failed", path, EISDIR);
    }
    return true;
}

static bool check_output(const char *path) {
    struct stat st;
    char folder[4096];
    if (path == NULL || strcmp(path, "-") == 0)
        return true;
    if (stat(path, &st) == 0) {
        if (S_ISDIR(st.st_mode))
            return fail("open failed", path, EISDIR);
        return faccessat(AT_FDCWD, path, W_OK, AT_EACCESS) == 0 || fail("open failed", path, errno);
    }
    if (errno != ENOENT)
        return fail("open failed", path, errno);
    const char *slash = strrchr(path, '/');
    size_t length = slash == NULL ? 0 : (size_t)(slash - path) + 1;
    if (length >= sizeof folder)
        return fail("open failed", path, ENAMETOOLONG);
    memcpy(folder, slash == NULL ? "." : path, length == 0 ? 1 : length);
    folder[length == 0 ? 1 : length] = '\0';
    return faccessat(AT_FDCWD, folder, W_OK | X_OK, AT_EACCESS) == 0 ||
           fail("open failed", path, errno);
}

bool cli_gnu_check(const cli_sort_args *args) {
    return check_locale() && check_inputs(&args->options) && check_output(args->options.output);
}
