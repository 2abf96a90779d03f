/* SPDX-License-Identifier: Apache-2.0 */
#include "carbide/join.h"

#include "base/alloc.h"
#include "operator/join_private.h"

/*
 * A join, on the ground of job.h: both inputs are partitioned by a hash of their keys, partition by
 * partition the right rows become a table that the left rows are looked up in (join_work.c), and
 * what comes out goes into ranges of left positions, which are ordered and written at places known
 * by then; the left rows' own text is fetched then, if it can be (join_late.c). Whole partitions of
 * both sides leave when memory is short, and results have room of their own. A partition that does
 * not fit, for luck or for a key with very many rows, is sorted instead (join_giant.c).
 *
 * No side is favoured by its size: what is stored of a row is what the result shows of it and is
 * not to be had again.
 */

/* ---- options ---- */

static size_t list_bytes(const char *const *list, size_t count, size_t *slots) {
    size_t bytes = 0;
    *slots += count;
    for (size_t i = 0; i < count; i++)
        bytes += strlen(list[i]) + 1;
    return bytes;
}

static const char *const *copy_list(const char ***slots, char **at, const char *const *list,
                                    size_t count) {
    const char **copy = *slots;
    for (size_t i = 0; i < count; i++) {
        size_t bytes = strlen(list[i]) + 1;
        memcpy(*at, list[i], bytes);
        *(*slots)++ = *at;
        *at += bytes;
    }
    return copy;
}

static cb_status copy_options(cb_join *j, const cb_join_options *o, cb_error *err) {
    const char *const *right = o->right_keys != NULL ? o->right_keys : o->left_keys;
    const char *const texts[2] = {o->suffix != NULL ? o->suffix : "_right",
                                  o->missing != NULL ? o->missing : ""};
    size_t slots = 0;
    size_t bytes = list_bytes(o->left_keys, o->key_count, &slots) +
                   list_bytes(right, o->key_count, &slots) +
                   list_bytes(o->columns, o->column_count, &slots) + list_bytes(texts, 2, &slots);
    j->strings = cbi_alloc(bytes + 1);
    j->lists = cbi_calloc(slots + 1, sizeof *j->lists);
    if (j->strings == NULL || j->lists == NULL)
        return cbi_fail(err, CB_ENOMEM, "no memory for the options");
    const char **lists = j->lists;
    char *at = j->strings;
    j->o = *o;
    j->o.left_keys = copy_list(&lists, &at, o->left_keys, o->key_count);
    j->o.right_keys = copy_list(&lists, &at, right, o->key_count);
    j->o.columns = copy_list(&lists, &at, o->columns, o->column_count);
    const char *const *copies = copy_list(&lists, &at, texts, 2);
    j->o.suffix = copies[0];
    j->o.missing = copies[1];
    return CB_OK;
}

static cb_status check_options(const cb_join_options *o, cb_error *err) {
    if (o->struct_size != sizeof *o)
        return cbi_fail(err, CB_EINVAL,
                        "cb_join_options: struct_size is %zu, this library knows %zu",
                        o->struct_size, sizeof *o);
    size_t given = (o->job.read != NULL ? 1U : 0U) + (o->right_read != NULL ? 1U : 0U);
    if (o->job.input_count + given != 2 || (o->job.inputs == NULL && given < 2))
        return cbi_fail(err, CB_EINVAL, "a join has two inputs, and %zu are named%s",
                        o->job.input_count, given == 0 ? "" : " besides the given rows");
    if ((unsigned)o->how > CB_JOIN_ALONE_RIGHT || (unsigned)o->order > CB_JOIN_SORTED_UNCHECKED)
        return cbi_fail(err, CB_EINVAL, "a way to join that does not exist");
    if (o->key_count == 0 || o->left_keys == NULL || o->key_count > JOIN_KEYS_MAX)
        return cbi_fail(err, CB_EINVAL, "a join needs 1 to %d keys", JOIN_KEYS_MAX);
    if (o->order != CB_JOIN_UNSORTED && o->job.bad_rows == CB_BAD_ROWS_FILE)
        return cbi_fail(err, CB_EINVAL,
                        "malformed rows of sorted inputs can be skipped or refused, not collected");
    return CB_OK;
}

static void give(cb_join *j, unsigned side, cb_row_read_fn read, void *ctx) {
    cbi_given_init(&j->job.given[side], read, ctx, j->job.o.format, j->job.o.zero_terminated);
}

cb_status cb_join_create(const cb_join_options *o, cb_join **out, cb_error *err) {
    CB_TRY(check_options(o, err));
    cb_join *j = cbi_calloc(1, sizeof *j);
    if (j == NULL)
        return cbi_fail(err, CB_ENOMEM, "no memory for a join");
    cb_job_options job = o->job;
    job.read = NULL; /* it is one of two inputs, not instead of them */
    cb_status status = cbi_job_init(&j->job, &job, "join", err);
    if (status == CB_OK)
        status = copy_options(j, o, err);
    give(j, JOIN_LEFT, o->job.read, o->job.read_ctx);
    give(j, JOIN_RIGHT, o->right_read, o->right_read_ctx);
    if (status != CB_OK) {
        cb_join_destroy(j);
        return status;
    }
    *out = j;
    return CB_OK;
}

/* ---- before the work ---- */

static cb_status open_input(cb_join *j, unsigned side, cb_error *err) {
    const cbi_given *given = j->job.given;
    if (given[side].read != NULL)
        return cbi_job_open_given(&j->job, side, &j->sides[side].input, err);
    size_t path = side == JOIN_RIGHT && given[JOIN_LEFT].read == NULL ? 1 : 0;
    return cbi_job_open_paths(&j->job, path, 1, &j->sides[side].input, err);
}

static cb_status open_side(cb_join *j, unsigned side, cb_error *err) {
    join_side *s = &j->sides[side];
    CB_TRY(open_input(j, side, err));
    s->format = *cbi_input_format(s->input);
    if (s->format.kind != CB_FORMAT_CSV && s->format.kind != CB_FORMAT_TSV)
        return cbi_fail(err, CB_EINVAL,
                        "%s: rows of this format have no columns to join by; "
                        "--format csv or tsv may be meant",
                        cbi_input_name(s->input, 0));
    s->names = cbi_input_names(s->input, &s->name_count);
    cbi_keys_options options = {.keys = side == JOIN_LEFT ? j->o.left_keys : j->o.right_keys,
                                .key_count = j->o.key_count,
                                .field_separator = s->format.separator,
                                .stable = true,
                                .format = (int)s->format.kind};
    CB_TRY(cbi_keys_create(&options, &s->keys, err));
    CB_TRY(cbi_keys_bind(s->keys, s->names, s->name_count, err));
    s->raw_slot = cbi_keys_raw_slot(s->keys);
    for (size_t k = 0; k < j->o.key_count; k++)
        if (k >= cbi_keys_parts(s->keys) || cbi_keys_part_column(s->keys, k) < 0)
            return cbi_fail(err, CB_EINVAL, "the key '%s' is not one column", options.keys[k]);
    return CB_OK;
}

typedef struct sampler {
    const cb_join *j;
    unsigned side;
    double row_bytes, key_bytes, payload_bytes; /* sums */
    uint64_t rows;
    join_letters *letters;
} sampler;

/* The right's text can be packed if it is one, and nobody but the writer wants to know what it is.
 */
static bool packs_text(const cb_join *j) {
    const join_side *right = &j->sides[JOIN_RIGHT];
    return j->late && !join_wants_right(j) && join_shows_right(j) && right->piece_count == 1 &&
           !right->keep_keys;
}

static void count_letters(const sampler *s, const cbi_rows *rows, size_t i, size_t payload) {
    enum { LOOKED_AT = 1024 };
    const join_side *side = &s->j->sides[s->side];
    join_letters *l = s->letters;
    const uint8_t *key;
    size_t bytes;
    l->key_rows++;
    if (!join_raw_key(side, rows, i, &key, &bytes)) {
        l->keys[255]++; /* of any bytes */
        bytes = 0;
    }
    for (size_t k = 0; k < bytes; k++)
        l->keys[key[k]]++;
    uint8_t text[LOOKED_AT];
    if (s->side != JOIN_RIGHT || !packs_text(s->j) || payload > sizeof text)
        return;
    (void)join_put_payload(s->j, side, rows, i, text);
    l->text_rows++;
    for (size_t k = 0; k < payload; k++)
        l->text[text[k]]++;
}

static void sample_row(void *ctx, const cbi_rows *rows, size_t i) {
    sampler *s = ctx;
    const join_side *side = &s->j->sides[s->side];
    s->rows++;
    s->row_bytes += rows->rows[i].bytes + 1.0;
    size_t payload = join_payload_bytes(s->j, side, rows, i);
    s->payload_bytes += (double)payload;
    count_letters(s, rows, i, payload);
    s->key_bytes += (double)cbi_keys_encode(side->keys, rows, i, NULL, 0);
}

/* A left row of less text than this may as well take it along. */
enum { WORTH_LEAVING = 12 };

/* Means of a side's rows. */
typedef struct side_means {
    double rows, row, key, payload;
} side_means;

static cb_status sample_side(cb_join *j, unsigned side, join_letters *letters, side_means *m,
                             cb_error *err) {
    join_side *s = &j->sides[side];
    sampler sample = {.j = j, .side = side, .letters = letters};
    *m = (side_means){.rows = 0};
    CB_TRY(cbi_job_sample(&j->job, s->input, s->columns, s->field_count, sample_row, &sample, err));
    s->numbered = side == JOIN_LEFT || join_wants_right(j);
    if (sample.rows == 0)
        return CB_OK;
    double n = (double)sample.rows;
    *m = (side_means){.rows = (double)cbi_input_bytes(s->input) / (sample.row_bytes / n),
                      .row = sample.row_bytes / n,
                      .key = sample.key_bytes / n,
                      .payload = sample.payload_bytes / n};
    j->late |=
        side == JOIN_LEFT && !s->convert && m->payload >= WORTH_LEAVING && j->job.o.write == NULL;
    return CB_OK;
}

/* Half a byte for a character, where samples of both sides say so. */
static void choose_packing(cb_join *j, const join_letters *letters, side_means *m) {
    if (m[JOIN_LEFT].rows == 0 || m[JOIN_RIGHT].rows == 0)
        return;
    j->pack = join_pack_choose(letters);
    j->packed = j->pack != NULL && j->pack->text;
    for (unsigned side = 0; join_packs_keys(j) && side < 2; side++)
        m[side].key = (m[side].key + 1) / 2;
    if (j->packed)
        m[JOIN_RIGHT].payload = (m[JOIN_RIGHT].payload + 1) / 2;
}

static double stored_bytes(const cb_join *j, unsigned side, const side_means *m) {
    double text = side == JOIN_LEFT && j->late ? 2 : m->payload;
    return m->rows * (m->key + text + 2.6 + 3 * j->sides[side].numbered);
}

/* What is known of the work. Nothing, as soon as one input is a stream. */
static cb_status measure(cb_join *j, cb_error *err) {
    cbi_job_demand *d = &j->job.demand;
    join_letters letters = {.key_rows = 0};
    side_means means[2];
    const side_means *left = &means[JOIN_LEFT], *right = &means[JOIN_RIGHT];
    for (unsigned side = 0; side < 2; side++)
        CB_TRY(sample_side(j, side, &letters, &means[side], err));
    choose_packing(j, &letters, means);
    bool known = cbi_input_seekable(j->sides[JOIN_LEFT].input) &&
                 cbi_input_seekable(j->sides[JOIN_RIGHT].input);
    double stored[2] = {stored_bytes(j, JOIN_LEFT, left), stored_bytes(j, JOIN_RIGHT, right)};
    double total = stored[0] + stored[1], all = left->rows + right->rows;
    double row_bytes =
        right->rows == 0 || (left->rows > 0 && left->row < right->row) ? left->row : right->row;
    *d = (cbi_job_demand){
        .stored_bytes = known ? total + 1 : 0,
        .row_bytes = row_bytes > 0 ? row_bytes : 40,
        .record_bytes = all > 0 ? total / all : 40,
        .fields = cbi_max(j->sides[JOIN_LEFT].field_count, j->sides[JOIN_RIGHT].field_count),
        .read_extra = 8 * CBI_KIB + 64,
        .work_factor = 0.8,
        .result_factor = 1,
        .looks_up = true,
        .sides = 2};
    if (total <= 0)
        return CB_OK;
    d->work_factor = 32 * right->rows / total; /* a table takes some 30 bytes a right row */
    d->result_factor = (stored[0] + stored[1] * left->rows / (right->rows + 1)) / total;
    if (j->late)
        d->result_factor = left->rows * (7 + join_wants_pairs(j) * right->payload) / total;
    d->rereads = j->late;
    d->result_rows = left->rows;
    d->result_factor = d->result_factor < 0.1 ? 0.1 : d->result_factor > 2 ? 2 : d->result_factor;
    return CB_OK;
}

/* Two readers, and whatever the rest is. */
static cbi_job_demand sorted_demand(const cb_join *j) {
    return (cbi_job_demand){
        .row_bytes = 40,
        .record_bytes = 40,
        .fields = cbi_max(j->sides[JOIN_LEFT].field_count, j->sides[JOIN_RIGHT].field_count),
        .read_extra = 8 * CBI_KIB + 64,
        .work_factor = 0.8,
        .result_factor = 1,
        .workers = 2};
}

/* ---- the work ---- */

/* What was read first gives memory to what comes now. */
static cb_status make_room(cb_join *j, cb_error *err) {
    const cbi_job_sizes *z = &j->job.sizes;
    if (z->in_memory)
        return CB_OK;
    return cbi_partitions_make_room(j->job.partner, 0, z->segments / 2, err);
}

static cb_status prepare(cb_join *j, cb_error *err) {
    cbi_job *job = &j->job;
    cbi_job_phase(job, CB_PHASE_SAMPLE);
    CB_TRY(open_side(j, JOIN_LEFT, err));
    CB_TRY(open_side(j, JOIN_RIGHT, err));
    CB_TRY(join_choose_columns(j, err));
    CB_TRY(cbi_job_make_memory(job, err));
    if (j->o.order == CB_JOIN_UNSORTED)
        CB_TRY(measure(j, err));
    else
        job->demand = sorted_demand(j);
    job->method = j->o.order == CB_JOIN_UNSORTED ? "hash partition" : "merge of sorted inputs";
    if (!cbi_input_seekable(j->sides[JOIN_LEFT].input))
        job->input = j->sides[JOIN_LEFT].input;
    unsigned other = job->input == j->sides[JOIN_LEFT].input ? JOIN_RIGHT : JOIN_LEFT;
    job->other = j->sides[other].input; /* both may have decoders, from the first row on */
    if (job->plan != NULL)              /* of both */
        job->bytes_in_before = cbi_input_bytes(job->other);
    CB_TRY(cbi_job_size(job, err));
    j->left_ranges = join_wants_right(j) && job->sizes.ranges > 1
                         ? job->sizes.ranges - (job->sizes.ranges + 3) / 4
                         : job->sizes.ranges;
    if (join_wants_right(j) && job->sizes.ranges == 1)
        job->sizes.ranges = 2;
    return CB_OK;
}

/* Left rows that come late must know their ranges when they are read: by the size of the file. */
static void scale_ranges(cb_join *j) {
    uint32_t ranges[2] = {j->left_ranges, j->job.sizes.ranges - j->left_ranges};
    for (unsigned i = 0; i < 2; i++) {
        join_side *s = &j->sides[i];
        bool late = i == JOIN_LEFT && j->late;
        uint64_t bytes = late ? cbi_input_bytes(s->input) : atomic_load(&s->extent);
        s->range_scale = (double)ranges[i] / ((double)bytes + 1);
    }
}

/* Rows that match nothing may go anywhere. */
static uint64_t part_hash(const cbi_job *job, const cbi_stored *record) {
    const cb_join *j = (const cb_join *)(const void *)job;
    if (record->key_bytes == 0 && !j->o.match_nulls)
        return join_hash(j, record->row, record->row_bytes);
    return join_hash(j, record->key, record->key_bytes);
}

static cb_status do_work(cb_join *j, cb_error *err) {
    cbi_job *job = &j->job;
    CB_TRY(prepare(j, err));
    CB_TRY(cbi_job_make_ready(job, err));
    if (j->o.order != CB_JOIN_UNSORTED)
        return join_sorted(j, err);
    CB_TRY(cbi_job_open_partitions(job, job->sizes.parts, &job->parts, err));
    CB_TRY(cbi_job_open_partitions(job, job->sizes.parts, &job->partner, err));
    if (j->late)
        CB_TRY(join_late_begin(j, err));
    cbi_job_phase(job, CB_PHASE_READ);
    CB_TRY(join_read_side(j, JOIN_RIGHT, err));
    job->rows_bad_before = cbi_input_rows_bad(j->sides[JOIN_RIGHT].input);
    job->bytes_in_before = cbi_input_bytes_done(j->sides[JOIN_RIGHT].input);
    CB_TRY(make_room(j, err));
    bool streamed;
    CB_TRY(join_stream_try(j, &streamed, err));
    if (streamed)
        return CB_OK;
    scale_ranges(j);
    CB_TRY(join_read_side(j, JOIN_LEFT, err));
    CB_TRY(cbi_job_open_partitions(job, job->sizes.ranges, &job->results, err));
    scale_ranges(j);
    if (j->late)
        join_late_know_starts(j);
    cbi_job_phase(job, CB_PHASE_MERGE);
    cbi_job_pass pass = {.parts = job->parts,
                         .partner = job->partner,
                         .count = job->sizes.parts,
                         .ctx = j,
                         .fits = join_fits,
                         .work = join_work,
                         .big = join_big,
                         .hash = part_hash,
                         .partner_counted = !j->sides[JOIN_RIGHT].numbered};
    job->short_keys = true;
    CB_TRY(cbi_job_each(job, &pass, job->results, job->sizes.ranges, err));
    return cbi_job_write_results(job, err);
}

cb_status cb_join_explain(cb_join *j, cb_job_plan *plan, cb_error *err) {
    cb_error local = {.status = CB_OK};
    CB_TRY(cbi_job_explain(&j->job, plan, err));
    return cbi_job_explained(&j->job, do_work(j, &local), &local, err);
}

cb_status cb_join_run(cb_join *j, cb_error *err) {
    cbi_job *job = &j->job;
    if (job->ran)
        return cbi_fail(err, CB_EMISUSE, "this join has been run already");
    job->ran = true;
    job->start_ns = cbi_sys_clock_ns();
    cb_error local = {.status = CB_OK};
    cb_status status = do_work(j, &local);
    return cbi_job_finish(job, status, &local, err);
}

/* ---- seen from outside ---- */

void cb_join_progress(const cb_join *j, cb_progress *progress) {
    cbi_job_progress((cbi_job *)(uintptr_t)&j->job, progress);
}

void cb_join_cancel(cb_join *j) {
    cbi_job_cancel(&j->job);
}

void cb_join_get_stats(const cb_join *j, cb_join_stats *stats) {
    size_t size = stats->struct_size;
    *stats = (cb_join_stats){.struct_size = size,
                             .job = j->job.stats,
                             .rows_left = atomic_load(&j->sides[JOIN_LEFT].rows),
                             .rows_right = atomic_load(&j->sides[JOIN_RIGHT].rows)};
    stats->job.struct_size = sizeof stats->job;
}

void cb_join_memory_tree(const cb_join *j, char *text, size_t bytes) {
    cbi_job_memory_tree(&j->job, text, bytes);
}

void cb_join_figures(const cb_join *j, cb_figures *figures) {
    cbi_job_figures(&j->job, figures);
}

void cb_join_destroy(cb_join *j) {
    if (j == NULL)
        return;
    for (unsigned i = 0; i < 2; i++) {
        cbi_keys_destroy(j->sides[i].keys);
        if (j->sides[i].input != j->job.input)
            cbi_input_close(j->sides[i].input);
    }
    join_late_end(j);
    join_stream_end(j);
    cbi_free(j->pack);
    join_free_columns(j);
    cbi_job_fini(&j->job);
    cbi_free(j->lists);
    cbi_free(j->strings);
    cbi_free(j);
}
