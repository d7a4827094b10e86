#include "common/base/core_dump.h"
#include "common/base/digest.h"
#include "common/base/log.h"
#include "common/base/signals.h"
#include "common/base/text.h"
#include "common/device/listing.h"
#include "common/graph/profile.h"
#include "trainerd/daemon.h"
#include "trainerd/engine_profile.h"
#include "trainerd/supervisor_worker.h"
#include "trainerd/worker.h"

#include <ctype.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

enum { EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_LEFT = 3, SETTINGS_MAX = 64, PROFILE_RUNS = 10 };

static const char usage[] =
    "usage: trainerd --config FILE [options]\n"
    "\n"
    "Trains a classifier of chest X-rays over the ranks of this machine and publishes it to a pool of inferd. A configuration\n"
    "without a train: section is a publisher alone. Research and integration; not a medical device.\n"
    "\n"
    "  --config FILE       the configuration (YAML)\n"
    "  --set KEY=VALUE     override a key of the configuration; may be repeated\n"
    "  --resume auto       go on from the newest checkpoint of the run, if there is one\n"
    "  --once              end when the training has ended, also where a publisher runs\n"
    "  --check             validate the configuration, start nothing\n"
    "  --profile [N]       time N training steps (10) of rank 0 on made-up images, print where the time goes, and exit:\n"
    "                      needs no data, writes nothing\n"
    "  --trace FILE        with --profile: also write what ran when, for chrome://tracing or Perfetto\n"
    "  --devices           list the devices that can compute here, and why others cannot\n"
    "  --json              lines of JSON instead of a progress bar; the profile as JSON\n"
    "  --help-config[=markdown]  print every key with type, default, range and meaning\n"
    "  --version, --help\n"
    "\n"
    "Exit codes: 0, 1 after a failure, 2 for a wrong command line, 3 where all went well but models were not handed over\n"
    "(publish.to), 4 where a signal stopped training before its end: it can go on with --resume auto.\n";

struct arguments {
    const char *config, *help_config;
    const char *settings[SETTINGS_MAX];
    int setting_count;
    int worker; /* rank; -1: the supervising process */
    int profile; /* runs; 0: not asked for */
    const char *trace;
    bool once, resume, check, devices, json, help, version;
};

/** N may stand behind "=" or as a word of its own. */
static bool take_profile(int argc, char **argv, struct arguments *out, struct error *err) {
    int64_t runs = PROFILE_RUNS;
    const char *text = optarg;
    if (!text && optind < argc && isdigit((unsigned char)argv[optind][0]))
        text = argv[optind++];
    if (text && !text_to_int(text, 1, PROFILE_MAX_RUNS, &runs, err))
        return error_prefix(err, "--profile");
    out->profile = (int)runs;
    return true;
}

static bool take_option(int option, struct arguments *out, struct error *err) {
    int64_t rank;
    switch (option) {
    case 'c': out->config = optarg; return true;
    case 's':
        if (out->setting_count == SETTINGS_MAX)
            return error_set(err, ERROR_INVALID, "more than %d --set", SETTINGS_MAX);
        out->settings[out->setting_count++] = optarg;
        return true;
    case 'r':
        out->resume = true;
        return strcmp(optarg, "auto") == 0 || error_set(err, ERROR_INVALID, "--resume takes \"auto\", not \"%.40s\"", optarg);
    case 'w':
        if (!text_to_int(optarg, 0, 100000, &rank, err))
            return error_prefix(err, "--worker");
        out->worker = (int)rank;
        return true;
    case 'o': return out->once = true;
    case 'n': return out->check = true;
    case 't': out->trace = optarg; return true;
    case 'd': return out->devices = true;
    case 'j': return out->json = true;
    case 'k': out->help_config = optarg ? optarg : "text"; return true;
    case 'h': return out->help = true;
    case 'v': return out->version = true;
    default: return error_set(err, ERROR_INVALID, "unknown option, or its value is missing");
    }
}

static bool parse_arguments(int argc, char **argv, struct arguments *out, struct error *err) {
    static const struct option options[] = {
        {"config", required_argument, NULL, 'c'}, {"set", required_argument, NULL, 's'},
        {"resume", required_argument, NULL, 'r'}, {"worker", required_argument, NULL, 'w'},
        {"once", no_argument, NULL, 'o'},         {"check", no_argument, NULL, 'n'},
        {"profile", optional_argument, NULL, 'p'}, {"trace", required_argument, NULL, 't'},
        {"devices", no_argument, NULL, 'd'},      {"json", no_argument, NULL, 'j'},
        {"help-config", optional_argument, NULL, 'k'}, {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'v'},      {NULL, 0, NULL, 0},
    };
    int option;
    opterr = 0;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (!(option == 'p' ? take_profile(argc, argv, out, err) : take_option(option, out, err)))
            return false;
    }
    if (optind < argc)
        return error_set(err, ERROR_INVALID, "what is \"%s\"?", argv[optind]);
    if (out->trace && !out->profile)
        return error_set(err, ERROR_INVALID, "--trace goes with --profile");
    if (out->profile && (out->check || out->once || out->resume))
        return error_set(err, ERROR_INVALID, "--profile does not train: it goes with none of --check, --once and --resume");
    return out->help || out->version || out->help_config || out->devices || out->config ||
           error_set(err, ERROR_INVALID, "expected --config FILE");
}

/** Prints what was asked about the program itself; false where nothing was. */
static bool print_about(const struct arguments *arguments) {
    if (arguments->help)
        fputs(usage, stdout);
    else if (arguments->version)
        printf("trainerd %s\n", THORAX_VERSION);
    else if (arguments->help_config && strcmp(arguments->help_config, "markdown") == 0)
        schema_print_markdown(&trainer_config_schema, stdout);
    else if (arguments->help_config)
        schema_print_help(&trainer_config_schema, stdout);
    else if (arguments->devices)
        device_list(stdout);
    else
        return false;
    return true;
}

/** *code: what to exit with where all went well. */
static bool act(const struct arguments *arguments, char **argv, const struct trainer_config *config, int *code,
                struct error *err) {
    log_init("trainerd", config->log.level, config->log.style);
    if (arguments->check)
        return daemon_check(config, err);
    if (arguments->worker >= 0)
        return worker_run(config, arguments->worker, arguments->resume, code, err);
    if (arguments->profile) {
        struct engine_profile_options profile = {arguments->profile, arguments->trace, arguments->json, argv};
        return engine_profile_run(config, &profile, err);
    }
    struct daemon_options options = {argv, arguments->once, arguments->resume, arguments->json ? PROGRESS_JSON : PROGRESS_AUTO};
    struct daemon_result result = {0};
    bool ok = daemon_run(config, &options, &result, err);
    *code = result.stopped ? WORKER_EXIT_STOPPED : result.left ? EXIT_LEFT : 0;
    return ok;
}

static int run(const struct arguments *arguments, char **argv) {
    struct config config = {0};
    struct trainer_config values;
    struct error err = {0};
    int code = 0;
    struct trainer_config_source source = {arguments->config, arguments->settings, arguments->setting_count};
    bool ok = trainer_config_load(&source, &config, &values, &err);
    if (!ok && config.problem_count) {
        config_print_problems(&config, stderr);
        error_set(&err, ERROR_INVALID, "the configuration cannot be used");
    }
    ok = ok && core_dump_forbid(&err) && digest_start(&err) && signals_install(&err) &&
         act(arguments, argv, &values, &code, &err);
    if (!ok && arguments->worker < 0) /* a worker's last words reach the supervisor, which says them */
        fprintf(stderr, "trainerd: %s%s%s\n", err.message, *err.hint ? "; " : "", err.hint);
    else if (ok && arguments->check)
        puts("trainerd: configuration OK");
    config_fini(&config);
    return ok ? code : EXIT_FAILED;
}

int main(int argc, char **argv) {
    struct arguments arguments = {.worker = -1};
    struct error err = {0};
    if (!parse_arguments(argc, argv, &arguments, &err)) {
        fprintf(stderr, "trainerd: %s\n%s", err.message, usage);
        return EXIT_USAGE;
    }
    if (print_about(&arguments))
        return 0;
    return run(&arguments, argv);
}
