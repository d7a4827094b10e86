#include "inferd/router_reply.h"
#include "common/base/clock.h"
#include "common/base/text.h"
#include "inferd/counters.h"
#include <stdlib.h>
#include <string.h>

enum { MODELS_MAX = 64 };

/** What a status reply points to while it is packed. */
struct parts {
    Thorax__V1__StatusCount counts[COUNTERS_STATUSES], *count_list[COUNTERS_STATUSES];
    Thorax__V1__ModelIdentity *models[MODELS_MAX]; /* the members' own messages */
    int votes[MODELS_MAX];                         /* members that answer with it */
    int model_count;
};

static bool is_same(const Thorax__V1__ModelIdentity *a, const Thorax__V1__ModelIdentity *b) {
    return a->digest.len == b->digest.len && memcmp(a->digest.data, b->digest.data, a->digest.len) == 0;
}

/** Notes that a member has a model; votes: it is the one that it answers with. */
static void note_model(struct parts *parts, Thorax__V1__ModelIdentity *model, int votes) {
    int i = 0;
    while (i < parts->model_count && !is_same(parts->models[i], model)) {
        i++;
    }
    if (i == MODELS_MAX || model->digest.len != sizeof(struct digest)) {
        return;
    }
    if (i == parts->model_count) {
        parts->models[parts->model_count++] = model;
        parts->votes[i] = 0;
    }
    parts->votes[i] += votes;
}

static void note_member(struct parts *parts, const Thorax__V1__StatusReply *status) {
    if (status->model) {
        note_model(parts, status->model, 1);
    }
    for (size_t i = 0; i < status->n_resident; i++) {
        note_model(parts, status->resident[i], 0);
    }
}

/** Puts the model that most members answer with first. */
static void sort_models(struct parts *parts) {
    for (int i = 1; i < parts->model_count; i++) {
        if (parts->votes[i] > parts->votes[0]) {
            Thorax__V1__ModelIdentity *model = parts->models[i];
            int votes = parts->votes[i];
            parts->models[i] = parts->models[0];
            parts->votes[i] = parts->votes[0];
            parts->models[0] = model;
            parts->votes[0] = votes;
        }
    }
}

static void fill_counts(const _Atomic uint64_t *by_status, struct parts *parts,
                        Thorax__V1__StatusReply *reply) {
    for (int status = 0; status < COUNTERS_STATUSES; status++) {
        uint64_t count = atomic_load(&by_status[status]);
        if (count > 0) {
            Thorax__V1__StatusCount *row = &parts->counts[reply->n_counts];
            thorax__v1__status_count__init(row);
            row->status = (Thorax__V1__Status)status;
            row->count = count;
            parts->count_list[reply->n_counts++] = row;
        }
    }
    reply->counts = parts->count_list;
}

static void fill_pool(const struct exchange *exchange, struct parts *parts, Thorax__V1__StatusReply *reply) {
    for (int i = 0; i < exchange_member_count(exchange); i++) {
        const Thorax__V1__StatusReply *status = exchange_status(exchange, i);
        if (status && exchange_view(exchange, i).ready) {
            note_member(parts, status);
            reply->operating_points = status->operating_points;
            reply->n_operating_points = status->n_operating_points;
        }
    }
    sort_models(parts);
    reply->members_ready = (uint32_t)exchange_ready_count(exchange);
    reply->model = parts->model_count ? parts->models[0] : NULL;
    reply->resident = parts->models;
    reply->n_resident = (size_t)parts->model_count;
}

static Thorax__V1__MemberCondition condition(const struct router_about *about, uint32_t members_ready) {
    if (about->draining) {
        return THORAX__V1__MEMBER_CONDITION__CONDITION_DRAINING;
    }
    return members_ready ? THORAX__V1__MEMBER_CONDITION__CONDITION_READY
                         : THORAX__V1__MEMBER_CONDITION__CONDITION_NO_MODEL;
}

bool router_status(const struct router_about *about, const struct exchange *exchange, struct bytes *out,
                   struct error *err) {
    struct parts parts = {.model_count = 0};
    Thorax__V1__StatusReply reply = THORAX__V1__STATUS_REPLY__INIT;
    Thorax__V1__Envelope envelope = THORAX__V1__ENVELOPE__INIT;
    fill_counts(about->by_status, &parts, &reply);
    fill_pool(exchange, &parts, &reply);
    reply.member = text_for_packing(about->name);
    reply.version = text_for_packing(about->version);
    reply.condition = condition(about, reply.members_ready);
    reply.uptime_ms = (uint64_t)(clock_now_ms() - about->started_ms);
    reply.in_flight = about->in_flight;
    reply.queue_limit = about->queue_limit;
    reply.undelivered = about->undelivered;
    reply.incarnation = about->incarnation;
    envelope.protocol_version = MESSAGE_PROTOCOL_VERSION;
    envelope.body_case = THORAX__V1__ENVELOPE__BODY_STATUS_REPLY;
    envelope.status_reply = &reply;
    return message_pack(&envelope.base, out, err);
}

bool router_warn(const struct question *question, const Thorax__V1__Envelope *envelope, struct bytes *out,
                 struct error *err) {
    Thorax__V1__DiagnosisReply reply = *envelope->diagnosis_reply;
    Thorax__V1__Envelope changed = *envelope;
    Thorax__V1__Warning warning = THORAX__V1__WARNING__INIT;
    Thorax__V1__Warning **list = calloc(reply.n_warnings + 1, sizeof(Thorax__V1__Warning *));
    if (!list) {
        return error_set(err, ERROR_MEMORY, "no memory for a reply");
    }
    if (reply.n_warnings) {
        memcpy(list, reply.warnings, reply.n_warnings * sizeof(Thorax__V1__Warning *));
    }
    warning.code = THORAX__V1__WARNING_CODE__WARNING_MODEL_CHANGED;
    warning.message = "another model answered for this routing key before";
    list[reply.n_warnings] = &warning;
    reply.warnings = list;
    reply.n_warnings++;
    reply.pinned_model =
        (ProtobufCBinaryData){sizeof question->pin.bytes, (uint8_t *)(uintptr_t)question->pin.bytes};
    changed.diagnosis_reply = &reply;
    bool ok = message_pack(&changed.base, out, err);
    free(list);
    return ok;
}
