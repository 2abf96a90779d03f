/* SPDX-License-Identifier: Apache-2.0 */
#include "operator/ground.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "memory/manager.h"
#include "memory/segment.h"
#include "spill/codec.h"

/*
 * Everything large is taken from one task of one manager before the first row is read, so a run
 * cannot fail for memory half-way except by a row that is too large for the plan.
 */

uint64_t cbi_ground_auto_budget(void) {
    uint64_t available = cbi_sys_memory_available(), limit = cbi_sys_cgroup_limit();
    if (limit == UINT64_MAX)
        return available / 2;
    uint64_t used = cbi_sys_cgroup_used();
    uint64_t left = limit > used ? limit - used : 0;
    /* in a container that is ours nearly all of it is meant for us */
    return (left < available ? left : available) / 10 * 9;
}

/* It is set aside, so it is kept to what usual files need; a large budget opens large windows. */
size_t cbi_ground_decoder_bytes(uint64_t budget) {
    uint64_t most = budget < 256 * CBI_MIB ? 9 * CBI_MIB + CBI_MIB / 2
                    : budget < CBI_GIB     ? 40 * CBI_MIB
                                           : 160 * CBI_MIB;
    return (size_t)(budget / 8 * 3 < most ? budget / 8 * 3 : most);
}

/* What else there is in a plan. */
static uint64_t beside_a_decoder(uint64_t budget) {
    return 6 * CBI_MIB + budget / 8 + cbi_kernel_bytes(budget) + cbi_huge_bytes(budget, 1);
}

uint64_t cbi_ground_decoder_budget(uint64_t need, double share) {
    for (uint64_t budget = 8 * CBI_MIB; budget <= 4 * CBI_GIB; budget += CBI_MIB) {
        double most = (double)cbi_ground_decoder_bytes(budget) * share;
        /* what it has taken when the plan is made is among the small objects as well */
        double all = most + (double)need + (double)beside_a_decoder(budget);
        if (most >= (double)need && (double)budget >= all)
            return budget;
    }
    return 0;
}

cb_status cbi_ground_lodge(cbi_ground *g, cb_manager *host, const char *name, uint64_t *budget,
                           cb_error *err) {
    const cb_task_options task = {.struct_size = sizeof task, .name = name};
    const cb_consumer_options options = {
        .struct_size = sizeof options, .name = name, .mode = host->mode};
    cb_consumer *consumer;
    CB_TRY(cb_task_create(host, &task, &g->lodging, err));
    CB_TRY(cb_consumer_create(g->lodging, &options, &consumer, err));
    return cb_consumer_acquire(consumer, *budget, budget, err);
}

cb_status cbi_ground_open(cbi_ground *g, uint64_t budget, const char *name, cb_error *err) {
    cb_manager_options options = cb_manager_options_native(budget);
    options.idle_max = 0; /* the sample's page goes before the plan's bytes come */
    CB_TRY(cb_manager_create(&options, &g->manager, err));
    cb_ledger_entry *baseline;
    CB_TRY(cb_ledger_add(g->manager, "baseline: code, libraries, main stack", NULL, NULL, &baseline,
                         err));
    cb_ledger_force(baseline, g->baseline);
    cb_task_options task = {.struct_size = sizeof task, .id = 1, .name = name};
    CB_TRY(cb_task_create(g->manager, &task, &g->task, err));
    cb_consumer_options consumer = {.struct_size = sizeof consumer,
                                    .name = "workers' scratch and staging",
                                    .mode = CB_OFF_HEAP};
    CB_TRY(cb_consumer_create(g->task, &consumer, &g->consumer, err));
    atomic_store(&g->open, true);
    return CB_OK;
}

void cbi_ground_tree(const cbi_ground *g, char *text, size_t bytes) {
    if (bytes == 0)
        return;
    text[0] = 0;
    if (atomic_load(&g->open))
        (void)cb_manager_tree(g->manager, text, bytes);
}

void cbi_ground_figures_now(const cbi_ground *g, const cb_progress *p, cb_figures *f) {
    if (atomic_load(&g->open))
        cb_manager_figures(g->manager, f);
    f->elapsed_ns = p->elapsed_ns;
    f->fraction = p->fraction;
    f->spilled_bytes = p->spilled_bytes;
}

/* ---- temporary folders ---- */

static cb_status folder_of(cbi_ground *g, const char *output, cb_error *err) {
    const char *slash = strrchr(output, '/');
    g->dir_text = cbi_strdup(slash == NULL ? "." : output);
    if (g->dir_text == NULL)
        return cbi_fail(err, CB_ENOMEM, "no memory for a folder's name");
    if (slash != NULL)
        g->dir_text[slash == output ? 1 : slash - output] = 0;
    return CB_OK;
}

cb_status cbi_ground_temp_dirs(cbi_ground *g, const char *output, const char *const **dirs,
                               size_t *count, cb_error *err) {
    if (*count > 0)
        return CB_OK;
    const char *dir = getenv("CARBIDE_TMPDIR");
    if (dir == NULL || *dir == 0)
        dir = getenv("TMPDIR");
    if ((dir == NULL || *dir == 0) && output != NULL && strcmp(output, "-") != 0 &&
        strncmp(output, "/dev/", 5) != 0) {
        CB_TRY(folder_of(g, output, err));
        dir = g->dir_text;
        uint64_t bytes_free;
        bool in_memory = false; /* nobody asked for it: not when it lives in memory */
        if (cbi_spill_space(&dir, 1, &bytes_free, &in_memory, NULL) != CB_OK || in_memory)
            dir = NULL;
    }
    g->dir[0] = dir != NULL && *dir != 0 ? dir : "/var/tmp";
    *dirs = g->dir;
    *count = 1;
    return CB_OK;
}

/* ---- memory of the plan ---- */

static uint64_t measure_objects(void *ctx) {
    (void)ctx;
    return cbi_alloc_bytes();
}

static cb_status add_ledger(cbi_ground *g, const cbi_ground_sizes *z, cb_error *err) {
    cb_ledger_entry *stacks, *objects, *tables;
    CB_TRY(cb_ledger_add(g->manager, "thread stacks", NULL, NULL, &stacks, err));
    cb_ledger_force(stacks, (uint64_t)(z->threads + z->io_threads) * CBI_STACK_TOUCHED_BYTES);
    CB_TRY(cb_ledger_add(g->manager, "small objects and codecs", measure_objects, NULL, &objects,
                         err));
    CB_TRY(cb_ledger_add(g->manager, "page tables", NULL, NULL, &tables, err));
    cb_ledger_force(tables, z->budget / 512);
    cb_ledger_refresh(g->manager);
    return CB_OK;
}

cb_status cbi_ground_build(cbi_ground *g, const cbi_ground_sizes *z, cbi_spill_options spill,
                           cb_error *err) {
    CB_TRY(add_ledger(g, z, err));
    size_t scratch = z->worker * z->threads + z->shared;
    size_t scratch_segments = (scratch + z->segment - 1) / z->segment;
    cb_segment_pool_options pool = {.struct_size = sizeof pool,
                                    .task = g->task,
                                    .name = "row segments",
                                    .segment_bytes = z->segment,
                                    .segments_max = z->segments + scratch_segments,
                                    .preallocate = true,
                                    .huge_pages = (!z->in_memory || z->huge_always) &&
                                                  z->budget >= CBI_HUGE_FROM_BYTES};
    CB_TRY(cb_segment_pool_create(&pool, &g->pool, err));
    g->scratch = cb_segment_pool_take(g->pool, scratch_segments);
    cb_assert(g->scratch != NULL);
    spill.io_threads = z->io_threads;
    spill.segment_bytes = z->segment;
    spill.staging = g->scratch + z->worker * z->threads;
    spill.staging_bytes = z->staging;
    if (z->tier > 0) {
        /* at the top, so that what is left of it, once it has ended, is in one piece */
        spill.tier = cbi_segment_pool_take_highest(g->pool, z->tier);
        cb_assert(spill.tier != NULL);
        spill.tier_bytes = z->tier * z->segment;
    }
    return cbi_spill_open(&spill, &g->spill, err);
}

void cbi_ground_measure(cbi_ground *g, cbi_ground_figures *figures) {
    *figures = (cbi_ground_figures){.codec = "none"};
    if (g->manager != NULL) {
        cb_ledger_refresh(g->manager);
        figures->accounted_peak_bytes = cb_manager_accounted_peak(g->manager);
    }
    if (g->spill == NULL)
        return;
    cbi_spill_stats spill;
    cbi_spill_get_stats(g->spill, &spill);
    figures->spilled_bytes = spill.raw_bytes;
    figures->spilled_stored_bytes = spill.stored_bytes;
    figures->direct_temp = spill.direct;
    figures->codec = cbi_codec_name(spill.codec);
}

void cbi_ground_close_spill(cbi_ground *g) {
    cbi_spill_close(g->spill);
    g->spill = NULL;
}

void cbi_ground_close_pool(cbi_ground *g) {
    cb_segment_pool_destroy(g->pool);
    g->pool = NULL;
}

void cbi_ground_fini(cbi_ground *g) {
    (void)cb_task_end(g->task, NULL, 0);
    cb_manager_destroy(g->manager);
    (void)cb_task_end(g->lodging, NULL, 0);
    cbi_free(g->dir_text);
    *g = (cbi_ground){0};
}

/* ---- sentences ---- */

cb_status cbi_ground_refuse(uint64_t budget, uint64_t fixed, uint64_t least, cb_error *err) {
    return cbi_fail_bytes(err, CB_EBUDGET, least, least,
                          "a budget of %llu bytes is too small: the program itself takes %llu, "
                          "and %llu is the least that will do; use --memory %lluM or more",
                          (unsigned long long)budget, (unsigned long long)fixed,
                          (unsigned long long)least, (unsigned long long)(least / CBI_MIB));
}

void cbi_ground_name_budget(uint64_t budget, uint64_t least, cb_error *err) {
    least = cbi_max(least, cbi_round_up(budget / 4 * 5, CBI_MIB));
    cb_error why = *err;
    (void)cbi_fail_bytes(err, CB_EBUDGET, why.bytes_asked, least,
                         "%.800s; the budget is %llu bytes; --memory %lluM should do", why.message,
                         (unsigned long long)budget, (unsigned long long)(least / CBI_MIB));
}

cb_status cbi_ground_no_space(uint64_t need, uint64_t bytes_free, const char *dir, cb_error *err) {
    return cbi_fail_bytes(err, CB_ENOSPC, need, bytes_free,
                          "about %llu bytes of temporary space will be needed and %llu are free in "
                          "%s; name a larger folder with -T, or give more memory",
                          (unsigned long long)need, (unsigned long long)bytes_free, dir);
}

/* ---- copies of options ---- */

size_t cbi_text_bytes(const char *text) {
    return text != NULL ? strlen(text) + 1 : 0;
}

size_t cbi_list_bytes(const char *const *list, size_t count) {
    size_t bytes = (count + 1) * sizeof(char *);
    for (size_t i = 0; i < count; i++)
        bytes += cbi_text_bytes(list[i]);
    return bytes;
}

const char *cbi_text_copy(char **at, const char *text) {
    if (text == NULL)
        return NULL;
    size_t bytes = cbi_text_bytes(text);
    char *copy = *at;
    memcpy(copy, text, bytes);
    *at += bytes;
    return copy;
}

const char *const *cbi_list_copy(const char ***slots, char **at, const char *const *list,
                                 size_t count) {
    const char **copy = *slots;
    *slots += count + 1;
    for (size_t i = 0; i < count; i++)
        copy[i] = cbi_text_copy(at, list[i]);
    copy[count] = NULL;
    return copy;
}
