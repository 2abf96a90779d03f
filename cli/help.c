/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "options.h"
#include "text.h"

enum { HELP_COLUMN = 30 };

static const cli_option help_options[] = {
    {.id = 1, .name = "help", .help = "show this help", .hidden = true},
};
static const cli_group help_groups[] = {{"", help_options, CLI_COUNT(help_options)}};

const cli_verb cli_verb_help = {
    .name = "help",
    .summary = "what a command can do",
    .usage = "help [COMMAND]",
    .words =
        "sort group join dedupe partition gen simulate serve block top doctor completions version",
    .groups = help_groups,
    .group_count = 1,
};
const cli_verb cli_verb_version = {
    .name = "version",
    .summary = "which version this is",
    .usage = "version",
    .words = "",
    .groups = help_groups,
    .group_count = 1,
};

const cli_verb *const cli_verbs[] = {
    &cli_verb_sort,   &cli_verb_group,       &cli_verb_join,  &cli_verb_dedupe, &cli_verb_partition,
    &cli_verb_gen,    &cli_verb_simulate,    &cli_verb_serve, &cli_verb_block,  &cli_verb_top,
    &cli_verb_doctor, &cli_verb_completions, &cli_verb_help,  &cli_verb_version};
const size_t cli_verb_count = CLI_COUNT(cli_verbs);

/** "  -S, --memory=SIZE" ... then the help from HELP_COLUMN on, its lines below each other. */
static void add_option(cli_text *out, const cli_option *o) {
    size_t start = out->used;
    const char *meta = o->meta != NULL ? o->meta : "";
    if (o->letter != '\0')
        cli_text_add(out, "  -%c", o->letter);
    else
        cli_text_add(out, "    ");
    if (o->name != NULL)
        cli_text_add(out, "%s--%s", o->letter != '\0' ? ", " : "  ", o->name);
    if (o->arg == CLI_ARG_OPTIONAL)
        cli_text_add(out, "[=%s]", meta);
    else if (o->arg == CLI_ARG_NEEDED)
        cli_text_add(out, "%s%s", o->name != NULL ? "=" : " ", meta);

    size_t column = out->used - start;
    if (column + 2 > HELP_COLUMN) {
        cli_text_add(out, "\n");
        column = 0;
    }
    const char *line = o->help;
    while (line != NULL) {
        int length = (int)strcspn(line, "\n");
        cli_text_add(out, "%*s%.*s\n", (int)(HELP_COLUMN - column), "", length, line);
        column = 0;
        line = line[length] == '\n' ? line + length + 1 : NULL;
    }
}

static void add_lines(cli_text *out, const char *before, const char *lines) {
    while (lines != NULL) {
        int length = (int)strcspn(lines, "\n");
        cli_text_add(out, "%s%.*s\n", length > 0 ? before : "", length, lines);
        lines = lines[length] == '\n' ? lines + length + 1 : NULL;
    }
}

static void add_overview(cli_text *out) {
    cli_text_add(out,
                 "carbide sorts files of any size in a memory budget that holds.\n\nExamples:\n");
    add_lines(
        out, "  ",
        "carbide sort -S 64M -o sorted.txt big.txt       1 TB or 1 KB, in 64 MiB for everything\n"
        "carbide sort -k price:num:desc -k city a.csv    by columns; the header stays on top\n"
        "carbide sort --gnu -k 2,2nr access.log          GNU sort's options, bytes and exit codes\n"
        "carbide gen records --bytes 1G -o big.txt       something to sort");
    cli_text_add(out, "\nCommands:\n");
    for (size_t i = 0; i < cli_verb_count; i++)
        cli_text_add(out, "  %-14s%s\n", cli_verbs[i]->name, cli_verbs[i]->summary);
    cli_text_add(out, "\n'carbide COMMAND --help' says more, and so does 'man carbide-COMMAND'.\n");
}

static void add_verb(cli_text *out, const cli_verb *verb) {
    cli_text_add(out, "carbide %s - %s\n", verb->name, verb->summary);
    if (verb->examples != NULL) {
        cli_text_add(out, "\nExamples:\n");
        add_lines(out, "  ", verb->examples);
    }
    cli_text_add(out, "\nUsage:\n");
    add_lines(out, "  carbide ", verb->usage);
    for (size_t g = 0; g < verb->group_count; g++) {
        if (verb->groups[g].heading[0] == '\0')
            continue;
        cli_text_add(out, "\n%s:\n", verb->groups[g].heading);
        for (size_t i = 0; i < verb->groups[g].count; i++)
            if (!verb->groups[g].options[i].hidden)
                add_option(out, &verb->groups[g].options[i]);
    }
    if (verb->notes != NULL) {
        cli_text_add(out, "\n");
        add_lines(out, "", verb->notes);
    }
}

int cli_help(const cli_verb *verb) {
    static char page[16 * 1024];
    cli_text out;
    cli_text_init(&out, page, sizeof page);
    if (verb == NULL)
        add_overview(&out);
    else
        add_verb(&out, verb);
    return cli_print(page);
}
