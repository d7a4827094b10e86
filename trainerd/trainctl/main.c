#include "common/base/core_dump.h"
#include "common/base/digest.h"
#include "common/base/log.h"
#include "common/base/signals.h"
#include "trainerd/trainctl/backup.h"
#include "trainerd/trainctl/commands.h"
#include "trainerd/trainctl/decide.h"
#include "trainerd/trainctl/models.h"
#include "trainerd/trainctl/phantom.h"
#include "trainerd/trainctl/publish.h"
#include "trainerd/trainctl/rollout.h"

#include <stdio.h>
#include <string.h>

static const struct command {
    const char *name, *help;
    int (*run)(int argc, char **argv);
} commands[] = {
    {"phantom", "draw a synthetic data set", command_phantom},
    {"evaluate", "answer a part of a data set with a model; print and write the report", command_evaluate},
    {"compare", "two models on the same part of a data set: where their answers differ", command_compare},
    {"quantize", "make a model that computes in 8-bit integers or bf16", command_quantize},
    {"import", "turn published weights into a file to start training from", command_import},
    {"publish", "hand a model file to a running publisher", command_publish},
    {"models", "what a publisher has published, and who is in its pool", command_models},
    {"approve", "let a published model be rolled out", command_approve},
    {"revoke", "never let a published model be run again", command_revoke},
    {"rollout", "bring a model into the pool step by step: start, status, pause, resume, abort", command_rollout},
    {"rollback", "back to a model that was stable before, at once and everywhere", command_rollback},
    {"events", "what happened, from the publisher's registry", command_events},
    {"backup", "a whole copy of a publisher's store, also while it publishes", command_backup},
    {"restore", "a publisher's store from a backup", command_restore},
    {"keygen", "make a pair of keys, for encrypted sockets or for signing models", command_keygen},
    {"config", "every key of trainerd's configuration", command_config},
};
enum { COMMANDS = sizeof commands / sizeof *commands };

static void print_usage(FILE *out) {
    fputs("usage: trainctl COMMAND [options]\n\n", out);
    for (int i = 0; i < COMMANDS; i++)
        fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].help);
    fputs("\n  trainctl COMMAND --help says more. Research and integration; not a medical device.\n", out);
}

int main(int argc, char **argv) {
    struct error err = {0};
    if (argc > 1 && strcmp(argv[1], "--help") == 0) {
        print_usage(stdout);
        return 0;
    }
    if (argc > 1 && strcmp(argv[1], "--version") == 0) {
        printf("trainctl %s\n", THORAX_VERSION);
        return 0;
    }
    log_init("trainctl", LOG_INFO, LOG_TEXT);
    if (!core_dump_forbid(&err) || !digest_start(&err) || !signals_install(&err)) {
        fprintf(stderr, "trainctl: %s\n", err.message);
        return 1;
    }
    for (int i = 0; argc > 1 && i < COMMANDS; i++) {
        if (strcmp(commands[i].name, argv[1]) == 0)
            return commands[i].run(argc - 1, argv + 1);
    }
    if (argc > 1)
        fprintf(stderr, "trainctl: there is no command \"%s\"\n", argv[1]);
    print_usage(stderr);
    return 2;
}
