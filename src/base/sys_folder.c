/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/sys.h"

/* Folders by descriptor: what is made, removed and listed here cannot be moved to another place by
 * swapping a path. */

static int result_or_errno(int result) {
    return result < 0 ? -errno : result;
}

int cbi_sys_mkdirat(int dir, const char *name, mode_t mode) {
    int fault = CBI_FAULT(CBI_FAULT_FILE);
    if (fault != 0) {
        return -fault;
    }
    if (mkdirat(dir, name, mode) < 0) {
        return -errno;
    }
    /* The umask can only have taken bits away; a folder that its owner may not enter is of no use.
     */
    int result = result_or_errno(fchmodat(dir, name, mode, 0));
    if (result < 0) {
        (void)unlinkat(dir, name, AT_REMOVEDIR);
    }
    return result;
}

int cbi_sys_unlinkat(int dir, const char *name, int flags) {
    int fault = CBI_FAULT(CBI_FAULT_FILE);
    return fault != 0 ? -fault : result_or_errno(unlinkat(dir, name, flags));
}

int cbi_sys_list(int dir, cbi_sys_name_fn fn, void *ctx) {
    int fd = cbi_sys_openat(dir, ".", O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0) {
        return fd;
    }
    DIR *stream = fdopendir(fd);
    if (stream == NULL) {
        int why = -errno;
        (void)cbi_sys_close(fd);
        return why;
    }
    errno = 0;
    for (struct dirent *entry; (entry = readdir(stream)) != NULL;) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
            fn(ctx, entry->d_name);
        }
        errno = 0;
    }
    int why = -errno;
    (void)closedir(stream);
    return why;
}
