/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "options.h"
#include "text.h"

static const cli_option options[] = {{.id = 1, .letter = 'h', .name = "help", .help = "this"}};
static const cli_group groups[] = {{"Options", options, CLI_COUNT(options)}};
const cli_verb cli_verb_completions = {
    .name = "completions",
    .summary = "prints what bash, zsh or fish need to complete options",
    .usage = "completions bash|zsh|fish",
    .examples = "carbide completions bash > ~/.local/share/bash-completion/completions/carbide\n"
                "carbide completions zsh > \"${fpath[1]}/_carbide\"\n"
                "carbide completions fish > ~/.config/fish/completions/carbide.fish",
    .words = "bash zsh fish",
    .groups = groups,
    .group_count = CLI_COUNT(groups),
};

enum { PAGE_BYTES = 32 * 1024 };

typedef void (*option_fn)(cli_text *out, const cli_verb *verb, const cli_option *option);

static void each_option(cli_text *out, const cli_verb *verb, option_fn fn) {
    for (size_t g = 0; g < verb->group_count; g++)
        for (size_t i = 0; i < verb->groups[g].count; i++)
            fn(out, verb, &verb->groups[g].options[i]);
}

/** The help up to its first detail, without what shells would take for their own. */
static void add_plain(cli_text *out, const char *help) {
    for (const char *p = help; *p != '\0'; p++) {
        bool detail =
            strncmp(p, " (", 2) == 0 || ((*p == ':' || *p == ';') && (p[1] == ' ' || p[1] == '\n'));
        if (detail && p > help)
            break;
        if (strchr("'\"[]\\`$", *p) == NULL)
            cli_text_add(out, "%c", *p == '\n' ? ' ' : *p);
    }
}

/* ---- bash ---- */

static void bash_name(cli_text *out, const cli_verb *verb, const cli_option *o) {
    (void)verb;
    if (o->letter != '\0')
        cli_text_add(out, "-%c ", o->letter);
    if (o->name != NULL)
        cli_text_add(out, "--%s%s ", o->name, o->arg == CLI_ARG_NEEDED ? "=" : "");
}

/** "  sort:--format|sort:--fo) words="lines csv" ;;" for the option's argument. */
static void bash_value(cli_text *out, const cli_verb *verb, const cli_option *o) {
    if (o->arg == CLI_ARG_NONE)
        return;
    cli_text_add(out, "    ");
    if (o->letter != '\0' && o->arg == CLI_ARG_NEEDED)
        cli_text_add(out, "%s:-%c%s", verb->name, o->letter, o->name != NULL ? "|" : "");
    if (o->name != NULL)
        cli_text_add(out, "%s:--%s", verb->name, o->name);
    cli_text_add(out, ") ");
    const char *values = o->values != NULL ? o->values : "";
    if (strstr(values, "@dir") != NULL)
        cli_text_add(out, "compopt -o filenames; COMPREPLY=($(compgen -d -- \"$cur\"))");
    else if (strstr(values, "@file") != NULL)
        cli_text_add(out, "compopt -o filenames; COMPREPLY=($(compgen -f -W \"%.*s\" -- \"$cur\"))",
                     (int)(strstr(values, "@file") - values), values);
    else if (values[0] != '\0')
        cli_text_add(out, "COMPREPLY=($(compgen -W \"%s\" -- \"$cur\"))", values);
    else
        cli_text_add(out, "COMPREPLY=()");
    cli_text_add(out, "; return ;;\n");
}

static void add_bash(cli_text *out) {
    cli_text_add(out, "# carbide: completions for bash, printed by `carbide completions bash`\n"
                      "_carbide() {\n"
                      "    local cur=\"${COMP_WORDS[COMP_CWORD]}\" "
                      "prev=\"${COMP_WORDS[COMP_CWORD-1]}\" verb=\"${COMP_WORDS[1]}\"\n"
                      "    COMPREPLY=()\n"
                      "    # --name=value comes as three words\n"
                      "    if [[ $cur == '=' ]]; then cur=''; "
                      "elif [[ $prev == '=' ]]; then prev=\"${COMP_WORDS[COMP_CWORD-2]}\"; fi\n"
                      "    if ((COMP_CWORD == 1)); then\n"
                      "        COMPREPLY=($(compgen -W \"");
    for (size_t i = 0; i < cli_verb_count; i++)
        cli_text_add(out, "%s ", cli_verbs[i]->name);
    cli_text_add(out,
                 "--help --version\" -- \"$cur\")); return\n    fi\n    case \"$verb:$prev\" in\n");
    for (size_t i = 0; i < cli_verb_count; i++)
        each_option(out, cli_verbs[i], bash_value);
    cli_text_add(out, "    esac\n    local options='' words='' files=''\n    case \"$verb\" in\n");
    for (size_t i = 0; i < cli_verb_count; i++) {
        cli_text_add(out, "    %s) options='", cli_verbs[i]->name);
        each_option(out, cli_verbs[i], bash_name);
        if (cli_verbs[i]->words != NULL)
            cli_text_add(out, "' words='%s' ;;\n", cli_verbs[i]->words);
        else
            cli_text_add(out, "' files=1 ;;\n");
    }
    cli_text_add(out, "    esac\n"
                      "    if [[ $cur == -* ]]; then\n"
                      "        COMPREPLY=($(compgen -W \"$options\" -- \"$cur\"))\n"
                      "        [[ ${COMPREPLY[0]} == *= ]] && compopt -o nospace\n"
                      "    elif [[ $files ]]; then\n"
                      "        compopt -o filenames; COMPREPLY=($(compgen -f -- \"$cur\"))\n"
                      "    else\n"
                      "        COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n"
                      "    fi\n"
                      "}\n"
                      "complete -F _carbide carbide\n");
}

/* ---- zsh ---- */

static void zsh_action(cli_text *out, const cli_option *o) {
    const char *values = o->values != NULL ? o->values : "";
    cli_text_add(out, ":%s:", o->meta != NULL ? o->meta : "value");
    if (strstr(values, "@dir") != NULL)
        cli_text_add(out, "_files -/");
    else if (strstr(values, "@file") != NULL)
        cli_text_add(out, "_files");
    else if (values[0] != '\0') {
        cli_text_add(out, "(");
        for (const char *p = values; *p != '\0'; p++)
            cli_text_add(out, *p == ':' ? "\\:" : "%c", *p);
        cli_text_add(out, ")");
    }
}

static void zsh_spec(cli_text *out, const cli_option *o, bool letter) {
    if (letter)
        cli_text_add(out, "            '*-%c%s[", o->letter, o->arg == CLI_ARG_NEEDED ? "+" : "");
    else
        cli_text_add(out, "            '*--%s%s[", o->name,
                     o->arg == CLI_ARG_NEEDED     ? "="
                     : o->arg == CLI_ARG_OPTIONAL ? "=-"
                                                  : "");
    add_plain(out, o->help);
    cli_text_add(out, "]");
    if (o->arg == CLI_ARG_OPTIONAL && !letter)
        cli_text_add(out, ":"); /* the argument may be missing */
    if (o->arg == CLI_ARG_NEEDED || (o->arg == CLI_ARG_OPTIONAL && !letter))
        zsh_action(out, o);
    cli_text_add(out, "' \\\n");
}

static void zsh_option(cli_text *out, const cli_verb *verb, const cli_option *o) {
    (void)verb;
    if (o->letter != '\0')
        zsh_spec(out, o, true);
    if (o->name != NULL)
        zsh_spec(out, o, false);
}

static void add_zsh(cli_text *out) {
    cli_text_add(out, "#compdef carbide\n"
                      "# carbide: completions for zsh, printed by `carbide completions zsh`\n"
                      "_carbide() {\n"
                      "    local -a verbs\n"
                      "    verbs=(\n");
    for (size_t i = 0; i < cli_verb_count; i++) {
        cli_text_add(out, "        '%s:", cli_verbs[i]->name);
        add_plain(out, cli_verbs[i]->summary);
        cli_text_add(out, "'\n");
    }
    cli_text_add(out, "    )\n"
                      "    if ((CURRENT == 2)); then\n"
                      "        _describe 'command' verbs\n"
                      "        return\n"
                      "    fi\n"
                      "    local verb=$words[2]\n"
                      "    shift words\n"
                      "    ((CURRENT--))\n"
                      "    case $verb in\n");
    for (size_t i = 0; i < cli_verb_count; i++) {
        const cli_verb *v = cli_verbs[i];
        cli_text_add(out, "    %s)\n        _arguments -s -S \\\n", v->name);
        each_option(out, v, zsh_option);
        if (v->words != NULL)
            cli_text_add(out, "            '1:what:(%s)' ;;\n", v->words);
        else
            cli_text_add(out, "            '*:file:_files' ;;\n");
    }
    cli_text_add(out, "    esac\n"
                      "}\n"
                      "if [[ $funcstack[1] == _carbide ]]; then _carbide \"$@\"; else compdef "
                      "_carbide carbide; fi\n");
}

/* ---- fish ---- */

static void fish_option(cli_text *out, const cli_verb *verb, const cli_option *o) {
    const char *values = o->values != NULL ? o->values : "";
    cli_text_add(out, "complete -c carbide -n '__fish_seen_subcommand_from %s'", verb->name);
    if (o->letter != '\0')
        cli_text_add(out, " -s %c", o->letter);
    if (o->name != NULL)
        cli_text_add(out, " -l %s", o->name);
    if (o->arg == CLI_ARG_NEEDED)
        cli_text_add(out, strchr(values, '@') != NULL ? " -r -F" : " -x");
    size_t plain = strcspn(values, "@");
    if (plain > 0 && o->arg == CLI_ARG_NEEDED)
        cli_text_add(out, " -a '%.*s'", (int)plain, values);
    else if (strstr(values, "@dir") != NULL)
        cli_text_add(out, " -a '(__fish_complete_directories)'");
    cli_text_add(out, " -d '");
    add_plain(out, o->help);
    cli_text_add(out, "'\n");
}

static void add_fish(cli_text *out) {
    cli_text_add(out, "# carbide: completions for fish, printed by `carbide completions fish`\n");
    for (size_t i = 0; i < cli_verb_count; i++) {
        const cli_verb *v = cli_verbs[i];
        cli_text_add(out, "complete -c carbide -f -n __fish_use_subcommand -a %s -d '", v->name);
        add_plain(out, v->summary);
        cli_text_add(out, "'\n");
        if (v->words != NULL)
            cli_text_add(out,
                         "complete -c carbide -f -n '__fish_seen_subcommand_from %s' -a '%s'\n",
                         v->name, v->words);
        each_option(out, v, fish_option);
    }
}

int cli_completions_main(int argc, char **argv) {
    static char page[PAGE_BYTES];
    cli_text out;
    cli_parser parser;
    const char *value = NULL;
    cli_parser_init(&parser, &cli_verb_completions, argc, argv);
    int id = cli_parser_next(&parser, &value);
    if (id != CLI_PARSE_END)
        return id == CLI_PARSE_ERROR ? CLI_EXIT_TROUBLE : cli_help(&cli_verb_completions);
    if (parser.operand_count != 1)
        return cli_usage_error("completions", "which shell: bash, zsh or fish?");
    cli_text_init(&out, page, sizeof page);
    if (strcmp(parser.argv[0], "bash") == 0)
        add_bash(&out);
    else if (strcmp(parser.argv[0], "zsh") == 0)
        add_zsh(&out);
    else if (strcmp(parser.argv[0], "fish") == 0)
        add_fish(&out);
    else
        return cli_usage_error("completions", "there are no completions for '%s'", parser.argv[0]);
    return cli_print(page);
}
