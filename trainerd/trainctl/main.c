#include "common/base/core_dump.h"
#include "common/base/cpu.h"
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
    bool computes; /* with a team of threads */
} commands[] = {
    {"phantom", "draw a synthetic data set", command_phantom, false},
    {"evaluate", "answer a part of a data set with a model; print and write the report", command_evaluate, true},
    {"compare", "two models on the same part of a data set: where their answers differ", command_compare, true},
    {"quantize", "make a model that computes in 8-bit integers or bf16", command_quantize, true},
    {"import", "turn published weights into a file to start training from", command_import, false},
    {"publish", "hand a model file to a running publisher", command_publish, false},
    {"models", "what a publisher has published, and who is in its pool", command_models, false},
    {"approve", "let a published model be rolled out", command_approve, false},
    {"revoke", "never let a published model be run again", command_revoke, false},
    {"rollout", "bring a model into the pool step by step: start, status, pause, resume, abort", command_rollout, false},
    {"rollback", "back to a model that was stable before, at once and everywhere", command_rollback, false},
    {"events", "what happened, from the publisher's registry", command_events, false},
    {"backup", "a whole copy of a publisher's store, also while it publishes", command_backup, false},
    {"restore", "a publisher's store from a backup", command_restore, false},
    {"keygen", "make a pair of keys, for encrypted sockets or for signing models", command_keygen, false},
    {"config", "every key of trainerd's configuration", command_config, false},
};
enum { COMMANDS = sizeof commands / sizeof *commands };

static void print_usage(FILE *out) {
    fputs("usage: trainctl COMMAND [options]\n\n", out);
    for (int i = 0; i < COMMANDS; i++)
        fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].help);
    fputs("\n  trainctl COMMAND --help says more. Research and integration; not a medical device.\n", out);
}

/* Threads that wait let go of their core after a kernel's length: others may run on it, such as those that decode pictures. */
static bool set_wait_policy(char *const argv[], struct error *err) {
    static const char *const environment[][2] = {
        {"OMP_WAIT_POLICY", "passive"}, {"GOMP_SPINCOUNT", "10000"}, {NULL, NULL}};
    return cpu_environment(argv, environment, err);
}

static int run_command(const struct command *command, int argc, char **argv) {
    struct error err = {0};
    if (!command->computes || set_wait_policy(argv, &err))
        return command->run(argc - 1, argv + 1);
    fprintf(stderr, "trainctl: %s\n", err.message);
    return 1;
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
            return run_command(&commands[i], argc, argv);
    }
    if (argc > 1)
        fprintf(stderr, "trainctl: there is no command \"%s\"\n", argv[1]);
    print_usage(stderr);
    return 2;
}
