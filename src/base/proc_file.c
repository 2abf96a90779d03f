/* SPDX-License-Identifier: Apache-2.0 */
#include "base/proc_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bool cbi_proc_open(cbi_proc_file *file, const char *path) {
    file->begin = file->end = 0;
    file->ended = false;
    file->fd = open(path, O_RDONLY | O_CLOEXEC);
    return file->fd >= 0;
}

void cbi_proc_close(cbi_proc_file *file) {
    if (file->fd >= 0) {
        (void)close(file->fd);
        file->fd = -1;
    }
}

static void fill(cbi_proc_file *file) {
    memmove(file->bytes, file->bytes + file->begin, file->end - file->begin);
    file->end -= file->begin;
    file->begin = 0;
    while (!file->ended && file->end < sizeof file->bytes - 1) {
        ssize_t got = read(file->fd, file->bytes + file->end, sizeof file->bytes - 1 - file->end);
        if (got > 0) {
            file->end += (size_t)got;
        } else if (got == 0 || errno != EINTR) {
            file->ended = true;
        }
    }
}

char *cbi_proc_line(cbi_proc_file *file) {
    char *line = file->bytes + file->begin;
    char *newline = memchr(line, '\n', file->end - file->begin);
    if (newline == NULL) {
        fill(file);
        line = file->bytes;
        if (file->end == 0) {
            return NULL;
        }
        newline = memchr(line, '\n', file->end);
        if (newline == NULL) { /* the last line, or a piece of a long one */
            newline = line + file->end;
            file->end++;
        }
    }
    *newline = '\0';
    file->begin = (size_t)(newline - file->bytes) + 1;
    return line;
}

bool cbi_proc_first_line(const char *path, char *line, size_t bytes) {
    cbi_proc_file file;
    if (!cbi_proc_open(&file, path)) {
        return false;
    }
    const char *first = cbi_proc_line(&file);
    if (first != NULL) {
        (void)snprintf(line, bytes, "%s", first);
    }
    cbi_proc_close(&file);
    return first != NULL;
}

bool cbi_proc_number(const char *path, const char *name, uint64_t *value) {
    cbi_proc_file file;
    if (!cbi_proc_open(&file, path)) {
        return false;
    }
    size_t length = strlen(name);
    bool found = false;
    for (const char *line; !found && (line = cbi_proc_line(&file)) != NULL;) {
        if (strncmp(line, name, length) == 0 && strchr(" \t", line[length]) != NULL) {
            *value = strtoull(line + length, NULL, 10);
            found = true;
        }
    }
    cbi_proc_close(&file);
    return found;
}
