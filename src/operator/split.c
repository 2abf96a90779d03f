/* SPDX-License-Identifier: Apache-2.0 */
#include "operator/split.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

/*
 * A partition is a stable sort by target.
 *
 * Each row's key becomes its target: the encoded key itself (by value), or a number of four bytes
 * (by hash, by range). The sort (sort.c) does with it what it does with any key: it partitions by
 * range of targets, lets whole ranges leave when memory is short, brings each back and orders it.
 * Then the rows of a target lie side by side in input order, and a worker writes one file after the
 * other. So however many targets there are, each is opened once and written once from its start to
 * its end; no target holds a buffer or a descriptor while rows come in, and a target larger than
 * memory takes the sort's way for such ranges, runs and a merge.
 *
 * The price is that rows of few, large targets are stored and read back once though they could have
 * been appended to their files at once; the gain is that nothing depends on how many targets there
 * are or in which order they come up.
 */

/* ---- the template ---- */

static cb_status bad_template(cb_error *err, const char *text, const char *why) {
    return cbi_fail(err, CB_EINVAL, "the template '%s' %s", text, why);
}

/* Which key a reference names: `{2}`, `{city}`; -1 when there is none. */
static int find_key(const cb_partition_options *o, const char *name, size_t bytes) {
    if (bytes == 0)
        return SPLIT_ALL;
    char *end;
    unsigned long number = strtoul(name, &end, 10);
    if (end == name + bytes)
        return number >= 1 && number <= o->key_count ? (int)number - 1 : SPLIT_TEXT;
    for (size_t i = 0; i < o->key_count; i++) {
        const char *key = o->keys[i];
        if (strncmp(key, "name=", 5) == 0)
            key += 5;
        if (strcspn(key, ":") == bytes && memcmp(key, name, bytes) == 0)
            return (int)i;
    }
    return SPLIT_TEXT;
}

static void add_text(cbi_split *s, char *text, size_t bytes) {
    if (bytes > 0)
        s->pieces[s->piece_count++] =
            (split_piece){.text = text, .bytes = (uint32_t)bytes, .key = SPLIT_TEXT};
}

static cb_status parse_pieces(cbi_split *s, const cb_partition_options *o, char *text,
                              cb_error *err) {
    bool any = false;
    char *start = text;
    for (char *p = text; *p != 0;) {
        if ((*p == '{' || *p == '}') && p[1] == *p) { /* one brace, as text */
            add_text(s, start, (size_t)(p + 1 - start));
            p += 2;
            start = p;
            continue;
        }
        if (*p == '}')
            return bad_template(err, o->name_template, "has a } without a {");
        if (*p != '{') {
            p++;
            continue;
        }
        char *end = strchr(p, '}');
        if (end == NULL)
            return bad_template(err, o->name_template, "has a { without a }");
        add_text(s, start, (size_t)(p - start));
        int key = find_key(o, p + 1, (size_t)(end - p - 1));
        if (key == SPLIT_TEXT)
            return bad_template(err, o->name_template, "names a key that is not one of the keys");
        s->pieces[s->piece_count++] = (split_piece){.key = key};
        any = true;
        p = start = end + 1;
    }
    add_text(s, start, strlen(start));
    return any ? CB_OK : bad_template(err, o->name_template, "has no {} for the value");
}

/* "out/2024-{}/a.csv" -> the folder "out" and the rest. */
static cb_status parse_template(cbi_split *s, const cb_partition_options *o, cb_error *err) {
    const char *given = o->name_template == NULL && o->write != NULL ? "{}" : o->name_template;
    if (given == NULL || *given == 0)
        return cbi_fail(err, CB_EINVAL, "a template for the files' names is needed (out/{}.csv)");
    size_t bytes = strlen(given);
    s->text = cbi_strdup(given);
    s->root = cbi_strdup(given);
    s->pieces = cbi_calloc(bytes + 1, sizeof *s->pieces);
    if (s->text == NULL || s->root == NULL || s->pieces == NULL)
        return cbi_fail(err, CB_ENOMEM, "no memory for the template");
    size_t first = strcspn(given, "{}");
    while (first > 0 && given[first - 1] != '/')
        first--;
    s->root[first] = 0;
    while (first > 1 && s->root[first - 1] == '/')
        s->root[--first] = 0;
    if (*s->root == 0)
        memcpy(s->root, ".", 2); /* `given` has a byte at least */
    char *rest = s->text + strcspn(given, "{}");
    while (rest > s->text && rest[-1] != '/')
        rest--;
    if (strstr(rest, "/../") != NULL || strstr(rest, "//") != NULL || rest[strlen(rest) - 1] == '/')
        return bad_template(err, given, "has a part that is no folder's or file's name");
    CB_TRY(parse_pieces(s, o, rest, err));
    const split_piece *last = &s->pieces[s->piece_count - 1];
    s->suffix = last->key == SPLIT_TEXT ? last->text : "";
    return CB_OK;
}

/* ---- create, destroy ---- */

static cb_status copy_bounds(cbi_split *s, const cb_partition_options *o, cb_error *err) {
    s->bounds = cbi_calloc(o->bound_count + 1, sizeof *s->bounds);
    s->bound_count = o->bound_count;
    bool all = s->bounds != NULL;
    for (size_t i = 0; all && i < o->bound_count; i++)
        all = (s->bounds[i] = cbi_strdup(o->bounds[i])) != NULL;
    return all ? CB_OK : cbi_fail(err, CB_ENOMEM, "no memory for the bounds");
}

static unsigned digits_of(uint64_t n) {
    unsigned digits = 1;
    for (; n >= 10; n /= 10)
        digits++;
    return digits;
}

static cb_status check(const cb_partition_options *o, cb_error *err) {
    if (o->struct_size != sizeof *o)
        return cbi_fail(err, CB_EINVAL,
                        "cb_partition_options: struct_size is %zu, this library knows %zu",
                        o->struct_size, sizeof *o);
    if ((unsigned)o->by > CB_PARTITION_RANGE)
        return cbi_fail(err, CB_EINVAL, "a way to partition that does not exist");
    if (o->by == CB_PARTITION_HASH && o->count == 0)
        return cbi_fail(err, CB_EINVAL, "into how many files is not said");
    if (o->by == CB_PARTITION_VALUE && o->key_count == 0)
        return cbi_fail(err, CB_EINVAL, "by which key is not said");
    if (o->by == CB_PARTITION_RANGE && (o->key_count != 1 || o->bound_count == 0))
        return cbi_fail(err, CB_EINVAL, "ranges need one key and one bound at least");
    if (o->key_count > SPLIT_KEYS_MAX)
        return cbi_fail(err, CB_EINVAL, "at most %d keys", SPLIT_KEYS_MAX);
    if (o->job.write != NULL || o->job.output != NULL)
        return cbi_fail(err, CB_EINVAL,
                        "a partition has no output of its own: it writes files by its template, "
                        "or gives rows to its own function");
    if (o->job.read != NULL && o->job.input_count > 0)
        return cbi_fail(err, CB_EINVAL,
                        "rows are given and inputs are named: it is one or the other");
    return CB_OK;
}

cb_status cbi_split_create(const cb_partition_options *o, cbi_split **out, cb_error *err) {
    CB_TRY(check(o, err));
    cbi_split *s = cbi_calloc(1, sizeof *s);
    if (s == NULL)
        return cbi_fail(err, CB_ENOMEM, "no memory for a partition");
    s->by = o->by;
    s->count = o->by == CB_PARTITION_RANGE ? (uint32_t)o->bound_count + 1 : o->count;
    s->digits = digits_of(s->count - 1);
    s->write = o->write;
    s->write_ctx = o->write_ctx;
    s->root_fd = -1;
    s->folder = (cbi_private_folder){.fd = -1, .owner_fd = -1};
    cb_status status = parse_template(s, o, err);
    if (status == CB_OK)
        status = copy_bounds(s, o, err);
    if (status != CB_OK) {
        cbi_split_destroy(s);
        return status;
    }
    *out = s;
    return CB_OK;
}

void cbi_split_clear(cbi_split *s) {
    if (s == NULL)
        return;
    cbi_split_close_pens(s);
    if (s->root_fd >= 0) {
        cbi_private_folder_close(&s->folder, s->root_fd);
        (void)cbi_sys_close(s->root_fd);
        if (s->made_root && !s->named)
            (void)cbi_sys_unlinkat(AT_FDCWD, s->root, AT_REMOVEDIR);
    }
    s->root_fd = -1;
    cbi_free(s->tree);
    cbi_free(s->name);
    s->tree = s->name = NULL;
    cbi_free(s->bound_keys);
    cbi_free(s->bound_spans);
    s->bound_keys = NULL;
    s->bound_spans = NULL;
}

void cbi_split_destroy(cbi_split *s) {
    if (s == NULL)
        return;
    cbi_split_clear(s);
    for (size_t i = 0; s->bounds != NULL && i < s->bound_count; i++)
        cbi_free(s->bounds[i]);
    cbi_free(s->bounds);
    cbi_free(s->pieces);
    cbi_free(s->root);
    cbi_free(s->text);
    cbi_free(s);
}

/* ---- keys that are targets ---- */

static cb_status encode_bounds(cbi_split *s, cb_error *err) {
    size_t bytes = 0;
    for (size_t i = 0; i < s->bound_count; i++)
        bytes += cbi_keys_encode_text(s->keys, 0, s->bounds[i], strlen(s->bounds[i]), NULL, 0);
    s->bound_keys = cbi_alloc(bytes + 1);
    s->bound_spans = cbi_calloc(s->bound_count, sizeof *s->bound_spans);
    if (s->bound_keys == NULL || s->bound_spans == NULL)
        return cbi_fail(err, CB_ENOMEM, "no memory for the bounds");
    size_t at = 0;
    for (size_t i = 0; i < s->bound_count; i++) {
        size_t n = cbi_keys_encode_text(s->keys, 0, s->bounds[i], strlen(s->bounds[i]),
                                        s->bound_keys + at, bytes - at);
        s->bound_spans[i] = (cbi_span){.offset = (uint32_t)at, .bytes = (uint32_t)n};
        at += n;
        if (i == 0)
            continue;
        cbi_span before = s->bound_spans[i - 1];
        if (cbi_compare_bytes(s->bound_keys + before.offset, before.bytes,
                              s->bound_keys + s->bound_spans[i].offset, n, 0) >= 0)
            return cbi_fail(err, CB_EINVAL,
                            "bounds must ascend in the key's order, and '%s' comes after '%s'",
                            s->bounds[i], s->bounds[i - 1]);
    }
    return CB_OK;
}

cb_status cbi_split_bind(cbi_split *s, const cbi_keys *keys, const cbi_input *input,
                         cb_error *err) {
    s->keys = keys;
    s->key_parts = cbi_keys_parts(keys);
    s->format = *cbi_input_format(input);
    s->column_count = cbi_keys_columns(keys, &s->columns);
    s->header = cbi_input_header(input, &s->header_bytes);
    return s->by == CB_PARTITION_RANGE ? encode_bounds(s, err) : CB_OK;
}

/* How many bounds are not above the key. */
static uint32_t range_of(const cbi_split *s, const uint8_t *key, size_t bytes) {
    size_t low = 0, high = s->bound_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        cbi_span bound = s->bound_spans[middle];
        if (cbi_compare_bytes(s->bound_keys + bound.offset, bound.bytes, key, bytes, 0) <= 0)
            low = middle + 1;
        else
            high = middle;
    }
    return (uint32_t)low;
}

size_t cbi_split_key(const cbi_split *s, const cbi_rows *rows, size_t i, uint8_t *out, size_t cap) {
    size_t bytes = cbi_keys_encode(s->keys, rows, i, out, cap);
    if (s->by == CB_PARTITION_VALUE)
        return bytes;
    if (bytes > cap || cap < sizeof(uint32_t))
        return cbi_max(bytes, sizeof(uint32_t));
    uint32_t target = s->by == CB_PARTITION_RANGE
                          ? range_of(s, out, bytes)
                          : (uint32_t)((XXH3_64bits(out, bytes) >> 32) * s->count >> 32);
    cbi_store_u32(out, __builtin_bswap32(target));
    return sizeof target;
}
