#include "trainerd/trainctl/models.h"

#include "trainerd/trainctl/control.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static const char usage[] =
    "usage: trainctl models [--at ENDPOINT] [--timeout-ms N] [--json]\n"
    "Prints what a publisher has published, and the members of its pool.\n"
    "  --at ENDPOINT     the publisher's control socket (default " POOL_DEFAULT_CONTROL ")\n"
    "  --timeout-ms N    how long to wait for the answer (default 10000)\n" CONTROL_KEYS
    "  --json            as JSON\n"
    "  --help            this text\n";

/** The name of row i of a table of names; "unknown" for values of a newer publisher. */
static const char *name_of(const char *const *names, size_t count, int i) {
    return i > 0 && (size_t)i < count ? names[i] : "unknown";
}

static const char *model_state(Thorax__V1__ModelState state) {
    static const char *const names[] = {"", "staged", "stable", "retired", "candidate", "revoked", "registered"};
    return name_of(names, sizeof names / sizeof *names, (int)state);
}

static const char *member_state(Thorax__V1__MemberState state) {
    static const char *const names[] = {"", "idle", "fetching", "waiting", "activating", "failed"};
    return name_of(names, sizeof names / sizeof *names, (int)state);
}

/** A digest field in hexadecimal; "" where it is empty. */
static const char *hex_of(const ProtobufCBinaryData *field, char out[DIGEST_HEX_SIZE]) {
    struct digest digest;
    out[0] = '\0';
    return pool_digest(field, &digest) ? digest_hex(&digest, out) : out;
}

static const char *time_of(int64_t ms, char out[32]) {
    time_t seconds = (time_t)(ms / 1000);
    struct tm utc;
    if (ms == 0 || !gmtime_r(&seconds, &utc) || strftime(out, 32, "%Y-%m-%d %H:%M:%S", &utc) == 0)
        return "-";
    return out;
}

static void print_table(const Thorax__V1__ModelsReply *reply) {
    char hex[DIGEST_HEX_SIZE], when[32];
    if (reply->held[0])
        printf("HELD: %s\nNothing is activated until: trainctl rollout resume --by NAME\n\n", reply->held);
    printf("%-24s %-16s %-12s %12s  %-10s %-19s  %s\n", "MODEL", "VERSION", "DIGEST", "BYTES", "STATE",
           "PUBLISHED (UTC)", "SIGNED WITH       APPROVED BY");
    for (size_t i = 0; i < reply->n_models; i++) {
        const Thorax__V1__ModelRow *row = reply->models[i];
        printf("%-24s %-16s %.12s %12llu  %-10s %-19s  %-16s  %s\n", row->name, row->version, hex_of(&row->digest, hex),
               (unsigned long long)row->size_bytes, model_state(row->state),
               time_of(row->published_ms, when), row->signer[0] ? row->signer : "-", row->approved_by);
        if (row->gate[0])
            printf("    refused by the gate: %s\n", row->gate);
    }
    printf("\n%-24s %-11s %-12s %-10s %10s  %s\n", "MEMBER", "STATE", "RUNS", "SOFTWARE", "SILENT", "ERROR");
    for (size_t i = 0; i < reply->n_members; i++) {
        const Thorax__V1__MemberReport *report = reply->members[i]->report;
        const char *runs = hex_of(&report->active_digest, hex);
        printf("%-24s %-11s %-12.12s %-10s %7lld ms  %s\n", report->member, member_state(report->state),
               runs[0] ? runs : "-", report->software, (long long)reply->members[i]->silent_ms,
               report->error);
    }
}

static json_t *model_json(const Thorax__V1__ModelRow *row) {
    char hex[DIGEST_HEX_SIZE];
    return json_pack("{s:s, s:s, s:s, s:I, s:s, s:I, s:I, s:s, s:s, s:s}", "name", row->name, "version", row->version,
                     "digest", hex_of(&row->digest, hex), "size_bytes", (json_int_t)row->size_bytes, "state",
                     model_state(row->state), "published_ms", (json_int_t)row->published_ms, "activated_ms",
                     (json_int_t)row->activated_ms, "approved_by", row->approved_by, "signer", row->signer, "gate",
                     row->gate);
}

static json_t *member_json(const Thorax__V1__MemberRow *row) {
    char active[DIGEST_HEX_SIZE], target[DIGEST_HEX_SIZE];
    const Thorax__V1__MemberReport *report = row->report;
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:I}", "member", report->member, "state",
                     member_state(report->state), "active_digest", hex_of(&report->active_digest, active),
                     "target_digest", hex_of(&report->target_digest, target), "software", report->software,
                     "error", report->error, "silent_ms", (json_int_t)row->silent_ms);
}

static bool print_json(const Thorax__V1__ModelsReply *reply, struct error *err) {
    json_t *models = json_array(), *members = json_array();
    for (size_t i = 0; i < reply->n_models; i++)
        json_array_append_new(models, model_json(reply->models[i]));
    for (size_t i = 0; i < reply->n_members; i++)
        json_array_append_new(members, member_json(reply->members[i]));
    json_t *root = json_pack("{s:o, s:o, s:s}", "models", models, "members", members, "held", reply->held);
    char *text = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
    if (text)
        puts(text);
    free(text);
    json_decref(root);
    return text || error_set(err, ERROR_MEMORY, "out of memory for the answer as JSON");
}

static bool show(const struct control_options *options, struct error *err) {
    Thorax__V1__ControlRequest request;
    Thorax__V1__ModelsRequest models;
    thorax__v1__control_request__init(&request);
    thorax__v1__models_request__init(&models);
    request.body_case = THORAX__V1__CONTROL_REQUEST__BODY_MODELS;
    request.models = &models;
    Thorax__V1__ControlReply *reply =
        control_ask_once(options, &request, THORAX__V1__CONTROL_REPLY__BODY_MODELS, err);
    bool ok = reply;
    if (ok && options->json)
        ok = print_json(reply->models, err);
    else if (ok)
        print_table(reply->models);
    pool_free(reply);
    return ok;
}

int command_models(int argc, char **argv) {
    struct control_options options;
    struct error err = {0};
    int code = control_parse(argc, argv, 0, usage, &options);
    if (code >= 0)
        return code;
    return show(&options, &err) ? 0 : control_failed(argv, &err);
}
