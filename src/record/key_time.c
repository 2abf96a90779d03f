/* SPDX-License-Identifier: Apache-2.0 */
#include "record/key_private.h"

/*
 * Points in time as bytes: seconds since 1970-01-01T00:00Z (8 bytes, sign bit turned, within
 * +-2^62, so that 0x00 and 0xff stay free for nulls), then the fraction of a second in base-100
 * digits as in key_number.c, so that it is exact however long; no fraction is 0x00.
 *
 * What is read (blanks around it do not count):
 *   2026-03-01  2026/03/01  20260301  2026-03  2026       a date; what is missing is 1
 *   DATE T|t|blank TIME                                    TIME: 12:34  12:34:56  12:34:56.789 1234
 * 123456.789  (, for .) TIME                                                   with a colon: on
 * 1970-01-01 Z  +01:00  -0130  +01                                  after a TIME, a blank may stand
 * before; none is UTC
 *   @1234567890.5  1234567890  -17.25                      seconds since 1970; without @ a number
 * of neither 4 nor 8 digits A leap second (:60) is the second after :59, as it is for the system's
 * clock. 24:00 is the end of a day.
 */

typedef struct scan {
    const uint8_t *at, *end;
} scan;

typedef struct moment {
    int64_t seconds;
    bool negative_fraction;                 /* the fraction counts downwards: -17.25 */
    const uint8_t *fraction, *fraction_end; /* digits */
} moment;

static inline bool take(scan *s, unsigned c) {
    if (s->at < s->end && *s->at == c) {
        s->at++;
        return true;
    }
    return false;
}

static size_t digits_ahead(const scan *s) {
    const uint8_t *p = s->at;
    while (p < s->end && cbi_key_is_digit(*p))
        p++;
    return (size_t)(p - s->at);
}

/* Exactly n digits, value within [low, high]. */
static bool take_number(scan *s, size_t n, int low, int high, int *value) {
    if ((size_t)(s->end - s->at) < n)
        return false;
    int v = 0;
    for (size_t i = 0; i < n; i++) {
        if (!cbi_key_is_digit(s->at[i]))
            return false;
        v = v * 10 + (s->at[i] - '0');
    }
    if (v < low || v > high)
        return false;
    s->at += n;
    *value = v;
    return true;
}

static bool is_leap(int year) {
    return (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
}

/* Days from 1970-01-01 in the Gregorian calendar, for years 0..9999. */
static int64_t days_of(int year, int month, int day) {
    static const int before[] = {0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334};
    int y = year - 1; /* whole years before; year 0 is a leap year, its days come to -1 */
    int64_t days = (int64_t)year * 365 + (year ? y / 4 - y / 100 + y / 400 + 1 : 0);
    return days + before[month - 1] + (month > 2 && is_leap(year)) + day - 1 - 719528;
}

static bool take_date(scan *s, int64_t *days) {
    static const int lengths[] = {31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    int year = 0, month = 1, day = 1;
    size_t n = digits_ahead(s);
    if (n == 8) {
        if (!take_number(s, 4, 0, 9999, &year) || !take_number(s, 2, 1, 12, &month) ||
            !take_number(s, 2, 1, 31, &day))
            return false;
    } else if (n == 4) {
        take_number(s, 4, 0, 9999, &year);
        unsigned mark = s->at < s->end ? *s->at : 0;
        if (mark == '-' || mark == '/') {
            s->at++;
            if (!take_number(s, 2, 1, 12, &month))
                return false;
            if (take(s, mark) && !take_number(s, 2, 1, 31, &day))
                return false;
        }
    } else {
        return false;
    }
    if (day > lengths[month - 1] || (month == 2 && day == 29 && !is_leap(year)))
        return false;
    *days = days_of(year, month, day);
    return true;
}

static void take_fraction(scan *s, moment *m) {
    if (s->at < s->end && (*s->at == '.' || *s->at == ',') && s->end - s->at > 1 &&
        cbi_key_is_digit(s->at[1])) {
        m->fraction = ++s->at;
        s->at += digits_ahead(s);
        m->fraction_end = s->at;
    }
}

static bool take_zone(scan *s, int64_t *offset) {
    int hours = 0, minutes = 0;
    scan before = *s;
    while (take(s, ' '))
        ;
    *offset = 0;
    if (take(s, 'Z') || take(s, 'z'))
        return true;
    bool west = s->at < s->end && *s->at == '-';
    if (!take(s, '+') && !take(s, '-')) {
        *s = before;
        return true;
    }
    if (!take_number(s, 2, 0, 23, &hours))
        return false;
    if ((take(s, ':') || digits_ahead(s) > 0) && !take_number(s, 2, 0, 59, &minutes))
        return false;
    *offset = (west ? -1 : 1) * (int64_t)(hours * 3600 + minutes * 60);
    return true;
}

/* `colon`: one must be there, or a number would pass for a time. */
static bool take_time(scan *s, bool colon, moment *m) {
    int hours = 0, minutes = 0, seconds = 0;
    if (!take_number(s, 2, 0, 24, &hours))
        return false;
    bool apart = take(s, ':');
    if ((colon && !apart) || !take_number(s, 2, 0, 59, &minutes))
        return false;
    if (apart ? take(s, ':') : digits_ahead(s) > 0) {
        if (!take_number(s, 2, 0, 60, &seconds))
            return false;
        take_fraction(s, m);
    }
    if (hours == 24 && (minutes || seconds || m->fraction))
        return false;
    int64_t offset;
    if (!take_zone(s, &offset))
        return false;
    m->seconds += hours * 3600 + minutes * 60 + seconds - offset;
    return true;
}

/* Seconds as a plain number; `at_sign` has been seen. */
static bool take_seconds(scan *s, moment *m) {
    bool negative = take(s, '-');
    if (!negative)
        take(s, '+');
    size_t n = digits_ahead(s);
    if (n == 0)
        return false;
    int64_t v = 0;
    for (; n; n--) {
        if (v > (INT64_C(1) << 62) / 10 - 1)
            return false;
        v = v * 10 + (*s->at++ - '0');
    }
    take_fraction(s, m);
    m->seconds = negative ? -v : v;
    m->negative_fraction = negative;
    return true;
}

static bool take_moment(scan *s, moment *m) {
    if (take(s, '@'))
        return take_seconds(s, m) && s->at == s->end;
    scan start = *s;
    size_t n = digits_ahead(s);
    int64_t days;
    if (n == 2 && s->end - s->at > 2 && s->at[2] == ':')
        return take_time(s, true, m) && s->at == s->end;
    if ((n == 4 || n == 8) && take_date(s, &days)) {
        m->seconds = days * 86400;
        if (s->at == s->end)
            return true;
        if (take(s, 'T') || take(s, 't') || take(s, ' '))
            return take_time(s, false, m) && s->at == s->end;
        *s = start;
        if (n == 8)
            return false;
    }
    return n != 4 && n != 8 && take_seconds(s, m) && s->at == s->end;
}

/*
 * Digits after the point, written as in key_number.c (2d + 1, the last 2d). Counting downwards, the
 * digits are those of one minus the fraction: nines' complement, and ten's for the last that is not
 * zero.
 */
static void put_fraction(cbi_key_writer *w, unsigned flip, const moment *m) {
    const uint8_t *p = m->fraction, *end = m->fraction_end;
    while (end > p && end[-1] == '0')
        end--;
    if (p == end) {
        cbi_key_put(w, 0x00 ^ flip);
        return;
    }
    while (p < end) {
        unsigned pair = 0;
        for (int i = 0; i < 2; i++, p++) {
            unsigned digit = p < end ? (unsigned)(*p - '0') : 0;
            if (m->negative_fraction && p < end)
                digit = (p + 1 == end ? 10 : 9) - digit;
            pair = pair * 10 + digit;
        }
        cbi_key_put(w, (pair * 2 + (p < end)) ^ flip);
    }
}

void cbi_key_put_time(cbi_key_writer *w, const cbi_key_part *part, const cbi_key_text *text) {
    cbi_key_text t = cbi_key_trim(text);
    scan s = {t.begin, t.end};
    moment m = {0};
    if (!take_moment(&s, &m)) {
        cbi_key_put_null(w, part);
        return;
    }
    const uint8_t *p = m.fraction;
    while (p < m.fraction_end && *p == '0')
        p++;
    if (p == m.fraction_end)
        m.negative_fraction = false;
    int64_t seconds = m.seconds - m.negative_fraction;
    uint64_t flip = part->flip ? UINT64_MAX : 0;
    cbi_key_put_be(w, ((uint64_t)seconds ^ UINT64_C(1) << 63) ^ flip, 8);
    put_fraction(w, part->flip, &m);
}
