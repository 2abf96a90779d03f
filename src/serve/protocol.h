/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_PROTOCOL_H
#define CBI_PROTOCOL_H

#include "base/base.h"
#include "carbide/block.h"

/*
 * What client and server of blocks say to each other: a head of fixed size, perhaps a name, perhaps
 * a body. docs/serve-protocol.md has each field. Pure functions; the bytes may be anybody's.
 */

enum {
    CBI_HEAD_BYTES = 40,
    CBI_REQUEST_BYTES_MAX = CBI_HEAD_BYTES + CB_BLOCK_NAME_MAX,
    CBI_ENTRY_BYTES = 32, /* and the name */
    CBI_REPLY_TEXT_MAX = 512
};

typedef enum cbi_op {
    CBI_OP_HELLO = 1,
    CBI_OP_PUT,
    CBI_OP_GET,
    CBI_OP_RELEASE,
    CBI_OP_REMOVE,
    CBI_OP_STATUS,
    CBI_OP_LIST,
    CBI_OP_STATS,
    CBI_OP_KEEP,
    CBI_OP_END
} cbi_op;

enum {
    CBI_FLAG_REPLY = 1,
    CBI_FLAG_LEASE = 2, /* GET: a lease will do; its reply: it is one, and a descriptor came along;
                           HELLO's reply: leases are given */
    CBI_FLAG_SUM = 4    /* PUT: value is the XXH3 of the body */
};

typedef struct cbi_head {
    uint8_t op, flags;
    uint16_t name_bytes;
    uint32_t tag;
    int32_t code;   /* request: the level; reply: the status */
    uint64_t bytes; /* of the body that follows */
    uint64_t value; /* sum, lease, or place in a listing */
    uint64_t extra; /* GET's reply: bytes of the block */
} cbi_head;

void cbi_head_encode(const cbi_head *head, uint8_t to[CBI_HEAD_BYTES]);
/** CB_EINVAL: it does not begin as a head of this version does. */
cb_status cbi_head_decode(const uint8_t from[CBI_HEAD_BYTES], cbi_head *head, cb_error *err);
/** Whether it is a request that can be. CB_EINVAL. */
cb_status cbi_request_check(const cbi_head *head, cb_error *err);
/** Whether it can be the reply to that request. CB_EDATA. */
cb_status cbi_reply_check(const cbi_head *reply, const cbi_head *request, cb_error *err);
/** What a server keeps for itself begins with it. */
#define CBI_NAME_RESERVED "\001remote\001"
enum { CBI_NAME_RESERVED_BYTES = sizeof CBI_NAME_RESERVED - 1 };

/** Whether a name can be one: no zero byte in it, and it does not begin as reserved ones do. */
bool cbi_name_check(const uint8_t *name, size_t bytes);

typedef struct cbi_entry {
    uint64_t memory_bytes, disk_bytes;
    uint32_t readers;
    cb_level level, now; /* as it was put, and where it lies */
    uint8_t name_bytes;
    const char *name; /* not terminated */
} cbi_entry;

/** Answers the bytes written, CBI_ENTRY_BYTES and the name. */
size_t cbi_entry_encode(const cbi_entry *entry, uint8_t *to);
/** The entry at the beginning of `bytes`; answers what it takes, 0 when there is none. */
size_t cbi_entry_decode(const uint8_t *from, size_t bytes, cbi_entry *entry);

#endif
