/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What lies in a segment: scalars in both byte orders, bulk, compare, swap, copy, and every way of
 * missing the segment. Each test runs on segments of a heap pool, of an off-heap pool and on
 * wrapped memory, of several sizes (Flink: MemorySegmentTestBase on heap, hybrid and off-heap
 * segments).
 */
#include "memory_test.h"

enum { SIZES = 3, KINDS = 3 };

static const size_t sizes[SIZES] = {4096, 32 * 1024, 512 * 1024};

typedef struct stage {
    cb_manager *manager;
    cb_task *task;
    cb_segment_pool *pool;
    cb_segment_owner *owner;
    size_t size;
    uint8_t *wrapped[4];
    cb_segment s[4]; /* `size` bytes each */
} stage;

static void open_stage(stage *g, int kind, size_t size) {
    *g = (stage){.size = size};
    if (kind == KINDS - 1) {
        for (int i = 0; i < 4; i++) {
            g->wrapped[i] = malloc(size);
            assert_ok(cb_segment_wrap(g->wrapped[i], size, &g->s[i], err));
        }
        return;
    }
    cb_manager_options options = {.struct_size = sizeof options,
                                  .mode = kind == 0 ? CB_HEAP : CB_OFF_HEAP,
                                  .heap_bytes = 4 * MIB,
                                  .off_heap_bytes = 4 * MIB};
    g->manager = make_manager(&options);
    g->task = make_task(g->manager, 1);
    cb_segment_pool_options pool = {.struct_size = sizeof pool,
                                    .task = g->task,
                                    .segment_bytes = size,
                                    .segments_max = 4,
                                    .preallocate = true};
    assert_ok(cb_segment_pool_create(&pool, &g->pool, err));
    assert_ok(cb_segment_owner_create(g->pool, "test", &g->owner, err));
    assert_ok(cb_segment_take(g->owner, 4, g->s, err));
}

static void close_stage(stage *g) {
    cb_segment_pool_destroy(g->pool);
    (void)cb_task_end(g->task, NULL, 0);
    cb_manager_destroy(g->manager);
    for (int i = 0; i < 4; i++) {
        free(g->wrapped[i]);
    }
}

static void on_every_stage(void (*body)(stage *g)) {
    for (int kind = 0; kind < KINDS; kind++) {
        for (int k = 0; k < SIZES; k++) {
            stage g;
            open_stage(&g, kind, sizes[k]);
            body(&g);
            close_stage(&g);
        }
    }
}

static uint64_t state_of_random = 88172645463325252;
static uint64_t next_random(void) {
    uint64_t x = state_of_random;
    x ^= x << 13, x ^= x >> 7, x ^= x << 17;
    return state_of_random = x;
}

static void fill(const cb_segment *s) {
    for (size_t i = 0; i < s->bytes; i++) {
        s->data[i] = (uint8_t)next_random();
    }
}

/** Places that no `bytes` bytes are inside of, those among them that overflow a sum. */
static size_t places_outside(size_t size, size_t bytes, size_t *places) {
    size_t n = 0;
    const size_t all[] = {
        size,         size - bytes + 1, SIZE_MAX,  SIZE_MAX - 1, SIZE_MAX - bytes + 1,
        SIZE_MAX / 2, SIZE_MAX / 2 + 1, INT32_MAX, UINT32_MAX,   (size_t)UINT32_MAX + 1};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (bytes > 0 || all[i] > size) {
            places[n++] = all[i];
        }
    }
    return n;
}

/* ---- scalars ---- */

#define SCALAR(name, type, raw_type, big)                                                          \
    static void scalar_##name(stage *g) {                                                          \
        const cb_segment *s = &g->s[0];                                                            \
        size_t outside[16], bad = places_outside(g->size, sizeof(type), outside);                  \
        type value, back;                                                                          \
        memset(&value, 0x5a, sizeof value);                                                        \
        for (size_t i = 0; i < bad; i++) {                                                         \
            assert_int_equal(cb_segment_put_##name(s, outside[i], value, NULL), CB_EINVAL);        \
            assert_int_equal(cb_segment_get_##name(s, outside[i], &value, NULL), CB_EINVAL);       \
        }                                                                                          \
        uint64_t seed = state_of_random;                                                           \
        for (size_t at = 0; at + sizeof value <= g->size; at += sizeof value) {                    \
            raw_type raw = (raw_type)next_random();                                                \
            memcpy(&value, &raw, sizeof raw);                                                      \
            assert_ok(cb_segment_put_##name(s, at, value, err));                                   \
        }                                                                                          \
        state_of_random = seed;                                                                    \
        for (size_t at = 0; at + sizeof value <= g->size; at += sizeof value) {                    \
            raw_type raw = (raw_type)next_random();                                                \
            assert_ok(cb_segment_get_##name(s, at, &back, err));                                   \
            assert_memory_equal(&back, &raw, sizeof raw);                                          \
        }                                                                                          \
        for (int i = 0; i < 1000; i++) { /* any alignment; the order of the bytes */               \
            size_t at = next_random() % (g->size - sizeof value + 1);                              \
            raw_type raw = (raw_type)next_random(), seen = 0;                                      \
            memcpy(&value, &raw, sizeof raw);                                                      \
            assert_ok(cb_segment_put_##name(s, at, value, err));                                   \
            assert_ok(cb_segment_get_##name(s, at, &back, err));                                   \
            assert_memory_equal(&back, &raw, sizeof raw);                                          \
            for (size_t k = 0; k < sizeof raw; k++) {                                              \
                size_t shift = 8 * ((big) ? sizeof raw - 1 - k : k);                               \
                seen = (raw_type)(seen | (raw_type)((uint64_t)s->data[at + k] << shift));          \
            }                                                                                      \
            assert_true(seen == raw);                                                              \
        }                                                                                          \
    }                                                                                              \
    static void test_access_of_##name(void **state) {                                              \
        (void)state;                                                                               \
        on_every_stage(scalar_##name);                                                             \
    }

enum { NATIVE_IS_BIG = __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__ };

#define SCALAR_ALL(name, type, raw_type)                                                           \
    SCALAR(name, type, raw_type, NATIVE_IS_BIG)                                                    \
    SCALAR(name##_le, type, raw_type, false)                                                       \
    SCALAR(name##_be, type, raw_type, true)

SCALAR(u8, uint8_t, uint8_t, false)
SCALAR(i8, int8_t, uint8_t, false)
SCALAR_ALL(u16, uint16_t, uint16_t)
SCALAR_ALL(i16, int16_t, uint16_t)
SCALAR_ALL(u32, uint32_t, uint32_t)
SCALAR_ALL(i32, int32_t, uint32_t)
SCALAR_ALL(u64, uint64_t, uint64_t)
SCALAR_ALL(i64, int64_t, uint64_t)
SCALAR_ALL(f32, float, uint32_t)
SCALAR_ALL(f64, double, uint64_t)

static void booleans(stage *g) {
    const cb_segment *s = &g->s[0];
    size_t outside[16], bad = places_outside(g->size, 1, outside);
    bool back = false;
    for (size_t i = 0; i < bad; i++) {
        assert_int_equal(cb_segment_put_bool(s, outside[i], true, NULL), CB_EINVAL);
        assert_int_equal(cb_segment_get_bool(s, outside[i], &back, NULL), CB_EINVAL);
    }
    for (size_t at = 0; at < g->size; at++) {
        assert_ok(cb_segment_put_bool(s, at, at % 3 == 0, err));
    }
    for (size_t at = 0; at < g->size; at++) {
        assert_ok(cb_segment_get_bool(s, at, &back, err));
        assert_int_equal(back, at % 3 == 0);
    }
    s->data[5] = 77;
    assert_ok(cb_segment_get_bool(s, 5, &back, err));
    assert_true(back);
}

static void test_access_of_booleans(void **state) {
    (void)state;
    on_every_stage(booleans);
}

/* ---- bulk ---- */

static void bulk(stage *g) {
    const cb_segment *s = &g->s[0];
    uint8_t *mine = malloc(g->size), *back = malloc(g->size);
    for (size_t i = 0; i < g->size; i++) {
        mine[i] = (uint8_t)next_random();
    }
    assert_ok(cb_segment_put(s, 0, mine, g->size, err));
    assert_ok(cb_segment_get(s, 0, back, g->size, err));
    assert_memory_equal(back, mine, g->size);
    for (size_t at = 0; at + 1024 <= g->size; at += 1024) {
        assert_ok(cb_segment_get(s, at, back + at, 1024, err));
    }
    assert_memory_equal(back, mine, g->size);
    for (int i = 0; i < 2000; i++) {
        size_t at = next_random() % (g->size + 1), bytes = next_random() % (g->size - at + 1);
        memset(back, 0, bytes);
        assert_ok(cb_segment_get(s, at, back, bytes, err));
        assert_memory_equal(back, mine + at, bytes);
        at = next_random() % (g->size / 2 - 1000), bytes = next_random() % 1000;
        assert_ok(cb_segment_put(s, at, mine + g->size / 2, bytes, err));
        memcpy(mine + at, mine + g->size / 2, bytes);
    }
    assert_ok(cb_segment_get(s, 0, back, g->size, err));
    assert_memory_equal(back, mine, g->size);
    assert_ok(cb_segment_get(s, g->size, NULL, 0, err));
    free(mine);
    free(back);
}

static void test_bulk_reads_what_bulk_wrote(void **state) {
    (void)state;
    on_every_stage(bulk);
}

static void bulk_outside(stage *g) {
    const cb_segment *s = &g->s[0];
    uint8_t mine[64] = {1};
    uint8_t *before = malloc(g->size);
    fill(s);
    memcpy(before, s->data, g->size);
    const struct {
        size_t at, bytes;
    } bad[] = {{SIZE_MAX, 1},        {SIZE_MAX, 64},
               {g->size, 1},         {g->size - 63, 64},
               {SIZE_MAX - 63, 64},  {0, SIZE_MAX},
               {1, SIZE_MAX},        {g->size, SIZE_MAX},
               {SIZE_MAX, SIZE_MAX}, {SIZE_MAX / 2 + 1, SIZE_MAX / 2 + 1},
               {g->size + 1, 0},     {SIZE_MAX, 0},
               {0, g->size + 1}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        cb_error why = {0};
        assert_int_equal(cb_segment_get(s, bad[i].at, mine, bad[i].bytes, &why), CB_EINVAL);
        assert_non_null(strstr(why.message, "not all inside the segment"));
        assert_int_equal(why.bytes_had, g->size);
        assert_int_equal(cb_segment_put(s, bad[i].at, mine, bad[i].bytes, NULL), CB_EINVAL);
        assert_int_equal(mine[0], 1);
        uint8_t *place = NULL;
        assert_int_equal(cb_segment_at(s, bad[i].at, bad[i].bytes, &place, NULL), CB_EINVAL);
        assert_null(place);
    }
    assert_memory_equal(before, s->data, g->size);
    free(before);
}

static void test_bulk_outside_of_the_segment_is_refused(void **state) {
    (void)state;
    on_every_stage(bulk_outside);
}

/* ---- buffers with a position ---- */

static void buffers(stage *g) {
    const cb_segment *s = &g->s[0], *t = &g->s[1];
    fill(s);
    uint8_t *mine = calloc(1, g->size * 2);
    cb_byte_buffer b = {.data = mine, .position = g->size / 3, .limit = g->size / 3 + g->size};
    while (b.position < b.limit) { /* in pieces, at a place of its own */
        size_t at = b.position - g->size / 3,
               bytes = cb_segment_has(s, at, 500) ? 500 : g->size - at;
        assert_ok(cb_segment_get_buffer(s, at, &b, bytes, err));
    }
    assert_memory_equal(mine + g->size / 3, s->data, g->size);
    b.position = g->size / 3;
    assert_ok(cb_segment_put_buffer(t, 0, &b, 1000, err));
    assert_ok(cb_segment_put_buffer(t, 1000, &b, g->size - 1000, err));
    assert_int_equal(b.position, b.limit);
    assert_memory_equal(t->data, s->data, g->size);
    free(mine);
}

static void test_buffer_goes_on_by_what_was_moved(void **state) {
    (void)state;
    on_every_stage(buffers);
}

static void bad_buffers(stage *g) {
    const cb_segment *s = &g->s[0];
    uint8_t mine[100] = {0};
    cb_byte_buffer b = {.data = mine, .position = 10, .limit = 100};
    cb_error why = {0};
    assert_int_equal(cb_segment_get_buffer(s, 0, &b, 91, &why), CB_EINVAL);
    assert_non_null(strstr(why.message, "has 90 bytes left, not the 91"));
    assert_int_equal(cb_segment_put_buffer(s, 0, &b, 91, NULL), CB_EINVAL);
    assert_int_equal(cb_segment_put_buffer(s, 0, &b, SIZE_MAX, NULL), CB_EINVAL);
    assert_int_equal(cb_segment_get_buffer(s, g->size - 49, &b, 50, NULL), CB_EINVAL);
    assert_int_equal(cb_segment_put_buffer(s, SIZE_MAX - 10, &b, 50, NULL), CB_EINVAL);
    assert_int_equal(b.position, 10);
    b.position = 101; /* behind its own end */
    assert_int_equal(cb_segment_get_buffer(s, 0, &b, 1, NULL), CB_EINVAL);
    b = (cb_byte_buffer){.data = mine, .limit = 100, .read_only = true};
    assert_int_equal(cb_segment_get_buffer(s, 0, &b, 1, &why), CB_EINVAL);
    assert_non_null(strstr(why.message, "for reading only"));
    assert_ok(cb_segment_put_buffer(s, 0, &b, 100, err));
    assert_int_equal(b.position, 100);
}

static void test_buffer_that_is_too_small_or_read_only_stays_as_it_was(void **state) {
    (void)state;
    on_every_stage(bad_buffers);
}

static void part_as_plain_memory(stage *g) {
    uint8_t *place = NULL;
    assert_ok(cb_segment_at(&g->s[0], 13, 47, &place, err));
    assert_ptr_equal(place, g->s[0].data + 13);
    uint32_t value = 0;
    assert_ok(cb_segment_put_u32_be(&g->s[0], 16, 0x01020304, err));
    memcpy(&value, place + 3, 4);
    assert_int_equal(__builtin_bswap32(value), NATIVE_IS_BIG ? 0x04030201 : 0x01020304);
    cb_segment part; /* and as a segment of its own */
    assert_ok(cb_segment_wrap(place, 47, &part, err));
    assert_ok(cb_segment_get_u32_be(&part, 3, &value, err));
    assert_int_equal(value, 0x01020304);
    assert_int_equal(cb_segment_get_u32_be(&part, 44, &value, NULL), CB_EINVAL);
}

static void test_part_can_be_had_as_plain_memory(void **state) {
    (void)state;
    on_every_stage(part_as_plain_memory);
}

/* ---- two segments ---- */

static int sign(int x) {
    return (x > 0) - (x < 0);
}

static void compare(stage *g) {
    const cb_segment *a = &g->s[0], *b = &g->s[1];
    fill(a);
    memcpy(b->data + 3, a->data, g->size - 3);
    int order = 1;
    assert_ok(cb_segment_compare(a, 0, b, 3, g->size - 3, &order, err));
    assert_int_equal(order, 0);
    assert_ok(cb_segment_compare(a, 5, b, 8, 0, &order, err));
    assert_int_equal(order, 0);
    for (int i = 0; i < 1000; i++) {
        size_t bytes = 1 + next_random() % 200, from = next_random() % (g->size - bytes + 1),
               to = next_random() % (g->size - bytes + 1);
        assert_ok(cb_segment_compare(a, from, b, to, bytes, &order, err));
        assert_int_equal(sign(order), sign(memcmp(a->data + from, b->data + to, bytes)));
    }
    a->data[0] = 0x80; /* bytes have no sign */
    b->data[0] = 0x7f;
    assert_ok(cb_segment_compare(a, 0, b, 0, 1, &order, err));
    assert_true(order > 0);
}

static void test_compare_sees_the_first_difference(void **state) {
    (void)state;
    on_every_stage(compare);
}

static void swap(stage *g) {
    const cb_segment *a = &g->s[0], *b = &g->s[1];
    fill(a);
    fill(b);
    uint8_t *old_a = malloc(g->size), *old_b = malloc(g->size);
    memcpy(old_a, a->data, g->size);
    memcpy(old_b, b->data, g->size);
    size_t half = g->size / 2;
    assert_ok(cb_segment_swap(a, 0, b, half, half, err));
    assert_memory_equal(a->data, old_b + half, half);
    assert_memory_equal(b->data + half, old_a, half);
    assert_memory_equal(a->data + half, old_a + half, g->size - half);
    assert_memory_equal(b->data, old_b, half);
    assert_ok(cb_segment_swap(a, 0, a, half, half, err)); /* within one */
    assert_memory_equal(a->data, old_a + half, half);
    assert_memory_equal(a->data + half, old_b + half, half);
    assert_ok(cb_segment_swap(a, g->size, b, g->size, 0, err));
    cb_error why = {0};
    assert_int_equal(cb_segment_swap(a, 0, a, half - 1, half, &why), CB_EINVAL);
    assert_non_null(strstr(why.message, "overlap"));
    free(old_a);
    free(old_b);
}

static void test_swap_changes_both_places_and_nothing_else(void **state) {
    (void)state;
    on_every_stage(swap);
}

static void copy(stage *g) {
    const cb_segment *a = &g->s[0], *b = &g->s[1];
    uint8_t *expected = calloc(1, g->size);
    fill(a);
    memset(b->data, 0, g->size);
    for (size_t at = 0, bytes = 1; at + bytes <= g->size; at += bytes, bytes += 7) {
        assert_ok(cb_segment_copy(a, g->size - at - bytes, b, at, bytes, err));
        memcpy(expected + at, a->data + g->size - at - bytes, bytes);
    }
    assert_memory_equal(b->data, expected, g->size);
    memmove(expected + 1, expected, g->size - 1);
    assert_ok(cb_segment_copy(b, 0, b, 1, g->size - 1, err)); /* over itself */
    assert_memory_equal(b->data, expected, g->size);
    free(expected);
}

static void test_copy_between_segments_and_over_itself(void **state) {
    (void)state;
    on_every_stage(copy);
}

static void pairs_outside(stage *g) {
    const cb_segment *a = &g->s[0], *b = &g->s[1];
    int order = 42;
    const size_t bad[] = {g->size - 9, g->size, SIZE_MAX, SIZE_MAX - 9, SIZE_MAX / 2 + 1};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(cb_segment_copy(a, bad[i], b, 0, 10, NULL), CB_EINVAL);
        assert_int_equal(cb_segment_copy(a, 0, b, bad[i], 10, NULL), CB_EINVAL);
        assert_int_equal(cb_segment_swap(a, bad[i], b, 0, 10, NULL), CB_EINVAL);
        assert_int_equal(cb_segment_swap(a, 0, b, bad[i], 10, NULL), CB_EINVAL);
        assert_int_equal(cb_segment_compare(a, bad[i], b, 0, 10, &order, NULL), CB_EINVAL);
        assert_int_equal(cb_segment_compare(a, 0, b, bad[i], 10, &order, NULL), CB_EINVAL);
    }
    assert_int_equal(cb_segment_copy(a, 0, b, 0, g->size + 1, NULL), CB_EINVAL);
    assert_int_equal(cb_segment_copy(a, 0, b, 0, SIZE_MAX, NULL), CB_EINVAL);
    assert_int_equal(order, 42);
}

static void test_both_places_of_two_segments_are_checked(void **state) {
    (void)state;
    on_every_stage(pairs_outside);
}

static void test_segments_of_different_kinds_work_together(void **state) {
    (void)state;
    stage of[KINDS];
    for (int kind = 0; kind < KINDS; kind++) {
        open_stage(&of[kind], kind, 4096);
    }
    for (int i = 0; i < KINDS * KINDS; i++) {
        const cb_segment *a = &of[i / KINDS].s[2], *b = &of[i % KINDS].s[3];
        int order = 1;
        fill(a);
        assert_ok(cb_segment_copy(a, 100, b, 200, 3000, err));
        assert_ok(cb_segment_compare(a, 100, b, 200, 3000, &order, err));
        assert_int_equal(order, 0);
        a->data[100] = 1;
        b->data[200] = 2;
        assert_ok(cb_segment_compare(a, 100, b, 200, 3000, &order, err));
        assert_true(order < 0);
        assert_ok(cb_segment_swap(a, 100, b, 200, 3000, err));
        assert_int_equal(a->data[100] * 10 + b->data[200], 21);
    }
    for (int kind = 0; kind < KINDS; kind++) {
        close_stage(&of[kind]);
    }
}

/* ---- what is no segment any more, or hardly one ---- */

/** Every operation on `s`, with a good partner, is refused and says so. */
static void assert_unusable(const cb_segment *s, const cb_segment *good) {
    uint8_t mine[16] = {0}, *place = NULL;
    bool truth = false;
    uint64_t word = 0;
    double number = 0;
    int order = 42;
    cb_byte_buffer b = {.data = mine, .limit = 16};
    cb_error why = {0};
    assert_true(cb_segment_is_freed(s));
    assert_int_equal(cb_segment_get_u64(s, 0, &word, &why), CB_EMISUSE);
    assert_true(strstr(why.message, "given back") != NULL ||
                strstr(why.message, "no segment") != NULL);
    const size_t at[] = {0, 1, 16, INT32_MAX, SIZE_MAX, SIZE_MAX / 2 + 1};
    for (size_t i = 0; i < sizeof at / sizeof *at; i++) {
        assert_int_equal(cb_segment_get_bool(s, at[i], &truth, NULL), CB_EMISUSE);
        assert_int_equal(cb_segment_put_bool(s, at[i], true, NULL), CB_EMISUSE);
        assert_int_equal(cb_segment_put_u8(s, at[i], 1, NULL), CB_EMISUSE);
        assert_int_equal(cb_segment_get_u64_be(s, at[i], &word, NULL), CB_EMISUSE);
        assert_int_equal(cb_segment_put_i32_le(s, at[i], 1, NULL), CB_EMISUSE);
        assert_int_equal(cb_segment_get_f64(s, at[i], &number, NULL), CB_EMISUSE);
        assert_int_equal(cb_segment_at(s, at[i], 1, &place, NULL), CB_EMISUSE);
        assert_int_equal(cb_segment_at(s, at[i], 0, &place, NULL), CB_EMISUSE);
        assert_int_equal(cb_segment_get(s, at[i], mine, 16, NULL), CB_EMISUSE);
        assert_int_equal(cb_segment_put(s, at[i], mine, 0, NULL), CB_EMISUSE);
        assert_int_equal(cb_segment_get_buffer(s, at[i], &b, 16, NULL), CB_EMISUSE);
        assert_int_equal(cb_segment_put_buffer(s, at[i], &b, 16, NULL), CB_EMISUSE);
        assert_int_equal(cb_segment_copy(s, at[i], good, 0, 10, NULL), CB_EMISUSE);
        assert_int_equal(cb_segment_copy(good, 0, s, at[i], 10, NULL), CB_EMISUSE);
        assert_int_equal(cb_segment_swap(s, at[i], good, 0, 10, NULL), CB_EMISUSE);
        assert_int_equal(cb_segment_swap(good, 0, s, at[i], 10, NULL), CB_EMISUSE);
        assert_int_equal(cb_segment_compare(s, at[i], good, 0, 10, &order, NULL), CB_EMISUSE);
        assert_int_equal(cb_segment_compare(good, 0, s, at[i], 10, &order, NULL), CB_EMISUSE);
    }
    assert_int_equal(word + b.position + mine[0], 0);
    assert_int_equal(order, 42);
    assert_null(place);
}

static void test_segment_that_was_given_back_cannot_be_used(void **state) {
    (void)state;
    for (int kind = 0; kind < 2; kind++) {
        stage g;
        open_stage(&g, kind, 4096);
        cb_segment copy_of = g.s[1], other = g.s[2], none = {0};
        assert_false(cb_segment_is_freed(&g.s[1]));
        assert_ok(cb_segment_give(&g.s[1], err));
        assert_unusable(&g.s[1], &g.s[0]);
        assert_unusable(&copy_of, &g.s[0]);
        assert_unusable(&none, &g.s[0]);
        assert_ok(cb_segment_take(g.owner, 1, &g.s[1], err));
        assert_ptr_equal(g.s[1].data, copy_of.data); /* the memory is somebody's again */
        assert_unusable(&copy_of, &g.s[0]);
        assert_int_equal(cb_segment_owner_give_all(g.owner), 4);
        uint8_t bytes[16];
        cb_segment good;
        assert_ok(cb_segment_wrap(bytes, sizeof bytes, &good, err));
        assert_unusable(&other, &good);
        assert_ok(cb_segment_take(g.owner, 4, g.s, err));
        copy_of = g.s[3];
        assert_ok(cb_segment_pool_shutdown(g.pool, err));
        assert_unusable(&copy_of, &good);
        close_stage(&g);
    }
}

static void test_segments_of_no_and_of_one_byte(void **state) {
    (void)state;
    uint8_t byte = 7, value = 0;
    uint16_t two = 0;
    cb_segment none, one;
    assert_ok(cb_segment_wrap(&byte, 0, &none, err));
    assert_ok(cb_segment_wrap(&byte, 1, &one, err));
    assert_false(cb_segment_is_freed(&none));
    assert_int_equal(cb_segment_get_u8(&none, 0, &value, NULL), CB_EINVAL);
    assert_int_equal(cb_segment_put_u8(&none, 0, 1, NULL), CB_EINVAL);
    assert_int_equal(cb_segment_get_u8(&none, SIZE_MAX, &value, NULL), CB_EINVAL);
    assert_int_equal(cb_segment_get(&none, 0, &value, 1, NULL), CB_EINVAL);
    assert_ok(cb_segment_get(&none, 0, &value, 0, err));
    assert_ok(cb_segment_copy(&none, 0, &one, 1, 0, err));
    assert_int_equal(cb_segment_copy(&none, 0, &one, 0, 1, NULL), CB_EINVAL);
    assert_ok(cb_segment_get_u8(&one, 0, &value, err));
    assert_int_equal(value, 7);
    assert_int_equal(cb_segment_put_u8(&one, 1, 1, NULL), CB_EINVAL);
    assert_int_equal(cb_segment_get_u16(&one, 0, &two, NULL), CB_EINVAL);
    assert_int_equal(cb_segment_get_u16(&one, SIZE_MAX, &two, NULL), CB_EINVAL);
    assert_int_equal(cb_segment_put(&one, 0, &two, 2, NULL), CB_EINVAL);
    assert_int_equal(byte, 7);
}

static void test_memory_that_cannot_be_wrapped(void **state) {
    (void)state;
    uint8_t byte = 0;
    cb_segment s = {0};
    cb_error why = {0};
    assert_int_equal(cb_segment_wrap(NULL, 10, &s, &why), CB_EINVAL);
    assert_non_null(strstr(why.message, "NULL"));
    assert_int_equal(cb_segment_wrap(NULL, 0, &s, NULL), CB_EINVAL);
    assert_int_equal(cb_segment_wrap(&byte, (size_t)UINT32_MAX + 1, &s, &why), CB_EINVAL);
    assert_non_null(strstr(why.message, "at most 4294967295"));
    assert_int_equal(cb_segment_wrap((void *)(UINTPTR_MAX - 100), 101, &s, NULL), CB_EINVAL);
    assert_null(s.data);
    assert_ok(cb_segment_wrap(&byte, 1, &s, err)); /* wrapped memory is nobody's to give back */
    assert_int_equal(cb_segment_give(&s, &why), CB_EMISUSE);
    assert_non_null(strstr(why.message, "wrapped memory"));
    assert_null(s.owner);
}

#define TEST_ALL(name)                                                                             \
    cmocka_unit_test(test_access_of_##name), cmocka_unit_test(test_access_of_##name##_le),         \
        cmocka_unit_test(test_access_of_##name##_be)

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_access_of_u8),
        cmocka_unit_test(test_access_of_i8),
        TEST_ALL(u16),
        TEST_ALL(i16),
        TEST_ALL(u32),
        TEST_ALL(i32),
        TEST_ALL(u64),
        TEST_ALL(i64),
        TEST_ALL(f32),
        TEST_ALL(f64),
        cmocka_unit_test(test_access_of_booleans),
        cmocka_unit_test(test_bulk_reads_what_bulk_wrote),
        cmocka_unit_test(test_bulk_outside_of_the_segment_is_refused),
        cmocka_unit_test(test_buffer_goes_on_by_what_was_moved),
        cmocka_unit_test(test_buffer_that_is_too_small_or_read_only_stays_as_it_was),
        cmocka_unit_test(test_part_can_be_had_as_plain_memory),
        cmocka_unit_test(test_compare_sees_the_first_difference),
        cmocka_unit_test(test_swap_changes_both_places_and_nothing_else),
        cmocka_unit_test(test_copy_between_segments_and_over_itself),
        cmocka_unit_test(test_both_places_of_two_segments_are_checked),
        cmocka_unit_test(test_segments_of_different_kinds_work_together),
        cmocka_unit_test(test_segment_that_was_given_back_cannot_be_used),
        cmocka_unit_test(test_segments_of_no_and_of_one_byte),
        cmocka_unit_test(test_memory_that_cannot_be_wrapped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
