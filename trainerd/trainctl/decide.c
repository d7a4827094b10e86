#include "trainerd/trainctl/decide.h"

#include "common/base/text.h"
#include "trainerd/trainctl/control.h"

#include <jansson.h>
#include <stdio.h>
#include <time.h>

#define COMMON                                                                                               \
    "  --at ENDPOINT     the publisher's control socket (default " POOL_DEFAULT_CONTROL ")\n"                \
    "  --timeout-ms N    how long to wait for the answer (default 10000)\n"                                  \
    CONTROL_KEYS                                                                                             \
    "  --json            as JSON\n"                                                                          \
    "  --help            this text\n"
#define MODEL "MODEL is NAME:VERSION, stable, candidate, previous, or a digest's first 8 to 64 digits.\n"

static const char approve_usage[] =
    "usage: trainctl approve MODEL --by NAME [--note TEXT] [--at ENDPOINT] [--timeout-ms N] [--json]\n"
    "Lets a published model be rolled out. With a note it may be one that the gate refused.\n" MODEL
    "  --by NAME         who approves: kept with the approval\n"
    "  --note TEXT       why, for the record\n" COMMON;
static const char revoke_usage[] =
    "usage: trainctl revoke MODEL --by NAME [--reason TEXT] [--at ENDPOINT] [--timeout-ms N] [--json]\n"
    "Members refuse the model from now on. Not what the pool runs or is to run: roll back first.\n" MODEL
    "  --by NAME         who revokes: kept with the revocation\n"
    "  --reason TEXT     why, for the record\n" COMMON;
static const char events_usage[] =
    "usage: trainctl events [--after N] [--at ENDPOINT] [--timeout-ms N] [--json]\n"
    "Prints what happened, oldest first, a hundred events at a time.\n"
    "  --after N         only those after number N (default 0)\n" COMMON;

int command_approve(int argc, char **argv) {
    struct control_options options;
    Thorax__V1__ControlRequest request;
    Thorax__V1__ApproveRequest approve;
    int code = control_parse(argc, argv, CONTROL_ARGUMENT | CONTROL_BY, approve_usage, &options);
    if (code >= 0)
        return code;
    thorax__v1__control_request__init(&request);
    thorax__v1__approve_request__init(&approve);
    approve.model = text_for_packing(options.file);
    approve.by = text_for_packing(options.by);
    approve.note = text_for_packing(options.reason);
    request.body_case = THORAX__V1__CONTROL_REQUEST__BODY_APPROVE;
    request.approve = &approve;
    return control_do(argv, &options, &request);
}

int command_revoke(int argc, char **argv) {
    struct control_options options;
    Thorax__V1__ControlRequest request;
    Thorax__V1__RevokeRequest revoke;
    int code = control_parse(argc, argv, CONTROL_ARGUMENT | CONTROL_BY, revoke_usage, &options);
    if (code >= 0)
        return code;
    thorax__v1__control_request__init(&request);
    thorax__v1__revoke_request__init(&revoke);
    revoke.model = text_for_packing(options.file);
    revoke.by = text_for_packing(options.by);
    revoke.reason = text_for_packing(options.reason);
    request.body_case = THORAX__V1__CONTROL_REQUEST__BODY_REVOKE;
    request.revoke = &revoke;
    return control_do(argv, &options, &request);
}

static void print_table(const Thorax__V1__EventsReply *reply) {
    printf("%6s  %-19s  %-16s %-12s  %-16s %s\n", "EVENT", "WHEN (UTC)", "WHAT", "MODEL", "BY", "DETAIL");
    for (size_t i = 0; i < reply->n_events; i++) {
        const Thorax__V1__RegistryEvent *event = reply->events[i];
        char hex[DIGEST_HEX_SIZE] = "-", when[32] = "-";
        struct digest digest;
        struct tm utc;
        time_t seconds = (time_t)(event->at_ms / 1000);
        if (pool_digest(&event->digest, &digest))
            digest_hex(&digest, hex);
        if (gmtime_r(&seconds, &utc))
            strftime(when, sizeof when, "%Y-%m-%d %H:%M:%S", &utc);
        printf("%6llu  %-19s  %-16s %-12.12s  %-16s %s\n", (unsigned long long)event->id, when, event->kind,
               hex, event->by[0] ? event->by : "-", event->detail);
    }
}

static void print_json(const Thorax__V1__EventsReply *reply) {
    json_t *rows = json_array();
    for (size_t i = 0; i < reply->n_events; i++) {
        const Thorax__V1__RegistryEvent *event = reply->events[i];
        char hex[DIGEST_HEX_SIZE] = "";
        struct digest digest;
        if (pool_digest(&event->digest, &digest))
            digest_hex(&digest, hex);
        json_array_append_new(rows, json_pack("{s:I, s:I, s:s, s:s, s:s, s:s}", "id", (json_int_t)event->id,
                                              "at_ms", (json_int_t)event->at_ms, "kind", event->kind,
                                              "digest", hex, "by", event->by, "detail", event->detail));
    }
    json_dumpf(rows, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(rows);
}

int command_events(int argc, char **argv) {
    struct control_options options;
    struct error err = {0};
    Thorax__V1__ControlRequest request;
    Thorax__V1__EventsRequest events;
    int code = control_parse(argc, argv, CONTROL_AFTER, events_usage, &options);
    if (code >= 0)
        return code;
    thorax__v1__control_request__init(&request);
    thorax__v1__events_request__init(&events);
    events.after = (uint64_t)options.after;
    request.body_case = THORAX__V1__CONTROL_REQUEST__BODY_EVENTS;
    request.events = &events;
    Thorax__V1__ControlReply *reply =
        control_ask_once(&options, &request, THORAX__V1__CONTROL_REPLY__BODY_EVENTS, &err);
    if (!reply)
        return control_failed(argv, &err);
    (options.json ? print_json : print_table)(reply->events);
    pool_free(reply);
    return 0;
}
