/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes are a trace: it is answered or refused with a place, and never breaks an invariant of
 * the pools (the assertions of the build see to that). Answers of accepted lines repeat the line.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "carbide/simulate.h"

enum { TRACE_MAX = 16 * 1024 };

static void run_line(cb_simulation *s, const char *line, size_t bytes, unsigned number) {
    const char *answer = NULL;
    cb_error err;
    char place[16];
    cb_status status = cb_simulation_line(s, line, bytes, &answer, &err);
    cb_assert(status == CB_OK || status == CB_EDATA);
    int length = snprintf(place, sizeof place, "%u", number);
    const char *text = status == CB_OK ? answer : err.message;
    if (text != NULL) {
        cb_assert(memcmp(text, place, (size_t)length) == 0);
        cb_assert(text[length] == (status == CB_OK ? ' ' : ':'));
    }
    cb_assert(status != CB_OK || answer == NULL || strstr(answer, " | ") != NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const cb_simulation_options o = {
        .struct_size = sizeof o, .summary = size % 2 == 0, .picture = size % 3 == 0};
    cb_simulation *s = NULL;
    const char *text = NULL;
    char *copy = size <= TRACE_MAX ? malloc(size + 1) : NULL;
    if (copy == NULL || cb_simulation_create(&o, &s, NULL) != CB_OK) {
        free(copy);
        return 0;
    }
    memcpy(copy, data, size);
    copy[size] = '\n';
    unsigned number = 0;
    for (const char *line = copy; line < copy + size;) {
        const char *end = memchr(line, '\n', (size_t)(copy + size + 1 - line));
        run_line(s, line, (size_t)(end - line), ++number);
        line = end + 1;
    }
    if (o.summary) {
        cb_assert(cb_simulation_summary(s, &text, NULL) == CB_OK);
    }
    if (o.picture) {
        cb_assert(cb_simulation_picture(s, "trace", &text, NULL) == CB_OK);
        cb_assert(strstr(text, "nan") == NULL && strstr(text, "inf") == NULL);
    }
    cb_simulation_destroy(s);
    free(copy);
    return 0;
}
