/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_PROC_FILE_H
#define CBI_PROC_FILE_H

#include "base/base.h"

/**
 * Small files of /proc and /sys. They are read without allocation and outside the fault counter:
 * what they say is advice, a file that cannot be read means "not known".
 */
enum { CBI_PROC_LINE_MAX = 4096 };

typedef struct cbi_proc_file {
    int fd;
    size_t begin, end; /* what is left in `bytes` */
    bool ended;
    char bytes[CBI_PROC_LINE_MAX];
} cbi_proc_file;

bool cbi_proc_open(cbi_proc_file *file, const char *path);
/** The next line without its end, borrowed until the next call; NULL at the end. Longer lines come
 * in pieces. */
char *cbi_proc_line(cbi_proc_file *file);
void cbi_proc_close(cbi_proc_file *file);

/** The first line of `path` into `line`; false when there is none. */
bool cbi_proc_first_line(const char *path, char *line, size_t bytes);
/** The number after the line's first word where that word is `name`, as in "VmHWM:  1024 kB"; false
 * when there is none. */
bool cbi_proc_number(const char *path, const char *name, uint64_t *value);

#endif
