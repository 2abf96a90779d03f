/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/protocol.h"

#include <string.h>

static const uint8_t magic[4] = {'C', 'B', 'S', '1'};

static void store_u16(uint8_t *p, uint16_t v) {
    memcpy(p, &v, sizeof v);
}

static uint16_t load_u16(const uint8_t *p) {
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

void cbi_head_encode(const cbi_head *h, uint8_t to[CBI_HEAD_BYTES]) {
    memcpy(to, magic, sizeof magic);
    to[4] = h->op;
    to[5] = h->flags;
    store_u16(to + 6, h->name_bytes);
    cbi_store_u32(to + 8, h->tag);
    cbi_store_u32(to + 12, (uint32_t)h->code);
    cbi_store_u64(to + 16, h->bytes);
    cbi_store_u64(to + 24, h->value);
    cbi_store_u64(to + 32, h->extra);
}

cb_status cbi_head_decode(const uint8_t from[CBI_HEAD_BYTES], cbi_head *h, cb_error *err) {
    if (memcmp(from, magic, sizeof magic) != 0) {
        return cbi_fail(err, CB_EINVAL,
                        "This is not carbide's protocol, or not this version of it.");
    }
    *h = (cbi_head){.op = from[4],
                    .flags = from[5],
                    .name_bytes = load_u16(from + 6),
                    .tag = cbi_load_u32(from + 8),
                    .code = (int32_t)cbi_load_u32(from + 12),
                    .bytes = cbi_load_u64(from + 16),
                    .value = cbi_load_u64(from + 24),
                    .extra = cbi_load_u64(from + 32)};
    return CB_OK;
}

static bool has_name(uint8_t op) {
    return op == CBI_OP_PUT || op == CBI_OP_GET || op == CBI_OP_REMOVE || op == CBI_OP_STATUS ||
           op == CBI_OP_KEEP;
}

static unsigned flags_of(uint8_t op) {
    return op == CBI_OP_PUT ? CBI_FLAG_SUM : op == CBI_OP_GET ? CBI_FLAG_LEASE : 0;
}

cb_status cbi_request_check(const cbi_head *h, cb_error *err) {
    if (h->op < CBI_OP_HELLO || h->op >= CBI_OP_END) {
        return cbi_fail(err, CB_EINVAL, "There is no request %u.", (unsigned)h->op);
    }
    if ((h->flags & ~flags_of(h->op)) != 0 || h->extra != 0) {
        return cbi_fail(err, CB_EINVAL, "A request %u has fields that it cannot have.",
                        (unsigned)h->op);
    }
    bool named = h->name_bytes > 0;
    if (named != has_name(h->op) || h->name_bytes > CB_BLOCK_NAME_MAX) {
        return cbi_fail(err, CB_EINVAL, "A request %u cannot have a name of %u bytes.",
                        (unsigned)h->op, (unsigned)h->name_bytes);
    }
    if ((h->op != CBI_OP_PUT && h->bytes != 0) || h->bytes > INT64_MAX) {
        return cbi_fail(err, CB_EINVAL, "A request %u cannot have a body of %llu bytes.",
                        (unsigned)h->op, (unsigned long long)h->bytes);
    }
    if (h->code < 0 || h->code > UINT16_MAX || (h->op != CBI_OP_PUT && h->code != 0)) {
        return cbi_fail(err, CB_EINVAL, "A request %u cannot have level %d.", (unsigned)h->op,
                        (int)h->code);
    }
    return CB_OK;
}

cb_status cbi_reply_check(const cbi_head *r, const cbi_head *request, cb_error *err) {
    bool right = (r->flags & CBI_FLAG_REPLY) != 0 && r->name_bytes == 0;
    right = right && r->op == request->op && r->tag == request->tag && r->code <= 0;
    bool text = r->code != CB_OK;
    bool leased = (r->flags & CBI_FLAG_LEASE) != 0 && r->op == CBI_OP_GET;
    right = right && (!text || r->bytes <= CBI_REPLY_TEXT_MAX) && (!leased || r->bytes == 0);
    right = right && r->bytes <= INT64_MAX && r->extra <= INT64_MAX;
    right = right && (text || leased || r->op != CBI_OP_GET || r->bytes == r->extra);
    return right ? CB_OK
                 : cbi_fail(err, CB_EDATA, "The server's answer is not one to what was asked.");
}

bool cbi_name_check(const uint8_t *name, size_t bytes) {
    bool reserved = bytes >= CBI_NAME_RESERVED_BYTES &&
                    memcmp(name, CBI_NAME_RESERVED, CBI_NAME_RESERVED_BYTES) == 0;
    return memchr(name, '\0', bytes) == NULL && !reserved;
}

size_t cbi_entry_encode(const cbi_entry *e, uint8_t *to) {
    memset(to, 0, CBI_ENTRY_BYTES);
    cbi_store_u64(to, e->memory_bytes);
    cbi_store_u64(to + 8, e->disk_bytes);
    cbi_store_u32(to + 16, e->readers);
    store_u16(to + 20, e->level);
    store_u16(to + 22, e->now);
    to[24] = e->name_bytes;
    memcpy(to + CBI_ENTRY_BYTES, e->name, e->name_bytes);
    return (size_t)CBI_ENTRY_BYTES + e->name_bytes;
}

size_t cbi_entry_decode(const uint8_t *from, size_t bytes, cbi_entry *e) {
    if (bytes < CBI_ENTRY_BYTES || bytes - CBI_ENTRY_BYTES < from[24] || from[24] == 0 ||
        !cbi_name_check(from + CBI_ENTRY_BYTES, from[24])) {
        return 0;
    }
    *e = (cbi_entry){.memory_bytes = cbi_load_u64(from),
                     .disk_bytes = cbi_load_u64(from + 8),
                     .readers = cbi_load_u32(from + 16),
                     .level = load_u16(from + 20),
                     .now = load_u16(from + 22),
                     .name_bytes = from[24],
                     .name = (const char *)from + CBI_ENTRY_BYTES};
    return (size_t)CBI_ENTRY_BYTES + e->name_bytes;
}
