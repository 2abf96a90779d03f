/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: heads and entries come back as they went, and what cannot be is refused. */
#include <string.h>

#include "serve/protocol.h"
#include "support/test.h"

static void test_head__comes_back_as_it_went(void **state) {
    (void)state;
    const cbi_head h = {.op = CBI_OP_GET,
                        .flags = CBI_FLAG_LEASE,
                        .name_bytes = 300,
                        .tag = 0xfedcba98,
                        .code = -12,
                        .bytes = 1ull << 60,
                        .value = 7,
                        .extra = UINT64_MAX};
    uint8_t bytes[CBI_HEAD_BYTES];
    cbi_head back;
    cbi_head_encode(&h, bytes);
    assert_ok(cbi_head_decode(bytes, &back, NULL));
    assert_int_equal(back.op, h.op);
    assert_int_equal(back.flags, h.flags);
    assert_int_equal(back.name_bytes, h.name_bytes);
    assert_int_equal(back.tag, h.tag);
    assert_int_equal(back.code, h.code);
    assert_int_equal(back.bytes, h.bytes);
    assert_int_equal(back.value, h.value);
    assert_int_equal(back.extra, h.extra);
    assert_memory_equal(bytes, "CBS1", 4);
    bytes[3] = '2';
    assert_status(cbi_head_decode(bytes, &back, NULL), CB_EINVAL);
}

static void refused(cbi_head h) {
    cb_error err;
    assert_status(cbi_request_check(&h, &err), CB_EINVAL);
}

static void test_request__what_cannot_be_is_refused(void **state) {
    (void)state;
    const cbi_head get = {.op = CBI_OP_GET, .name_bytes = 1};
    const cbi_head put = {.op = CBI_OP_PUT, .name_bytes = 255, .bytes = 1ull << 40, .code = 0x108};
    assert_ok(cbi_request_check(&get, NULL));
    assert_ok(cbi_request_check(&put, NULL));
    refused((cbi_head){.op = 0});
    refused((cbi_head){.op = CBI_OP_END});
    refused((cbi_head){.op = CBI_OP_GET});
    refused((cbi_head){.op = CBI_OP_GET, .name_bytes = 256});
    refused((cbi_head){.op = CBI_OP_GET, .name_bytes = 1, .bytes = 1});
    refused((cbi_head){.op = CBI_OP_GET, .name_bytes = 1, .code = 1});
    refused((cbi_head){.op = CBI_OP_GET, .name_bytes = 1, .flags = CBI_FLAG_REPLY});
    refused((cbi_head){.op = CBI_OP_LIST, .name_bytes = 1});
    refused((cbi_head){.op = CBI_OP_STATS, .extra = 1});
    refused((cbi_head){.op = CBI_OP_PUT, .name_bytes = 1, .bytes = UINT64_MAX});
    refused((cbi_head){.op = CBI_OP_PUT, .name_bytes = 1, .code = -1});
    refused((cbi_head){.op = CBI_OP_PUT, .name_bytes = 1, .code = 70000});
}

static void test_reply__must_answer_the_request(void **state) {
    (void)state;
    const cbi_head get = {.op = CBI_OP_GET, .tag = 9};
    cbi_head r = {.op = CBI_OP_GET, .tag = 9, .flags = CBI_FLAG_REPLY, .bytes = 5, .extra = 5};
    assert_ok(cbi_reply_check(&r, &get, NULL));
    r.extra = 6;
    assert_status(cbi_reply_check(&r, &get, NULL), CB_EDATA);
    r.extra = 5;
    r.tag = 8;
    assert_status(cbi_reply_check(&r, &get, NULL), CB_EDATA);
    r.tag = 9;
    r.flags |= CBI_FLAG_LEASE; /* has bytes as well */
    assert_status(cbi_reply_check(&r, &get, NULL), CB_EDATA);
    r.flags = CBI_FLAG_REPLY;
    r.code = CB_EIO;
    r.bytes = CBI_REPLY_TEXT_MAX + 1;
    assert_status(cbi_reply_check(&r, &get, NULL), CB_EDATA);
    r.bytes = 3;
    assert_ok(cbi_reply_check(&r, &get, NULL));
    r.code = 1;
    assert_status(cbi_reply_check(&r, &get, NULL), CB_EDATA);
}

static void test_entry__comes_back_as_it_went(void **state) {
    (void)state;
    uint8_t bytes[CBI_ENTRY_BYTES + CB_BLOCK_NAME_MAX];
    const cbi_entry e = {.memory_bytes = 1,
                         .disk_bytes = 2,
                         .readers = 3,
                         .level = CB_LEVEL_DISK_ONLY_2,
                         .now = CB_LEVEL_DISK_ONLY,
                         .name_bytes = 5,
                         .name = "rdd_1"};
    cbi_entry back;
    size_t count = cbi_entry_encode(&e, bytes);
    assert_int_equal(count, CBI_ENTRY_BYTES + 5);
    assert_int_equal(cbi_entry_decode(bytes, count, &back), count);
    assert_int_equal(back.level, e.level);
    assert_memory_equal(back.name, "rdd_1", 5);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(cbi_entry_decode(bytes, i, &back), 0);
    }
    bytes[CBI_ENTRY_BYTES + 2] = 0;
    assert_int_equal(cbi_entry_decode(bytes, count, &back), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_head__comes_back_as_it_went),
        cmocka_unit_test(test_request__what_cannot_be_is_refused),
        cmocka_unit_test(test_reply__must_answer_the_request),
        cmocka_unit_test(test_entry__comes_back_as_it_went),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
