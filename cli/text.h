/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_TEXT_H
#define CLI_TEXT_H

#include "cli.h"

/* Figures as people write and read them. */

typedef enum cli_number {
    CLI_NUMBER_OK = 0,
    CLI_NUMBER_INVALID,
    CLI_NUMBER_SUFFIX,
    CLI_NUMBER_TOO_LARGE
} cli_number;

/**
 * A size: digits (and a decimal fraction), then nothing (times `unit`), b, K M G T P E (also KiB
 * ...; powers of 1024), KB MB ... (powers of 1000), or % of `whole` (0 = not allowed). *bytes is
 * written on success only.
 */
cli_number cli_size_parse(const char *text, uint64_t unit, uint64_t whole, uint64_t *bytes);
/** A count: digits and a fraction, then K M G T as powers of 1000. */
cli_number cli_count_parse(const char *text, uint64_t *count);
/** Plain decimal digits, nothing else. */
cli_number cli_integer_parse(const char *text, uint64_t *value);

enum { CLI_FIGURE_MAX = 32 };
/** "980 MiB", "1.4 GiB", "12 B"; answers `text`. */
const char *cli_size_text(uint64_t bytes, char text[CLI_FIGURE_MAX]);
/** As an option value that is not below `bytes`: "9M", "8193K". */
const char *cli_size_option(uint64_t bytes, char text[CLI_FIGURE_MAX]);
/** "20,000,000" */
const char *cli_count_text(uint64_t count, char text[CLI_FIGURE_MAX]);
/** "0.21 s", "12 s", "3:05", "2:03:05" */
const char *cli_time_text(uint64_t ns, char text[CLI_FIGURE_MAX]);

/** Text that grows in a caller's buffer and stops when it is full; always terminated. */
typedef struct cli_text {
    char *data;
    size_t cap, used;
    bool comma; /* JSON: the next member needs one before it */
} cli_text;

void cli_text_init(cli_text *text, char *data, size_t cap);
void cli_text_add(cli_text *text, const char *fmt, ...) CLI_PRINTF(2, 3);

/* JSON on top of it: members of an object (name) or of an array (NULL). */
void cli_json_open(cli_text *json, const char *name, char bracket);
void cli_json_close(cli_text *json, char bracket);
void cli_json_string(cli_text *json, const char *name, const char *value);
void cli_json_uint(cli_text *json, const char *name, uint64_t value);
void cli_json_real(cli_text *json, const char *name, double value, int decimals);
void cli_json_bool(cli_text *json, const char *name, bool value);
void cli_json_null(cli_text *json, const char *name);

#endif
