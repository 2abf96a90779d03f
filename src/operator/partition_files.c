/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "operator/sort_private.h"

/* cb_partition: a sort whose keys are targets (split.c tells why). */

struct cb_partition {
    cb_sort *sort;
    cbi_split *split;
};

/* Temporary files go beside the results, as a sort's do; that is told by an output in that folder,
 * which also says how results are compressed. */
static char *output_beside(const cbi_split *split) {
    size_t bytes = strlen(split->root) + strlen(split->suffix) + 2;
    char *path = cbi_alloc(bytes);
    if (path != NULL) {
        const char *name = strrchr(split->suffix, '/');
        (void)snprintf(path, bytes, "%s/%s", split->root, name != NULL ? name + 1 : split->suffix);
    }
    return path;
}

cb_status cb_partition_create(const cb_partition_options *o, cb_partition **out, cb_error *err) {
    cbi_split *split;
    CB_TRY(cbi_split_create(o, &split, err));
    cb_partition *p = cbi_calloc(1, sizeof *p);
    char *output = o->write != NULL ? NULL : output_beside(split);
    cb_sort_options sort = {.struct_size = sizeof sort,
                            .inputs = o->job.inputs,
                            .input_count = o->job.input_count,
                            .output = output,
                            .format = o->job.format,
                            .record_bytes = o->job.record_bytes,
                            .header = o->job.header,
                            .zero_terminated = o->job.zero_terminated,
                            .bad_rows = o->job.bad_rows,
                            .bad_rows_path = o->job.bad_rows_path,
                            .keys = o->keys,
                            .key_count = o->key_count,
                            .field_separator =
                                o->job.has_field_separator ? o->job.field_separator : -1,
                            .stable = true,
                            .memory_bytes = o->job.memory_bytes,
                            .threads = o->job.threads,
                            .temp_dirs = o->job.temp_dirs,
                            .temp_dir_count = o->job.temp_dir_count,
                            .temp_limit_bytes = o->job.temp_limit_bytes,
                            .spill_codec = o->job.spill_codec,
                            .baseline_bytes = o->job.baseline_bytes};
    cb_status status = p == NULL || (output == NULL && o->write == NULL)
                           ? cbi_fail(err, CB_ENOMEM, "no memory for a partition")
                           : cb_sort_create(&sort, &p->sort, err);
    cbi_free(output);
    if (status != CB_OK) {
        cbi_split_destroy(split);
        cbi_free(p);
        return status;
    }
    p->split = p->sort->split = split;
    cbi_given_init(&p->sort->given, o->job.read, o->job.read_ctx, o->job.format,
                   o->job.zero_terminated);
    *out = p;
    return CB_OK;
}

cb_status cb_partition_explain(cb_partition *p, cb_job_plan *plan, cb_error *err) {
    return cb_sort_explain(p->sort, plan, err);
}

cb_status cb_partition_run(cb_partition *p, cb_error *err) {
    return cb_sort_run(p->sort, err);
}

void cb_partition_progress(const cb_partition *p, cb_progress *progress) {
    cb_sort_progress(p->sort, progress);
}

void cb_partition_cancel(cb_partition *p) {
    cb_sort_cancel(p->sort);
}

void cb_partition_get_stats(const cb_partition *p, cb_partition_stats *stats) {
    size_t size = stats->struct_size;
    memset(stats, 0, sizeof *stats);
    stats->struct_size = size;
    stats->job.struct_size = sizeof stats->job;
    cb_sort_get_stats(p->sort, &stats->job);
    stats->files = atomic_load(&p->split->files);
}

void cb_partition_memory_tree(const cb_partition *p, char *text, size_t bytes) {
    cb_sort_memory_tree(p->sort, text, bytes);
}

void cb_partition_figures(const cb_partition *p, cb_figures *figures) {
    cb_sort_figures(p->sort, figures);
}

void cb_partition_destroy(cb_partition *p) {
    if (p == NULL)
        return;
    cb_sort_destroy(p->sort);
    cbi_split_destroy(p->split);
    cbi_free(p);
}
