/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_GNU_H
#define CLI_GNU_H

#include "cli.h"
#include "sort_args.h"

/**
 * What GNU sort looks at before it starts: is the locale one whose order is that of bytes (any
 * other is refused), can the inputs be read and the output be written. true, or false after a
 * message in its words.
 */
bool cli_gnu_check(const cli_sort_args *args);

#endif
