/* SPDX-License-Identifier: Apache-2.0 */
#include "base/alloc.h"
#include "operator/job.h"

/*
 * A pass over all partitions: who gets which, what is read ahead, and who must be alone.
 *
 * Partitions are handed out by their index, so that those which stayed in memory (the low ones)
 * come first and make room. The next ones are read ahead while there are free segments beyond those
 * that are reserved for results. When the next partition cannot come in although nobody works,
 * either higher partitions or results still lie in memory, which then leave, or it is too large:
 * then one worker has it alone.
 *
 * Results of many segments want them in one piece, twice: while they are put together and in their
 * range. What was read ahead gives way to them. Other workers' partitions cannot; so partitions
 * with records that large are worked on at the same time only as far as the reserve holds their
 * results, and one whose result it does not hold is worked on alone.
 *
 * Who runs short all the same waits until something has come back: another worker is done with his
 * partition, or with a large result. Meanwhile nobody begins a partition, until all are done. When
 * all who have one wait there is a last call: each of them tries once more, and only when that has
 * got nobody any further is there not enough memory.
 */

static const uint32_t PART_NONE = UINT32_MAX;

/* Partitions that are read ahead for each worker where results are made: enough for the disk never
 * to stand still, few enough for results to stay in memory. */
enum { AHEAD_PER_WORKER = 4 };

typedef struct part_need {
    size_t segments, out, units; /* units: of the largest record, or a pair of them */
    size_t giant;                /* as giant_of */
    cbi_partition_info info;
} part_need;

/* Results that are made in this pass, or NULL. */
static cbi_partitions *results_of(const cbi_job *job, const cbi_job_pass *pass) {
    return job->results != pass->parts ? job->results : NULL;
}

/* Segments of the largest record of a partition, or of a pair of them. Asked of those that are
 * coming in, too: nothing that it looks at changes meanwhile. */
static size_t units_of(const cbi_job_pass *pass, uint32_t index) {
    size_t units = cbi_partition_units_max(pass->parts, index);
    if (pass->partner != NULL)
        units += cbi_partition_units_max(pass->partner, index);
    return units;
}

/* Segments for a result of so large a record; 0: there need not be many. */
static size_t giant_of(const cbi_job *job, const cbi_job_pass *pass, size_t units) {
    size_t times = pass->result_times > 0 ? pass->result_times : 2;
    bool large = units > (pass->partner != NULL ? 2 : 1);
    return large && results_of(job, pass) != NULL ? times * units + 2 : 0;
}

/* Not of one that is coming in: that changes its figures. */
static part_need need_of(const cbi_job *job, const cbi_job_pass *pass, uint32_t index) {
    part_need need;
    cbi_partition_get_info(pass->parts, index, &need.info);
    need.segments = (size_t)need.info.segments;
    need.out = (size_t)need.info.segments_out;
    need.units = need.info.units_max;
    if (pass->partner != NULL) {
        cbi_partition_info info;
        cbi_partition_get_info(pass->partner, index, &info);
        need.segments += (size_t)info.segments;
        need.out += (size_t)info.segments_out;
        need.units += info.units_max;
    }
    need.giant = giant_of(job, pass, need.units);
    return need;
}

static size_t reserve_of(const cbi_job *job, const cbi_job_pass *pass, const part_need *need) {
    return results_of(job, pass) != NULL ? cbi_max(job->sizes.reserve, need->giant) : 0;
}

static bool part_fits(cbi_job *job, const cbi_job_pass *pass, uint32_t index,
                      const part_need *need) {
    /* Sorting two records of many segments takes no less memory than having both. */
    bool few = need->segments <= 2 * need->units;
    size_t reserve = reserve_of(job, pass, need);
    reserve = few ? cbi_min(job->sizes.reserve, reserve) : reserve;
    return need->segments + reserve + 2 <= job->sizes.segments &&
           need->info.pieces < CBI_REF_PIECES_MAX && pass->fits(job, pass->ctx, index, &need->info);
}

/* CB_EAGAIN: no memory for it now. */
static cb_status load_part(const cbi_job_pass *pass, uint32_t index, cb_error *err) {
    CB_TRY(cbi_partition_load(pass->parts, index, err));
    if (pass->partner == NULL)
        return CB_OK;
    cb_status status = cbi_partition_load(pass->partner, index, err);
    if (status == CB_EAGAIN)
        CB_TRY(cbi_partition_unload(pass->parts, index, err));
    return status;
}

static cb_status unload_part(const cbi_job_pass *pass, uint32_t index, cb_error *err) {
    CB_TRY(cbi_partition_unload(pass->parts, index, err));
    return pass->partner != NULL ? cbi_partition_unload(pass->partner, index, err) : CB_OK;
}

static void drop_part(const cbi_job_pass *pass, uint32_t index) {
    cbi_partition_drop(pass->parts, index);
    if (pass->partner != NULL)
        cbi_partition_drop(pass->partner, index);
}

/* May it begin although others are at work? job->mutex held. */
static bool goes_beside(const cbi_job *job, const cbi_job_pass *pass, size_t giant) {
    return pass->busy == 0 || (!pass->solo && pass->giants + giant <= job->sizes.reserve);
}

/* job->mutex held. */
static cb_status load_ahead(cbi_job *job, cbi_job_pass *pass, cb_error *err) {
    while (pass->next_load < pass->count && !pass->exclusive) {
        part_need need = need_of(job, pass, pass->next_load);
        bool wanted = pass->next_load == pass->next && goes_beside(job, pass, need.giant);
        if (pass->strapped && !wanted)
            return CB_OK;
        if (need.out > 0 && results_of(job, pass) != NULL &&
            pass->next_load > pass->next + AHEAD_PER_WORKER * job->sizes.threads)
            return CB_OK;
        if (!part_fits(job, pass, pass->next_load, &need))
            return CB_OK;
        size_t reserve = cbi_max(reserve_of(job, pass, &need), pass->giants);
        if (need.out > 0 && cb_segment_pool_free_count(job->ground.pool) < need.out + reserve)
            return CB_OK;
        cb_status status = load_part(pass, pass->next_load, err);
        if (status == CB_EAGAIN)
            return CB_OK;
        CB_TRY(status);
        pass->next_load++;
    }
    return CB_OK;
}

/* job->mutex held. */
static cb_status unload_ahead(cbi_job *job, cbi_job_pass *pass, cb_error *err) {
    for (; pass->next_load > pass->next; pass->next_load--)
        CB_TRY(unload_part(pass, pass->next_load - 1, err));
    if (pass->next_load < pass->count) /* its giants may have come alone */
        CB_TRY(unload_part(pass, pass->next_load, err));
    CB_TRY(cbi_partitions_make_room(pass->parts, pass->next - 1, job->sizes.segments, err));
    return pass->partner == NULL
               ? CB_OK
               : cbi_partitions_make_room(pass->partner, pass->next - 1, job->sizes.segments, err);
}

/* Who waits tries again. job->mutex held. */
static void wake(cbi_job *job, cbi_job_pass *pass, bool last_call) {
    pass->returns++;
    pass->waiting = 0;
    pass->last_call = last_call;
    cbi_cond_broadcast(&job->changed);
}

/* Until something has come back. False: all who could bring something wait themselves, and have
 * tried once more in vain. job->mutex held on entry and exit. */
static bool wait_for_return(cbi_job *job, cbi_job_pass *pass) {
    uint64_t seen = pass->returns;
    pass->waiting++;
    while (!cbi_job_stopped(job) && pass->returns == seen && pass->busy > pass->waiting)
        cbi_cond_wait(&job->changed, &job->mutex);
    if (cbi_job_stopped(job) || pass->returns != seen)
        return true;
    if (pass->last_call) {
        pass->waiting--;
        return false;
    }
    wake(job, pass, true);
    return true;
}

/* A result may want many segments in one piece, which partitions that lie here and there have left
 * nowhere. */
cb_status cbi_job_give_way(void *ctx, bool again, bool *gave, cb_error *err) {
    cbi_job *job = ctx;
    cb_status status = CB_OK;
    *gave = !again; /* some may have come back since he looked */
    cbi_mutex_lock(&job->mutex);
    cbi_job_pass *pass = job->pass;
    if (pass != NULL && results_of(job, pass) != NULL && pass->next > 0 && !pass->exclusive) {
        size_t before = cb_segment_pool_free_count(job->ground.pool);
        pass->strapped = true;
        status = unload_ahead(job, pass, err);
        if (cb_segment_pool_free_count(job->ground.pool) > before) {
            *gave = true;
            wake(job, pass, false);
        }
        if (!again) /* a new need: there has been some progress */
            pass->last_call = false;
        if (status == CB_OK && !*gave) {
            pass->solo = true;
            pass->scarce |= pass->giants == 0;
            *gave = wait_for_return(job, pass);
        }
    }
    cbi_mutex_unlock(&job->mutex);
    return status;
}

bool cbi_job_take_turn(cbi_job *job) {
    cbi_mutex_lock(&job->mutex);
    cbi_job_pass *pass = job->pass;
    if (pass != NULL)
        pass->last_call = false;
    while (pass != NULL && job->turn_taken && !pass->last_call && !cbi_job_stopped(job))
        (void)wait_for_return(job, pass);
    bool taken = pass != NULL && !job->turn_taken;
    if (taken)
        job->turn_taken = true;
    else if (pass != NULL)
        pass->last_call = false; /* one goes on without it, or they would all be short */
    cbi_mutex_unlock(&job->mutex);
    return taken;
}

void cbi_job_give_turn(cbi_job *job) {
    cbi_mutex_lock(&job->mutex);
    job->turn_taken = false;
    if (job->pass != NULL)
        wake(job, job->pass, false);
    cbi_mutex_unlock(&job->mutex);
}

/* Higher partitions, then results, leave until there is room for `index`. */
static cb_status make_room(cbi_job *job, const cbi_job_pass *pass, uint32_t index, size_t segments,
                           cb_error *err) {
    CB_TRY(cbi_partitions_make_room(pass->parts, index, segments, err));
    if (pass->partner != NULL)
        CB_TRY(cbi_partitions_make_room(pass->partner, index, segments, err));
    return job->results != NULL ? cbi_partitions_make_room(job->results, UINT32_MAX, segments, err)
                                : CB_OK;
}

/* Nobody works and the next partition cannot come in. job->mutex held on entry and exit. */
static cb_status force_in(cbi_job *job, cbi_job_pass *pass, bool *loaded, cb_error *err) {
    uint32_t want = pass->next;
    part_need need = need_of(job, pass, want);
    *loaded = false;
    if (!part_fits(job, pass, want, &need))
        return CB_OK;
    pass->exclusive = true;
    cbi_mutex_unlock(&job->mutex);
    size_t room =
        (pass->divided != NULL ? need.segments : need.out) + reserve_of(job, pass, &need) + 1;
    cb_status status = make_room(job, pass, want, room, err);
    if (status == CB_OK && pass->divided != NULL) /* also lower ones, which will be divided */
        status = make_room(job, pass, UINT32_MAX, room, err);
    if (status == CB_OK)
        status = load_part(pass, want, err);
    if (status == CB_EAGAIN) {
        status = unload_part(pass, want, err);
    } else if (status == CB_OK) {
        *loaded = true;
    }
    cbi_mutex_lock(&job->mutex);
    pass->exclusive = false;
    cbi_cond_broadcast(&job->changed);
    if (*loaded)
        pass->next_load = want + 1;
    return status;
}

/* The next one does not fit, and is left to be divided. Not while somebody forces it in, or moves
 * what lies in memory: its figures change meanwhile, without job->mutex. */
static bool leave_divided(cbi_job *job, cbi_job_pass *pass) {
    if (pass->divided == NULL || pass->exclusive)
        return false;
    part_need need = need_of(job, pass, pass->next);
    if (part_fits(job, pass, pass->next, &need) || !cbi_job_divides(job, pass, pass->next))
        return false;
    pass->divided[pass->next++] = 1;
    pass->next_load = pass->next;
    return true;
}

typedef struct part_work {
    uint32_t index; /* PART_NONE: there are no more; what the batch holds is left to do */
    bool alone;
    size_t giant; /* counted in pass->giants */
} part_work;

/* The next partition for this worker. job->mutex held. */
static cb_status next_part(cbi_job *job, cbi_job_pass *pass, part_work *part, cb_error *err) {
    for (;;) {
        *part = (part_work){.index = PART_NONE};
        if (cbi_job_stopped(job))
            return CB_OK;
        if (pass->exclusive) { /* partitions' figures change meanwhile, without job->mutex */
            cbi_cond_wait(&job->changed, &job->mutex);
            continue;
        }
        if (pass->next == pass->count) /* what is in the batch may go on: nobody is alone */
            return CB_OK;
        CB_TRY(load_ahead(job, pass, err));
        part->giant = giant_of(job, pass, units_of(pass, pass->next));
        if (!goes_beside(job, pass, part->giant)) {
            cbi_cond_wait(&job->changed, &job->mutex);
            continue;
        }
        if (pass->next < pass->next_load) {
            part->index = pass->next++;
            return CB_OK;
        }
        if (leave_divided(job, pass))
            continue;
        if (pass->busy > 0) {
            cbi_cond_wait(&job->changed, &job->mutex);
            continue;
        }
        bool loaded;
        CB_TRY(force_in(job, pass, &loaded, err));
        if (loaded)
            continue;
        part->index = pass->next++;
        pass->next_load = pass->next;
        pass->exclusive = part->alone = true;
        return CB_OK;
    }
}

static cb_status work_on(cbi_job_worker *w, cbi_job_pass *pass, uint32_t index, bool alone,
                         cb_error *err) {
    cbi_job *job = w->job;
    if (index == PART_NONE)
        return w->batch.to != NULL && !cbi_job_stopped(job) ? cbi_batch_flush(&w->batch, err)
                                                            : CB_OK;
    if (alone) {
        CB_TRY(pass->big(w, pass->ctx, index, err));
    } else {
        cbi_segment *list;
        CB_TRY(cbi_partition_wait(pass->parts, index, &list, err));
        CB_TRY(pass->work(w, pass->ctx, index, list, err));
    }
    drop_part(pass, index);
    if (pass->depth == 0)
        cbi_job_parts_done(job, 1);
    cbi_partitions *results = results_of(job, pass);
    return results != NULL ? cbi_partitions_relieve(results, err) : CB_OK;
}

/* job->mutex held. */
static void begin_part(cbi_job_pass *pass, const part_work *part) {
    pass->busy++;
    pass->giants += part->giant;
}

static void end_part(cbi_job *job, cbi_job_pass *pass, const part_work *part) {
    cbi_mutex_lock(&job->mutex);
    pass->busy--;
    pass->giants -= part->giant;
    if (part->alone)
        pass->exclusive = false;
    if (pass->busy == 0) /* who ran short is done, too */
        pass->solo = pass->scarce;
    wake(job, pass, false);
    cbi_mutex_unlock(&job->mutex);
}

static void pass_worker(void *ctx) {
    cbi_job_worker *w = ctx;
    cbi_job *job = w->job;
    cbi_job_pass *pass = job->pass;
    cb_error err;
    cb_status status = CB_OK;
    part_work part = {.index = 0};
    while (status == CB_OK && part.index != PART_NONE) {
        cbi_mutex_lock(&job->mutex);
        status = next_part(job, pass, &part, &err);
        if (status == CB_OK)
            begin_part(pass, &part);
        cbi_mutex_unlock(&job->mutex);
        if (status != CB_OK)
            break;
        status = work_on(w, pass, part.index, part.alone, &err);
        end_part(job, pass, &part);
    }
    if (status != CB_OK && !cbi_job_stopped(job))
        cbi_job_fail(job, status, &err);
}

/* Results leave in time for the next partitions to come in beside their reserve: or these would be
 * waited for one by one. */
static void keep_room_to_load(cbi_job *job, const cbi_job_pass *pass, cbi_partitions *to) {
    uint64_t all = 0, count = pass->count - pass->first;
    for (uint32_t i = pass->first; i < pass->count; i++)
        all += pass->depth > 0 ? need_of(job, pass, i).out : need_of(job, pass, i).segments;
    size_t mean = (size_t)(all / (count > 0 ? count : 1)) + 1;
    size_t wanted = job->sizes.reserve + 2 * (job->sizes.threads + 1) * mean;
    cbi_partitions_keep_free(to, cbi_min(wanted, job->sizes.segments / 2));
}

cb_status cbi_job_pass_once(cbi_job *job, cbi_job_pass *pass, cbi_partitions *to, uint32_t to_parts,
                            cb_error *err) {
    for (unsigned i = 0; i < job->sizes.threads; i++) {
        cbi_job_worker *w = &job->workers[i];
        w->work = cbi_batch_init(&w->batch, w, to, to_parts > 0 ? to_parts : 1, w->scratch);
    }
    pass->next = pass->next_load = pass->first;
    pass->busy = 0;
    pass->exclusive = pass->strapped = pass->solo = pass->scarce = pass->last_call = false;
    pass->waiting = 0;
    pass->giants = 0;
    pass->segments = 0;
    for (uint32_t i = pass->first; i < pass->count; i++)
        pass->segments += need_of(job, pass, i).segments;
    if (to != NULL)
        keep_room_to_load(job, pass, to);
    if (to != NULL) /* results begin with their reserve */
        CB_TRY(cbi_partitions_make_room(pass->parts, job->sizes.threads, job->sizes.reserve, err));
    cbi_mutex_lock(&job->mutex);
    job->pass = pass;
    cbi_mutex_unlock(&job->mutex);
    cb_status status = cbi_job_in_workers(job, job->sizes.threads, pass_worker, err);
    cbi_mutex_lock(&job->mutex);
    job->pass = NULL;
    cbi_mutex_unlock(&job->mutex);
    return status;
}

void cbi_job_parts_done(cbi_job *job, uint32_t count) {
    cbi_mutex_lock(&job->mutex);
    job->parts_done += count;
    cbi_mutex_unlock(&job->mutex);
}

cb_status cbi_job_each(cbi_job *job, cbi_job_pass *pass, cbi_partitions *to, uint32_t to_parts,
                       cb_error *err) {
    pass->scale = pass->count;
    cbi_mutex_lock(&job->mutex);
    job->parts_done = 0;
    job->parts_count = pass->count - pass->first;
    cbi_mutex_unlock(&job->mutex);
    if (pass->hash != NULL && job->sizes.divides) {
        pass->divided = cbi_calloc(pass->count, sizeof *pass->divided);
        if (pass->divided == NULL)
            return cbi_fail(err, CB_ENOMEM, "no memory for %u partitions", pass->count);
    }
    cb_status status = cbi_job_pass_once(job, pass, to, to_parts, err);
    if (status == CB_OK)
        status = cbi_job_divide(job, pass, to, to_parts, err);
    cbi_free(pass->divided);
    pass->divided = NULL;
    return status;
}

cb_status cbi_job_clear_memory(cbi_job *job, uint32_t index, cb_error *err) {
    const cbi_job_pass *pass = job->pass;
    size_t all = job->sizes.segments;
    /* Lower ones are done with, but for those of another output and those that will be divided. */
    uint32_t above = pass->first > 0 || pass->divided != NULL ? UINT32_MAX : index - 1;
    CB_TRY(cbi_partitions_make_room(pass->parts, above, all, err));
    if (pass->partner != NULL)
        CB_TRY(cbi_partitions_make_room(pass->partner, above, all, err));
    cbi_partitions *results = results_of(job, pass);
    return results != NULL ? cbi_partitions_make_room(results, UINT32_MAX, all, err) : CB_OK;
}
