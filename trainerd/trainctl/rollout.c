#include "trainerd/trainctl/rollout.h"

#include "common/base/clock.h"
#include "common/base/signals.h"
#include "common/base/text.h"
#include "trainerd/trainctl/control.h"
#include "trainerd/trainctl/plan.h"
#include "trainerd/trainctl/rollout_show.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define COMMON                                                                                               \
    "  --at ENDPOINT     the publisher's control socket (default " POOL_DEFAULT_CONTROL ")\n"                \
    "  --timeout-ms N    how long to wait for the answer (default 10000)\n"                                  \
    CONTROL_KEYS                                                                                             \
    "  --json            as JSON\n"                                                                          \
    "  --help            this text\n"
#define MODEL "MODEL is NAME:VERSION, stable, candidate, previous, or a digest's first 8 to 64 digits.\n"

static const char usage[] = "usage: trainctl rollout start MODEL --plan PLAN --by NAME\n"
                            "       trainctl rollout status [--watch]\n"
                            "       trainctl rollout pause|resume|abort --by NAME [--reason TEXT]\n"
                            "       trainctl rollout keys [--markdown]\n"
                            "Brings a model into the pool step by step, judged by what the members report; "
                            "all take --at, --key, --server-key, --timeout-ms, --json.\n"
                            "`trainctl rollout COMMAND --help` says more.\n";
static const char start_usage[] =
    "usage: trainctl rollout start MODEL --plan PLAN --by NAME [--plans DIR] [--at ENDPOINT] [--timeout-ms "
    "N] [--json]\n"
    "Starts to bring an approved model into the pool.\n" MODEL
    "  --plan PLAN       the plan's name (direct, canary, cautious), or a file ending in .yaml\n"
    "  --plans DIR       where plans are looked for by name (default: those that came with the program)\n"
    "  --by NAME         who starts it: kept with the rollout\n" COMMON;
static const char status_usage[] =
    "usage: trainctl rollout status [--watch] [--at ENDPOINT] [--timeout-ms N] [--json]\n"
    "How the newest rollout is: its steps, gates with their confidence bounds, members, and what it waits "
    "for.\n"
    "  --watch           again each second, until it has ended or Ctrl-C is pressed\n" COMMON;
static const char command_usage[] =
    "usage: trainctl rollout pause|resume|abort --by NAME [--reason TEXT] [--at ENDPOINT] [--timeout-ms N] "
    "[--json]\n"
    "pause: members keep what they run. resume: goes on, the present step's counts and time begin anew; "
    "lifts the hold of a\n"
    "registry that was restored from a backup. abort: back to the incumbent, everywhere and at once.\n"
    "  --by NAME         who does it: kept with the rollout\n"
    "  --reason TEXT     why, for the record\n" COMMON;
static const char rollback_usage[] =
    "usage: trainctl rollback [MODEL] --by NAME [--reason TEXT] [--at ENDPOINT] [--timeout-ms N] [--json]\n"
    "Back to a model that is still in the store, at once and everywhere; ends a rollout that is under way. "
    "Without MODEL: the one\n"
    "that was stable before, or, while a rollout is under way, its incumbent.\n" MODEL
    "  --by NAME         who does it: kept with the record\n"
    "  --reason TEXT     why, for the record\n" COMMON;

enum { WATCH_MS = 1000 };

static int start(int argc, char **argv) {
    struct control_options options;
    struct error err = {0};
    struct plan plan;
    Thorax__V1__ControlRequest request;
    Thorax__V1__RolloutStart body;
    int code = control_parse(argc, argv, CONTROL_ARGUMENT | CONTROL_BY | CONTROL_PLAN, start_usage, &options);
    if (code >= 0)
        return code;
    if (plan_find(&plan, options.plan, options.plans, &err)) {
        thorax__v1__control_request__init(&request);
        thorax__v1__rollout_start__init(&body);
        body.model = text_for_packing(options.file);
        body.plan = &plan.message;
        body.by = text_for_packing(options.by);
        request.body_case = THORAX__V1__CONTROL_REQUEST__BODY_ROLLOUT_START;
        request.rollout_start = &body;
        code = control_do(argv, &options, &request);
    } else {
        code = control_failed(argv, &err);
    }
    plan_fini(&plan);
    return code;
}

/* ---- status ---- */

static Thorax__V1__ControlReply *ask_status(struct control *control, struct error *err) {
    Thorax__V1__ControlRequest request;
    Thorax__V1__RolloutStatusRequest body;
    thorax__v1__control_request__init(&request);
    thorax__v1__rollout_status_request__init(&body);
    request.body_case = THORAX__V1__CONTROL_REQUEST__BODY_ROLLOUT_STATUS;
    request.rollout_status = &body;
    return control_ask(control, &request, NULL, err);
}

static Thorax__V1__ControlReply *ask_members(struct control *control, struct error *err) {
    Thorax__V1__ControlRequest request;
    Thorax__V1__ModelsRequest body;
    thorax__v1__control_request__init(&request);
    thorax__v1__models_request__init(&body);
    request.body_case = THORAX__V1__CONTROL_REQUEST__BODY_MODELS;
    request.models = &body;
    return control_ask(control, &request, NULL, err);
}

/** One look. *over: there is nothing more to see. */
static bool look(struct control *control, const struct control_options *options, bool clear, bool *over,
                 struct error *err) {
    Thorax__V1__ControlReply *status = ask_status(control, err);
    Thorax__V1__ControlReply *members = status ? ask_members(control, err) : NULL;
    bool ok = members;
    if (ok && (status->body_case != THORAX__V1__CONTROL_REPLY__BODY_ROLLOUT ||
               members->body_case != THORAX__V1__CONTROL_REPLY__BODY_MODELS))
        ok = error_set(err, ERROR_FORMAT, "the publisher's answer is about something else");
    if (ok) {
        *over = status->rollout->ended_ms || !status->rollout->id;
        if (clear)
            fputs("\033[H\033[2J", stdout);
        if (options->json)
            ok = rollout_show_json(status->rollout, members->models, stdout, err);
        else
            rollout_show_text(status->rollout, members->models, stdout);
        fflush(stdout);
    }
    pool_free(status);
    pool_free(members);
    return ok;
}

static int status(int argc, char **argv) {
    struct control_options options;
    struct control control;
    struct control_keys keys;
    struct error err = {0};
    int code = control_parse(argc, argv, CONTROL_WATCH, status_usage, &options);
    if (code >= 0)
        return code;
    bool over = false, clear = options.watch && !options.json && isatty(STDOUT_FILENO);
    bool ok = control_enter(&control, &keys, &options, &err) &&
              look(&control, &options, clear, &over, &err);
    while (ok && options.watch && !over && !signals_stop) {
        clock_sleep_ms(WATCH_MS);
        ok = signals_stop || look(&control, &options, clear, &over, &err);
    }
    control_leave(&control, &keys);
    return ok ? 0 : control_failed(argv, &err);
}

/* ---- what changes a rollout ---- */

static int command(int argc, char **argv, Thorax__V1__RolloutAction action) {
    struct control_options options;
    Thorax__V1__ControlRequest request;
    Thorax__V1__RolloutCommand body;
    int code = control_parse(argc, argv, CONTROL_BY, command_usage, &options);
    if (code >= 0)
        return code;
    thorax__v1__control_request__init(&request);
    thorax__v1__rollout_command__init(&body);
    body.action = action;
    body.by = text_for_packing(options.by);
    body.reason = text_for_packing(options.reason);
    request.body_case = THORAX__V1__CONTROL_REQUEST__BODY_ROLLOUT_COMMAND;
    request.rollout_command = &body;
    return control_do(argv, &options, &request);
}

static int pause_command(int argc, char **argv) {
    return command(argc, argv, THORAX__V1__ROLLOUT_ACTION__ACTION_PAUSE);
}

static int resume_command(int argc, char **argv) {
    return command(argc, argv, THORAX__V1__ROLLOUT_ACTION__ACTION_RESUME);
}

static int abort_command(int argc, char **argv) {
    return command(argc, argv, THORAX__V1__ROLLOUT_ACTION__ACTION_ABORT);
}

/** Every key of a plan. */
static int keys(int argc, char **argv) {
    bool markdown = argc == 2 && strcmp(argv[1], "--markdown") == 0;
    if (argc > 1 && !markdown) {
        bool help = strcmp(argv[1], "--help") == 0;
        fputs("usage: trainctl rollout keys [--markdown]\nPrints every key of a plan.\n",
              help ? stdout : stderr);
        return help ? 0 : 2;
    }
    plan_print_keys(markdown, stdout);
    return 0;
}

/* One row a command; called names it in messages. */
static const struct {
    const char *name, *called;
    int (*run)(int argc, char **argv);
} COMMANDS[] = {
    {"start", "rollout start", start},         {"status", "rollout status", status},
    {"pause", "rollout pause", pause_command}, {"resume", "rollout resume", resume_command},
    {"abort", "rollout abort", abort_command}, {"keys", "rollout keys", keys},
};

int command_rollout(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "--help") == 0) {
        fputs(usage, stdout);
        return 0;
    }
    for (size_t i = 0; argc > 1 && i < sizeof COMMANDS / sizeof *COMMANDS; i++) {
        if (strcmp(COMMANDS[i].name, argv[1]) != 0)
            continue;
        argv[1] = text_for_packing(COMMANDS[i].called);
        return COMMANDS[i].run(argc - 1, argv + 1);
    }
    fprintf(stderr, "trainctl rollout: start, status, pause, resume, abort or keys is wanted\n%s", usage);
    return 2;
}

int command_rollback(int argc, char **argv) {
    struct control_options options;
    Thorax__V1__ControlRequest request;
    Thorax__V1__RollbackRequest body;
    int code = control_parse(argc, argv, CONTROL_MAY_ARGUMENT | CONTROL_BY, rollback_usage, &options);
    if (code >= 0)
        return code;
    thorax__v1__control_request__init(&request);
    thorax__v1__rollback_request__init(&body);
    body.model = text_for_packing(options.file);
    body.by = text_for_packing(options.by);
    body.reason = text_for_packing(options.reason);
    request.body_case = THORAX__V1__CONTROL_REQUEST__BODY_ROLLBACK;
    request.rollback = &body;
    return control_do(argv, &options, &request);
}
