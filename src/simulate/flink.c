/* SPDX-License-Identifier: Apache-2.0 */
/* Flink's manager: pages with owners. */
#include <string.h>

#include "base/alloc.h"
#include "simulate/simulate.h"

typedef struct owner {
    struct owner *next; /* by name */
    uint64_t pages;
    cbi_sim_name name;
} owner;

struct cbi_sim_flink {
    uint64_t page, total, taken, slots;
    bool shut_down;
    owner *owners;
};

static owner **find_place(cbi_sim_flink *f, const cbi_sim_name *name) {
    owner **at = &f->owners;
    while (*at != NULL && strcmp((*at)->name.text, name->text) < 0) {
        at = &(*at)->next;
    }
    return at;
}

static owner *find_owner(cbi_sim_flink *f, const cbi_sim_name *name) {
    owner *o = *find_place(f, name);
    return o != NULL && strcmp(o->name.text, name->text) == 0 ? o : NULL;
}

static void give_back(cbi_sim_flink *f, const cbi_sim_name *name, uint64_t pages) {
    owner **at = find_place(f, name);
    owner *o = *at;
    o->pages -= pages;
    f->taken -= pages;
    if (o->pages == 0) {
        *at = o->next;
        cbi_free(o);
    }
}

static bool allocate(cbi_sim_flink *f, const cbi_sim_call *call, cbi_sim_text *out,
                     cbi_sim_effect *effect) {
    effect->asked = call->bytes;
    if (call->bytes > f->total - f->taken) {
        effect->refused = true;
        cbi_sim_text_string(out, "refused");
        return true;
    }
    owner *o = find_owner(f, &call->name);
    if (o == NULL && call->bytes > 0) {
        owner **at = find_place(f, &call->name);
        o = cbi_calloc(1, sizeof *o);
        if (o == NULL) {
            return false;
        }
        o->name = call->name;
        o->next = *at;
        *at = o;
    }
    if (o != NULL) {
        o->pages += call->bytes;
    }
    f->taken += call->bytes;
    effect->granted = call->bytes;
    cbi_sim_text_number(out, call->bytes);
    return true;
}

static void release(cbi_sim_flink *f, const cbi_sim_call *call, cbi_sim_text *out) {
    const owner *o = find_owner(f, &call->name);
    uint64_t held = o != NULL ? o->pages : 0;
    uint64_t pages = call->op == CBI_SIM_RELEASE_ALL || call->bytes > held ? held : call->bytes;
    if (pages > 0) {
        give_back(f, &call->name, pages);
    }
    cbi_sim_text_string(out, call->op == CBI_SIM_RELEASE_ALL ? "ok freed=" : "");
    cbi_sim_text_number(out, pages);
}

/** Java's (int)(pages * fraction / slots), slots 0 included. */
static uint64_t share(const cbi_sim_flink *f, double fraction) {
    double pages = (double)f->total * fraction / (double)f->slots;
    return pages >= (double)INT32_MAX ? INT32_MAX : (uint64_t)pages;
}

bool cbi_sim_flink_run(cbi_sim_flink *f, const cbi_sim_call *call, cbi_sim_text *out,
                       cbi_sim_effect *effect) {
    bool ok = true;
    bool needs_life = call->op == CBI_SIM_ALLOCATE || call->op == CBI_SIM_RELEASE_LIST ||
                      call->op == CBI_SIM_RELEASE_ALL;
    bool is_fraction = call->op == CBI_SIM_NUM_PAGES || call->op == CBI_SIM_MEMORY_SIZE;
    if (needs_life && f->shut_down) {
        effect->error = true;
        cbi_sim_text_string(out, "error:IllegalStateException");
        return true;
    }
    if (is_fraction && !(call->fraction > 0 && call->fraction <= 1)) {
        effect->error = true;
        cbi_sim_text_string(out, "error:IllegalArgumentException");
        return true;
    }
    switch ((int)call->op) {
        case CBI_SIM_ALLOCATE: ok = allocate(f, call, out, effect); break;
        case CBI_SIM_RELEASE:
        case CBI_SIM_RELEASE_LIST:
        case CBI_SIM_RELEASE_ALL: release(f, call, out); break;
        case CBI_SIM_NUM_PAGES: cbi_sim_text_number(out, share(f, call->fraction)); break;
        case CBI_SIM_MEMORY_SIZE:
            cbi_sim_text_number(out, f->page * share(f, call->fraction));
            break;
        case CBI_SIM_ROUND_DOWN: cbi_sim_text_number(out, call->bytes & ~(f->page - 1)); break;
        case CBI_SIM_SHUTDOWN:
            f->shut_down = true;
            cbi_sim_text_string(out, "ok");
            break;
        default: cbi_sim_text_string(out, "ok"); break;
    }
    return ok;
}

static void print_state(uint64_t taken, uint64_t total, uint64_t page, bool empty, bool shut_down,
                        const owner *owners, cbi_sim_text *out) {
    cbi_sim_text_print(out, "pages=%llu/%llu page=%llu empty=%s shutdown=%s owners{",
                       (unsigned long long)taken, (unsigned long long)total,
                       (unsigned long long)page, empty ? "true" : "false",
                       shut_down ? "true" : "false");
    for (const owner *o = owners; o != NULL; o = o->next) {
        cbi_sim_text_add(out, o->name.text, o->name.bytes);
        cbi_sim_text_string(out, "=");
        cbi_sim_text_number(out, o->pages);
        cbi_sim_text_string(out, o->next != NULL ? " " : "");
    }
    cbi_sim_text_string(out, "}");
}

void cbi_sim_flink_print(const cbi_sim_flink *f, cbi_sim_text *out) {
    print_state(f->taken, f->total, f->page, f->taken == 0 && !f->shut_down, f->shut_down,
                f->owners, out);
}

void cbi_sim_flink_print_nothing(cbi_sim_text *out) {
    print_state(0, 0, 0, true, false, NULL, out);
}

void cbi_sim_flink_state(const cbi_sim_flink *f, cbi_sim_state *state) {
    *state = (cbi_sim_state){0};
    state->used[CB_EXECUTION][CB_HEAP] = f->taken;
    state->size[CB_EXECUTION][CB_HEAP] = f->total;
}

cbi_sim_flink *cbi_sim_flink_create(const cbi_sim_config *c, bool boundless) {
    cbi_sim_flink *f = cbi_calloc(1, sizeof *f);
    if (f != NULL) {
        f->page = c->page;
        f->total = boundless ? INT32_MAX : c->memory / c->page;
        f->slots = c->slots;
    }
    return f;
}

void cbi_sim_flink_destroy(cbi_sim_flink *f) {
    if (f == NULL) {
        return;
    }
    for (owner *o = f->owners, *next = NULL; o != NULL; o = next) {
        next = o->next;
        cbi_free(o);
    }
    cbi_free(f);
}
