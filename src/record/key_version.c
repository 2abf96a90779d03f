/* SPDX-License-Identifier: Apache-2.0 */
#include "record/key_private.h"

/*
 * GNU's version order (sort -V, ls -v) as bytes.
 *
 * That order is given as a comparison of two strings: runs of non-digits are compared byte by byte
 * in an order of their own (~ before the end of the string, the end before letters, letters before
 * everything else), then numbers by value, and so on by turns. Written as a string of its own:
 *
 *     runs     each byte as its rank: ~ 1, letters 3.., others after them; the end of a run is 2. A
 * digit and the end of the string are the same there: whichever comes next is only looked at as a
 * number, where the end is 0 numbers  how many digits without leading zeros (1 byte, or 0xff and 8
 * bytes), then the digits end      after a number: an empty run that nothing follows, which is 2
 * once more
 *
 * Before that come the special cases as a first byte: empty, ".", "..", hidden names, the rest. And
 * the order is first that of names without their suffixes ((\.[A-Za-z~][A-Za-z0-9~]*)* at the end;
 * all of ".profile" is one), then, if these are equal, that of the whole names: so both are written
 * one after the other. A name without a suffix is less than the same with one, so it needs no
 * second time.
 *
 * This is coreutils 9.1 to the letter. Later versions do not take a whole name for a suffix.
 */

enum { RANK_TILDE = 1, RANK_END = 2, RANK_ALPHA = 3, RANK_OTHER = 55 };
enum { IS_EMPTY = 1, IS_DOT, IS_DOT_DOT, IS_HIDDEN, IS_OTHER };

static unsigned rank_of(unsigned c) {
    if (c == '~')
        return RANK_TILDE;
    if (cbi_key_is_alpha(c))
        return RANK_ALPHA + (c < 'a' ? c - 'A' : c - 'a' + 26);
    /* Others keep their order; letters, digits and ~ leave gaps, which does no harm: 255 - 62 - 1
     * ranks are needed. */
    unsigned below =
        (c > '9' ? 10u : 0) + (c > 'Z' ? 26u : 0) + (c > 'z' ? 26u : 0) + (c > '~' ? 1u : 0);
    return RANK_OTHER + c - below;
}

static bool is_suffix_start(int c) {
    return c >= 0 && (c == '~' || cbi_key_is_alpha((unsigned)c));
}

static bool is_suffix_char(int c) {
    return c >= 0 && (is_suffix_start(c) || cbi_key_is_digit((unsigned)c));
}

/* How many bytes of the name (as the cursor sees it) come before its suffix. */
static uint64_t prefix_bytes(cbi_key_cursor c, uint64_t *all) {
    uint64_t count = 0;
    for (int byte = cbi_key_next(&c);; count++, byte = cbi_key_next(&c)) {
        uint64_t prefix = count;
        while (byte == '.') {
            cbi_key_cursor ahead = c;
            if (!is_suffix_start(cbi_key_next(&ahead)))
                break;
            c = ahead;
            count += 2;
            for (byte = cbi_key_next(&c); is_suffix_char(byte); byte = cbi_key_next(&c))
                count++;
        }
        if (byte < 0) {
            *all = count;
            return prefix;
        }
    }
}

/* A number of `digits` digits that c is about to read, without leading zeros. */
static void put_number(cbi_key_writer *w, unsigned flip, cbi_key_cursor c, uint64_t digits) {
    if (digits < 0xff) {
        cbi_key_put(w, (unsigned)digits ^ flip);
    } else {
        cbi_key_put(w, 0xff ^ flip);
        cbi_key_put_be(w, digits ^ (flip ? UINT64_MAX : 0), 8);
    }
    for (; digits; digits--)
        cbi_key_put(w, (unsigned)cbi_key_next(&c) ^ flip);
}

/* The first `left` bytes of a name. */
static void put_name(cbi_key_writer *w, unsigned flip, cbi_key_cursor c, uint64_t left) {
    cbi_key_cursor here = c;
    int byte = left ? cbi_key_next(&c) : -1;
    for (;;) {
        while (byte >= 0 && !cbi_key_is_digit((unsigned)byte)) {
            cbi_key_put(w, rank_of((unsigned)byte) ^ flip);
            here = c;
            byte = --left ? cbi_key_next(&c) : -1;
        }
        cbi_key_put(w, RANK_END ^ flip);
        while (byte == '0') {
            here = c;
            byte = --left ? cbi_key_next(&c) : -1;
        }
        cbi_key_cursor number = here;
        uint64_t digits = 0;
        while (byte >= 0 && cbi_key_is_digit((unsigned)byte)) {
            digits++;
            byte = --left ? cbi_key_next(&c) : -1;
        }
        put_number(w, flip, number, digits);
        if (byte < 0)
            break;
    }
    cbi_key_put(w, RANK_END ^ flip);
}

static unsigned special_case(cbi_key_cursor c) {
    int first = cbi_key_next(&c);
    if (first != '.')
        return first < 0 ? IS_EMPTY : IS_OTHER;
    int second = cbi_key_next(&c);
    if (second < 0)
        return IS_DOT;
    return second == '.' && cbi_key_next(&c) < 0 ? IS_DOT_DOT : IS_HIDDEN;
}

void cbi_key_put_version(cbi_key_writer *w, const cbi_key_part *part, const cbi_key_text *text) {
    unsigned flip = part->flip;
    cbi_key_cursor c = cbi_key_cursor_of(text, part->map);
    unsigned first = special_case(c);
    if (first == IS_EMPTY && part->nulls != CBI_NULLS_NONE) {
        cbi_key_put_null(w, part);
        return;
    }
    cbi_key_put(w, first ^ flip);
    if (first < IS_HIDDEN)
        return;
    uint64_t all = 0, prefix = prefix_bytes(c, &all);
    put_name(w, flip, c, prefix);
    cbi_key_put(w, (prefix < all) ^ flip);
    if (prefix < all)
        put_name(w, flip, c, all);
}
