#include "trainerd/config.h"
#include "trainerd/trainctl/commands.h"

#include <stdio.h>
#include <string.h>

int command_config(int argc, char **argv) {
    bool markdown = argc == 2 && strcmp(argv[1], "--markdown") == 0;
    if (argc == 2 && strcmp(argv[1], "--help") == 0) {
        puts("usage: trainctl config [--markdown]");
        return 0;
    }
    if (argc > 1 && !markdown) {
        fprintf(stderr, "trainctl config: what is \"%s\"?\nusage: trainctl config [--markdown]\n", argv[1]);
        return 2;
    }
    if (markdown)
        schema_print_markdown(&trainer_config_schema, stdout);
    else
        schema_print_help(&trainer_config_schema, stdout);
    return 0;
}
