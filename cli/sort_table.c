/* SPDX-License-Identifier: Apache-2.0 */
#include "sort_table.h"
#include "options.h"

#define NONE CLI_ARG_NONE
#define NEEDED CLI_ARG_NEEDED
#define OPTIONAL CLI_ARG_OPTIONAL

/* id, letter, name, argument, its name, its values, help, GNU sort has it, hidden */

static const cli_option key_options[] = {
    {SORT_KEY, 'k', "key", NEEDED, "KEY", NULL,
     "a key, most significant first, as often as needed:\n"
     "NAME[:TYPE][:asc|desc][:fold][:nulls=first|last]\n"
     "  types: str num int float ver human month time;\n"
     "fixed records: TYPE@OFFSET[+LENGTH], as str@0+10,\n"
     "  u32le@4, f64be@16:desc;\n"
     "2:num is the second column, name=2 one called 2;\n"
     "or, as in GNU sort,\n"
     "F[.C][bdfgiMhnRrV][,F[.C][bdfgiMhnRrV]]",
     true, false},
    {SORT_SEPARATOR, 't', "field-separator", NEEDED, "SEP", NULL,
     "the byte between fields (\\t, \\0 understood); of lines\n"
     "otherwise runs of blanks, of csv a comma",
     true, false},
    {SORT_REVERSE, 'r', "reverse", NONE, NULL, NULL, "descending, where a key says nothing itself",
     true, false},
    {SORT_UNIQUE, 'u', "unique", NONE, NULL, NULL,
     "one row, the first, of each set with equal keys;\nwith -c: equal neighbours are disorder",
     true, false},
    {SORT_STABLE, 's', "stable", NONE, NULL, NULL,
     "rows with equal keys keep their order (always so,\nexcept with --gnu)", true, false},
};

static const cli_option order_options[] = {
    {'b', 'b', "ignore-leading-blanks", NONE, NULL, NULL, "blanks before a key do not count", true,
     false},
    {'d', 'd', "dictionary-order", NONE, NULL, NULL, "only blanks, letters and digits count", true,
     false},
    {'f', 'f', "ignore-case", NONE, NULL, NULL, "lower case is taken as upper case", true, false},
    {'i', 'i', "ignore-nonprinting", NONE, NULL, NULL, "only printable bytes count", true, false},
    {'n', 'n', "numeric-sort", NONE, NULL, NULL, "by decimal number, exactly, any length", true,
     false},
    {'g', 'g', "general-numeric-sort", NONE, NULL, NULL, "by floating point number (1e9, inf, nan)",
     true, false},
    {'h', 'h', "human-numeric-sort", NONE, NULL, NULL, "by size (2K, 1G)", true, false},
    {'M', 'M', "month-sort", NONE, NULL, NULL, "by month's name (JAN ... DEC)", true, false},
    {'V', 'V', "version-sort", NONE, NULL, NULL, "by version (a2 before a10)", true, false},
    {'R', 'R', "random-sort", NONE, NULL, NULL,
     "shuffled (always the same way), equal keys together", true, false},
    {SORT_RANDOM_SOURCE, 0, "random-source", NEEDED, "FILE", "@file",
     "refused with -R, whose order is always the same here", true, false},
    {SORT_SORT, 0, "sort", NEEDED, "WORD",
     "general-numeric human-numeric month numeric random version",
     "the same by word: general-numeric human-numeric\nmonth numeric random version", true, false},
};

static const cli_option action_options[] = {
    {SORT_CHECK, 'c', "check", OPTIONAL, "WORD", "diagnose-first quiet silent",
     "is the input in order? diagnose-first (or nothing)\nnames the first row that is not, quiet "
     "is -C",
     true, false},
    {SORT_CHECK_QUIET, 'C', NULL, NONE, NULL, NULL, "the same without a word: exit code 0 or 1",
     true, false},
    {SORT_MERGE, 'm', "merge", NONE, NULL, NULL, "each input is in order already: merge them", true,
     false},
};

static const cli_option file_options[] = {
    {SORT_OUTPUT, 'o', "output", NEEDED, "FILE", "@file",
     "there instead of standard output; may be an input;\nappears whole or not at all", true,
     false},
    {SORT_FORMAT, 0, "format", NEEDED, "FORMAT", "lines csv tsv fixed:",
     "lines, csv, tsv or fixed:BYTES; by the first file's\nname otherwise (.csv, .tsv, lines for "
     "all else)",
     false, false},
    {SORT_HEADER, 0, "header", NONE, NULL, NULL,
     "the first row of each input is a header and stays\non top (csv and tsv: so anyway)", false,
     false},
    {SORT_NO_HEADER, 0, "no-header", NONE, NULL, NULL, "the first row is a row like all others",
     false, false},
    {SORT_ZERO, 'z', "zero-terminated", NONE, NULL, NULL, "rows end with NUL, not with a line feed",
     true, false},
    {SORT_BAD_ROWS, 0, "bad-rows", NEEDED, "WHAT", "error skip @file",
     "malformed rows: error (exit 3, the default), skip,\nor a FILE that takes them (./skip for "
     "such a name)",
     false, false},
    {SORT_FILES0_FROM, 0, "files0-from", NEEDED, "FILE", "@file",
     "the inputs' names, each ended by NUL; - is standard input", true, false},
};

static const cli_option resource_options[] = {
    {SORT_MEMORY, 'S', "memory", NEEDED, "SIZE", "auto",
     "budget of the whole process: 64M, 2G, 50%, or auto\n"
     "(what the container or machine really leaves);\n"
     "b K M G T, or nothing for bytes (KiB with --gnu)",
     false, false},
    {SORT_MEMORY, 0, "buffer-size", NEEDED, "SIZE", "auto", "the same", true, false},
    {SORT_THREADS, 'j', "parallel", NEEDED, "N", NULL, "threads; one per usable CPU otherwise",
     true, false},
    {SORT_TEMP, 'T', "temporary-directory", NEEDED, "DIR", "@dir",
     "temporary files there; several are used together;\n"
     "CARBIDE_TMPDIR, TMPDIR or the output's folder otherwise",
     true, false},
    {SORT_TEMP_LIMIT, 0, "temp-limit", NEEDED, "SIZE", NULL,
     "no more temporary bytes than that (else exit 4)", false, false},
    {SORT_CODEC, 0, "spill-compress", NEEDED, "CODEC", "auto none lz4 delta nibble",
     "of temporary files: none, lz4, delta, nibble, or auto (measured)", false, false},
    {SORT_BATCH_SIZE, 0, "batch-size", NEEDED, "N", NULL, "merge no more than N runs at once", true,
     false},
    {SORT_COMPRESS_PROGRAM, 0, "compress-program", NEEDED, "PROG", "gzip lz4 zstd",
     "understood: whatever PROG is, the built-in lz4 is used", true, false},
};

static const cli_option telling_options[] = {
    {SORT_EXPLAIN, 0, "explain", NONE, NULL, NULL,
     "say how it would be done, how many runs, passes and\ntemporary bytes, and stop", false,
     false},
    {SORT_PROGRESS, 0, "progress", NEEDED, "WHEN", "auto always never json",
     "auto (on a terminal), always, never, or json lines;\nSIGUSR1 asks for a line at any time",
     false, false},
    {SORT_STATS, 0, "stats", OPTIONAL, "FILE", "@file",
     "figures as JSON, to standard error or FILE", false, false},
    {SORT_STATUS, 0, "status", NEEDED, "FILE", "@file",
     "publish who holds the memory in FILE, for carbide top", false, false},
    {SORT_QUIET, 'q', "quiet", NONE, NULL, NULL, "errors only", false, false},
    {SORT_VERBOSE, 'v', "verbose", NONE, NULL, NULL,
     "the closing figures even when not on a terminal, and\nwho holds the memory when it runs out",
     false, false},
    {SORT_DEBUG, 0, "debug", NONE, NULL, NULL, "understood, and said to do nothing", true, false},
};

static const cli_option other_options[] = {
    {SORT_GNU, 0, "gnu", NONE, NULL, NULL,
     "GNU sort's rules, messages and exit codes in the C\nlocale (also when called as sort or "
     "csort)",
     false, false},
    {SORT_HELP, 0, "help", NONE, NULL, NULL, "this", true, false},
    {SORT_VERSION, 0, "version", NONE, NULL, NULL, "which version this is", true, false},
};

static const cli_group groups[] = {
    {"Keys", key_options, CLI_COUNT(key_options)},
    {"Order of keys that name none, and of the whole row", order_options, CLI_COUNT(order_options)},
    {"Instead of sorting", action_options, CLI_COUNT(action_options)},
    {"Files and formats", file_options, CLI_COUNT(file_options)},
    {"Memory, threads, temporary files", resource_options, CLI_COUNT(resource_options)},
    {"What is told", telling_options, CLI_COUNT(telling_options)},
    {"Others", other_options, CLI_COUNT(other_options)},
};

const cli_verb cli_verb_sort = {
    .name = "sort",
    .summary = "sorts files of any size in a memory budget that holds",
    .usage = "sort [OPTION]... [FILE]...\n"
             "sort [OPTION]... --files0-from=FILE",
    .examples =
        "carbide sort -S 64M -o sorted.txt big.txt         by whole line, 64 MiB for everything\n"
        "carbide sort -k price:num:desc -k city a.csv      by columns; the header stays on top\n"
        "carbide sort -k 2,2nr -t : /etc/passwd            GNU keys\n"
        "carbide sort --format fixed:100 -k str@0+10 r     records, by their first 10 bytes\n"
        "carbide sort -u *.log.gz -o all.zst               compressed files in and out\n"
        "carbide sort -c -k time:time events.csv           is it in order?\n"
        "carbide sort --explain -S 64M big.txt             what it will take, before it is done",
    .notes = "With no FILE, or when FILE is -, standard input is read. Names that end in .gz, .zst "
             "or .lz4 are\n"
             "compressed, in and out. Order is by bytes and stable; the result does not depend on "
             "the budget or\n"
             "on the number of threads.\n"
             "\n"
             "Exit codes: 0 done; 1 not in order (-c, -C); 2 usage, input or output; 3 malformed "
             "data; 4 no\n"
             "temporary space; 5 budget too small (the smallest that will do is named); 128+n on "
             "signal n.\n"
             "\n"
             "Environment: CARBIDE_MEMORY (as --memory), CARBIDE_TMPDIR, TMPDIR, NO_COLOR, "
             "POSIXLY_CORRECT.",
    .words = NULL,
    .groups = groups,
    .group_count = CLI_COUNT(groups),
};
