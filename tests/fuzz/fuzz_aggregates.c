/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Any aggregate texts over any header: parsing says why not or works, binding finds columns or says
 * which there is not, and values that are any bytes, read as their column says, go into a state,
 * which is added to itself, raised and written out within the room that is promised.
 *
 * Input: aggregate texts separated by LF up to an empty line, then values separated by LF.
 */

#include <string.h>

#include "base/alloc.h"
#include "record/aggregate.h"

enum { TEXTS_MAX = 8, TEXT_MAX = 1024, COLUMNS = 6 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const names[COLUMNS] = {"x", "y", "a b", "c:d", "e,\"f\"", "row"};

static size_t read_texts(const uint8_t **data, size_t *size, char *text, const char **texts) {
    size_t n = 0, count = 0;
    const char *start = text;
    while (*size > 0 && n < TEXT_MAX - 1 && count < TEXTS_MAX) {
        uint8_t c = *(*data)++;
        (*size)--;
        if (c != '\n' && c != 0) {
            text[n++] = (char)c;
            continue;
        }
        if (text + n == start)
            return count;
        text[n++] = 0;
        texts[count++] = start;
        start = text + n;
    }
    return count;
}

/* What is carried about of a number comes back as it was. */
static void check_number(const cbi_decimal *d, bool real) {
    uint8_t packed[32], text[CBI_DECIMAL_TEXT_MAX];
    cbi_decimal back;
    bool null;
    cb_assert(d->scale <= (real ? 0 : CBI_SCALE_MAX));
    (void)memset(packed, 0, sizeof packed);
    uint8_t *packed_end = cbi_packed_put(packed + 8, d);
    cb_assert(packed_end <= packed + 8 + CBI_PACKED_MAX);
    cb_assert(cbi_packed_get(packed + 8, &back, &null) == packed_end && !null);
    cb_assert(back.value == d->value && back.scale == d->scale);
    uint8_t *end = real ? cbi_real_format(text, cbi_real_of_rank(back.value))
                        : cbi_decimal_format(text, back.value, back.scale);
    cb_assert(end <= text + sizeof text);
    if (real) {
        cb_assert(cbi_real_parse(text, text, (size_t)(end - text), &back) == CBI_NUMBER);
        cb_assert(back.value == d->value);
    }
}

/* The next value of a column, from memory that ends where it does. */
static cbi_value next_value(const cbi_agg_column *c, const uint8_t **data, size_t *size) {
    cbi_value value = {.null = true};
    const uint8_t *text = *data, *end = *size > 0 ? memchr(text, '\n', *size) : NULL;
    size_t bytes = end != NULL ? (size_t)(end - text) : *size;
    *data += bytes + (end != NULL);
    *size -= bytes + (end != NULL);
    if (!c->number) {
        value.null = bytes == 0;
        return value;
    }
    cbi_number_kind kind = c->real ? cbi_real_parse(text, text, bytes, &value.number)
                                   : cbi_decimal_parse(text, text, bytes, &value.number);
    cb_assert(!c->real || kind != CBI_NUMBER_WIDE);
    value.null = kind != CBI_NUMBER;
    if (!value.null)
        check_number(&value.number, c->real);
    return value;
}

static void reckon(const cbi_aggregates *a, const uint8_t *data, size_t size) {
    uint8_t scales[2 * TEXTS_MAX] = {0}, text[CBI_STATE_TEXT_MAX];
    cbi_value values[2 * TEXTS_MAX];
    uint64_t *state = cbi_calloc(1, a->state_bytes + 8);
    bool fits = state != NULL && a->column_count <= 2 * TEXTS_MAX;
    while (fits && size > 0) {
        for (size_t i = 0; i < a->column_count; i++) {
            values[i] = next_value(&a->columns[i], &data, &size);
            if (values[i].null || values[i].number.scale <= scales[i])
                continue;
            fits = fits && cbi_state_raise(a, state, i, values[i].number.scale - scales[i]);
            scales[i] = values[i].number.scale;
        }
        size_t column = 0;
        fits = fits && cbi_state_add(a, scales, state, values, &column);
        if (a->column_count == 0)
            break;
    }
    if (fits)
        cbi_state_merge(a, state, state);
    for (size_t i = 0; fits && i < a->count; i++) {
        uint8_t *end = text;
        if (cbi_aggregate_fixed(&a->items[i]) &&
            cbi_state_format(a, &a->items[i], scales, state, text, &end) == CBI_RESULT_OK)
            cb_assert(end >= text && end <= text + sizeof text);
    }
    cbi_free(state);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char text[TEXT_MAX] = {0};
    const char *texts[TEXTS_MAX];
    cb_error err;
    cbi_aggregates *a = NULL;
    size_t count = read_texts(&data, &size, text, texts);
    cb_status status = cbi_aggregates_parse(texts, count, &a, &err);
    if (status == CB_OK)
        status = cbi_aggregates_bind(a, names, COLUMNS, COLUMNS, &err);
    cb_assert(status == CB_OK || (status == CB_EINVAL && err.message[0] != 0) ||
              status == CB_ENOMEM);
    if (status == CB_OK)
        reckon(a, data, size);
    cbi_aggregates_destroy(a);
    return 0;
}
