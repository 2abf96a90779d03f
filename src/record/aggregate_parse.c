/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "record/aggregate.h"
#include "record/key_private.h"

/*
 * [NAME=]FUNCTION(COLUMN[:TYPE][,COLUMN[:TYPE]]), or FUNCTION:COLUMN as datamash has it.
 *
 * A column name that holds a comma, a parenthesis at its end, a colon or an equals sign is written
 * in double quotes, doubled inside. Types are num and str.
 */

static const uint32_t NONE = UINT32_MAX;

enum { QUANTILE_DIGITS = 6 };

typedef struct function_name {
    const char *name;
    cbi_aggregate_kind kind;
    cbi_value_type type;
    uint8_t least, most; /* columns */
} function_name;

static const function_name functions[] = {
    {"count", CBI_AGG_COUNT, CBI_VALUE_STR, 0, 1},
    {"sum", CBI_AGG_SUM, CBI_VALUE_NUM, 1, 1},
    {"mean", CBI_AGG_MEAN, CBI_VALUE_NUM, 1, 1},
    {"avg", CBI_AGG_MEAN, CBI_VALUE_NUM, 1, 1},
    {"min", CBI_AGG_MIN, CBI_VALUE_NUM, 1, 1},
    {"max", CBI_AGG_MAX, CBI_VALUE_NUM, 1, 1},
    {"var", CBI_AGG_VAR, CBI_VALUE_NUM, 1, 1},
    {"sd", CBI_AGG_SD, CBI_VALUE_NUM, 1, 1},
    {"stddev", CBI_AGG_SD, CBI_VALUE_NUM, 1, 1},
    {"varp", CBI_AGG_VARP, CBI_VALUE_NUM, 1, 1},
    {"sdp", CBI_AGG_SDP, CBI_VALUE_NUM, 1, 1},
    {"corr", CBI_AGG_CORR, CBI_VALUE_NUM, 2, 2},
    {"median", CBI_AGG_QUANTILE, CBI_VALUE_NUM, 1, 1},
    {"countdistinct", CBI_AGG_DISTINCT, CBI_VALUE_STR, 1, 1},
    {"distinct", CBI_AGG_DISTINCT, CBI_VALUE_STR, 1, 1},
    {"approxdistinct", CBI_AGG_APPROX, CBI_VALUE_STR, 1, 1},
    {"first", CBI_AGG_FIRST, CBI_VALUE_STR, 1, 1},
    {"last", CBI_AGG_LAST, CBI_VALUE_STR, 1, 1},
    {"mode", CBI_AGG_MODE, CBI_VALUE_STR, 1, 1},
    {"collect", CBI_AGG_COLLECT, CBI_VALUE_STR, 1, 1},
    {"argmax", CBI_AGG_ARGMAX, CBI_VALUE_NUM, 2, 2},
    {"argmin", CBI_AGG_ARGMIN, CBI_VALUE_NUM, 2, 2},
};
#define FUNCTIONS_TEXT                                                                             \
    "there are count sum mean min max var sd varp sdp median pNN corr countdistinct "              \
    "approxdistinct first last mode collect topN bottomN argmax argmin"

typedef struct parser {
    cbi_aggregates *a;
    const char *text;
    size_t index;
    char *names; /* free space for strings */
    cb_error *err;
} parser;

static cb_status bad(const parser *p, const char *at, const char *what) {
    return cbi_fail(p->err, CB_EINVAL, "aggregate %zu '%.120s', character %zu: %s", p->index + 1,
                    p->text, (size_t)(at - p->text) + 1, what);
}

static char *keep(parser *p, const char *text, size_t bytes) {
    char *copy = p->names;
    memcpy(copy, text, bytes);
    copy[bytes] = 0;
    p->names += bytes + 1;
    return copy;
}

/* NAME, "NAME" with quotes undone: into *name (kept), where it ends into *end. `stops` end a bare
 * name. */
static cb_status read_name(parser *p, const char *at, const char *limit, const char **end,
                           char **name) {
    if (at < limit && *at == '"') {
        char *copy = p->names;
        size_t n = 0;
        const char *q = at + 1;
        for (; q < limit; q++) {
            if (*q == '"' && (q + 1 == limit || q[1] != '"'))
                break;
            if (*q == '"')
                q++;
            copy[n++] = *q;
        }
        if (q == limit)
            return bad(p, at, "this quote is never closed");
        copy[n] = 0;
        p->names += n + 1;
        *name = copy;
        *end = q + 1;
        return CB_OK;
    }
    const char *q = at;
    while (q < limit && *q != ',' && *q != ':')
        q++;
    if (q == at)
        return bad(p, at, "a column's name is missing here");
    *name = keep(p, at, (size_t)(q - at));
    *end = q;
    return CB_OK;
}

static uint32_t add_column(cbi_aggregates *a, char *name, bool row, bool real) {
    for (uint32_t i = 0; i < a->column_count; i++)
        if (a->columns[i].row == row && a->columns[i].real == real &&
            strcmp(a->columns[i].name, name) == 0)
            return i;
    a->columns[a->column_count] = (cbi_agg_column){.name = name, .row = row, .real = real};
    return (uint32_t)a->column_count++;
}

typedef struct argument {
    char *name;
    bool row;
} argument;

/* What its values are: NUM is exact decimals, or with `real` floats. */
typedef struct argument_type {
    cbi_value_type type;
    bool real;
} argument_type;

static cb_status read_column(parser *p, const char **at, const char *limit, bool may_be_row,
                             argument_type *type, argument *out) {
    char *name = NULL;
    const char *from = *at, *end = from;
    CB_TRY(read_name(p, from, limit, &end, &name));
    *out = (argument){.name = name, .row = may_be_row && *from != '"' && strcmp(name, "row") == 0};
    if (end < limit && *end == ':') {
        const char *word = end + 1;
        size_t n = 0;
        while (word + n < limit && word[n] != ',')
            n++;
        if (n == 3 && memcmp(word, "num", 3) == 0)
            *type = (argument_type){.type = CBI_VALUE_NUM};
        else if (n == 5 && memcmp(word, "float", 5) == 0)
            *type = (argument_type){.type = CBI_VALUE_NUM, .real = true};
        else if (n == 3 && memcmp(word, "str", 3) == 0)
            *type = (argument_type){.type = CBI_VALUE_STR};
        else
            return bad(p, word,
                       "types are num, float and str; a name that holds a colon is written in "
                       "double quotes");
        end = word + n;
    }
    *at = end;
    return CB_OK;
}

static bool is_word(const char *at, size_t bytes, const char *word) {
    return bytes == strlen(word) && memcmp(at, word, bytes) == 0;
}

/* p95, p99.9 */
static bool read_quantile(const char *at, size_t bytes, cbi_aggregate *item) {
    uint64_t part = 0, whole = 100;
    bool point = false;
    unsigned digits = 0;
    for (size_t i = 1; i < bytes; i++) {
        if (at[i] == '.' && !point && digits > 0) {
            point = true;
            continue;
        }
        if (at[i] < '0' || at[i] > '9' || ++digits > QUANTILE_DIGITS)
            return false;
        part = part * 10 + (uint64_t)(at[i] - '0');
        whole *= point ? 10 : 1;
    }
    item->part = part;
    item->whole = whole;
    return digits > 0 && part <= whole;
}

/* top3, bottom10 */
static bool read_count(const char *at, size_t bytes, uint32_t *n) {
    uint64_t v = 0;
    for (size_t i = 0; i < bytes; i++) {
        if (at[i] < '0' || at[i] > '9')
            return false;
        v = v * 10 + (uint64_t)(at[i] - '0');
        if (v > 1000000)
            return false;
    }
    *n = (uint32_t)v;
    return bytes > 0 && v > 0;
}

static cb_status read_function(parser *p, const char *at, size_t bytes, cbi_aggregate *item,
                               unsigned *least, unsigned *most) {
    *least = *most = 1;
    item->type = CBI_VALUE_NUM;
    for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++) {
        const function_name *f = &functions[i];
        if (!is_word(at, bytes, f->name))
            continue;
        item->kind = f->kind;
        item->type = f->type;
        item->part = 1;
        item->whole = 2;
        *least = f->least;
        *most = f->most;
        return CB_OK;
    }
    item->kind = CBI_AGG_QUANTILE;
    if (bytes > 1 && *at == 'p' && read_quantile(at, bytes, item))
        return CB_OK;
    item->kind = CBI_AGG_TOP;
    if (bytes > 3 && memcmp(at, "top", 3) == 0 && read_count(at + 3, bytes - 3, &item->n))
        return CB_OK;
    item->kind = CBI_AGG_BOTTOM;
    if (bytes > 6 && memcmp(at, "bottom", 6) == 0 && read_count(at + 6, bytes - 6, &item->n))
        return CB_OK;
    const char *words[sizeof functions / sizeof functions[0]];
    for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++)
        words[i] = functions[i].name;
    const char *near =
        cbi_key_did_you_mean(at, bytes, words, sizeof functions / sizeof functions[0]);
    return cbi_fail(p->err, CB_EINVAL,
                    "aggregate %zu '%.120s': there is no function '%.*s'%s%s%s; " FUNCTIONS_TEXT,
                    p->index + 1, p->text, (int)cbi_min(bytes, 40), at,
                    near != NULL ? " (did you mean '" : "", near != NULL ? near : "",
                    near != NULL ? "'?)" : "");
}

/* What records must carry for it. */
static void note_needs(cbi_aggregates *a, const cbi_aggregate *item) {
    if (!cbi_aggregate_fixed(item))
        a->lists = true;
    if (item->a == NONE)
        return;
    cbi_agg_column *x = &a->columns[item->a];
    cbi_agg_column *y = item->b != NONE ? &a->columns[item->b] : NULL;
    bool number = item->type == CBI_VALUE_NUM;
    switch (item->kind) {
        case CBI_AGG_COUNT: x->packed = true; break;
        case CBI_AGG_ARGMAX:
        case CBI_AGG_ARGMIN:
            cb_assert(y != NULL); /* the parser asks for two columns */
            x->text = true;
            *(number ? &y->number : &y->text) = true;
            break;
        case CBI_AGG_FIRST:
        case CBI_AGG_LAST:
        case CBI_AGG_COLLECT: x->text = true; break;
        case CBI_AGG_CORR:
            cb_assert(y != NULL);
            x->number = y->number = true;
            break;
        case CBI_AGG_SUM:
        case CBI_AGG_MEAN:
        case CBI_AGG_MIN:
        case CBI_AGG_MAX:
        case CBI_AGG_VAR:
        case CBI_AGG_SD:
        case CBI_AGG_VARP:
        case CBI_AGG_SDP:
        case CBI_AGG_QUANTILE:
        case CBI_AGG_DISTINCT:
        case CBI_AGG_APPROX:
        case CBI_AGG_MODE:
        case CBI_AGG_TOP:
        case CBI_AGG_BOTTOM: *(number ? &x->number : &x->text) = true; break;
    }
}

static cb_status read_arguments(parser *p, const char *at, const char *limit, cbi_aggregate *item,
                                unsigned least, unsigned most) {
    unsigned count = 0;
    argument_type type = {.type = item->type};
    argument arguments[2] = {{.name = NULL}};
    bool row = item->kind == CBI_AGG_ARGMAX || item->kind == CBI_AGG_ARGMIN ||
               item->kind == CBI_AGG_FIRST || item->kind == CBI_AGG_LAST;
    item->a = item->b = NONE;
    while (at < limit) {
        if (count == most)
            return bad(p, at, most == 0 ? "no column is wanted here" : "too many columns");
        CB_TRY(read_column(p, &at, limit, row && count == 0, &type, &arguments[count]));
        count++;
        if (at == limit)
            break;
        if (*at != ',' || at + 1 == limit)
            return bad(p, at, "a comma and a column, or nothing, was expected here");
        at++;
    }
    if (count < least)
        return bad(p, at, least == 2 ? "two columns are needed" : "a column is needed");
    bool shown = item->kind == CBI_AGG_FIRST || item->kind == CBI_AGG_LAST ||
                 item->kind == CBI_AGG_COLLECT; /* as it is written, whatever its type */
    bool counted = item->kind == CBI_AGG_COUNT;
    bool by = item->kind == CBI_AGG_ARGMAX || item->kind == CBI_AGG_ARGMIN;
    item->type = shown ? CBI_VALUE_STR : type.type;
    bool real = type.real && !shown && !counted;
    if (count > 0)
        item->a = add_column(p->a, arguments[0].name, arguments[0].row, real && !by);
    if (count > 1)
        item->b = add_column(p->a, arguments[1].name, false, real);
    bool arithmetic = item->kind == CBI_AGG_SUM || item->kind == CBI_AGG_MEAN ||
                      (item->kind >= CBI_AGG_VAR && item->kind <= CBI_AGG_CORR);
    if (arithmetic && type.type == CBI_VALUE_STR)
        return bad(p, p->text, "text cannot be reckoned with");
    return CB_OK;
}

static cb_status parse_one(parser *p, cbi_aggregate *item) {
    const char *text = p->text, *end = text + strlen(text);
    const char *open = strchr(text, '('), *equals = NULL;
    for (const char *q = text; q < (open != NULL ? open : end); q++)
        if (*q == '=' && equals == NULL)
            equals = q;
    const char *from = equals != NULL ? equals + 1 : text;
    *item = (cbi_aggregate){.text = keep(p, text, (size_t)(end - text)), .own = NONE};
    item->name = equals != NULL ? keep(p, text, (size_t)(equals - text))
                                : keep(p, text, (size_t)(end - text));
    if (equals == text)
        return bad(p, text, "the result's name is missing before the equals sign");
    unsigned least, most;
    if (open == NULL) {
        const char *colon = strchr(from, ':');
        size_t bytes = (size_t)((colon != NULL ? colon : end) - from);
        if (colon == NULL && !is_word(from, bytes, "count"))
            return bad(p, from,
                       "an aggregate is written FUNCTION(COLUMN), as in sum(price) or "
                       "avg=mean(price)");
        CB_TRY(read_function(p, from, bytes, item, &least, &most));
        return read_arguments(p, colon != NULL ? colon + 1 : end, end, item, least, most);
    }
    if (end[-1] != ')')
        return bad(p, end, "the closing parenthesis is missing here");
    CB_TRY(read_function(p, from, (size_t)(open - from), item, &least, &most));
    return read_arguments(p, open + 1, end - 1, item, least, most);
}

cb_status cbi_aggregates_parse(const char *const *texts, size_t count, cbi_aggregates **out,
                               cb_error *err) {
    cbi_aggregates *a = cbi_calloc(1, sizeof *a);
    if (a == NULL)
        return cbi_fail(err, CB_ENOMEM, "no memory for aggregates");
    size_t bytes = 0;
    for (size_t i = 0; i < count; i++)
        bytes += 4 * (strlen(texts[i]) + 4);
    a->items = cbi_calloc(count + 1, sizeof *a->items);
    a->columns = cbi_calloc(2 * count + 1, sizeof *a->columns);
    a->names = cbi_alloc(bytes + 1);
    parser p = {.a = a, .names = a->names, .err = err};
    cb_status status = CB_OK;
    if (a->items == NULL || a->columns == NULL || a->names == NULL)
        status = cbi_fail(err, CB_ENOMEM, "no memory for %zu aggregates", count);
    for (size_t i = 0; status == CB_OK && i < count; i++) {
        p.text = texts[i];
        p.index = i;
        status = parse_one(&p, &a->items[i]);
        a->count += status == CB_OK;
    }
    if (status != CB_OK) {
        cbi_aggregates_destroy(a);
        return status;
    }
    for (size_t i = 0; i < a->count; i++)
        note_needs(a, &a->items[i]);
    for (size_t i = 0; i < a->column_count; i++)
        a->columns[i].packed |= a->columns[i].number;
    *out = a;
    return CB_OK;
}

void cbi_aggregates_destroy(cbi_aggregates *a) {
    if (a == NULL)
        return;
    cbi_free(a->items);
    cbi_free(a->columns);
    cbi_free(a->names);
    cbi_free(a);
}

/* ---- binding ---- */

cb_status cbi_column_find(const char *text, size_t bytes, const char *const *names,
                          size_t name_count, size_t column_count, uint32_t *column, cb_error *err) {
    for (size_t i = 0; i < name_count; i++) {
        if (strlen(names[i]) == bytes && memcmp(names[i], text, bytes) == 0) {
            *column = (uint32_t)i;
            return CB_OK;
        }
    }
    uint64_t number = 0;
    bool digits = bytes > 0 && bytes < 10;
    for (size_t i = 0; digits && i < bytes; i++) {
        digits = text[i] >= '0' && text[i] <= '9';
        number = number * 10 + (uint64_t)(text[i] - '0');
    }
    if (digits && number > 0 && (column_count == 0 || number <= column_count)) {
        *column = (uint32_t)(number - 1);
        return CB_OK;
    }
    if (digits)
        return cbi_fail(err, CB_EINVAL, "there is no column %llu: the input has %zu",
                        (unsigned long long)number, column_count);
    if (name_count == 0)
        return cbi_fail(err, CB_EINVAL,
                        "there is no header, so columns have numbers from 1 on and '%.*s' is none",
                        (int)cbi_min(bytes, 80), text);
    const char *near = cbi_key_did_you_mean(text, bytes, names, name_count);
    char list[256];
    size_t used = 0;
    for (size_t i = 0; i < name_count && used + 48 < sizeof list; i++) {
        int n = snprintf(list + used, sizeof list - used, "%s%.40s", i > 0 ? ", " : "", names[i]);
        used += n > 0 ? (size_t)n : 0;
    }
    return cbi_fail(err, CB_EINVAL, "there is no column '%.*s'%s%s%s; the header has %s",
                    (int)cbi_min(bytes, 80), text, near != NULL ? " (did you mean '" : "",
                    near != NULL ? near : "", near != NULL ? "'?)" : "", list);
}

static uint32_t take(cbi_aggregates *a, size_t words) {
    uint32_t offset = (uint32_t)a->state_bytes;
    a->state_bytes += words * 8;
    return offset;
}

static void lay_out(cbi_aggregates *a) {
    a->state_bytes = 8; /* rows */
    a->text_bytes = 0;
    for (size_t i = 0; i < a->count; i++)
        a->text_bytes += (cbi_aggregate_best(&a->items[i]) ? a->items[i].n : 1) *
                         (size_t)(CBI_DECIMAL_TEXT_MAX + 1);
    for (size_t i = 0; i < a->column_count; i++)
        a->columns[i].n = a->columns[i].sum = a->columns[i].square = a->columns[i].min =
            a->columns[i].max = NONE;
    for (size_t i = 0; i < a->count; i++) {
        cbi_aggregate *item = &a->items[i];
        if (!cbi_aggregate_fixed(item) || item->a == NONE)
            continue;
        if (item->kind == CBI_AGG_CORR) {
            item->own = take(a, a->columns[item->a].real ? CBI_REAL_PAIR_WORDS : CBI_PAIR_WORDS);
            continue;
        }
        if (cbi_aggregate_best(item)) {
            item->own = take(a, 1 + 2 * (size_t)item->n);
            continue;
        }
        cbi_agg_column *c = &a->columns[item->a];
        bool square = item->kind >= CBI_AGG_VAR && item->kind <= CBI_AGG_SDP;
        bool sum = square || item->kind == CBI_AGG_SUM || item->kind == CBI_AGG_MEAN;
        if (c->n == NONE)
            c->n = take(a, 1);
        if (sum && c->sum == NONE)
            c->sum = take(a, c->real ? CBI_REAL_SUM : CBI_WIDE_SUM);
        if (square && c->square == NONE)
            c->square = take(a, c->real ? CBI_REAL_SQUARE : CBI_WIDE_SQUARE);
        if (item->kind == CBI_AGG_MIN && c->min == NONE)
            c->min = take(a, 2);
        if (item->kind == CBI_AGG_MAX && c->max == NONE)
            c->max = take(a, 2);
    }
}

cb_status cbi_aggregates_bind(cbi_aggregates *a, const char *const *names, size_t name_count,
                              size_t column_count, cb_error *err) {
    for (size_t i = 0; i < a->column_count; i++) {
        cbi_agg_column *c = &a->columns[i];
        if (!c->row)
            CB_TRY(cbi_column_find(c->name, strlen(c->name), names, name_count, column_count,
                                   &c->column, err));
    }
    lay_out(a);
    return CB_OK;
}
