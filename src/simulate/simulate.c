/* SPDX-License-Identifier: Apache-2.0 */
#include "carbide/simulate.h"

#include <string.h>

#include "base/alloc.h"
#include "simulate/simulate.h"

struct cb_simulation {
    uint64_t lines;
    bool summary, picture;
    bool failed; /* no memory: nothing goes on */
    /* the manager of now: one of the two, or none */
    cbi_sim_kind kind; /* of the last config, also of a refused one; 0: there was none */
    cbi_sim_spark *spark, *boundless;
    cbi_sim_flink *flink, *boundless_flink;
    cbi_sim_text answer, unused, report;
    cbi_sim_part *parts, *part; /* first and current */
    cbi_sim_samples samples;
    bool begins; /* the next sample is a new manager's first */
};

static cb_status no_memory(cb_simulation *s, cb_error *err) {
    s->failed = true;
    return cbi_fail(err, CB_ENOMEM, "The system has no memory for line %llu of the trace.",
                    (unsigned long long)s->lines);
}

cb_status cb_simulation_create(const cb_simulation_options *options, cb_simulation **simulation,
                               cb_error *err) {
    if (options->struct_size != sizeof *options) {
        return cbi_fail(err, CB_EINVAL,
                        "cb_simulation_options has %zu bytes here, struct_size says %zu.",
                        sizeof *options, options->struct_size);
    }
    cb_simulation *s = cbi_calloc(1, sizeof *s);
    if (s == NULL) {
        return cbi_fail(err, CB_ENOMEM, "The system has no memory for a simulation.");
    }
    s->summary = options->summary;
    s->picture = options->picture;
    if (s->picture) {
        s->samples.stride = 1;
        s->samples.at = cbi_calloc(CBI_SIM_SAMPLES_MAX, sizeof *s->samples.at);
        if (s->samples.at == NULL) {
            cbi_free(s);
            return cbi_fail(err, CB_ENOMEM, "The system has no memory for a picture.");
        }
    }
    *simulation = s;
    return CB_OK;
}

static void destroy_managers(cb_simulation *s) {
    cbi_sim_spark_destroy(s->spark);
    cbi_sim_spark_destroy(s->boundless);
    cbi_sim_flink_destroy(s->flink);
    cbi_sim_flink_destroy(s->boundless_flink);
    s->spark = s->boundless = NULL;
    s->flink = s->boundless_flink = NULL;
}

void cb_simulation_destroy(cb_simulation *s) {
    if (s == NULL) {
        return;
    }
    destroy_managers(s);
    for (cbi_sim_part *part = s->parts, *next = NULL; part != NULL; part = next) {
        next = part->next;
        cbi_free(part);
    }
    cbi_free(s->samples.at);
    cbi_sim_text_fini(&s->answer);
    cbi_sim_text_fini(&s->unused);
    cbi_sim_text_fini(&s->report);
    cbi_free(s);
}

/* ---- config ---- */

/** The managers of a config, the second ones for the summary; false: no memory. */
static bool create_managers(cb_simulation *s, const cbi_sim_config *config) {
    if (config->kind == CBI_SIM_SPARK) {
        s->spark = cbi_sim_spark_create(config, false);
        s->boundless = s->summary ? cbi_sim_spark_create(config, true) : NULL;
        return s->spark != NULL && (s->boundless != NULL || !s->summary);
    }
    s->flink = cbi_sim_flink_create(config, false);
    s->boundless_flink = s->summary ? cbi_sim_flink_create(config, true) : NULL;
    return s->flink != NULL && (s->boundless_flink != NULL || !s->summary);
}

/** A new manager in place of the one before. */
static bool start_manager(cb_simulation *s, const cbi_sim_config *config) {
    cbi_sim_part *part = cbi_calloc(1, sizeof *part);
    destroy_managers(s);
    if (part == NULL || !create_managers(s, config)) {
        cbi_free(part);
        return false;
    }
    part->line = s->lines;
    part->config = *config;
    *(s->part != NULL ? &s->part->next : &s->parts) = part;
    s->part = part;
    s->begins = true;
    return true;
}

static cb_status configure(cb_simulation *s, const cbi_sim_words *words, cb_error *err) {
    cbi_sim_config config;
    CB_TRY(cbi_sim_read_config(words, &config, err));
    if (s->part == NULL) {
        s->kind = config.kind;
    }
    if (config.refusal != NULL) {
        cbi_sim_text_string(&s->answer, "error:");
        cbi_sim_text_string(&s->answer, config.refusal);
        return CB_OK;
    }
    if (!start_manager(s, &config)) {
        return no_memory(s, err);
    }
    s->kind = config.kind;
    cbi_sim_text_string(&s->answer, "ok");
    if (config.kind == CBI_SIM_FLINK) {
        cbi_sim_text_string(&s->answer, " size=");
        cbi_sim_text_number(&s->answer, config.memory);
        cbi_sim_text_string(&s->answer, config.off ? " type=OFF_HEAP" : " type=HEAP");
        cbi_sim_text_string(&s->answer, config.preallocate ? " prealloc=true" : " prealloc=false");
    }
    return CB_OK;
}

/* ---- operations ---- */

static void count(cb_simulation *s, const cbi_sim_call *call, const cbi_sim_effect *effect,
                  const cbi_sim_state *state) {
    cbi_sim_part *p = s->part;
    cb_region region = call->op == CBI_SIM_ACQUIRE_EXECUTION || call->op == CBI_SIM_ALLOCATE
                           ? CB_EXECUTION
                           : CB_STORAGE;
    p->operations++;
    if (effect->asked > 0) {
        p->calls[region][call->mode]++;
        p->short_calls[region][call->mode] += effect->refused;
        p->asked[region][call->mode] += effect->asked;
        p->granted[region][call->mode] += effect->granted;
    }
    p->blocked += effect->blocked;
    p->woken += effect->woken;
    p->errors += effect->error;
    p->evicted_blocks += effect->evicted_blocks;
    p->evicted_bytes += effect->evicted_bytes;
    for (int r = 0; r < 2; r++) {
        for (int mode = 0; mode < CB_MODE_COUNT; mode++) {
            if (state->used[r][mode] > p->peak[r][mode]) {
                p->peak[r][mode] = state->used[r][mode];
            }
        }
    }
}

static void note(cb_simulation *s, const cbi_sim_call *call, const cbi_sim_effect *effect) {
    cbi_sim_sample sample = {.line = s->lines, .kind = s->kind, .begins = s->begins};
    sample.evicted[call->mode] = effect->evicted_blocks > 0;
    sample.refused[call->mode] = effect->refused;
    sample.blocked[call->mode] = effect->blocked;
    if (s->spark != NULL) {
        cbi_sim_spark_state(s->spark, &sample.state);
    } else {
        cbi_sim_flink_state(s->flink, &sample.state);
    }
    count(s, call, effect, &sample.state);
    if (s->picture) {
        cbi_sim_sample_add(&s->samples, &sample);
        s->begins = false;
    }
}

/** What the trace wants, whether or not it gets it. */
static bool run_boundless(cb_simulation *s, const cbi_sim_call *call) {
    cbi_sim_need *need = &s->part->need;
    cbi_sim_effect effect = {0};
    bool ok = true;
    cbi_sim_text_clear(&s->unused);
    if (s->boundless != NULL) {
        ok = cbi_sim_spark_run(s->boundless, call, &s->unused, &effect);
        cbi_sim_spark_need(s->boundless, need);
    } else if (s->boundless_flink != NULL) {
        cbi_sim_state state;
        ok = cbi_sim_flink_run(s->boundless_flink, call, &s->unused, &effect);
        cbi_sim_flink_state(s->boundless_flink, &state);
        uint64_t pages = state.used[CB_EXECUTION][CB_HEAP];
        need->beyond = need->beyond || effect.refused;
        need->execution[CB_HEAP] = cbi_max(need->execution[CB_HEAP], pages);
    }
    return ok && !s->unused.failed;
}

static cb_status run(cb_simulation *s, const cbi_sim_words *words, cb_error *err) {
    cbi_sim_call call;
    cbi_sim_effect effect = {0};
    if (s->part == NULL && s->kind == 0) {
        return cbi_sim_complain(words, 0, 0, err,
                                "there is no manager yet: a config line comes first");
    }
    CB_TRY(cbi_sim_read_call(words, s->kind, &call, err));
    if (s->part == NULL) {
        return cbi_sim_complain(words, 0, 0, err,
                                "there is no manager: the config before was refused");
    }
    bool ok = s->spark != NULL ? cbi_sim_spark_run(s->spark, &call, &s->answer, &effect)
                               : cbi_sim_flink_run(s->flink, &call, &s->answer, &effect);
    if (!ok || !run_boundless(s, &call)) {
        return no_memory(s, err);
    }
    note(s, &call, &effect);
    return CB_OK;
}

static void print_state(cb_simulation *s) {
    cbi_sim_text_string(&s->answer, " | ");
    if (s->spark != NULL) {
        cbi_sim_spark_print(s->spark, &s->answer);
    } else if (s->flink != NULL) {
        cbi_sim_flink_print(s->flink, &s->answer);
    } else if (s->kind == CBI_SIM_SPARK) {
        cbi_sim_spark_print_nothing(&s->answer);
    } else {
        cbi_sim_flink_print_nothing(&s->answer);
    }
}

cb_status cb_simulation_line(cb_simulation *s, const char *line, size_t bytes, const char **answer,
                             cb_error *err) {
    cbi_sim_words words;
    s->lines++;
    if (s->failed) {
        return no_memory(s, err);
    }
    CB_TRY(cbi_sim_split(line, bytes, s->lines, &words, err));
    if (words.count == 0) {
        *answer = NULL;
        return CB_OK;
    }
    cbi_sim_text_clear(&s->answer);
    cbi_sim_text_number(&s->answer, s->lines);
    cbi_sim_text_string(&s->answer, " ");
    cbi_sim_text_add(&s->answer, words.line, words.bytes);
    cbi_sim_text_string(&s->answer, " -> ");
    CB_TRY(cbi_sim_word_is(&words, 0, "config") ? configure(s, &words, err) : run(s, &words, err));
    print_state(s);
    if (s->answer.failed) {
        return no_memory(s, err);
    }
    *answer = s->answer.data;
    return CB_OK;
}

/* ---- looking back ---- */

static cb_status finish_report(cb_simulation *s, const char **text, cb_error *err) {
    if (s->report.failed) {
        cbi_sim_text_fini(&s->report);
        return cbi_fail(err, CB_ENOMEM, "The system has no memory for what is to be told.");
    }
    *text = s->report.data != NULL ? s->report.data : "";
    return CB_OK;
}

cb_status cb_simulation_summary(cb_simulation *s, const char **text, cb_error *err) {
    if (!s->summary) {
        return cbi_fail(err, CB_EINVAL, "This simulation was made without the option `summary`.");
    }
    cbi_sim_text_clear(&s->report);
    cbi_sim_write_summary(s->parts, &s->report);
    return finish_report(s, text, err);
}

cb_status cb_simulation_picture(cb_simulation *s, const char *title, const char **text,
                                cb_error *err) {
    if (!s->picture) {
        return cbi_fail(err, CB_EINVAL, "This simulation was made without the option `picture`.");
    }
    cbi_sim_text_clear(&s->report);
    cbi_sim_write_picture(&s->samples, title, &s->report);
    return finish_report(s, text, err);
}
