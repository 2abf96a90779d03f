/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_OPTIONS_H
#define CLI_OPTIONS_H

#include "cli.h"

/*
 * One table per verb says which options there are. The parser, --help and the shell completions are
 * all made from it, and a test holds the man pages against it.
 */

typedef enum cli_arg { CLI_ARG_NONE = 0, CLI_ARG_NEEDED, CLI_ARG_OPTIONAL } cli_arg;

typedef struct cli_option {
    int id;           /* > 0; two names with one id mean the same */
    char letter;      /* 0 = long only */
    const char *name; /* without the dashes; NULL = letter only */
    cli_arg arg;
    const char *meta;   /* the argument's name in the help */
    const char *values; /* for completions: "a b c", "@file", "@dir", or NULL */
    const char *help;   /* one or more lines */
    bool gnu;           /* GNU sort has it too; such options win when a name is abbreviated */
    bool hidden;        /* understood, but not worth a line */
} cli_option;

typedef struct cli_group {
    const char *heading;
    const cli_option *options;
    size_t count;
} cli_group;

typedef struct cli_verb {
    const char *name; /* "sort" */
    const char *summary;
    const char *usage;    /* lines after "carbide ", separated by LF */
    const char *examples; /* lines of "command  # what it does" */
    const char *notes;    /* after the options, or NULL */
    const char *words;    /* operands for completions: "a b c", or NULL = files */
    const cli_group *groups;
    size_t group_count;
} cli_verb;

extern const cli_verb cli_verb_sort, cli_verb_group, cli_verb_join, cli_verb_dedupe,
    cli_verb_partition, cli_verb_gen, cli_verb_simulate, cli_verb_serve, cli_verb_block,
    cli_verb_top, cli_verb_doctor, cli_verb_completions, cli_verb_help, cli_verb_version;
extern const cli_verb *const cli_verbs[];
extern const size_t cli_verb_count;

/**
 * Reads an argument list as getopt_long does: letters in clusters, --name=value, --name value,
 * unique abbreviations, operands anywhere (first with POSIXLY_CORRECT), "--" ends the options.
 */
typedef struct cli_parser {
    const cli_verb *verb;
    int argc;
    char **argv; /* operands are gathered at its front, from [0] on */
    int next;
    const char *cluster; /* rest of a group of letters */
    size_t operand_count;
    bool operands_only;
    bool stop_at_operand;
    char seen[80]; /* the option as given: "-S" or "--memory" */
} cli_parser;

enum { CLI_PARSE_END = 0, CLI_PARSE_ERROR = -1 };

void cli_parser_init(cli_parser *parser, const cli_verb *verb, int argc, char **argv);
/** The next option's id, CLI_PARSE_END, or CLI_PARSE_ERROR after a message. *value is NULL where
 * there is none. */
int cli_parser_next(cli_parser *parser, const char **value);

/** Finds a word of "a b c" by a unique abbreviation: its position, -1 none, -2 ambiguous. */
int cli_word_find(const char *words, const char *text);

/** The help of a verb, or the overview when NULL, on standard output. Answers the exit code. */
int cli_help(const cli_verb *verb);

#endif
