/* SPDX-License-Identifier: Apache-2.0 */
/* What a server says of itself to clients of Redis: INFO, CONFIG, COMMAND, CLIENT. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "serve/serve.h"

static cbi_resp_word next(cbi_resp_args *a) {
    return cbi_resp_next(a->bytes, a->request, &a->at);
}

static void finished(cbi_connection *c) {
    c->in_at += (uint32_t)c->resp->request.taken;
}

static void say_text(cbi_connection *c, const char *text) {
    cbi_resp_say_bulk(c, text, strlen(text));
}

int64_t cbi_resp_id(const cb_server *s, const cbi_connection *c) {
    return (int64_t)c->generation * s->connections_max + (c - s->connections) + 1;
}

void cbi_resp_client(cb_server *s, cbi_connection *c, cbi_resp_args *a) {
    static const struct {
        const char *name;
        uint32_t words; /* after it */
    } known[] = {{"ID", 0}, {"GETNAME", 0}, {"SETNAME", 1}, {"SETINFO", 2}};
    enum { KNOWN = sizeof known / sizeof *known };
    cbi_resp_word w = next(a);
    size_t i = 0;
    while (i < KNOWN && !cbi_resp_is(w, known[i].name)) {
        i++;
    }
    if (i == KNOWN) {
        cbi_resp_say_error(c, "ERR", "unknown subcommand of CLIENT: ID, GETNAME, SETNAME, SETINFO");
    } else if (a->request->count != 2 + known[i].words) {
        cbi_resp_say_error(c, "ERR", "wrong number of arguments for this subcommand of CLIENT");
    } else if (i == 0) {
        cbi_resp_say_number(c, cbi_resp_id(s, c));
    } else if (i == 1) {
        cbi_resp_say_nil(c);
    } else {
        cbi_resp_say(c, "OK"); /* nobody shows it */
    }
    finished(c);
}

/* ---- options ---- */

/** Whether one of the patterns that follow stands for the name, in whatever letters. */
static bool is_wanted(cbi_resp_args a, const char *name) {
    enum { PATTERN_MAX = 64 };
    for (uint32_t i = 2; i < a.request->count; i++) {
        uint8_t small[PATTERN_MAX];
        const cbi_resp_word word = next(&a);
        for (size_t k = 0; k < word.count && k < PATTERN_MAX; k++) {
            uint8_t byte = word.bytes[k];
            small[k] = byte >= 'A' && byte <= 'Z' ? (uint8_t)(byte - 'A' + 'a') : byte;
        }
        const cbi_resp_word pattern = {small, word.count};
        const cbi_resp_word text = {(const uint8_t *)name, strlen(name)};
        if (word.count <= PATTERN_MAX && cbi_resp_matches(pattern, text)) {
            return true;
        }
    }
    return false;
}

/** What redis-benchmark and others look at. */
void cbi_resp_config(cb_server *s, cbi_connection *c, cbi_resp_args *a) {
    char number[24];
    (void)snprintf(number, sizeof number, "%llu", (unsigned long long)s->stats.budget_bytes);
    /* without a password it listens only where this machine alone is heard */
    static const char *const known[] = {"save", "appendonly", "protected-mode", "maxmemory"};
    const char *const values[] = {"", "no", "yes", number};
    enum { KNOWN = sizeof known / sizeof *known };
    if (!cbi_resp_is(next(a), "GET")) {
        cbi_resp_say_error(c, "ERR",
                           "unknown subcommand of CONFIG: GET; options are given at the start");
        finished(c);
        return;
    }
    int64_t count = 0;
    for (size_t i = 0; i < KNOWN; i++) {
        count += is_wanted(*a, known[i]);
    }
    cbi_resp_say_map(c, count);
    for (size_t i = 0; i < KNOWN; i++) {
        if (is_wanted(*a, known[i])) {
            say_text(c, known[i]);
            say_text(c, values[i]);
        }
    }
    finished(c);
}

void cbi_resp_command(cb_server *s, cbi_connection *c, cbi_resp_args *a) {
    (void)s;
    cbi_resp_word w = a->request->count > 1 ? next(a) : (cbi_resp_word){0};
    if (cbi_resp_is(w, "COUNT")) {
        cbi_resp_say_number(c, cbi_resp_command_count());
    } else if (a->request->count == 1 || cbi_resp_is(w, "INFO") || cbi_resp_is(w, "DOCS") ||
               cbi_resp_is(w, "LIST")) {
        cbi_resp_say_array(c, 0); /* no descriptions of them */
    } else {
        cbi_resp_say_error(c, "ERR", "unknown subcommand of COMMAND: COUNT, INFO, DOCS, LIST");
    }
    finished(c);
}

/* ---- figures ---- */

typedef struct figures {
    cb_server_stats t;
    cbi_replica_figures f;
    char text[1900]; /* with a bulk's head and end it is a short reply */
    size_t bytes;
} figures;

typedef void section_fn(const cb_server *s, figures *g);

CBI_PRINTF(2, 3) static void put(figures *g, const char *format, ...) {
    va_list list;
    size_t room = sizeof g->text - g->bytes;
    va_start(list, format);
    int length = vsnprintf(g->text + g->bytes, room, format, list);
    va_end(list);
    g->bytes += cbi_min((size_t)(length > 0 ? length : 0), room - 1);
}

#define N(field) ((unsigned long long)g->t.field)
#define F(field) ((unsigned long long)g->f.field)

static void put_server(const cb_server *s, figures *g) {
    put(g,
        "# Server\r\nserver_name:carbide\r\ncarbide_version:%s\r\nredis_mode:standalone\r\n"
        "tcp_port:%u\r\nuptime_in_seconds:%llu\r\n",
        CARBIDE_VERSION, (unsigned)s->address.port,
        (unsigned long long)((cbi_sys_clock_ns() - s->started_ns) / 1000000000));
}

static void put_clients(const cb_server *s, figures *g) {
    put(g, "# Clients\r\nconnected_clients:%llu\r\nmaxclients:%u\r\n", N(connections),
        (unsigned)s->connections_max);
}

static void put_memory(const cb_server *s, figures *g) {
    (void)s;
    put(g,
        "# Memory\r\nused_memory:%llu\r\nused_memory_peak:%llu\r\nmaxmemory:%llu\r\n"
        "blocks_memory:%llu\r\nblocks_memory_max:%llu\r\nblocks_disk:%llu\r\n"
        "memory_idle:%llu\r\n",
        N(accounted_bytes), N(accounted_peak_bytes), N(budget_bytes), N(memory_bytes),
        N(storage_max_bytes), N(disk_bytes), N(idle_bytes));
}

static void put_stats(const cb_server *s, figures *g) {
    (void)s;
    put(g,
        "# Stats\r\ntotal_commands_processed:%llu\r\nkeyspace_hits:%llu\r\n"
        "keyspace_misses:%llu\r\nevicted_keys:%llu\r\nrejected_connections:%llu\r\n",
        N(requests), N(hits), N(misses), N(evicted), N(connections_refused));
}

static void put_replication(const cb_server *s, figures *g) {
    put(g,
        "# Replication\r\nrole:master\r\nconnected_slaves:%llu\r\ncopies_here:%llu\r\n"
        "copies_short:%llu\r\ncopies_sent:%llu\r\ncopies_mended:%llu\r\n"
        "remote_cached_hits:%llu\r\n",
        F(peers), F(blocks), F(watched), F(sent), F(mended),
        (unsigned long long)(s->copies != NULL ? cbi_cached_hits(s->copies) : 0));
}

/** Of an executor whose directory is elsewhere. */
static void put_directory(const cb_server *s, figures *g) {
    cb_directory_state d = {0};
    if (s->directory.state == NULL) {
        return;
    }
    s->directory.state(s->directory.ctx, &d);
    put(g, "# Directory\r\ndirectory:%s\r\ndirectory_failures:%llu\r\n",
        d.status == CB_OK        ? "entered"
        : d.status == CB_EAGAIN  ? "telling"
        : d.status == CB_EEXISTS ? "ousted"
                                 : "unreachable",
        (unsigned long long)d.failures);
    if (d.words[0] != '\0') {
        put(g, "directory_error:%s\r\n", d.words);
    }
}

static void put_keyspace(const cb_server *s, figures *g) {
    (void)s;
    put(g, "# Keyspace\r\ndb0:keys=%llu,expires=0,avg_ttl=0\r\n", N(blocks));
}

#undef F
#undef N

static const struct {
    const char *name;
    section_fn *put;
} sections[] = {{"SERVER", put_server},           {"CLIENTS", put_clients},
                {"MEMORY", put_memory},           {"STATS", put_stats},
                {"REPLICATION", put_replication}, {"DIRECTORY", put_directory},
                {"KEYSPACE", put_keyspace}};

/** Whether that section, or all of them, is among the arguments; no arguments: all are. */
static bool is_asked(cbi_resp_args a, const char *name) {
    bool asked = a.request->count == 1;
    for (uint32_t i = 1; i < a.request->count && !asked; i++) {
        cbi_resp_word w = next(&a);
        asked = cbi_resp_is(w, name) || cbi_resp_is(w, "ALL") || cbi_resp_is(w, "DEFAULT") ||
                cbi_resp_is(w, "EVERYTHING");
    }
    return asked;
}

void cbi_resp_info(cb_server *s, cbi_connection *c, cbi_resp_args *a) {
    figures g = {.bytes = 0};
    cbi_server_stats(s, &g.t);
    if (s->copies != NULL) {
        g.f = cbi_copies_figures(s->copies);
    }
    for (size_t i = 0; i < sizeof sections / sizeof *sections; i++) {
        size_t before = g.bytes;
        if (is_asked(*a, sections[i].name)) {
            put(&g, "%s", before > 0 ? "\r\n" : "");
            size_t head = g.bytes;
            sections[i].put(s, &g);
            g.bytes = g.bytes > head ? g.bytes : before; /* it has none: no empty line for it */
        }
    }
    cbi_resp_say_bulk(c, g.text, g.bytes);
    finished(c);
}
