/* SPDX-License-Identifier: Apache-2.0 */

/* The README's program: consumer IN OUT sorts IN by line inside 64 MiB. */
#include <stdio.h>

#include <carbide/carbide.h>

int main(int argc, char **argv) {
    if (argc != 3) {
        return 2;
    }
    const char *inputs[] = {argv[1]};
    cb_sort_options options = {.struct_size = sizeof options,
                               .inputs = inputs,
                               .input_count = 1,
                               .output = argv[2],
                               .field_separator = -1,
                               .memory_bytes = 64 << 20};
    cb_sort *sort = NULL;
    cb_error err;
    cb_status status = cb_sort_create(&options, &sort, &err);
    if (status == CB_OK) {
        status = cb_sort_run(sort, &err);
    }
    if (status != CB_OK) {
        (void)fprintf(stderr, "%s: %s\n", cb_status_name(status), err.message);
    }
    cb_sort_destroy(sort);
    return status == CB_OK ? 0 : 1;
}
