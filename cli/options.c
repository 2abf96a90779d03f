/* SPDX-License-Identifier: Apache-2.0 */
#include "options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void cli_parser_init(cli_parser *parser, const cli_verb *verb, int argc, char **argv) {
    *parser = (cli_parser){.verb = verb, .argc = argc, .argv = argv, .next = 1};
    parser->stop_at_operand = getenv("POSIXLY_CORRECT") != NULL;
}

static const cli_option *find_letter(const cli_verb *verb, char letter) {
    for (size_t g = 0; g < verb->group_count; g++)
        for (size_t i = 0; i < verb->groups[g].count; i++)
            if (verb->groups[g].options[i].letter == letter)
                return &verb->groups[g].options[i];
    return NULL;
}

/** How many different options begin with the name; *found is the first of them. An exact name is
 * always the one. */
static size_t find_name(const cli_verb *verb, const char *name, size_t length, bool gnu_only,
                        const cli_option **found) {
    size_t matches = 0;
    for (size_t g = 0; g < verb->group_count; g++) {
        for (size_t i = 0; i < verb->groups[g].count; i++) {
            const cli_option *o = &verb->groups[g].options[i];
            if (o->name == NULL || (gnu_only && !o->gnu) || strncmp(o->name, name, length) != 0)
                continue;
            if (o->name[length] == '\0') {
                *found = o;
                return 1;
            }
            if (matches == 0 || (*found)->id != o->id) {
                if (matches++ == 0)
                    *found = o;
            }
        }
    }
    return matches;
}

static size_t edit_distance(const char *a, size_t a_length, const char *b) {
    enum { WIDTH = 40 };
    size_t row[WIDTH + 1];
    size_t b_length = strlen(b);
    if (a_length > WIDTH || b_length > WIDTH)
        return WIDTH;
    for (size_t j = 0; j <= b_length; j++)
        row[j] = j;
    for (size_t i = 1; i <= a_length; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b_length; j++) {
            size_t best = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            best = row[j] + 1 < best ? row[j] + 1 : best;
            row[j] = row[j - 1] + 1 < best ? row[j - 1] + 1 : best;
        }
    }
    return row[b_length];
}

static const char *nearest_name(const cli_verb *verb, const char *name, size_t length) {
    const char *nearest = NULL;
    size_t distance = 3; /* further than two slips is no help */
    for (size_t g = 0; g < verb->group_count; g++) {
        for (size_t i = 0; i < verb->groups[g].count; i++) {
            const char *candidate = verb->groups[g].options[i].name;
            size_t d = candidate == NULL ? distance : edit_distance(name, length, candidate);
            if (d < distance) {
                distance = d;
                nearest = candidate;
            }
        }
    }
    return nearest;
}

static int say_ambiguous(const cli_verb *verb, const char *name, size_t length) {
    char list[512] = "";
    size_t used = 0;
    for (size_t g = 0; g < verb->group_count; g++) {
        for (size_t i = 0; i < verb->groups[g].count; i++) {
            const cli_option *o = &verb->groups[g].options[i];
            if (o->name == NULL || strncmp(o->name, name, length) != 0 || used >= sizeof list)
                continue;
            int n = snprintf(list + used, sizeof list - used, " '--%s'", o->name);
            used += n > 0 ? (size_t)n : 0;
        }
    }
    cli_usage_error(verb->name, "option '--%s' is ambiguous; possibilities:%s", name, list);
    return CLI_PARSE_ERROR;
}

static int next_long(cli_parser *p, char *text, const char **value) {
    const char *equals = strchr(text, '=');
    size_t length = equals != NULL ? (size_t)(equals - text) : strlen(text);
    const cli_option *o = NULL;

    /* Old habits first: an abbreviation that is unique among GNU sort's options keeps its meaning.
     */
    size_t matches = find_name(p->verb, text, length, true, &o);
    if (matches != 1)
        matches = find_name(p->verb, text, length, false, &o);
    if (matches == 0) {
        const char *near = nearest_name(p->verb, text, length);
        if (near != NULL)
            cli_usage_error(p->verb->name, "unrecognized option '--%s'; did you mean '--%s'?", text,
                            near);
        else
            cli_usage_error(p->verb->name, "unrecognized option '--%s'", text);
        return CLI_PARSE_ERROR;
    }
    if (matches > 1)
        return say_ambiguous(p->verb, text, length);
    snprintf(p->seen, sizeof p->seen, "--%s", o->name);
    if (equals != NULL) {
        if (o->arg == CLI_ARG_NONE) {
            cli_usage_error(p->verb->name, "option '--%s' doesn't allow an argument", o->name);
            return CLI_PARSE_ERROR;
        }
        *value = equals + 1;
    } else if (o->arg == CLI_ARG_NEEDED) {
        if (p->next >= p->argc) {
            cli_usage_error(p->verb->name, "option '--%s' requires an argument", o->name);
            return CLI_PARSE_ERROR;
        }
        *value = p->argv[p->next++];
    }
    return o->id;
}

static int next_letter(cli_parser *p, const char **value) {
    char letter = *p->cluster++;
    const cli_option *o = find_letter(p->verb, letter);
    if (o == NULL || letter == '\0') {
        cli_usage_error(p->verb->name, "invalid option -- '%c'", letter);
        return CLI_PARSE_ERROR;
    }
    snprintf(p->seen, sizeof p->seen, "-%c", letter);
    if (o->arg == CLI_ARG_NEEDED) {
        if (*p->cluster != '\0') {
            *value = p->cluster;
        } else if (p->next < p->argc) {
            *value = p->argv[p->next++];
        } else {
            cli_usage_error(p->verb->name, "option requires an argument -- '%c'", letter);
            return CLI_PARSE_ERROR;
        }
        p->cluster = NULL;
    } else if (*p->cluster == '\0') {
        p->cluster = NULL;
    }
    return o->id;
}

int cli_parser_next(cli_parser *p, const char **value) {
    *value = NULL;
    if (p->cluster != NULL)
        return next_letter(p, value);
    while (p->next < p->argc) {
        char *text = p->argv[p->next++];
        if (p->operands_only || text[0] != '-' || text[1] == '\0') {
            p->operands_only |= p->stop_at_operand;
            p->argv[p->operand_count++] = text;
            continue;
        }
        if (text[1] != '-') {
            p->cluster = text + 1;
            return next_letter(p, value);
        }
        if (text[2] != '\0')
            return next_long(p, text + 2, value);
        p->operands_only = true;
    }
    return CLI_PARSE_END;
}

int cli_word_find(const char *words, const char *text) {
    size_t length = strlen(text);
    int found = -1;
    int position = 0;
    for (const char *w = words; length > 0 && *w != '\0'; position++) {
        size_t word_length = strcspn(w, " ");
        if (word_length >= length && memcmp(w, text, length) == 0) {
            if (word_length == length)
                return position;
            found = found == -1 ? position : -2;
        }
        w += word_length;
        w += strspn(w, " ");
    }
    return found;
}
