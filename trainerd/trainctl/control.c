#include "trainerd/trainctl/control.h"

#include "common/base/text.h"

#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int wrong_usage(char **argv, const char *usage, const char *message) {
    fprintf(stderr, "trainctl %s: %s\n%s", argv[0], message, usage);
    return 2;
}

/** Takes one option. Returns what is wrong with it, NULL: nothing. */
static const char *take_option(int letter, unsigned takes, struct control_options *options) {
    switch (letter) {
    case 't':
        options->endpoint = optarg;
        return NULL;
    case 'j':
        options->json = true;
        return NULL;
    case 'm':
        return text_to_int(optarg, 1, 3600000, &options->timeout_ms, NULL)
                   ? NULL
                   : "--timeout-ms: a number from 1 to 3600000 is wanted";
    case 'b':
        options->by = optarg;
        return takes & CONTROL_BY ? NULL : "--by was not expected";
    case 'r':
        options->reason = optarg;
        return takes & CONTROL_BY ? NULL : "--reason was not expected";
    case 's':
        options->sign_key = optarg;
        return takes & CONTROL_SIGN ? NULL : "--sign-key was not expected";
    case 'p':
        options->plan = optarg;
        return takes & CONTROL_PLAN ? NULL : "--plan was not expected";
    case 'd':
        options->plans = optarg;
        return takes & CONTROL_PLAN ? NULL : "--plans was not expected";
    case 'k':
        options->key = optarg;
        return NULL;
    case 'K':
        options->server_key = optarg;
        return NULL;
    case 'w':
        options->watch = true;
        return takes & CONTROL_WATCH ? NULL : "--watch was not expected";
    case 'a':
        if (!(takes & CONTROL_AFTER))
            return "--after was not expected";
        return text_to_int(optarg, 0, INT64_MAX, &options->after, NULL) ? NULL : "--after: a number is wanted";
    default:
        return "unknown option, or an option without its value";
    }
}

/** Our key and the publisher's: what was not given comes from the environment, and they go together. */
static const char *check_keys(struct control_options *options) {
    const char *key = getenv("THORAX_KEY"), *server_key = getenv("THORAX_SERVER_KEY");
    if (!options->key && key && *key)
        options->key = key;
    if (!options->server_key && server_key && *server_key)
        options->server_key = server_key;
    if (!options->key == !options->server_key || strncmp(options->endpoint, "tcp://", 6) != 0)
        return NULL;
    return options->key ? "--key wants --server-key, or THORAX_SERVER_KEY: the publisher's own public key"
                        : "--server-key wants --key, or THORAX_KEY: our own secret key";
}

/** What is wrong with all of it; NULL: nothing. */
static const char *check_whole(int arguments, unsigned takes, const struct control_options *options) {
    bool one = takes & CONTROL_ARGUMENT;
    if (arguments != one && !(takes & CONTROL_MAY_ARGUMENT && arguments == 1))
        return one ? "one argument is wanted" : "an argument was not expected";
    if (takes & CONTROL_PLAN && !options->plan)
        return "--plan PLAN is wanted";
    return takes & CONTROL_BY && !options->by ? "--by NAME is wanted: it is kept with what is done" : NULL;
}

int control_parse(int argc, char **argv, unsigned takes, const char *usage, struct control_options *options) {
    static const struct option rows[] = {{"to", required_argument, NULL, 't'},
                                         {"at", required_argument, NULL, 't'},
                                         {"timeout-ms", required_argument, NULL, 'm'},
                                         {"json", no_argument, NULL, 'j'},
                                         {"by", required_argument, NULL, 'b'},
                                         {"reason", required_argument, NULL, 'r'},
                                         {"note", required_argument, NULL, 'r'},
                                         {"after", required_argument, NULL, 'a'},
                                         {"sign-key", required_argument, NULL, 's'},
                                         {"plan", required_argument, NULL, 'p'},
                                         {"plans", required_argument, NULL, 'd'},
                                         {"watch", no_argument, NULL, 'w'},
                                         {"key", required_argument, NULL, 'k'},
                                         {"server-key", required_argument, NULL, 'K'},
                                         {"help", no_argument, NULL, 'h'},
                                         {0}};
    *options = (struct control_options){.endpoint = POOL_DEFAULT_CONTROL, .timeout_ms = 10000, .reason = ""};
    optind = 1;
    opterr = 0;
    for (int letter; (letter = getopt_long(argc, argv, "", rows, NULL)) != -1;) {
        if (letter == 'h') {
            fputs(usage, stdout);
            return 0;
        }
        const char *wrong = take_option(letter, takes, options);
        if (wrong)
            return wrong_usage(argv, usage, wrong);
    }
    const char *wrong = check_whole(argc - optind, takes, options);
    wrong = wrong ? wrong : check_keys(options);
    if (wrong)
        return wrong_usage(argv, usage, wrong);
    options->file = argc > optind ? argv[optind] : NULL;
    return -1;
}

int control_failed(char **argv, const struct error *err) {
    fprintf(stderr, "trainctl %s: %s%s%s\n", argv[0], err->message, err->hint[0] ? "; " : "", err->hint);
    return 1;
}

bool control_enter(struct control *control, struct control_keys *keys, const struct control_options *options,
                   struct error *err) {
    struct wire_security_spec spec = {.secret_key = options->key};
    *keys = (struct control_keys){0};
    *control = (struct control){0};
    if (options->key && options->server_key) { /* one alone: an ipc:// endpoint, see check_keys */
        if (!(keys->security = wire_security_create(&spec, err)))
            return error_prefix(err, "--key");
        if (!curve_public_load(options->server_key, keys->server_key, err))
            return error_prefix(err, "--server-key");
    }
    return control_open(control, options->endpoint, options->timeout_ms, keys, err);
}

void control_leave(struct control *control, struct control_keys *keys) {
    control_close(control);
    wire_security_destroy(keys->security);
    *keys = (struct control_keys){0};
}

Thorax__V1__ControlReply *control_ask_once(const struct control_options *options,
                                           Thorax__V1__ControlRequest *request,
                                           Thorax__V1__ControlReply__BodyCase kind, struct error *err) {
    struct control control;
    struct control_keys keys;
    Thorax__V1__ControlReply *reply = NULL;
    if (control_enter(&control, &keys, options, err))
        reply = control_ask(&control, request, NULL, err);
    control_leave(&control, &keys);
    if (!reply || reply->body_case == kind)
        return reply;
    error_set(err, ERROR_FORMAT, "the publisher's answer is about something else");
    pool_free(reply);
    return NULL;
}

static bool print_done(const struct control_options *options, const char *message, struct error *err) {
    if (!options->json)
        return puts(message) >= 0 || error_set(err, ERROR_IO, "the answer cannot be written");
    json_t *root = json_pack("{s:s}", "done", message);
    char *text = root ? json_dumps(root, 0) : NULL;
    bool ok = (text && puts(text) >= 0) || error_set(err, ERROR_MEMORY, "out of memory for the answer as JSON");
    free(text);
    json_decref(root);
    return ok;
}

int control_do(char **argv, const struct control_options *options, Thorax__V1__ControlRequest *request) {
    struct error err = {0};
    Thorax__V1__ControlReply *reply =
        control_ask_once(options, request, THORAX__V1__CONTROL_REPLY__BODY_DONE, &err);
    if (!reply)
        return control_failed(argv, &err);
    bool ok = print_done(options, reply->done->message, &err);
    pool_free(reply);
    return ok ? 0 : control_failed(argv, &err);
}
