/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "spill/io.h"

/*
 * The queue and its threads.
 *
 * Threads with blocking vectored calls, not io_uring: with requests of 128 KiB and more the disk is
 * busy with two or three threads already, and the threads have real work besides waiting
 * (checksums, compression, decompression), which a ring would leave to somebody else. bench/io.c
 * measures both; docs/spill-format.md has the figures.
 *
 * Reads go first. A read is what a worker waits for, or will next; a write only has to be done some
 * day, and the buffers it holds are the brake that keeps its makers from running ahead. But those
 * buffers are also what the worker that got its read will want, so every fifth turn is a write's if
 * one waits.
 *
 * Small writes that wait one behind the other are performed as one: with the smallest budgets
 * batches are 16 KiB, and the disk takes hardly less time for one than for 256 KiB (0.7 and 1 ms).
 * They become neighbours in a file; each stays an extent of its own.
 *
 * With no threads whoever asks performs: through the page cache a transfer is a copy, and what it
 * takes to have another thread make it, and to wait for that, is longer than the copy.
 *
 * A callback may submit, too (the natural place to ask for the next piece). It must not wait for
 * room then: it runs on one of the threads that would have to make it. So there are slots kept for
 * it.
 */

enum { READS_IN_ROW_MAX = 4 };

static _Thread_local const cbi_io *io_of_this_thread;

static void push(struct cbi_io_list *list, cbi_request *request) {
    request->next = NULL;
    if (list->tail != NULL) {
        list->tail->next = request;
    } else {
        list->head = request;
    }
    list->tail = request;
}

static cbi_request *pop(struct cbi_io_list *list) {
    cbi_request *request = list->head;
    list->head = request->next;
    if (list->head == NULL) {
        list->tail = NULL;
    }
    return request;
}

/* A write, and the small ones waiting right behind it. */
static cbi_request *take_writes(cbi_io *io) {
    cbi_request *first = pop(&io->writes);
    cbi_request *last = first;
    size_t bytes = first->bytes;
    while (first->mergeable && io->writes.head != NULL && io->writes.head->mergeable &&
           bytes + io->writes.head->bytes <= CBI_IO_MERGE_BYTES) {
        last->next = pop(&io->writes);
        last = last->next;
        bytes += last->bytes;
    }
    last->next = NULL;
    return first;
}

static cbi_request *take_next(cbi_io *io) {
    bool read =
        io->reads.head != NULL && (io->writes.head == NULL || io->reads_in_row < READS_IN_ROW_MAX);
    io->reads_in_row = read ? io->reads_in_row + 1 : 0;
    if (read) {
        cbi_request *request = pop(&io->reads);
        request->next = NULL;
        return request;
    }
    return io->writes.head != NULL ? take_writes(io) : NULL;
}

/* One thing less under way. Whoever waits to say farewell may be waiting for just that. */
static void end_work(cbi_io *io) {
    io->used--;
    cbi_cond_signal(&io->room);
    if (io->closing && io->used == 0) {
        cbi_cond_broadcast(&io->wanted);
    }
}

static void run_requests(cbi_io *io, unsigned thread, cbi_request *first) {
    cbi_mutex_unlock(&io->lock);
    io->work.perform(io->work.ctx, thread, first);
    cbi_mutex_lock(&io->lock);
    while (first != NULL) {
        cbi_request *slot = first;
        first = slot->next;
        slot->next = io->unused;
        io->unused = slot;
        end_work(io);
    }
}

static void run_chores(cbi_io *io) {
    io->chore = false;
    io->used++;
    cbi_mutex_unlock(&io->lock);
    bool more = io->work.chore(io->work.ctx);
    cbi_mutex_lock(&io->lock);
    io->chore = io->chore || more;
    end_work(io);
}

static void run_thread(void *ctx) {
    struct cbi_io_thread *self = ctx;
    cbi_io *io = self->io;
    io_of_this_thread = io;
    cbi_mutex_lock(&io->lock);
    for (;;) {
        cbi_request *slot = take_next(io);
        if (slot != NULL) {
            run_requests(io, self->index, slot);
        } else if (io->closing && io->used == 0) {
            break; /* nobody uses a file any more, so that farewell may close them */
        } else if (io->chore && !io->closing) {
            run_chores(io);
        } else {
            cbi_cond_wait(&io->wanted, &io->lock);
        }
    }
    cbi_mutex_unlock(&io->lock);
    io->work.farewell(io->work.ctx);
}

cb_status cbi_io_init(cbi_io *io, unsigned threads, cbi_io_work work, cb_error *err) {
    cb_assert(threads <= CBI_IO_THREADS_MAX);
    *io = (cbi_io){.work = work};
    cbi_mutex_init(&io->lock, CBI_RANK_IO);
    cbi_cond_init(&io->wanted);
    cbi_cond_init(&io->room);
    io->ready = true;
    for (size_t i = sizeof io->slots / sizeof *io->slots; i-- > 0;) {
        io->slots[i].next = io->unused;
        io->unused = &io->slots[i];
    }
    for (unsigned i = 0; i < threads; i++) {
        io->threads[i] = (struct cbi_io_thread){.io = io, .index = i};
        char name[16];
        (void)snprintf(name, sizeof name, "carbide-io-%u", i % 10);
        CB_TRY(cbi_thread_start(&io->threads[i].thread, run_thread, &io->threads[i], name, err));
        io->thread_count++;
    }
    return CB_OK;
}

void cbi_io_fini(cbi_io *io) {
    if (!io->ready) {
        return;
    }
    cbi_mutex_lock(&io->lock);
    io->closing = true;
    cbi_cond_broadcast(&io->wanted);
    cbi_mutex_unlock(&io->lock);
    for (unsigned i = 0; i < io->thread_count; i++) {
        cbi_thread_join(&io->threads[i].thread);
    }
    cb_assert(io->used == 0);
    if (io->thread_count == 0) {
        io->work.farewell(io->work.ctx);
    }
    cbi_cond_fini(&io->room);
    cbi_cond_fini(&io->wanted);
    cbi_mutex_fini(&io->lock);
    *io = (cbi_io){0};
}

static cb_status perform_here(cbi_io *io, const cbi_request *request) {
    cbi_request alone = *request;
    alone.next = NULL;
    io->work.perform(io->work.ctx, 0, &alone);
    return CB_OK;
}

cb_status cbi_io_submit(cbi_io *io, const cbi_request *request, cb_error *err) {
    if (io->thread_count == 0) {
        return perform_here(io, request);
    }
    bool inside = io_of_this_thread == io;
    cbi_mutex_lock(&io->lock);
    while (!inside && io->used >= CBI_IO_DEPTH) {
        cbi_cond_wait(&io->room, &io->lock);
    }
    cbi_request *slot = io->unused;
    if (slot == NULL) {
        cbi_mutex_unlock(&io->lock);
        return cbi_fail(err, CB_EAGAIN, "callbacks have asked for more than %d transfers at once",
                        CBI_IO_RESERVE);
    }
    io->unused = slot->next;
    io->used++;
    *slot = *request;
    push(request->kind == CBI_IO_READ ? &io->reads : &io->writes, slot);
    cbi_cond_signal(&io->wanted);
    cbi_mutex_unlock(&io->lock);
    return CB_OK;
}

void cbi_io_wake(cbi_io *io) {
    if (io->thread_count == 0) {
        while (io->work.chore(io->work.ctx)) {
        }
        return;
    }
    cbi_mutex_lock(&io->lock);
    io->chore = true;
    cbi_cond_signal(&io->wanted);
    cbi_mutex_unlock(&io->lock);
}
