/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading one operation. What cannot be read ends the run, so every message says where: the column
 * is that of the byte which is wrong, from 1.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "carbide/block.h"
#include "simulate/simulate.h"
#include "store/lru.h"

enum { SHOWN_MAX = 40 }; /* bytes of a word that a message repeats */

static bool is_space(char c) {
    return c == ' ' || c == '\t' || c == '\r' || c == '\v' || c == '\f';
}

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

cb_status cbi_sim_split(const char *line, size_t bytes, uint64_t number, cbi_sim_words *words,
                        cb_error *err) {
    const char *hash = bytes > 0 ? memchr(line, '#', bytes) : NULL;
    size_t end = hash != NULL ? (size_t)(hash - line) : bytes, start = 0;
    while (end > 0 && is_space(line[end - 1])) {
        end--;
    }
    while (start < end && is_space(line[start])) {
        start++;
    }
    *words = (cbi_sim_words){
        .line = line + start, .bytes = end - start, .number = number, .first_column = start + 1};
    const char *nul = end > start ? memchr(line + start, '\0', end - start) : NULL;
    if (nul != NULL) {
        return cbi_fail(err, CB_EDATA, "%llu:%zu: a NUL byte is no part of a trace",
                        (unsigned long long)number, (size_t)(nul - line) + 1);
    }
    for (size_t at = 0; at < words->bytes;) {
        if (words->count == CBI_SIM_WORDS_MAX) {
            return cbi_fail(err, CB_EDATA, "%llu:%zu: more than %d words",
                            (unsigned long long)number, words->first_column + at,
                            CBI_SIM_WORDS_MAX);
        }
        size_t length = 0;
        while (at + length < words->bytes && !is_space(words->line[at + length])) {
            length++;
        }
        words->at[words->count] = at;
        words->length[words->count++] = length;
        for (at += length; at < words->bytes && is_space(words->line[at]);) {
            at++;
        }
    }
    return CB_OK;
}

bool cbi_sim_word_is(const cbi_sim_words *words, size_t i, const char *text) {
    return words->length[i] == strlen(text) &&
           memcmp(words->line + words->at[i], text, words->length[i]) == 0;
}

cb_status cbi_sim_complain(const cbi_sim_words *words, size_t i, size_t offset, cb_error *err,
                           const char *fmt, ...) {
    char why[256];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(why, sizeof why, fmt, args);
    va_end(args);
    size_t column = words->first_column + (i < words->count ? words->at[i] + offset : words->bytes);
    return cbi_fail(err, CB_EDATA, "%llu:%zu: %s", (unsigned long long)words->number, column, why);
}

/** The rest of word i from `offset` on, as far as a message shows it. */
static const char *shown(const cbi_sim_words *words, size_t i, size_t offset,
                         char text[SHOWN_MAX + 4]) {
    size_t length = words->length[i] - offset;
    size_t part = cbi_min(length, SHOWN_MAX);
    memcpy(text, words->line + words->at[i] + offset, part);
    memcpy(text + part, length > part ? "..." : "", length > part ? 4 : 1);
    return text;
}

cb_status cbi_sim_number(const cbi_sim_words *words, size_t i, size_t offset, const char *what,
                         uint64_t most, uint64_t *number, cb_error *err) {
    char text[SHOWN_MAX + 4];
    const char *digits = words->line + words->at[i] + offset;
    size_t length = words->length[i] - offset;
    uint64_t value = 0;
    if (length > 1 && digits[0] == '-' && is_digit(digits[1])) {
        return cbi_sim_complain(words, i, offset, err, "%s must not be negative: %s", what,
                                shown(words, i, offset, text));
    }
    for (size_t at = 0; at < length || length == 0; at++) {
        if (length == 0 || !is_digit(digits[at])) {
            return cbi_sim_complain(words, i, offset + at, err,
                                    "%s must be a whole number, not '%s'", what,
                                    shown(words, i, offset, text));
        }
        uint64_t digit = (uint64_t)(digits[at] - '0');
        if (value > (most - digit) / 10) {
            return cbi_sim_complain(words, i, offset, err, "%s is too large: %s, at most %llu",
                                    what, shown(words, i, offset, text), (unsigned long long)most);
        }
        value = 10 * value + digit;
    }
    *number = value;
    return CB_OK;
}

/** Digits, a point with digits, an exponent: what strtod then reads as a whole. */
static bool is_decimal(const char *text, size_t length) {
    size_t at = 0, digits = 0;
    for (; at < length && is_digit(text[at]); at++, digits++) {
    }
    if (at < length && text[at] == '.') {
        for (at++; at < length && is_digit(text[at]); at++, digits++) {
        }
    }
    if (digits > 0 && at < length && (text[at] == 'e' || text[at] == 'E')) {
        at++;
        at += at < length && (text[at] == '+' || text[at] == '-');
        size_t first = at;
        for (; at < length && is_digit(text[at]); at++) {
        }
        return at == length && at > first;
    }
    return digits > 0 && at == length;
}

cb_status cbi_sim_fraction(const cbi_sim_words *words, size_t i, size_t offset, const char *what,
                           double *fraction, cb_error *err) {
    char text[SHOWN_MAX + 4];
    const char *digits = words->line + words->at[i] + offset;
    size_t length = words->length[i] - offset;
    if (length > 1 && digits[0] == '-' && is_decimal(digits + 1, length - 1)) {
        return cbi_sim_complain(words, i, offset, err, "%s must not be negative: %s", what,
                                shown(words, i, offset, text));
    }
    if (length > SHOWN_MAX || !is_decimal(digits, length)) {
        return cbi_sim_complain(words, i, offset, err, "%s must be a decimal number, not '%s'",
                                what, shown(words, i, offset, text));
    }
    (void)shown(words, i, offset, text);
    *fraction = strtod(text, NULL);
    if (*fraction > 1e300) {
        return cbi_sim_complain(words, i, offset, err, "%s is too large: %s", what, text);
    }
    return CB_OK;
}

/* ---- names ---- */

/** Spark's BlockId: numbers are numbers, so rdd_01_0 is rdd_1_0. */
static cb_status read_block(const cbi_sim_words *words, size_t i, cbi_sim_name *name,
                            cb_error *err) {
    char text[CB_BLOCK_NAME_MAX + 1];
    size_t length = words->length[i];
    cb_block_id id;
    if (length > CB_BLOCK_NAME_MAX) {
        return cbi_sim_complain(words, i, 0, err, "a name of %zu bytes is too long, at most %d",
                                length, CB_BLOCK_NAME_MAX);
    }
    memcpy(text, words->line + words->at[i], length);
    text[length] = '\0';
    if (cb_block_id_parse(text, &id, NULL) != CB_OK ||
        cb_block_id_format(&id, name->text, NULL) != CB_OK) {
        return cbi_sim_complain(words, i, 0, err,
                                "a block has a name of Spark's, such as rdd_R_P, broadcast_N, "
                                "taskresult_N or test_x, with numbers that fit");
    }
    name->bytes = strlen(name->text);
    name->data_set = id.kind == CB_BLOCK_RDD ? (int64_t)id.numbers[0] : CBI_NO_DATA_SET;
    return CB_OK;
}

static cb_status read_owner(const cbi_sim_words *words, size_t i, cbi_sim_name *name,
                            cb_error *err) {
    size_t length = words->length[i];
    if (length >= CBI_SIM_NAME_MAX) {
        return cbi_sim_complain(words, i, 0, err, "a name of %zu bytes is too long, at most %d",
                                length, CBI_SIM_NAME_MAX - 1);
    }
    memcpy(name->text, words->line + words->at[i], length);
    name->text[length] = '\0';
    name->bytes = length;
    name->data_set = CBI_NO_DATA_SET;
    return CB_OK;
}

static cb_status read_mode(const cbi_sim_words *words, size_t i, cb_mode *mode, cb_error *err) {
    char text[SHOWN_MAX + 4];
    bool off = cbi_sim_word_is(words, i, "off");
    if (!off && !cbi_sim_word_is(words, i, "on")) {
        return cbi_sim_complain(words, i, 0, err, "the mode must be 'on' or 'off', not '%s'",
                                shown(words, i, 0, text));
    }
    *mode = off ? CB_OFF_HEAP : CB_HEAP;
    return CB_OK;
}

/* ---- operations ---- */

/* Arguments: t task, b bytes, n pages, m mode, k block, o owner, f fraction. */
static const struct {
    const char *name, *arguments, *usage;
    int kinds;
    cbi_sim_op op;
} operations[] = {
    {"acquireExecution", "tbm", "TASK BYTES on|off", CBI_SIM_SPARK, CBI_SIM_ACQUIRE_EXECUTION},
    {"releaseExecution", "tbm", "TASK BYTES on|off", CBI_SIM_SPARK, CBI_SIM_RELEASE_EXECUTION},
    {"releaseAllExecution", "t", "TASK", CBI_SIM_SPARK, CBI_SIM_RELEASE_ALL_EXECUTION},
    {"acquireStorage", "kbm", "BLOCK BYTES on|off", CBI_SIM_SPARK, CBI_SIM_ACQUIRE_STORAGE},
    {"releaseStorage", "k", "BLOCK", CBI_SIM_SPARK, CBI_SIM_RELEASE_STORAGE},
    {"touch", "k", "BLOCK", CBI_SIM_SPARK, CBI_SIM_TOUCH},
    {"pin", "k", "BLOCK", CBI_SIM_SPARK, CBI_SIM_PIN},
    {"unpin", "k", "BLOCK", CBI_SIM_SPARK, CBI_SIM_UNPIN},
    {"acquireUnroll", "kbm", "BLOCK BYTES on|off", CBI_SIM_SPARK, CBI_SIM_ACQUIRE_UNROLL},
    {"releaseUnroll", "bm", "BYTES on|off", CBI_SIM_SPARK, CBI_SIM_RELEASE_UNROLL},
    {"rawAcquireStorage", "kbm", "BLOCK BYTES on|off", CBI_SIM_SPARK, CBI_SIM_RAW_ACQUIRE_STORAGE},
    {"rawReleaseStorage", "bm", "BYTES on|off", CBI_SIM_SPARK, CBI_SIM_RAW_RELEASE_STORAGE},
    {"maxStorage", "m", "on|off", CBI_SIM_SPARK, CBI_SIM_MAX_STORAGE},
    {"allocate", "on", "OWNER PAGES", CBI_SIM_FLINK, CBI_SIM_ALLOCATE},
    {"release", "on", "OWNER PAGES", CBI_SIM_FLINK, CBI_SIM_RELEASE},
    {"releaseList", "on", "OWNER PAGES", CBI_SIM_FLINK, CBI_SIM_RELEASE_LIST},
    {"releaseAll", "o", "OWNER", CBI_SIM_FLINK, CBI_SIM_RELEASE_ALL},
    {"numPages", "f", "FRACTION", CBI_SIM_FLINK, CBI_SIM_NUM_PAGES},
    {"memorySize", "f", "FRACTION", CBI_SIM_FLINK, CBI_SIM_MEMORY_SIZE},
    {"roundDown", "b", "BYTES", CBI_SIM_FLINK, CBI_SIM_ROUND_DOWN},
    {"shutdown", "", "", CBI_SIM_FLINK, CBI_SIM_SHUTDOWN},
    {"state", "", "", CBI_SIM_SPARK | CBI_SIM_FLINK, CBI_SIM_STATE},
};

static cb_status read_argument(const cbi_sim_words *words, size_t i, char kind, cbi_sim_call *call,
                               cb_error *err) {
    switch (kind) {
        case 't': return cbi_sim_number(words, i, 0, "a task", INT64_MAX, &call->task, err);
        case 'b': return cbi_sim_number(words, i, 0, "a size", INT64_MAX, &call->bytes, err);
        case 'n':
            return cbi_sim_number(words, i, 0, "a number of pages", INT32_MAX, &call->bytes, err);
        case 'm': return read_mode(words, i, &call->mode, err);
        case 'k': return read_block(words, i, &call->name, err);
        case 'o': return read_owner(words, i, &call->name, err);
        default:
            cb_assert(kind == 'f');
            return cbi_sim_fraction(words, i, 0, "a fraction", &call->fraction, err);
    }
}

cb_status cbi_sim_read_call(const cbi_sim_words *words, cbi_sim_kind kind, cbi_sim_call *call,
                            cb_error *err) {
    char text[SHOWN_MAX + 4];
    size_t o = 0;
    while (o < sizeof operations / sizeof operations[0] &&
           !cbi_sim_word_is(words, 0, operations[o].name)) {
        o++;
    }
    if (o == sizeof operations / sizeof operations[0]) {
        return cbi_sim_complain(words, 0, 0, err, "there is no operation '%s'",
                                shown(words, 0, 0, text));
    }
    if ((operations[o].kinds & (int)kind) == 0) {
        return cbi_sim_complain(words, 0, 0, err, "'%s' is no operation of %s manager",
                                operations[o].name, kind == CBI_SIM_SPARK ? "Spark's" : "Flink's");
    }
    *call = (cbi_sim_call){.op = operations[o].op};
    size_t wanted = strlen(operations[o].arguments);
    for (size_t i = 0; i < wanted && i + 1 < words->count; i++) {
        CB_TRY(read_argument(words, i + 1, operations[o].arguments[i], call, err));
    }
    if (words->count != wanted + 1) {
        return cbi_sim_complain(words, cbi_min(words->count, wanted + 1), 0, err,
                                "%s argument: %s %s",
                                words->count <= wanted ? "a missing" : "an unexpected",
                                operations[o].name, operations[o].usage);
    }
    return CB_OK;
}
