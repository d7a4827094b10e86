#include "common/base/core_dump.h"
#include "common/base/thread_slice.h"
#include "inferd/inferctl/commands.h"
#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *help;
} commands[] = {
    {"diagnose", command_diagnose,
     "FILE... [--json] [--endpoint E]... [--timeout-ms MS] [--operating-point P] [--age YEARS] [--view V] "
     "[--stat]"},
    {"status", command_status, "[--json] [--endpoint E] [--timeout-ms MS]"},
    {"drain", command_drain, "[--json] [--endpoint E] [--timeout-ms MS]"},
    {"bench", command_bench,
     "FILE FILE... --closed N | --open RATE | --saturation  --seconds S | --requests N [--seed N] [--outstanding N] "
     "[--json] [--endpoint E]... [--timeout-ms MS] [--operating-point P] [--stat]"},
    {"bench", command_bench,
     "--engine MODEL.safetensors [--device NAME] [--threads N] [--precision f32|bf16] [--batch 1,8] [--runs N] [--json] "
     "[--trace FILE]\n            asks no member: where the time goes in the model's own network"},
};
enum { COMMANDS = sizeof commands / sizeof *commands };

static void print_usage(FILE *out) {
    fputs("usage: inferctl COMMAND ...\n\nAsks a member of the pool. Research and integration; not a medical "
          "device.\n\n",
          out);
    for (int i = 0; i < COMMANDS; i++) {
        fprintf(out, "  %-9s %s\n", commands[i].name, commands[i].help);
    }
    fprintf(out, "\n--endpoint is %s unless given; ipc://PATH works too. diagnose takes several and asks whichever\n"
                 "has the least to do, and another one where that fails.\n\n"
                 "Where members encrypt, every command takes\n"
                 "  --key FILE                 our key (trainctl keygen curve), or else the environment's THORAX_KEY; its\n"
                 "                             public half is in the members' allow-list: role client, for drain admin\n"
                 "  --server-key FILE_OR_KEY   the endpoint's public key, NAME.pub or its 40 characters, or else\n"
                 "                             THORAX_SERVER_KEY; once for all endpoints, or once for each, in their order\n",
            INFERCTL_DEFAULT_ENDPOINT);
}

int main(int argc, char **argv) {
    const char *name = argc > 1 ? argv[1] : "";
    if (strcmp(name, "--help") == 0 || (argc > 2 && strcmp(argv[2], "--help") == 0)) {
        print_usage(stdout);
        return 0;
    }
    if (strcmp(name, "--version") == 0) {
        printf("inferctl %s\n", THORAX_VERSION);
        return 0;
    }
    struct error err = {0};
    if (!core_dump_forbid(&err)) {
        fprintf(stderr, "inferctl: %s\n", err.message);
        return INFERCTL_FAILED;
    }
    thread_slice_set(THREAD_SLICE_SHORT); /* what is timed is the pool, not the wait for a core */
    for (int i = 0; i < COMMANDS; i++) {
        if (strcmp(name, commands[i].name) == 0) {
            return commands[i].run(argc - 1, argv + 1);
        }
    }
    fprintf(stderr, "inferctl: %s%s\n", *name ? "there is no command " : "expected a command", name);
    print_usage(stderr);
    return INFERCTL_USAGE;
}
