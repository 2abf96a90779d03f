/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes are a manifest: each record is one that was written, or none. What is read is written
 * again and reads the same; and every record of ours at any place is found whatever stands around
 * it.
 */
#include <string.h>

#include "store/manifest.h"

typedef struct seen {
    uint64_t count;
    cbi_kept last;
} seen;

static bool note(void *ctx, const cbi_kept *kept) {
    seen *s = ctx;
    size_t bytes = strlen(kept->name);
    cb_assert(bytes > 0 && bytes <= CB_BLOCK_NAME_MAX);
    cb_assert(cb_level_check(kept->level, NULL) == CB_OK);
    s->count++;
    s->last = *kept;
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    enum { ROOM = 64 * CBI_MANIFEST_RECORD };
    static uint8_t bytes[ROOM + CBI_MANIFEST_RECORD];
    seen s = {0};
    uint64_t damaged = 0;
    size = size < ROOM ? size : ROOM;
    memcpy(bytes, data, size);
    cb_assert(cbi_manifest_parse(bytes, size, 0, note, &s, &damaged));
    cb_assert(s.count + damaged <= size / CBI_MANIFEST_RECORD);
    size_t records = size / CBI_MANIFEST_RECORD;
    cbi_kept ours = {.name = "rdd_1_2", .level = CB_LEVEL_DISK_ONLY, .file_bytes = size};
    if (s.count > 0) {
        ours = s.last;
    }
    uint64_t before = s.count;
    cbi_manifest_record(&ours, records, bytes + records * CBI_MANIFEST_RECORD);
    s = (seen){0};
    cb_assert(
        cbi_manifest_parse(bytes, (records + 1) * CBI_MANIFEST_RECORD, 0, note, &s, &damaged));
    cb_assert(s.count == before + 1);
    cb_assert(strcmp(s.last.name, ours.name) == 0 && s.last.level == ours.level &&
              s.last.file_bytes == ours.file_bytes && s.last.removed == ours.removed);
    return 0;
}
