/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A block that is asked for here and lies elsewhere. The directory says who has it; of those that
 * have its newest generation the nearest is asked, and the next one when he does not answer, has it
 * no more, is too slow or sends other bytes, or more of them. They come into memory as those of a
 * put do, which is given back when the client has them: no copy stays, unless that is wanted
 * (copies_cache.c). The client's connection is a fetcher's meanwhile.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "serve/copies_private.h"

/** "$BYTES"; what came behind it lies at head + *at. false: it has none, or is not to be believed.
 */
static bool receive_head(cbi_wire *w, char head[CBI_COPIES_LINE], size_t *at, size_t *end,
                         uint64_t *bytes) {
    char *line_end = NULL;
    for (*end = 0; line_end == NULL;) {
        size_t got = 0;
        if (*end == CBI_COPIES_LINE - 1 ||
            !cbi_wire_receive(w, head + *end, CBI_COPIES_LINE - 1 - *end, &got)) {
            return false;
        }
        *end += got;
        head[*end] = '\0';
        line_end = strstr(head, "\r\n");
    }
    *at = (size_t)(line_end - head) + 2;
    *line_end = '\0';
    if (head[0] != '$' || head[1] < '0' || head[1] > '9') {
        return false; /* nothing, or why not */
    }
    *bytes = strtoull(head + 1, NULL, 10);
    return true;
}

/** As many as the directory was told; of what lies on disk, compressed perhaps, it does not know.
 *  Who announces more than he has would have what is here evicted for it. */
static bool is_its_size(const cb_place *place, uint64_t bytes) {
    bool known = place->memory_bytes > 0 && !(place->level & CB_LEVEL_IS_DESERIALISED);
    return !known || bytes == place->memory_bytes;
}

/** All of it into c->fill. CB_EIO: not from him. */
static cb_status receive_block(cbi_wire *w, cbi_connection *c, const cb_place *place,
                               cb_error *err) {
    char head[CBI_COPIES_LINE], name[CB_BLOCK_NAME_MAX + 1];
    size_t at = 0, end = 0, got = 0;
    uint64_t bytes = 0;
    XXH3_state_t sum;
    if (!receive_head(w, head, &at, &end, &bytes)) {
        return cbi_fail(err, CB_EIO, "Block %s did not come.", c->name);
    }
    if (!is_its_size(place, bytes)) {
        return cbi_fail(err, CB_EIO, "Block %s is not as long as it was said to be.", c->name);
    }
    cbi_wire_limit(w, CBI_WIRE_LINE_MS, bytes);
    cbi_cached_begin(w->copies, c, name);
    CB_TRY(
        cbi_fill_begin_over(c->task, name, CB_LEVEL_MEMORY_ONLY_SER, bytes, true, &c->fill, err));
    (void)XXH3_64bits_reset(&sum);
    while (c->fill.filled < bytes) {
        uint8_t *to = NULL;
        size_t room = 0;
        CB_TRY(cbi_fill_room(&c->fill, &to, &room, err));
        room = (size_t)cbi_min(room, bytes - c->fill.filled);
        got = cbi_min(end - at, room);
        memcpy(to, head + at, got);
        at += got;
        if (got == 0 && !cbi_wire_receive(w, to, room, &got)) {
            return cbi_fail(err, CB_EIO, "Block %s did not come to its end.", c->name);
        }
        cbi_sum_add(&sum, to, got);
        cbi_fill_add(&c->fill, got);
    }
    for (size_t tail = end - at; tail < 2; tail += got) { /* the end of its line */
        if (!cbi_wire_receive(w, head, 2 - tail, &got)) {
            return cbi_fail(err, CB_EIO, "Block %s did not come to its end.", c->name);
        }
    }
    return XXH3_64bits_digest(&sum) == place->checksum
               ? CB_OK
               : cbi_fail(err, CB_EIO, "Block %s came otherwise than it was put.", c->name);
}

static cb_status fetch_from(cbi_copy_fetcher *f, cbi_connection *c, const char *address,
                            const cb_place *place, cb_error *err) {
    cbi_wire w = {.copies = f->copies, .fd = f->fd};
    cbi_wire_request r;
    if (address[0] == '\0') {
        return cbi_fail(err, CB_EIO, "Who has block %s is not known.", c->name);
    }
    if (w.fd >= 0 && (strcmp(f->address, address) != 0 || !cbi_wire_is_alive(&w))) {
        cbi_wire_close(&w);
    }
    uint64_t begun_ns = cbi_sys_clock_ns();
    bool there = w.fd >= 0 || cbi_wire_open(f->copies, address, &w);
    cbi_wire_begin(&r, 3);
    cbi_wire_word(&r, "CARBIDE.GET");
    cbi_wire_word(&r, c->name);
    cbi_wire_number(&r, place->block_generation);
    cb_status status = CB_EIO;
    cbi_wire_limit(&w, CBI_WIRE_LINE_MS, 0);
    if (there && cbi_wire_send(&w, r.bytes, r.count)) {
        status = receive_block(&w, c, place, err);
        if (status == CB_OK) {
            status = cbi_cached_keep(c, place, err);
        }
    } else {
        status = cbi_fail(err, CB_EIO, "The executor at %.127s does not answer.", address);
    }
    if (status != CB_OK) {
        cbi_fill_cancel(&c->fill);
        cbi_wire_close(&w);
    }
    cbi_wire_came_to(f->copies, address, begun_ns, status != CB_EIO);
    memcpy(f->address, address, strlen(address) + 1);
    f->fd = w.fd;
    return status;
}

/** Of those that are believed; of the others only where there are none: they are read as ever. */
static uint64_t newest_of(const cb_location *locations, size_t count) {
    uint64_t newest = 0, believed = 0;
    for (size_t i = 0; i < count; i++) {
        uint64_t generation = locations[i].place.block_generation;
        newest = cbi_max(newest, generation);
        believed = cbi_max(believed, cbi_server_believes(generation) ? generation : 0);
    }
    return believed > 0 ? believed : newest;
}

/** Who has the newest, the nearest first, each with its address ("": not known); how many. */
static size_t find_sources(cbi_copies *cp, cbi_copy_fetcher *f, const char *name, size_t count) {
    size_t order[CBI_COPY_VIEWS], found = 0;
    uint64_t newest = newest_of(f->locations, count);
    cbi_server_heard_of(cp->server, newest); /* who has read it puts a newer one */
    cbi_mutex_lock(&cp->mutex);
    if (newest > 0 && !cbi_replica_is_buried(cp->machine, name, newest)) {
        found = cbi_replica_sources(cp->machine, f->locations, count, newest, 0, order);
    }
    for (size_t i = 0; i < found; i++) {
        cbi_copy_source *s = &f->sources[i];
        const cb_location *l = &f->locations[order[i]];
        *s = (cbi_copy_source){.place = l->place};
        for (size_t j = 0; j < cp->view_count; j++) {
            const cb_executor_view *v = &cp->views[j];
            if (strcmp(v->name, l->executor) == 0 && v->generation == l->generation) {
                memcpy(s->address, v->address, sizeof s->address);
            }
        }
    }
    cbi_mutex_unlock(&cp->mutex);
    return found;
}

static bool directory_answers(cbi_copies *cp) {
    cbi_mutex_lock(&cp->mutex);
    bool answers = cp->answers;
    cbi_mutex_unlock(&cp->mutex);
    return answers;
}

cb_status cbi_copies_fetch_now(cbi_copies *cp, cbi_copy_fetcher *f, cbi_connection *c,
                               cb_error *err) {
    const cb_directory *d = &cp->server->directory;
    size_t count = 0;
    /* One that hangs is not waited for by each: the keeper asks it twice a second. */
    bool answers = directory_answers(cp);
    cb_status located = CB_OK;
    if (answers) {
        located = d->locate(d->ctx, c->name, f->locations, CBI_COPY_VIEWS, &count, NULL);
    }
    if (located == CB_EAGAIN) {
        return cbi_fail(err, CB_EAGAIN,
                        "Block %s is not here, and the directory is being told again who has it.",
                        c->name);
    }
    if (located != CB_OK) {
        cbi_mutex_lock(&cp->mutex);
        answers = cp->answers = false;
        cbi_mutex_unlock(&cp->mutex);
    }
    if (!answers) {
        return cbi_fail(err, CB_EAGAIN,
                        "Block %s is not here, and the directory does not say where it is.",
                        c->name);
    }
    count = find_sources(cp, f, c->name, cbi_min(count, CBI_COPY_VIEWS));
    if (count > 0 && cbi_cached_get(cp, c, &f->sources[0].place)) {
        return CB_OK;
    }
    if (count == 0) {
        return cbi_fail(err, CB_ENOTFOUND, "Nobody has block %s.", c->name);
    }
    /* also when there was no room here for what one has announced: another may announce less */
    cb_status status = CB_EIO;
    bool theirs = false;
    for (size_t i = 0; i < count && status != CB_OK && !atomic_load(&cp->quit); i++) {
        status = fetch_from(f, c, f->sources[i].address, &f->sources[i].place, err);
        theirs = theirs || status == CB_EIO;
    }
    return status != CB_OK && (theirs || status == CB_EIO)
               ? cbi_fail(err, CB_EAGAIN,
                          "Block %s is not here, and none of %zu executors that should have it "
                          "gives it.",
                          c->name, count)
               : status;
}

static void answer(cbi_copies *cp, cbi_connection *c, cb_status status, const cb_error *err) {
    cbi_resp_note(c, status, err);
    c->failed = status != CB_OK;
    cbi_server_hand_back(cp->server, c);
}

bool cbi_copies_fetch(cbi_copies *cp, cbi_connection *c) {
    cbi_mutex_lock(&cp->mutex);
    bool takes = !cp->stopped && !atomic_load(&cp->quit);
    if (takes) {
        c->next_job = NULL;
        *(cp->fetch_last != NULL ? &cp->fetch_last->next_job : &cp->fetch_first) = c;
        cp->fetch_last = c;
        cbi_cond_signal(&cp->wake_fetchers);
    }
    cbi_mutex_unlock(&cp->mutex);
    return takes;
}

/** [mutex] */
static cbi_connection *take_fetch(cbi_copies *cp) {
    cbi_connection *c = cp->fetch_first;
    if (c != NULL) {
        cp->fetch_first = c->next_job;
        cp->fetch_last = cp->fetch_first != NULL ? cp->fetch_last : NULL;
    }
    return c;
}

void cbi_copies_fetch_all(void *ctx) {
    cbi_copy_fetcher *f = ctx;
    cbi_copies *cp = f->copies;
    cbi_mutex_lock(&cp->mutex);
    while (!atomic_load(&cp->quit)) {
        cbi_connection *c = take_fetch(cp);
        if (c == NULL) {
            cbi_cond_wait(&cp->wake_fetchers, &cp->mutex);
            continue;
        }
        cbi_mutex_unlock(&cp->mutex);
        cb_error err = {.message = ""};
        cb_status status = CB_OK;
        bool ready = true;
        if (c->resp->computes) {
            ready = cbi_copies_compute(cp, f, c, &status, &err);
        } else {
            status = cbi_copies_fetch_now(cp, f, c, &err);
        }
        if (ready) {
            answer(cp, c, status, &err);
        }
        cbi_mutex_lock(&cp->mutex);
    }
    cbi_mutex_unlock(&cp->mutex);
}

void cbi_copies_fetch_none(cbi_copies *cp) {
    cb_error err;
    cbi_mutex_lock(&cp->mutex);
    for (cbi_connection *c = take_fetch(cp); c != NULL; c = take_fetch(cp)) {
        cb_status status = cbi_fail(&err, CB_EAGAIN, "The server is about to end.");
        answer(cp, c, status, &err);
    }
    cbi_mutex_unlock(&cp->mutex);
}
