/* SPDX-License-Identifier: Apache-2.0 */
#include "text.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

__extension__ typedef unsigned __int128 wide;

/** Digits and a fraction; *whole and *micro (millionths). Answers where it stopped, NULL when there
 * is no digit. */
static const char *read_digits(const char *text, uint64_t *whole, uint64_t *micro, bool *overflow) {
    const char *p = text;
    *whole = *micro = 0;
    *overflow = false;
    for (; *p >= '0' && *p <= '9'; p++) {
        *overflow |= __builtin_mul_overflow(*whole, UINT64_C(10), whole);
        *overflow |= __builtin_add_overflow(*whole, (uint64_t)(*p - '0'), whole);
    }
    if (p == text)
        return NULL;
    if (*p == '.') {
        uint64_t place = 100000;
        for (p++; *p >= '0' && *p <= '9'; p++, place /= 10)
            *micro += place * (uint64_t)(*p - '0');
    }
    return p;
}

static cli_number scale(uint64_t whole, uint64_t micro, uint64_t factor, uint64_t *out) {
    wide value = (wide)whole * factor;
    value += (wide)micro * factor / 1000000;
    if (value > UINT64_MAX)
        return CLI_NUMBER_TOO_LARGE;
    *out = (uint64_t)value;
    return CLI_NUMBER_OK;
}

static bool power(uint64_t base, int exponent, uint64_t *out) {
    *out = 1;
    while (exponent-- > 0)
        if (__builtin_mul_overflow(*out, base, out))
            return false;
    return true;
}

cli_number cli_size_parse(const char *text, uint64_t unit, uint64_t whole_size, uint64_t *bytes) {
    uint64_t whole, micro, factor = unit;
    bool overflow;
    const char *p = read_digits(text, &whole, &micro, &overflow);
    if (p == NULL)
        return CLI_NUMBER_INVALID;
    if (*p == '%' && p[1] == '\0' && whole_size != 0) {
        if (overflow)
            return CLI_NUMBER_TOO_LARGE;
        wide part = (wide)whole_size * whole / 100;
        part += (wide)whole_size * micro / 100000000;
        if (part > UINT64_MAX)
            return CLI_NUMBER_TOO_LARGE;
        *bytes = (uint64_t)part;
        return CLI_NUMBER_OK;
    }
    if (*p == 'b' || *p == 'B') {
        factor = 1;
        p++;
    } else if (*p != '\0') {
        static const char letters[] = "KMGTPEZY";
        char upper = (char)(*p >= 'a' && *p <= 'z' ? *p - 'a' + 'A' : *p);
        const char *letter = strchr(letters, upper);
        if (letter == NULL)
            return CLI_NUMBER_SUFFIX;
        p++;
        uint64_t base = 1024;
        if (p[0] == 'B') {
            base = 1000;
            p++;
        } else if (p[0] == 'i' && p[1] == 'B') {
            p += 2;
        }
        if (!power(base, (int)(letter - letters) + 1, &factor))
            overflow |= whole != 0 || micro != 0;
    }
    if (*p != '\0')
        return CLI_NUMBER_SUFFIX;
    return overflow ? CLI_NUMBER_TOO_LARGE : scale(whole, micro, factor, bytes);
}

cli_number cli_count_parse(const char *text, uint64_t *count) {
    uint64_t whole, micro, factor = 1;
    bool overflow;
    const char *p = read_digits(text, &whole, &micro, &overflow);
    if (p == NULL)
        return CLI_NUMBER_INVALID;
    if (*p != '\0') {
        static const char letters[] = "KMGT";
        char upper = (char)(*p >= 'a' && *p <= 'z' ? *p - 'a' + 'A' : *p);
        const char *letter = strchr(letters, upper);
        if (letter == NULL || p[1] != '\0')
            return CLI_NUMBER_SUFFIX;
        (void)power(1000, (int)(letter - letters) + 1, &factor);
    } else if (micro != 0) {
        return CLI_NUMBER_INVALID;
    }
    return overflow ? CLI_NUMBER_TOO_LARGE : scale(whole, micro, factor, count);
}

cli_number cli_integer_parse(const char *text, uint64_t *value) {
    uint64_t whole, micro;
    bool overflow;
    const char *p = read_digits(text, &whole, &micro, &overflow);
    if (p == NULL || *p != '\0' || strchr(text, '.') != NULL)
        return CLI_NUMBER_INVALID;
    if (overflow)
        return CLI_NUMBER_TOO_LARGE;
    *value = whole;
    return CLI_NUMBER_OK;
}

const char *cli_size_text(uint64_t bytes, char text[CLI_FIGURE_MAX]) {
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double value = (double)bytes;
    size_t u = 0;
    while (value >= 1023.5 && u + 1 < CLI_COUNT(units)) {
        value /= 1024;
        u++;
    }
    uint64_t tenths = (uint64_t)(value * 10 + 0.5);
    if (u > 0 && tenths < 1000 && tenths % 10 != 0)
        snprintf(text, CLI_FIGURE_MAX, "%" PRIu64 ".%" PRIu64 " %s", tenths / 10, tenths % 10,
                 units[u]);
    else
        snprintf(text, CLI_FIGURE_MAX, "%.0f %s", value, units[u]);
    return text;
}

const char *cli_size_option(uint64_t bytes, char text[CLI_FIGURE_MAX]) {
    uint64_t kib = bytes / 1024 + (bytes % 1024 != 0);
    if (kib >= 16 * 1024) /* a figure to remember; less than a tenth too much */
        snprintf(text, CLI_FIGURE_MAX, "%" PRIu64 "M", kib / 1024 + (kib % 1024 != 0));
    else if (kib % 1024 == 0)
        snprintf(text, CLI_FIGURE_MAX, "%" PRIu64 "M", kib / 1024);
    else
        snprintf(text, CLI_FIGURE_MAX, "%" PRIu64 "K", kib);
    return text;
}

const char *cli_count_text(uint64_t count, char text[CLI_FIGURE_MAX]) {
    char digits[CLI_FIGURE_MAX];
    int n = snprintf(digits, sizeof digits, "%" PRIu64, count);
    char *out = text;
    for (int i = 0; i < n; i++) {
        if (i > 0 && (n - i) % 3 == 0)
            *out++ = ',';
        *out++ = digits[i];
    }
    *out = '\0';
    return text;
}

const char *cli_time_text(uint64_t ns, char text[CLI_FIGURE_MAX]) {
    double seconds = (double)ns / 1e9;
    if (seconds < 0.995) {
        snprintf(text, CLI_FIGURE_MAX, "%.2f s", seconds);
    } else if (seconds < 59.95) {
        snprintf(text, CLI_FIGURE_MAX, "%.1f s", seconds);
    } else {
        uint64_t whole = (ns + 500000000) / 1000000000;
        unsigned s = (unsigned)(whole % 60), m = (unsigned)(whole / 60 % 60);
        if (whole >= 3600)
            snprintf(text, CLI_FIGURE_MAX, "%" PRIu64 ":%02u:%02u", whole / 3600, m, s);
        else
            snprintf(text, CLI_FIGURE_MAX, "%u:%02u", m, s);
    }
    return text;
}

void cli_text_init(cli_text *text, char *data, size_t cap) {
    *text = (cli_text){.data = data, .cap = cap};
    data[0] = '\0';
}

void cli_text_add(cli_text *text, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(text->data + text->used, text->cap - text->used, fmt, args);
    va_end(args);
    if (n > 0)
        text->used += (size_t)n;
    if (text->used >= text->cap)
        text->used = text->cap - 1;
}

static void json_quoted(cli_text *json, const char *value) {
    cli_text_add(json, "\"");
    for (const unsigned char *p = (const unsigned char *)value; *p != '\0'; p++) {
        if (*p == '"' || *p == '\\')
            cli_text_add(json, "\\%c", *p);
        else if (*p < 0x20)
            cli_text_add(json, "\\u%04x", *p);
        else
            cli_text_add(json, "%c", *p);
    }
    cli_text_add(json, "\"");
}

static void json_name(cli_text *json, const char *name) {
    if (json->comma)
        cli_text_add(json, ",");
    json->comma = true;
    if (name != NULL) {
        json_quoted(json, name);
        cli_text_add(json, ":");
    }
}

void cli_json_open(cli_text *json, const char *name, char bracket) {
    json_name(json, name);
    cli_text_add(json, "%c", bracket);
    json->comma = false;
}

void cli_json_close(cli_text *json, char bracket) {
    cli_text_add(json, "%c", bracket);
    json->comma = true;
}

void cli_json_string(cli_text *json, const char *name, const char *value) {
    json_name(json, name);
    json_quoted(json, value);
}

void cli_json_uint(cli_text *json, const char *name, uint64_t value) {
    json_name(json, name);
    cli_text_add(json, "%" PRIu64, value);
}

void cli_json_real(cli_text *json, const char *name, double value, int decimals) {
    json_name(json, name);
    cli_text_add(json, "%.*f", decimals, value);
}

void cli_json_bool(cli_text *json, const char *name, bool value) {
    json_name(json, name);
    cli_text_add(json, value ? "true" : "false");
}

void cli_json_null(cli_text *json, const char *name) {
    json_name(json, name);
    cli_text_add(json, "null");
}
