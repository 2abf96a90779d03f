/* SPDX-License-Identifier: Apache-2.0 */
/* Streams over segments: what was written comes back, wherever the borders are. */
#include "memory_test.h"

typedef struct stage {
    cb_manager *manager;
    cb_task *task;
    cb_segment_pool *pool;
    cb_segment_owner *owner;
    cb_segment items[4096];
    cb_segment_list list;
} stage;

static stage *open_stage(size_t segments) {
    stage *g = calloc(1, sizeof *g);
    g->manager = make_native(64 * MIB, 1);
    g->task = make_task(g->manager, 1);
    cb_segment_pool_options pool = {.struct_size = sizeof pool,
                                    .task = g->task,
                                    .segment_bytes = 4096,
                                    .segments_max = segments};
    assert_ok(cb_segment_pool_create(&pool, &g->pool, err));
    assert_ok(cb_segment_owner_create(g->pool, "views", &g->owner, err));
    g->list = (cb_segment_list){.items = g->items, .max = 4096};
    return g;
}

static void close_stage(stage *g) {
    cb_segment_pool_destroy(g->pool);
    assert_int_equal(cb_task_end(g->task, NULL, 0), 0);
    cb_manager_destroy(g->manager);
    free(g);
}

/*
 * Small segments with a header, of any size: cut out of one piece of memory, so that borders come
 * every few bytes. Where the content of each ends is remembered.
 */
enum { PIECES = 8192 };

typedef struct paper {
    uint8_t *memory;
    uint32_t bytes, header;
    size_t used, read;
    uint32_t limits[PIECES];
    cb_output_view out;
    cb_input_view in;
} paper;

static cb_segment piece(const paper *p, size_t i) {
    cb_segment s;
    assert_ok(cb_segment_wrap(p->memory + i * p->bytes, p->bytes, &s, err));
    return s;
}

static cb_status next_to_write(void *ctx, cb_segment *segment, uint32_t position, cb_error *err) {
    (void)err;
    paper *p = ctx;
    if (p->used > 0) {
        assert_non_null(segment->data);
        p->limits[p->used - 1] = position;
    }
    if (p->used == PIECES) {
        return CB_EEND;
    }
    *segment = piece(p, p->used++);
    return CB_OK;
}

static cb_status next_to_read(void *ctx, cb_segment *segment, uint32_t *limit, cb_error *err) {
    (void)err;
    paper *p = ctx;
    if (p->read == p->used) {
        return CB_EEND;
    }
    *limit = p->limits[p->read];
    *segment = piece(p, p->read++);
    return CB_OK;
}

static paper *new_paper(uint32_t bytes, uint32_t header) {
    paper *p = calloc(1, sizeof *p);
    *p = (paper){.memory = calloc(PIECES, bytes), .bytes = bytes, .header = header};
    assert_ok(cb_output_view_init(&p->out, NULL, bytes, header, next_to_write, p, err));
    return p;
}

/** Turns the paper over: what was written can be read, from the start. */
static cb_input_view *turn(paper *p) {
    if (p->used > 0) {
        p->limits[p->used - 1] = p->out.position;
    }
    p->read = 0;
    assert_ok(cb_input_view_init(&p->in, NULL, 0, p->header, next_to_read, p, err));
    return &p->in;
}

static void burn(paper *p) {
    free(p->memory);
    free(p);
}

static uint64_t state_of_random = 88172645463325252;
static uint64_t next_random(void) {
    uint64_t x = state_of_random;
    x ^= x << 13, x ^= x >> 7, x ^= x << 17;
    return state_of_random = x;
}

static void assert_at_end(cb_input_view *in) {
    uint8_t c = 7;
    size_t got = 9;
    for (int i = 0; i < 3; i++) { /* the end stays the end */
        assert_int_equal(cb_input_view_read_u8(in, &c, NULL), CB_EEND);
        assert_int_equal(cb_input_view_read(in, &c, 1, &got, NULL), CB_EEND);
    }
    assert_int_equal(c * 10 + got, 79);
    assert_ok(cb_input_view_read_fully(in, &c, 0, err));
}

/* ---- numbers ---- */

static void integers(uint32_t segment_bytes, uint32_t header, int count) {
    paper *p = new_paper(segment_bytes, header);
    for (int i = 0; i < count; i++) {
        assert_ok(cb_output_view_write_i32(&p->out, i * 77777, err));
    }
    cb_input_view *in = turn(p);
    for (int i = 0; i < count; i++) {
        int32_t value = 0;
        assert_ok(cb_input_view_read_i32(in, &value, err));
        assert_int_equal(value, i * 77777);
    }
    assert_at_end(in);
    burn(p);
}

static void test_integers_that_fit_their_segments(void **state) {
    (void)state;
    integers(2048, 0, 10000);
    integers(2048 + 8, 8, 10000);
}

static void test_integers_across_borders(void **state) {
    (void)state;
    integers(2047, 0, 10000);
    integers(23, 0, 10000);
    integers(48 + 7, 48, 10000);
    integers(1, 0, 2000); /* every byte in a segment of its own */
    integers(9, 8, 2000);
}

typedef struct record {
    int kind;
    uint64_t bits;
    uint32_t length;
} record;

static record random_record(void) {
    record r = {(int)(next_random() % 13), next_random(), 0};
    r.length = (uint32_t)(next_random() % 300);
    return r;
}

#define WRITE(name, type)                                                                          \
    {                                                                                              \
        type value;                                                                                \
        memcpy(&value, &r->bits, sizeof value);                                                    \
        assert_ok(cb_output_view_write_##name(out, value, err));                                   \
        break;                                                                                     \
    }
#define READ(name, type)                                                                           \
    {                                                                                              \
        type value;                                                                                \
        memset(&value, 0, sizeof value);                                                           \
        assert_ok(cb_input_view_read_##name(in, &value, err));                                     \
        assert_memory_equal(&value, &r->bits, sizeof value);                                       \
        break;                                                                                     \
    }

static void write_record(cb_output_view *out, const record *r) {
    uint8_t bytes[300];
    memset(bytes, (int)(r->bits & 0xff), sizeof bytes);
    switch (r->kind) {
        case 0: WRITE(u8, uint8_t)
        case 1: WRITE(i8, int8_t)
        case 2: WRITE(u16, uint16_t)
        case 3: WRITE(i16, int16_t)
        case 4: WRITE(u32, uint32_t)
        case 5: WRITE(i32, int32_t)
        case 6: WRITE(u64, uint64_t)
        case 7: WRITE(i64, int64_t)
        case 8: WRITE(f32, float)
        case 9: WRITE(f64, double)
        case 10: assert_ok(cb_output_view_write_bool(out, (r->bits & 1) != 0, err)); break;
        case 11: assert_ok(cb_output_view_write(out, bytes, r->length, err)); break;
        default:
            assert_ok(
                cb_output_view_write_utf(out, (char *)bytes, r->bits & 0x80 ? 0 : r->length, err));
    }
}

static void read_record(cb_input_view *in, const record *r) {
    uint8_t bytes[300], expected[300];
    memset(expected, (int)(r->bits & 0xff), sizeof bytes);
    size_t length = 1;
    bool truth = false;
    switch (r->kind) {
        case 0: READ(u8, uint8_t)
        case 1: READ(i8, int8_t)
        case 2: READ(u16, uint16_t)
        case 3: READ(i16, int16_t)
        case 4: READ(u32, uint32_t)
        case 5: READ(i32, int32_t)
        case 6: READ(u64, uint64_t)
        case 7: READ(i64, int64_t)
        case 8: READ(f32, float)
        case 9: READ(f64, double)
        case 10:
            assert_ok(cb_input_view_read_bool(in, &truth, err));
            assert_int_equal(truth, r->bits & 1);
            break;
        case 11:
            assert_ok(cb_input_view_read_fully(in, bytes, r->length, err));
            assert_memory_equal(bytes, expected, r->length);
            break;
        default:
            if ((r->bits & 0xff) == 0) {
                char zeros[600];
                assert_ok(cb_input_view_read_utf(in, zeros, sizeof zeros, &length, err));
            } else {
                assert_ok(cb_input_view_read_utf(in, (char *)bytes, sizeof bytes, &length, err));
                assert_memory_equal(bytes, expected, length);
            }
            assert_int_equal(length, r->bits & 0x80 ? 0 : r->length);
    }
}

static void test_any_types_with_any_borders(void **state) {
    (void)state;
    enum { COUNT = 3000 };
    static record records[COUNT];
    for (int round = 0; round < 30; round++) {
        uint32_t header = (uint32_t)(next_random() % 3) * 8;
        paper *p = new_paper(header + 60 + (uint32_t)(next_random() % 200), header);
        for (int i = 0; i < COUNT; i++) {
            records[i] = random_record();
            write_record(&p->out, &records[i]);
        }
        cb_input_view *in = turn(p);
        for (int i = 0; i < COUNT; i++) {
            read_record(in, &records[i]);
        }
        assert_at_end(in);
        burn(p);
    }
}

static void test_scalars_are_big_endian(void **state) {
    (void)state;
    static const uint8_t expected[] = {1,    2,    3, 4,    5,    6,    7,    8,    0xff, 0xfe,
                                       0x3f, 0x80, 0, 0,    0xc0, 0,    0,    0,    0,    0,
                                       0,    0,    1, 0x80, 0,    0x01, 0x02, 0x03, 0x04};
    for (uint32_t bytes = 3; bytes < 40; bytes++) {
        paper *p = new_paper(bytes, 0);
        assert_ok(cb_output_view_write_u64(&p->out, 0x0102030405060708, err));
        assert_ok(cb_output_view_write_i16(&p->out, -2, err));
        assert_ok(cb_output_view_write_f32(&p->out, 1.0f, err));
        assert_ok(cb_output_view_write_f64(&p->out, -2.0, err));
        assert_ok(cb_output_view_write_bool(&p->out, true, err));
        assert_ok(cb_output_view_write_i8(&p->out, -128, err));
        assert_ok(cb_output_view_write_bool(&p->out, false, err));
        assert_ok(cb_output_view_write_i32(&p->out, 0x01020304, err));
        assert_memory_equal(p->memory, expected, sizeof expected); /* one piece of memory */
        burn(p);
    }
}

/* ---- bytes ---- */

static void test_bytes_are_read_as_far_as_they_go(void **state) {
    (void)state;
    uint8_t bytes[1000], back[1001];
    for (size_t i = 0; i < sizeof bytes; i++) {
        bytes[i] = (uint8_t)(i * 7);
    }
    const uint32_t sizes[] = {1000, 1500, 999, 250, 13};
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
        paper *p = new_paper(sizes[k], 0);
        assert_ok(cb_output_view_write(&p->out, bytes, sizeof bytes, err));
        size_t got = 0;
        assert_ok(cb_input_view_read(turn(p), back, 17, &got, err));
        assert_ok(cb_input_view_read(&p->in, back + 17, sizeof back - 17, &got, err));
        assert_int_equal(got, 983);
        assert_memory_equal(back, bytes, sizeof bytes);
        assert_at_end(&p->in);
        assert_ok(cb_input_view_read_fully(turn(p), back, 1000, err)); /* exactly all */
        assert_memory_equal(back, bytes, sizeof bytes);
        assert_at_end(&p->in);
        cb_error why = {0};
        assert_int_equal(cb_input_view_read_fully(turn(p), back, 1001, &why), CB_EEND);
        assert_non_null(strstr(why.message, "only 1000 bytes left"));
        assert_at_end(&p->in);
        assert_ok(cb_input_view_skip(turn(p), 400, err));
        memset(back, 0, sizeof back);
        assert_ok(cb_input_view_read_fully(&p->in, back + 100, 600, err)); /* anywhere in back */
        assert_memory_equal(back + 100, bytes + 400, 600);
        assert_int_equal(back[99] + back[700], 0);
        assert_int_equal(cb_input_view_skip(turn(p), 1001, NULL), CB_EEND);
        assert_at_end(&p->in);
        burn(p);
    }
}

static void test_nothing_is_in_a_view_that_nothing_was_written_to(void **state) {
    (void)state;
    paper *p = new_paper(100, 8);
    uint8_t c;
    assert_int_equal(cb_input_view_read_fully(turn(p), &c, 1, NULL), CB_EEND);
    assert_at_end(&p->in);
    burn(p);
}

static void test_scalar_that_is_cut_off_by_the_end(void **state) {
    (void)state;
    paper *p = new_paper(5, 0);
    assert_ok(cb_output_view_write(&p->out, "1234567", 7, err));
    uint64_t value = 42;
    cb_error why = {0};
    assert_int_equal(cb_input_view_read_u64(turn(p), &value, &why), CB_EEND);
    assert_int_equal(value, 42);
    assert_int_equal(why.bytes_had, 7);
    burn(p);
}

static void test_skipped_bytes_keep_what_they_were(void **state) {
    (void)state;
    paper *p = new_paper(32, 4);
    memset(p->memory, 0xee, (size_t)PIECES * 32);
    assert_ok(cb_output_view_write_u8(&p->out, 1, err));
    assert_ok(cb_output_view_skip(&p->out, 27 + 28 * 3, err)); /* to an end, exactly */
    assert_int_equal(p->used, 4);
    assert_int_equal(p->out.position, 32);
    assert_ok(cb_output_view_write_u8(&p->out, 2, err));
    assert_int_equal(p->used, 5);
    uint8_t c = 0;
    assert_ok(cb_input_view_read_u8(turn(p), &c, err));
    assert_int_equal(c, 1);
    assert_ok(cb_input_view_read_u8(&p->in, &c, err));
    assert_int_equal(c, 0xee);
    assert_ok(cb_input_view_skip(&p->in, 26 + 28 * 3, err));
    assert_ok(cb_input_view_read_u8(&p->in, &c, err));
    assert_int_equal(c, 2);
    assert_at_end(&p->in);
    burn(p);
}

static void test_advance_leaves_the_rest_of_a_segment_out(void **state) {
    (void)state;
    paper *p = new_paper(64, 4);
    assert_ok(cb_output_view_write_u32(&p->out, 11, err));
    assert_ok(cb_output_view_advance(&p->out, err));
    assert_ok(cb_output_view_write_u32(&p->out, 22, err));
    assert_ok(cb_output_view_write_u32(&p->out, 33, err));
    assert_ok(cb_output_view_advance(&p->out, err));
    assert_ok(cb_output_view_advance(&p->out, err)); /* nothing at all in this one */
    assert_ok(cb_output_view_write_u32(&p->out, 44, err));
    const uint32_t expected[] = {11, 22, 33, 44};
    uint32_t value = 0;
    (void)turn(p);
    for (int i = 0; i < 4; i++) {
        assert_ok(cb_input_view_read_u32(&p->in, &value, err));
        assert_int_equal(value, expected[i]);
    }
    assert_at_end(&p->in);
    assert_ok(cb_input_view_read_u32(turn(p), &value, err));
    assert_ok(cb_input_view_advance(&p->in, err));
    assert_ok(cb_input_view_read_u32(&p->in, &value, err));
    assert_ok(cb_input_view_advance(&p->in, err)); /* over 33 */
    assert_int_equal(p->in.limit, 4);
    assert_ok(cb_input_view_read_u32(&p->in, &value, err));
    assert_int_equal(value, 44);
    burn(p);
}

static void test_views_and_segments_exchange_their_bytes(void **state) {
    (void)state;
    uint8_t memory[500], back[500];
    cb_segment s, t;
    for (size_t i = 0; i < sizeof memory; i++) {
        memory[i] = (uint8_t)next_random();
    }
    assert_ok(cb_segment_wrap(memory, sizeof memory, &s, err));
    assert_ok(cb_segment_wrap(back, sizeof back, &t, err));
    paper *p = new_paper(77, 8), *q = new_paper(51, 0);
    assert_ok(cb_output_view_write_segment(&p->out, &s, 100, 400, err));
    assert_ok(cb_output_view_write_segment(&p->out, &s, 0, 100, err));
    const size_t outside[] = {1, 500, SIZE_MAX, SIZE_MAX - 499, SIZE_MAX / 2 + 1};
    for (size_t i = 0; i < sizeof outside / sizeof *outside; i++) {
        assert_int_equal(cb_output_view_write_segment(&p->out, &s, outside[i], 500, NULL),
                         CB_EINVAL);
        assert_int_equal(cb_input_view_read_segment(turn(p), &t, outside[i], 500, NULL), CB_EINVAL);
    }
    assert_ok(cb_output_view_copy(&q->out, turn(p), 500, err));
    assert_at_end(&p->in);
    assert_ok(cb_input_view_read_segment(turn(q), &t, 100, 400, err));
    assert_ok(cb_input_view_read_segment(&q->in, &t, 0, 100, err));
    assert_memory_equal(back, memory, sizeof back);
    assert_int_equal(cb_input_view_read_segment(&q->in, &t, 0, 1, NULL), CB_EEND);
    assert_int_equal(cb_output_view_copy(&q->out, turn(p), 501, NULL), CB_EEND);
    assert_memory_equal(memory, back, sizeof back);
    burn(p);
    burn(q);
}

static void test_there_is_no_more_room_when_the_last_segment_is_full(void **state) {
    (void)state;
    paper *p = new_paper(4, 0);
    uint8_t many[PIECES * 4] = {0};
    assert_ok(cb_output_view_write(&p->out, many, sizeof many, err));
    assert_int_equal(cb_output_view_write_u8(&p->out, 1, NULL), CB_EEND);
    assert_int_equal(cb_output_view_skip(&p->out, 1, NULL), CB_EEND);
    assert_ok(cb_output_view_skip(&p->out, 0, err));
    burn(p);
}

static void test_views_keep_to_their_segments(void **state) {
    (void)state;
    uint8_t memory[100];
    cb_segment s;
    cb_output_view out;
    cb_input_view in;
    assert_ok(cb_segment_wrap(memory, sizeof memory, &s, err));
    assert_int_equal(cb_output_view_init(&out, &s, 101, 0, next_to_write, NULL, NULL), CB_EINVAL);
    assert_int_equal(cb_output_view_init(&out, &s, 8, 8, next_to_write, NULL, NULL), CB_EINVAL);
    assert_int_equal(cb_output_view_init(&out, &s, 100, 8, NULL, NULL, NULL), CB_EINVAL);
    assert_int_equal(cb_input_view_init(&in, &s, 101, 0, next_to_read, NULL, NULL), CB_EINVAL);
    assert_int_equal(cb_input_view_init(&in, &s, 7, 8, next_to_read, NULL, NULL), CB_EINVAL);
    assert_int_equal(cb_input_view_init(&in, &s, 100, 0, NULL, NULL, NULL), CB_EINVAL);
    assert_ok(cb_output_view_init(&out, &s, 60, 8, next_to_write, NULL, err));
    assert_int_equal(cb_output_view_seek(&out, &s, 7, NULL), CB_EINVAL);
    assert_int_equal(cb_output_view_seek(&out, &s, 61, NULL), CB_EINVAL);
    assert_ok(cb_output_view_seek(&out, &s, 50, err));
    assert_ok(cb_output_view_write_u64(&out, 1, err));
    assert_ok(cb_input_view_init(&in, &s, 60, 8, next_to_read, NULL, err));
    assert_int_equal(cb_input_view_seek(&in, &s, 7, 60, NULL), CB_EINVAL);
    assert_int_equal(cb_input_view_seek(&in, &s, 50, 49, NULL), CB_EINVAL);
    assert_int_equal(cb_input_view_seek(&in, &s, 50, 101, NULL), CB_EINVAL);
    assert_ok(cb_input_view_seek(&in, &s, 50, 58, err));
    uint64_t value = 0;
    assert_ok(cb_input_view_read_u64(&in, &value, err));
    assert_int_equal(value, 1);
    assert_int_equal(in.position, in.limit);
}

static void test_cleared_views_ask_for_a_segment(void **state) {
    (void)state;
    paper *p = new_paper(64, 8);
    assert_ok(cb_output_view_write_u32(&p->out, 1, err));
    p->limits[0] = p->out.position;
    cb_output_view_clear(&p->out);
    assert_null(p->out.segment.data);
    p->used = 0; /* whoever has them starts anew */
    assert_ok(cb_output_view_write_u32(&p->out, 2, err));
    uint32_t value = 0;
    assert_ok(cb_input_view_read_u32(turn(p), &value, err));
    assert_int_equal(value, 2);
    cb_input_view_clear(&p->in);
    assert_int_equal(cb_input_view_read_u32(&p->in, &value, NULL), CB_EEND);
    burn(p);
}

static void test_view_on_a_segment_that_was_given_back(void **state) {
    (void)state;
    stage *g = open_stage(4);
    cb_collecting_view out;
    assert_ok(cb_collecting_view_open(&out, g->owner, &g->list, err));
    assert_ok(cb_output_view_write_u64(&out.view, 1, err));
    cb_random_input_view in;
    assert_ok(cb_random_input_view_open(&in, g->items, 1, 4096, 8, err));
    (void)cb_segment_owner_give_all(g->owner);
    cb_error why = {0};
    uint64_t value = 42;
    assert_int_equal(cb_output_view_write_u64(&out.view, 1, &why), CB_EMISUSE);
    assert_non_null(strstr(why.message, "given back"));
    assert_int_equal(cb_output_view_skip(&out.view, 1, NULL), CB_EMISUSE);
    assert_int_equal(cb_input_view_read_u64(&in.view, &value, NULL), CB_EMISUSE);
    assert_int_equal(cb_random_input_view_seek(&in, 0, NULL), CB_EMISUSE);
    assert_int_equal(value, 42);
    close_stage(g);
}

/* ---- text ---- */

static void test_texts_come_back_and_are_what_java_writes(void **state) {
    (void)state;
    /* a, NUL, e with an accent, the euro, a clef outside of 16 bits, half a pair */
    static const char text[] = "a\0\xc3\xa9\xe2\x82\xac\xf0\x9d\x84\x9e\xed\xa0\x80z";
    static const uint8_t utf[] = {0,    18,   'a',  0xc0, 0x80, 0xc3, 0xa9, 0xe2, 0x82, 0xac,
                                  0xed, 0xa0, 0xb4, 0xed, 0xb4, 0x9e, 0xed, 0xa0, 0x80, 'z'};
    static const uint8_t chars[] = {0,    'a',  0,    0,    0,    0xe9, 0x20, 0xac,
                                    0xd8, 0x34, 0xdd, 0x1e, 0xd8, 0x00, 0,    'z'};
    for (uint32_t bytes = 1; bytes < 30; bytes++) {
        paper *p = new_paper(bytes, 0);
        assert_ok(cb_output_view_write_utf(&p->out, text, sizeof text - 1, err));
        assert_ok(cb_output_view_write_chars(&p->out, text, sizeof text - 1, err));
        assert_ok(cb_output_view_write_utf(&p->out, "", 0, err));
        assert_memory_equal(p->memory, utf, sizeof utf);
        assert_memory_equal(p->memory + sizeof utf, chars, sizeof chars);
        char back[64];
        size_t length = 99;
        assert_ok(cb_input_view_read_utf(turn(p), back, sizeof back, &length, err));
        assert_int_equal(length, sizeof text - 1);
        assert_memory_equal(back, text, length);
        for (size_t i = 0; i < sizeof chars; i += 2) {
            uint16_t unit = 0;
            assert_ok(cb_input_view_read_u16(&p->in, &unit, err));
            assert_int_equal(unit, chars[i] << 8 | chars[i + 1]);
        }
        assert_ok(cb_input_view_read_utf(&p->in, back, 0, &length, err));
        assert_int_equal(length, 0);
        assert_at_end(&p->in);
        burn(p);
    }
}

static void test_longest_text_and_one_that_is_longer(void **state) {
    (void)state;
    paper *p = new_paper(4000, 8);
    char *text = malloc(70000), *back = malloc(70000);
    memset(text, 'x', 70000);
    assert_ok(cb_output_view_write_utf(&p->out, text, 65535, err));
    cb_error why = {0};
    uint32_t before = p->out.position;
    assert_int_equal(cb_output_view_write_utf(&p->out, text, 65536, &why), CB_EINVAL);
    assert_int_equal(why.bytes_asked, 65536);
    memset(text, 0, 40000); /* each takes two bytes */
    assert_int_equal(cb_output_view_write_utf(&p->out, text, 40000, NULL), CB_EINVAL);
    assert_int_equal(p->out.position, before);
    assert_ok(cb_output_view_write_u8(&p->out, 5, err));
    size_t length = 0;
    assert_ok(cb_input_view_read_utf(turn(p), back, 65535, &length, err));
    assert_int_equal(length, 65535);
    assert_int_equal(cb_input_view_read_utf(turn(p), back, 65534, &length, &why), CB_EINVAL);
    uint8_t after = 0;
    assert_ok(cb_input_view_read_u8(&p->in, &after, err)); /* it was passed over */
    assert_int_equal(after, 5);
    free(text);
    free(back);
    burn(p);
}

static void test_malformed_texts_are_refused(void **state) {
    (void)state;
    static const char *const bad[] = {"\x80",
                                      "\xc3",
                                      "\xc3(",
                                      "\xe2\x82",
                                      "\xf8\x88\x80\x80\x80",
                                      "\xc0\x80",
                                      "\xe0\x80\x80",
                                      "\xf4\x90\x80\x80",
                                      "\xff"};
    paper *p = new_paper(16, 0);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        cb_error why = {0};
        assert_int_equal(cb_output_view_write_utf(&p->out, bad[i], strlen(bad[i]), &why), CB_EDATA);
        assert_non_null(strstr(why.message, "byte 1"));
        assert_int_equal(cb_output_view_write_chars(&p->out, bad[i], strlen(bad[i]), NULL),
                         CB_EDATA);
    }
    assert_int_equal(p->used, 0);
    burn(p);
    static const char *const stored[] = {"a\x80z",    "ab\xc3",           "\xc3(x", "x\xe2\x82",
                                         "\xe2(\x82", "\xf0\x9d\x84\x9e", "\xff"};
    for (size_t i = 0; i < sizeof stored / sizeof *stored; i++) {
        p = new_paper(3, 0);
        uint16_t bytes = (uint16_t)strlen(stored[i]);
        assert_ok(cb_output_view_write_u16(&p->out, bytes, err));
        assert_ok(cb_output_view_write(&p->out, stored[i], bytes, err));
        assert_ok(cb_output_view_write_u8(&p->out, 5, err));
        char text[16];
        size_t length = 99;
        cb_error why = {0};
        assert_int_equal(cb_input_view_read_utf(turn(p), text, sizeof text, &length, &why),
                         CB_EDATA);
        assert_non_null(strstr(why.message, "around byte"));
        uint8_t after = 0;
        assert_ok(cb_input_view_read_u8(&p->in, &after, err));
        assert_int_equal(after, 5);
        assert_int_equal(length, 99);
        burn(p);
    }
    p = new_paper(30, 0); /* the text says it is longer than the stream */
    assert_ok(cb_output_view_write_u16(&p->out, 10, err));
    assert_ok(cb_output_view_write(&p->out, "abc", 3, err));
    char text[16];
    size_t length = 0;
    assert_int_equal(cb_input_view_read_utf(turn(p), text, sizeof text, &length, NULL), CB_EEND);
    burn(p);
}

static void test_lines_end_with_a_line_feed_or_the_data(void **state) {
    (void)state;
    static const char data[] = "one\n\ntwo\r\nthr\ree\r\r\nlast";
    static const char *const expected[] = {"one", "", "two", "thr\ree\r", "last"};
    for (uint32_t bytes = 1; bytes < 30; bytes++) {
        paper *p = new_paper(bytes, 0);
        assert_ok(cb_output_view_write(&p->out, data, sizeof data - 1, err));
        (void)turn(p);
        char text[16];
        size_t length = 0;
        for (int i = 0; i < 5; i++) {
            assert_ok(cb_input_view_read_line(&p->in, text, sizeof text, &length, err));
            assert_int_equal(length, strlen(expected[i]));
            assert_memory_equal(text, expected[i], length);
        }
        assert_int_equal(cb_input_view_read_line(&p->in, text, sizeof text, &length, NULL),
                         CB_EEND);
        cb_error why = {0};
        assert_int_equal(cb_input_view_read_line(turn(p), text, 2, &length, &why), CB_EINVAL);
        assert_int_equal(why.bytes_asked, 3);
        assert_ok(cb_input_view_read_line(&p->in, text, 0, &length, err)); /* the next one */
        assert_int_equal(length, 0);
        burn(p);
    }
}

/* ---- lists ---- */

static void test_collected_segments_are_read_from_any_place(void **state) {
    (void)state;
    enum { COUNT = 50000 };
    stage *g = open_stage(64);
    cb_collecting_view out;
    assert_ok(cb_collecting_view_open(&out, g->owner, &g->list, err));
    for (uint32_t i = 0; i < COUNT; i++) {
        assert_int_equal(cb_collecting_view_position(&out), (uint64_t)i * 5);
        assert_ok(cb_output_view_write_u32(&out.view, i, err));
        assert_ok(cb_output_view_write_u8(&out.view, (uint8_t)i, err));
    }
    assert_int_equal(g->list.count, (COUNT * 5 + 4095) / 4096);
    assert_int_equal(cb_segment_owner_count(g->owner), g->list.count);
    cb_random_input_view in;
    assert_ok(
        cb_random_input_view_open(&in, g->items, g->list.count, 4096, out.view.position, err));
    for (uint32_t i = 0; i < COUNT; i++) {
        uint32_t k = i < 1000 ? i : (uint32_t)(next_random() % COUNT), value = 0;
        if (i >= 1000) {
            assert_ok(cb_random_input_view_seek(&in, (uint64_t)k * 5, err));
        }
        assert_int_equal(cb_random_input_view_position(&in), (uint64_t)k * 5);
        uint8_t low = 0;
        assert_ok(cb_input_view_read_u32(&in.view, &value, err));
        assert_ok(cb_input_view_read_u8(&in.view, &low, err));
        assert_int_equal(value, k);
        assert_int_equal(low, (uint8_t)k);
    }
    assert_ok(cb_random_input_view_seek(&in, COUNT * 5, err));
    assert_at_end(&in.view);
    cb_error why = {0};
    assert_int_equal(cb_random_input_view_seek(&in, COUNT * 5 + 1, &why), CB_EINVAL);
    assert_non_null(strstr(why.message, "behind the end"));
    assert_int_equal(cb_random_input_view_seek(&in, UINT64_MAX, NULL), CB_EINVAL);
    close_stage(g);
}

static void test_collecting_ends_with_the_pool_or_the_list(void **state) {
    (void)state;
    stage *g = open_stage(3);
    cb_collecting_view out;
    assert_ok(cb_collecting_view_open(&out, g->owner, &g->list, err));
    assert_ok(cb_output_view_skip(&out.view, 3 * 4096, err));
    assert_int_equal(cb_output_view_write_u8(&out.view, 1, NULL), CB_EBUDGET);
    assert_int_equal(cb_collecting_view_position(&out), 3 * 4096);
    assert_ok(cb_segment_give_list(g->items, g->list.count, err));
    g->list = (cb_segment_list){.items = g->items, .max = 1};
    assert_ok(cb_collecting_view_open(&out, g->owner, &g->list, err));
    assert_int_equal(cb_output_view_skip(&out.view, 4097, NULL), CB_EEND);
    cb_collecting_view none;
    assert_int_equal(cb_collecting_view_open(&none, g->owner, &g->list, NULL), CB_EEND);
    close_stage(g);
}

static void test_any_place_can_be_written_over(void **state) {
    (void)state;
    stage *g = open_stage(4);
    assert_ok(cb_segment_take(g->owner, 4, g->items, err));
    cb_random_output_view out;
    cb_random_input_view in;
    assert_ok(cb_random_output_view_open(&out, g->items, 4, 4096, err));
    assert_ok(cb_output_view_skip(&out.view, 4 * 4096, err));
    assert_int_equal(cb_output_view_write_u8(&out.view, 1, NULL), CB_EEND);
    for (uint32_t i = 2047; i < 2048; i--) {
        assert_ok(cb_random_output_view_seek(&out, (uint64_t)i * 8 + (i % 2 == 0 ? 0 : 0), err));
        assert_ok(cb_output_view_write_u64(&out.view, i * 3ull, err));
    }
    assert_ok(cb_random_output_view_seek(&out, 4096 - 3, err));
    assert_ok(cb_output_view_write_u64(&out.view, 0, err)); /* across a border */
    assert_ok(cb_random_input_view_open(&in, g->items, 4, 4096, 4096, err));
    for (uint64_t i = 0; i < 2048; i++) {
        uint64_t value = 1;
        assert_ok(cb_input_view_read_u64(&in.view, &value, err));
        assert_int_equal(value, i == 511   ? i * 3 & 0xffffffffff000000
                                : i == 512 ? i * 3 & 0xffffff
                                           : i * 3);
    }
    assert_at_end(&in.view);
    assert_ok(cb_random_output_view_seek(&out, 4 * 4096, err));
    assert_int_equal(cb_output_view_write_u8(&out.view, 1, NULL), CB_EEND);
    assert_int_equal(cb_random_output_view_seek(&out, 4 * 4096 + 1, NULL), CB_EINVAL);
    assert_int_equal(cb_random_output_view_open(&out, g->items, 0, 4096, NULL), CB_EINVAL);
    assert_int_equal(cb_random_output_view_open(&out, g->items, 4, 4097, NULL), CB_EINVAL);
    assert_int_equal(cb_random_input_view_open(&in, g->items, 4, 4096, 4097, NULL), CB_EINVAL);
    assert_int_equal(cb_random_input_view_open(&in, g->items, 0, 4096, 0, NULL), CB_EINVAL);
    close_stage(g);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_integers_that_fit_their_segments),
        cmocka_unit_test(test_integers_across_borders),
        cmocka_unit_test(test_any_types_with_any_borders),
        cmocka_unit_test(test_scalars_are_big_endian),
        cmocka_unit_test(test_bytes_are_read_as_far_as_they_go),
        cmocka_unit_test(test_nothing_is_in_a_view_that_nothing_was_written_to),
        cmocka_unit_test(test_scalar_that_is_cut_off_by_the_end),
        cmocka_unit_test(test_skipped_bytes_keep_what_they_were),
        cmocka_unit_test(test_advance_leaves_the_rest_of_a_segment_out),
        cmocka_unit_test(test_views_and_segments_exchange_their_bytes),
        cmocka_unit_test(test_there_is_no_more_room_when_the_last_segment_is_full),
        cmocka_unit_test(test_views_keep_to_their_segments),
        cmocka_unit_test(test_cleared_views_ask_for_a_segment),
        cmocka_unit_test(test_view_on_a_segment_that_was_given_back),
        cmocka_unit_test(test_texts_come_back_and_are_what_java_writes),
        cmocka_unit_test(test_longest_text_and_one_that_is_longer),
        cmocka_unit_test(test_malformed_texts_are_refused),
        cmocka_unit_test(test_lines_end_with_a_line_feed_or_the_data),
        cmocka_unit_test(test_collected_segments_are_read_from_any_place),
        cmocka_unit_test(test_collecting_ends_with_the_pool_or_the_list),
        cmocka_unit_test(test_any_place_can_be_written_over),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
