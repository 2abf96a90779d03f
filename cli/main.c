/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "options.h"

static int print_version(void) {
    return cli_print("carbide " CARBIDE_VERSION "\n"
                     "Licence: Apache-2.0. There is no warranty.\n");
}

static int verb_main(int argc, char **argv) {
    const char *verb = argv[0];
    if (strcmp(verb, "sort") == 0)
        return cli_sort_main(argc, argv, false);
    if (strcmp(verb, "group") == 0)
        return cli_group_main(argc, argv);
    if (strcmp(verb, "join") == 0)
        return cli_join_main(argc, argv);
    if (strcmp(verb, "dedupe") == 0)
        return cli_dedupe_main(argc, argv);
    if (strcmp(verb, "partition") == 0)
        return cli_partition_main(argc, argv);
    if (strcmp(verb, "gen") == 0)
        return cli_gen_main(argc, argv);
    if (strcmp(verb, "simulate") == 0)
        return cli_simulate_main(argc, argv);
    if (strcmp(verb, "serve") == 0)
        return cli_serve_main(argc, argv);
    if (strcmp(verb, "block") == 0)
        return cli_block_main(argc, argv);
    if (strcmp(verb, "top") == 0)
        return cli_top_main(argc, argv);
    if (strcmp(verb, "doctor") == 0)
        return cli_doctor_main(argc, argv);
    if (strcmp(verb, "completions") == 0)
        return cli_completions_main(argc, argv);
    if (strcmp(verb, "version") == 0 || strcmp(verb, "--version") == 0 || strcmp(verb, "-V") == 0)
        return print_version();
    if (strcmp(verb, "help") != 0 && strcmp(verb, "--help") != 0 && strcmp(verb, "-h") != 0)
        return cli_usage_error(NULL, "there is no command '%s'", verb);
    if (argc < 2)
        return cli_help(NULL);
    for (size_t i = 0; i < cli_verb_count; i++)
        if (strcmp(argv[1], cli_verbs[i]->name) == 0)
            return cli_help(cli_verbs[i]);
    return cli_usage_error(NULL, "there is no command '%s'", argv[1]);
}

/** So that no file opened later becomes standard input, output or error of a caller who closed
 * them. */
static void hold_standard_files(void) {
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF)
            (void)open("/dev/null",
                       fd == STDIN_FILENO ? O_WRONLY : O_RDONLY); /* using it stays an error */
}

int main(int argc, char **argv) {
    hold_standard_files();
    const char *slash = argc > 0 ? strrchr(argv[0], '/') : NULL;
    const char *self = argc > 0 ? (slash != NULL ? slash + 1 : argv[0]) : "carbide";
    if (strcmp(self, "sort") == 0 || strcmp(self, "csort") == 0)
        return cli_sort_main(argc, argv, true);
    if (argc < 2) {
        (void)cli_usage_error(NULL, "a command is needed: sort, group, join, dedupe, partition, "
                                    "gen, simulate, serve, block, top, doctor, help, "
                                    "version or completions");
        return CLI_EXIT_TROUBLE;
    }
    return verb_main(argc - 1, argv + 1);
}
