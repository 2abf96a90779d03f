/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "base/alloc.h"
#include "operator/join_private.h"

/* Which columns the result has, what must be scanned for them, and what is copied in one go. */

static size_t side_columns(const join_side *s) {
    return s->name_count > 0 ? s->name_count : s->format.columns;
}

/* Where `name` stands in the side's table, or is to stand. */
static uint32_t *find_entry(const cb_join *j, const join_side *s, const char *name) {
    size_t at = cbi_job_hash(&j->job, name, strlen(name)) & s->by_name_mask;
    while (s->by_name[at] != 0 && strcmp(s->names[s->by_name[at] - 1], name) != 0)
        at = (at + 1) & s->by_name_mask;
    return &s->by_name[at];
}

/* Of names that are there twice the first one counts. */
static int find_name(const cb_join *j, uint32_t side, const char *name) {
    const join_side *s = &j->sides[side];
    return s->by_name == NULL ? -1 : (int)*find_entry(j, s, name) - 1;
}

/* Tables of names, for as long as columns are chosen: with 100,000 columns on both sides comparing
 * each name with each takes half a minute. */
static cb_status index_names(cb_join *j, cb_error *err) {
    for (uint32_t side = 0; side < 2; side++) {
        join_side *s = &j->sides[side];
        if (s->name_count == 0)
            continue;
        size_t entries = 4;
        while (entries < 2 * s->name_count)
            entries *= 2;
        s->by_name = cbi_calloc(entries, sizeof *s->by_name);
        if (s->by_name == NULL)
            return cbi_fail(err, CB_ENOMEM, "no memory for %zu columns", s->name_count);
        s->by_name_mask = entries - 1;
        for (size_t i = 0; i < s->name_count; i++) {
            uint32_t *entry = find_entry(j, s, s->names[i]);
            if (*entry == 0)
                *entry = (uint32_t)i + 1;
        }
    }
    return CB_OK;
}

static void free_names(cb_join *j) {
    for (uint32_t side = 0; side < 2; side++) {
        cbi_free(j->sides[side].by_name);
        j->sides[side].by_name = NULL;
    }
}

/* "left.NAME", "1.N": answers the column or -1. */
static int find_prefixed(const cb_join *j, const char *text, uint32_t *side) {
    static const char *const prefixes[2][2] = {{"left.", "1."}, {"right.", "2."}};
    for (uint32_t s = 0; s < 2; s++) {
        for (unsigned k = 0; k < 2; k++) {
            size_t bytes = strlen(prefixes[s][k]);
            if (strncmp(text, prefixes[s][k], bytes) != 0)
                continue;
            *side = s;
            int column = find_name(j, s, text + bytes);
            char *end;
            unsigned long number = strtoul(text + bytes, &end, 10);
            bool any = j->sides[s].format.columns == 0 && number <= INT32_MAX; /* nothing in it */
            if (column < 0 && *end == 0 && number >= 1 &&
                (any || number <= side_columns(&j->sides[s])))
                column = (int)number - 1;
            if (column >= 0)
                return column;
        }
    }
    return -1;
}

static join_column key_column(const cb_join *j, size_t key) {
    int64_t column = cbi_keys_part_column(j->sides[JOIN_LEFT].keys, key);
    return (join_column){.side = JOIN_LEFT, .column = (uint32_t)column, .key = (int)key};
}

static cb_status find_column(const cb_join *j, const char *text, join_column *out, cb_error *err) {
    uint32_t side = JOIN_LEFT;
    if (j->o.keys_first && strcmp(text, "0") == 0) {
        *out = key_column(j, 0);
        return CB_OK;
    }
    int column = find_name(j, JOIN_LEFT, text);
    if (column < 0) {
        side = JOIN_RIGHT;
        column = find_name(j, JOIN_RIGHT, text);
    }
    if (column < 0)
        column = find_prefixed(j, text, &side);
    if (column < 0)
        return cbi_fail(err, CB_EINVAL,
                        "there is no column '%s' in %s or %s; columns are told by name, "
                        "left.NAME, right.NAME, 1.N or 2.N",
                        text, cbi_input_name(j->sides[0].input, 0),
                        cbi_input_name(j->sides[1].input, 0));
    *out = (join_column){.side = side, .column = (uint32_t)column, .key = -1};
    return CB_OK;
}

static bool is_key(const cb_join *j, uint32_t side, uint32_t column, int *key) {
    for (size_t k = 0; k < j->o.key_count; k++) {
        if (cbi_keys_part_column(j->sides[side].keys, k) == (int64_t)column) {
            *key = (int)k;
            return true;
        }
    }
    return false;
}

static cb_status list_columns(cb_join *j, cb_error *err) {
    size_t left = side_columns(&j->sides[JOIN_LEFT]), right = side_columns(&j->sides[JOIN_RIGHT]);
    size_t most = j->o.column_count > 0 ? j->o.column_count : left + right;
    j->columns = cbi_calloc(most + 1, sizeof *j->columns);
    j->pieces = cbi_calloc(most + 1, sizeof *j->pieces);
    if (j->columns == NULL || j->pieces == NULL)
        return cbi_fail(err, CB_ENOMEM, "no memory for %zu columns", most);
    int key;
    for (size_t i = 0; i < j->o.column_count; i++)
        CB_TRY(find_column(j, j->o.columns[i], &j->columns[j->column_count++], err));
    for (size_t k = 0; j->o.keys_first && j->o.column_count == 0 && k < j->o.key_count; k++)
        j->columns[j->column_count++] = key_column(j, k);
    for (uint32_t c = 0; j->o.column_count == 0 && c < left; c++)
        if (!j->o.keys_first || !is_key(j, JOIN_LEFT, c, &key))
            j->columns[j->column_count++] =
                (join_column){.side = JOIN_LEFT, .column = c, .key = -1};
    for (uint32_t c = 0; j->o.column_count == 0 && join_shows_right(j) && c < right; c++)
        if (!is_key(j, JOIN_RIGHT, c, &key))
            j->columns[j->column_count++] =
                (join_column){.side = JOIN_RIGHT, .column = c, .key = -1};
    for (size_t i = 0; i < j->column_count; i++) {
        join_column *column = &j->columns[i];
        if (!join_shows_right(j) && column->side == JOIN_RIGHT)
            return cbi_fail(err, CB_EINVAL, "a semi or anti join has columns of the left only");
        bool strictly = j->o.keys_first; /* 1.N is the left's alone */
        if (!strictly && column->side == JOIN_LEFT && is_key(j, JOIN_LEFT, column->column, &key))
            column->key = key;
    }
    return CB_OK;
}

static int slot_of(join_side *s, uint32_t column) {
    for (size_t i = 0; i < s->field_count; i++)
        if (s->columns[i] == column)
            return (int)i;
    s->columns[s->field_count] = column;
    return (int)s->field_count++;
}

/* The runs of one piece. */
static void add_runs(const cb_join *j, join_side *s, const join_piece *piece) {
    for (uint32_t c = 0; c < piece->count;) {
        const join_column *columns = &j->columns[piece->first + c];
        uint32_t n = 1;
        while (!s->convert && c + n < piece->count &&
               columns[n].column == columns[n - 1].column + 1)
            n++;
        join_run *run = &s->runs[s->run_count++];
        uint32_t first = columns[0].column, last = columns[n - 1].column;
        bool whole = !s->convert;
        run->first = whole && first == 0 ? -1 : slot_of(s, first);
        run->last = whole && last + 1 == s->format.columns ? -1 : slot_of(s, last);
        c += n;
        run->ends_piece = c == piece->count;
    }
    s->piece_count++;
}

static cb_status plan_side(cb_join *j, uint32_t side, cb_error *err) {
    join_side *s = &j->sides[side];
    const uint32_t *columns;
    size_t keys = cbi_keys_columns(s->keys, &columns);
    s->columns = cbi_calloc(keys + 2 * j->column_count + 1, sizeof *s->columns);
    s->runs = cbi_calloc(j->column_count + 1, sizeof *s->runs);
    if (s->columns == NULL || s->runs == NULL)
        return cbi_fail(err, CB_ENOMEM, "no memory for %zu columns", j->column_count);
    memcpy(s->columns, columns, keys * sizeof *columns);
    s->field_count = keys;
    for (size_t k = 0; k < j->o.key_count; k++)
        s->key_slots[k] = slot_of(s, (uint32_t)cbi_keys_part_column(s->keys, k));
    join_piece *last = NULL;
    for (size_t i = 0; i < j->piece_count; i++) {
        if (j->pieces[i].side != side)
            continue;
        last = &j->pieces[i];
        add_runs(j, s, last);
    }
    if (last != NULL)
        last->last = true;
    s->plain = s->run_count == 1 && !s->convert && !s->keep_keys;
    return CB_OK;
}

/* ---- the header of the result ---- */

static size_t put_name(const cb_join *j, const char *name, const char *suffix, uint8_t *at) {
    size_t bytes = 0;
    char separator[2] = {(char)j->separator, 0};
    bool quote = j->quoting && (strpbrk(name, "\"\r\n") != NULL || strstr(name, separator) != NULL);
    if (quote && at != NULL)
        at[bytes] = '"';
    bytes += quote;
    for (const char *p = name; *p != 0; p++)
        for (unsigned n = quote && *p == '"' ? 2 : 1; n > 0; n--, bytes++)
            if (at != NULL)
                at[bytes] = (uint8_t)*p;
    for (const char *p = suffix; *p != 0; p++, bytes++)
        if (at != NULL)
            at[bytes] = (uint8_t)*p;
    if (quote && at != NULL)
        at[bytes] = '"';
    return bytes + quote;
}

static size_t put_names(const cb_join *j, uint8_t *at) {
    size_t bytes = 0;
    for (size_t i = 0; i < j->column_count; i++) {
        const join_column *c = &j->columns[i];
        const char *name = j->sides[c->side].names[c->column];
        if (*name == 0 && j->o.missing_if_empty && j->o.missing != NULL)
            name = j->o.missing;
        bool twice = c->side == JOIN_RIGHT && find_name(j, JOIN_LEFT, name) >= 0;
        const char *suffix = j->o.suffix != NULL ? j->o.suffix : "_right";
        if (i > 0 && at != NULL)
            at[bytes] = j->separator;
        bytes += i > 0;
        bytes += put_name(j, name, twice ? suffix : "", at != NULL ? at + bytes : NULL);
    }
    if (at != NULL)
        at[bytes] = j->sides[JOIN_LEFT].format.terminator;
    return bytes + 1;
}

static cb_status make_header(cb_join *j, cb_error *err) {
    if (j->sides[JOIN_LEFT].name_count == 0 || j->sides[JOIN_RIGHT].name_count == 0)
        return CB_OK;
    size_t bytes = put_names(j, NULL);
    j->job.header = cbi_alloc(bytes);
    if (j->job.header == NULL)
        return cbi_fail(err, CB_ENOMEM, "no memory for the header");
    j->job.header_bytes = put_names(j, j->job.header);
    return CB_OK;
}

cb_status join_choose_columns(cb_join *j, cb_error *err) {
    join_side *left = &j->sides[JOIN_LEFT], *right = &j->sides[JOIN_RIGHT];
    j->separator = left->format.separator;
    j->quoting = left->format.kind == CB_FORMAT_CSV;
    right->convert = left->format.kind != right->format.kind ||
                     left->format.separator != right->format.separator;
    left->convert = j->o.missing_if_empty && j->o.missing != NULL;
    right->convert |= left->convert;
    right->keep_keys = join_wants_right(j);
    left->keep_null = join_wants_left(j);
    right->keep_null = join_wants_right(j);
    CB_TRY(index_names(j, err));
    CB_TRY(list_columns(j, err));
    for (size_t i = 0; i < j->column_count; i++) {
        if (i > 0 && j->columns[i].side == j->columns[i - 1].side)
            j->pieces[j->piece_count - 1].count++;
        else
            j->pieces[j->piece_count++] =
                (join_piece){.side = j->columns[i].side, .first = (uint32_t)i, .count = 1};
    }
    CB_TRY(plan_side(j, JOIN_LEFT, err));
    CB_TRY(plan_side(j, JOIN_RIGHT, err));
    CB_TRY(make_header(j, err));
    free_names(j);
    return CB_OK;
}

void join_free_columns(cb_join *j) {
    free_names(j);
    for (unsigned i = 0; i < 2; i++) {
        cbi_free(j->sides[i].columns);
        cbi_free(j->sides[i].runs);
    }
    cbi_free(j->columns);
    cbi_free(j->pieces);
    cbi_free(j->job.header);
}
