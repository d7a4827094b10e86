#include "common/base/core_dump.h"
#include "common/base/digest.h"
#include "common/base/log.h"
#include "common/base/signals.h"
#include "common/base/thread_slice.h"
#include "common/device/listing.h"
#include "inferd/daemon.h"
#include "inferd/engine.h"
#include "inferd/router_daemon.h"
#include <getopt.h>
#include <stdio.h>
#include <string.h>

enum { EXIT_FAILED = 1, EXIT_USAGE = 2, SETTINGS_MAX = 64, ROLE_SIZE = 64 };
enum { OPTION_HELP_CONFIG = 256 };

static const char usage[] =
    "usage: inferd --config FILE | --model FILE | --role router --set router.members=[...] [options]\n"
    "\n"
    "One member of a pool that answers diagnosis requests about chest X-rays. Research and integration; not "
    "a medical device.\n"
    "\n"
    "  --config FILE       the configuration (YAML)\n"
    "  --model FILE        serve this model file; follow no publisher\n"
    "  --role ROLE         member (the default), or router: one address in front of a pool\n"
    "  --set KEY=VALUE     override a key of the configuration; may be repeated\n"
    "  --check             validate configuration and model file, serve nothing\n"
    "  --devices           list the devices that can compute here, and why others cannot\n"
    "  --help-config[=markdown]  print every key with type, default, range and meaning\n"
    "  --version, --help\n";

/** What the command line says. */
struct arguments {
    const char *config, *model, *role, *help_config;
    const char *settings[SETTINGS_MAX];
    int setting_count;
    bool check, devices, help, version;
};

static bool take_option(int option, struct arguments *out, struct error *err) {
    switch (option) {
    case 'c':
        out->config = optarg;
        return true;
    case 'm':
        out->model = optarg;
        return true;
    case 'r':
        out->role = optarg;
        return true;
    case 's':
        if (out->setting_count == SETTINGS_MAX) {
            return error_set(err, ERROR_INVALID, "more than %d --set", SETTINGS_MAX);
        }
        out->settings[out->setting_count++] = optarg;
        return true;
    case 'n':
        return out->check = true;
    case 'd':
        return out->devices = true;
    case 'h':
        return out->help = true;
    case 'v':
        return out->version = true;
    case OPTION_HELP_CONFIG:
        out->help_config = optarg ? optarg : "text";
        return true;
    default:
        return error_set(err, ERROR_INVALID, "unknown option, or its value is missing");
    }
}

static bool parse_arguments(int argc, char **argv, struct arguments *out, struct error *err) {
    static const struct option options[] = {
        {"config", required_argument, NULL, 'c'},
        {"model", required_argument, NULL, 'm'},
        {"role", required_argument, NULL, 'r'},
        {"set", required_argument, NULL, 's'},
        {"check", no_argument, NULL, 'n'},
        {"devices", no_argument, NULL, 'd'},
        {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'v'},
        {"help-config", optional_argument, NULL, OPTION_HELP_CONFIG},
        {NULL, 0, NULL, 0},
    };
    int option;
    opterr = 0;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (!take_option(option, out, err)) {
            return false;
        }
    }
    if (optind < argc) {
        return error_set(err, ERROR_INVALID, "what is \"%s\"?", argv[optind]);
    }
    return out->help || out->version || out->help_config || out->devices || out->config || out->model || out->role ||
           error_set(err, ERROR_INVALID, "expected --config FILE, --model FILE or --role router");
}

/** Prints what was asked about the program itself; false where nothing was. */
static bool print_about(const struct arguments *arguments) {
    if (arguments->help) {
        fputs(usage, stdout);
    } else if (arguments->version) {
        printf("inferd %s\n", THORAX_VERSION);
    } else if (arguments->help_config && strcmp(arguments->help_config, "markdown") == 0) {
        schema_print_markdown(inferd_schema(), stdout);
    } else if (arguments->help_config) {
        schema_print_help(inferd_schema(), stdout);
    } else if (arguments->devices) {
        device_list(stdout);
    } else {
        return false;
    }
    return true;
}

/** Reads file and --set. Problems are printed, all of them. */
static bool load_config(const struct arguments *arguments, struct config *config, struct inferd_config *out,
                        struct error *err) {
    bool ok = arguments->config ? config_load(config, arguments->config, err)
                                : config_parse(config, "{}", 2, "command line", err);
    char role[ROLE_SIZE];
    if (ok && arguments->role) {
        snprintf(role, sizeof role, "role=%s", arguments->role);
        ok = config_set(config, role, err);
    }
    for (int i = 0; ok && i < arguments->setting_count; i++) {
        ok = config_set(config, arguments->settings[i], err);
    }
    if (!ok || inferd_config_read(config, arguments->model, out, err)) {
        return ok;
    }
    config_print_problems(config, stderr);
    return error_set(err, ERROR_INVALID, "the configuration cannot be used");
}

static void start_log(const struct inferd_config *config) {
    enum log_level level = LOG_INFO;
    log_level_parse(config->log_level, &level);
    log_init("inferd", level, strcmp(config->log_style, "json") == 0 ? LOG_JSON : LOG_TEXT);
}

/** What the program can be, by whether it routes. */
static const struct role {
    bool (*run)(const struct inferd_config *config, struct error *err);
    bool (*check)(const struct inferd_config *config, struct error *err);
} roles[] = {[false] = {daemon_run, daemon_check}, [true] = {router_daemon_run, router_daemon_check}};

static int run(const struct arguments *arguments) {
    struct config config = {0};
    struct inferd_config values;
    struct error err = {0};
    bool ok = load_config(arguments, &config, &values, &err) && core_dump_forbid(&err) &&
              digest_start(&err) && signals_install(&err);
    if (ok) {
        start_log(&values);
        thread_slice_set(THREAD_SLICE_SHORT); /* all threads inherit it; those that compute set theirs */
        const struct role *role = &roles[values.routes];
        ok = (arguments->check ? role->check : role->run)(&values, &err);
    }
    if (!ok) {
        fprintf(stderr, "inferd: %s%s%s\n", err.message, *err.hint ? "; " : "", err.hint);
    } else if (arguments->check) {
        puts("inferd: configuration OK");
    }
    config_fini(&config);
    return ok ? 0 : EXIT_FAILED;
}

int main(int argc, char **argv) {
    struct arguments arguments = {0};
    struct error err = {0};
    if (!parse_arguments(argc, argv, &arguments, &err)) {
        fprintf(stderr, "inferd: %s\n%s", err.message, usage);
        return EXIT_USAGE;
    }
    if (print_about(&arguments)) {
        return 0;
    }
    if (!engine_wait_policy(argv, &err)) {
        fprintf(stderr, "inferd: %s\n", err.message);
        return EXIT_FAILED;
    }
    return run(&arguments);
}
