/* SPDX-License-Identifier: Apache-2.0 */
/* A directory in a Redis that is not there: the library can be linked, and says what it lacks. */
#include <carbide/redis_directory.h>

int main(void) {
    cb_redis_directory_options options = {.struct_size = sizeof options, .url = "nonsense"};
    cb_redis_directory *directory = NULL;
    cb_error err;
    cb_status status = cb_redis_directory_create(&options, &directory, &err);
    cb_redis_directory_destroy(directory);
    return status == CB_EINVAL ? 0 : 1;
}
