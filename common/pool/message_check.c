#include "common/pool/message_check.h"

#include "common/base/text.h"
#include "common/pool/descriptor.h"
#include "common/pool/message.h"

#include <math.h>
#include <string.h>

enum {
    SOFTWARE_BYTES = 64,
    BY_BYTES = 100,
    STATS_MAX = 8,
    DIGESTS_MAX = 32,
    STEPS_MAX = 16,
    REVOKED_MAX = 65536,
    EVENTS_MAX = 1000
};

static bool digest_ok(const ProtobufCBinaryData *field) {
    return field->len == 0 || field->len == 32;
}

/** A list of digests, none of them empty. */
static bool digests_ok(const ProtobufCBinaryData *fields, size_t count, size_t limit) {
    for (size_t i = 0; i < count && count <= limit; i++) {
        if (fields[i].len != 32)
            return false;
    }
    return count <= limit;
}

static bool text_ok(const char *text, size_t limit) {
    size_t length = strnlen(text, limit + 1);
    for (size_t i = 0; i < length; i++) {
        if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
            return false;
    }
    return length <= limit && text_is_utf8(text, length);
}

static bool within(double value, double low, double high) {
    return value >= low && value <= high; /* false for NaN */
}

/* ---- what members say ---- */

static const char *stats_fault(const Thorax__V1__ModelStats *stats) {
    if (stats->digest.len != 32)
        return "statistics of no model";
    if (stats->n_latency_bucket != stats->n_latency_count)
        return "a histogram whose buckets have not one count each";
    if (stats->agreed > stats->compared || !isfinite(stats->drift_sum) || !(stats->drift_square_sum >= 0) ||
        !isfinite(stats->drift_square_sum))
        return "statistics that cannot be";
    return NULL;
}

static const char *report_fault(const Thorax__V1__MemberReport *report) {
    if (!descriptor_name_ok(report->member))
        return "a member's name is not 1 to 100 of [A-Za-z0-9._-]";
    if (report->state <= 0 || report->state > THORAX__V1__MEMBER_STATE__MEMBER_FAILED)
        return "an unknown member state";
    if (!digest_ok(&report->active_digest) || !digest_ok(&report->target_digest) ||
        !digest_ok(&report->shadow_digest) || !digest_ok(&report->refused_digest) ||
        !digests_ok(report->resident_digests, report->n_resident_digests, DIGESTS_MAX) ||
        !digests_ok(report->staged_digests, report->n_staged_digests, DIGESTS_MAX))
        return "a digest has not 32 bytes, or there are too many";
    if (!text_ok(report->error, POOL_MAX_TEXT_BYTES) ||
        !text_ok(report->refused_reason, POOL_MAX_TEXT_BYTES) || !text_ok(report->software, SOFTWARE_BYTES))
        return "a text is too long or no plain UTF-8";
    if (report->n_stats > STATS_MAX)
        return "statistics of too many models";
    for (size_t i = 0; i < report->n_stats; i++) {
        const char *wrong = stats_fault(report->stats[i]);
        if (wrong)
            return wrong;
    }
    return NULL;
}

/* ---- what administrators ask ---- */

static const char *asker_fault(const char *model, bool model_needed, const char *by, const char *text) {
    if (!text_ok(model, POOL_MAX_TEXT_BYTES) || (model_needed && !*model))
        return "no model is named, or its name is too long or no plain UTF-8";
    if (!*by || !text_ok(by, BY_BYTES))
        return "it does not say who asks, in 1 to 100 bytes of UTF-8";
    return text_ok(text, POOL_MAX_TEXT_BYTES) ? NULL : "a text is too long or no plain UTF-8";
}

static const char *step_fault(const Thorax__V1__RolloutStep *step) {
    switch (step->kind) {
    case THORAX__V1__ROLLOUT_STEP_KIND__STEP_STAGE:
        return NULL;
    case THORAX__V1__ROLLOUT_STEP_KIND__STEP_SHADOW:
        return step->shadow_permille >= 1 && step->shadow_permille <= 1000
                   ? NULL
                   : "a shadow step compares 1 to 1000 of a thousand";
    case THORAX__V1__ROLLOUT_STEP_KIND__STEP_CANARY:
        return step->members >= 1 ? NULL : "a canary step of no members";
    case THORAX__V1__ROLLOUT_STEP_KIND__STEP_WAVE:
        return step->percent >= 1 && step->percent <= 100 ? NULL : "a wave is 1 to 100 percent";
    default:
        return "a step of an unknown kind";
    }
}

static const char *gates_fault(const Thorax__V1__RolloutGates *gates) {
    if (!within(gates->error_rate, 0, 1) || !within(gates->agreement, 0, 1) ||
        !within(gates->score_drift, 0, 1))
        return "a gate's limit is not within 0 to 1";
    if (gates->p99_ratio != 0 && !within(gates->p99_ratio, 1, 1000))
        return "the gate p99_ratio is not within 1 to 1000";
    if (gates->confidence != 0 && !within(gates->confidence, .5, .9999))
        return "the gates' confidence is not within 0.5 to 0.9999";
    return NULL;
}

const char *pool_plan_fault(const Thorax__V1__RolloutPlan *plan) {
    if (!descriptor_name_ok(plan->name))
        return "a plan's name is not 1 to 100 of [A-Za-z0-9._-]";
    if (plan->n_steps < 1 || plan->n_steps > STEPS_MAX)
        return "a plan has 1 to 16 steps";
    if (plan->on_failure != THORAX__V1__ROLLOUT_REACTION__REACTION_PAUSE &&
        plan->on_failure != THORAX__V1__ROLLOUT_REACTION__REACTION_ROLLBACK)
        return "a plan does not say what a failure does";
    for (size_t i = 0; i < plan->n_steps; i++) {
        const char *wrong = step_fault(plan->steps[i]);
        if (wrong)
            return wrong;
    }
    const Thorax__V1__RolloutStep *last = plan->steps[plan->n_steps - 1];
    if (last->kind != THORAX__V1__ROLLOUT_STEP_KIND__STEP_WAVE || last->percent != 100)
        return "a plan ends with a wave of 100 percent";
    return plan->gates ? gates_fault(plan->gates) : NULL;
}

static const char *start_fault(const Thorax__V1__RolloutStart *start) {
    const char *wrong = asker_fault(start->model, true, start->by, "");
    if (wrong)
        return wrong;
    return start->plan ? pool_plan_fault(start->plan) : "a rollout without a plan";
}

static const char *command_fault(const Thorax__V1__RolloutCommand *command) {
    if (command->action <= 0 || command->action > THORAX__V1__ROLLOUT_ACTION__ACTION_ABORT)
        return "an unknown action";
    return asker_fault("", false, command->by, command->reason);
}

static const char *turn_fault(const Thorax__V1__ControlRequest *message) {
    const ProtobufCBinaryData *digest = message->body_case == THORAX__V1__CONTROL_REQUEST__BODY_TURN
                                            ? &message->turn->digest
                                            : &message->outcome->digest;
    return message->report && digest->len == 32 ? NULL : "a turn without member or digest";
}

static const char *body_fault(const Thorax__V1__ControlRequest *message) {
    switch (message->body_case) {
    case THORAX__V1__CONTROL_REQUEST__BODY_TURN:
    case THORAX__V1__CONTROL_REQUEST__BODY_OUTCOME:
        return turn_fault(message);
    case THORAX__V1__CONTROL_REQUEST__BODY_UPLOAD:
        return message->upload->model ? NULL : "an upload without a model";
    case THORAX__V1__CONTROL_REQUEST__BODY_CHUNK:
        return message->chunk->digest.len == 32 ? NULL : "a chunk without a digest";
    case THORAX__V1__CONTROL_REQUEST__BODY_MODELS:
    case THORAX__V1__CONTROL_REQUEST__BODY_ROLLOUT_STATUS:
        return NULL;
    case THORAX__V1__CONTROL_REQUEST__BODY_EVENTS:
        return message->events->limit <= EVENTS_MAX ? NULL : "too many events at once";
    case THORAX__V1__CONTROL_REQUEST__BODY_APPROVE:
        return asker_fault(message->approve->model, true, message->approve->by, message->approve->note);
    case THORAX__V1__CONTROL_REQUEST__BODY_REVOKE:
        return asker_fault(message->revoke->model, true, message->revoke->by, message->revoke->reason);
    case THORAX__V1__CONTROL_REQUEST__BODY_ROLLOUT_START:
        return start_fault(message->rollout_start);
    case THORAX__V1__CONTROL_REQUEST__BODY_ROLLOUT_COMMAND:
        return command_fault(message->rollout_command);
    case THORAX__V1__CONTROL_REQUEST__BODY_ROLLBACK:
        return asker_fault(message->rollback->model, false, message->rollback->by, message->rollback->reason);
    default: /* a snapshot, or nothing but a heartbeat */
        return message->report ? NULL : "no member and nothing asked";
    }
}

const char *pool_request_fault(const Thorax__V1__ControlRequest *message) {
    const char *wrong = message->report ? report_fault(message->report) : NULL;
    return wrong ? wrong : body_fault(message);
}

/* ---- what the publisher says ---- */

const char *pool_announcement_fault(const Thorax__V1__Announcement *message) {
    if (message->kind == THORAX__V1__EVENT_KIND__EVENT_STAGED && !message->model)
        return "staged without a model";
    /* A kind that is not known here comes from a newer publisher, and says that something changed. */
    return message->kind > 0 ? NULL : "an unknown event";
}

static const char *row_fault(const Thorax__V1__ModelRow *row) {
    if (!descriptor_name_ok(row->name) || !descriptor_name_ok(row->version) || row->digest.len != 32)
        return "a model's name, version or digest";
    return text_ok(row->approved_by, BY_BYTES) && text_ok(row->signer, SOFTWARE_BYTES) &&
                   text_ok(row->gate, POOL_MAX_TEXT_BYTES)
               ? NULL
               : "a text is too long or no plain UTF-8";
}

static const char *models_fault(const Thorax__V1__ModelsReply *models) {
    for (size_t i = 0; i < models->n_models; i++) {
        const char *wrong = row_fault(models->models[i]);
        if (wrong)
            return wrong;
    }
    for (size_t i = 0; i < models->n_members; i++) {
        const Thorax__V1__MemberRow *row = models->members[i];
        const char *wrong = row->report ? report_fault(row->report) : "a member without report";
        if (wrong || !digest_ok(&row->assigned_digest))
            return wrong ? wrong : "a digest has not 32 bytes";
    }
    return text_ok(models->held, POOL_MAX_TEXT_BYTES) ? NULL : "a text is too long or no plain UTF-8";
}

static const char *snapshot_fault(const Thorax__V1__Snapshot *snapshot) {
    if (!digests_ok(snapshot->revoked, snapshot->n_revoked, REVOKED_MAX) ||
        !digest_ok(&snapshot->stable_digest))
        return "a digest has not 32 bytes, or there are too many";
    if (!snapshot->shadow)
        return NULL;
    return snapshot->shadow->model && snapshot->shadow->permille >= 1 && snapshot->shadow->permille <= 1000
               ? NULL
               : "a shadow without a model or share";
}

static const char *rollout_fault(const Thorax__V1__RolloutStatus *rollout) {
    if (!rollout->model || !rollout->plan)
        return rollout->id ? "a rollout without its model or plan" : NULL;
    const char *wrong = row_fault(rollout->model);
    wrong = wrong ? wrong : pool_plan_fault(rollout->plan);
    if (wrong)
        return wrong;
    for (size_t i = 0; i < rollout->n_gates; i++) {
        if (!text_ok(rollout->gates[i]->name, SOFTWARE_BYTES))
            return "a text is too long or no plain UTF-8";
    }
    if (rollout->step >= rollout->plan->n_steps || !digest_ok(&rollout->incumbent_digest))
        return "a step that the plan has not, or a digest that has not 32 bytes";
    return text_ok(rollout->reason, POOL_MAX_TEXT_BYTES) && text_ok(rollout->by, BY_BYTES) &&
                   text_ok(rollout->waiting_for, POOL_MAX_TEXT_BYTES)
               ? NULL
               : "a text is too long or no plain UTF-8";
}

static const char *events_fault(const Thorax__V1__EventsReply *events) {
    for (size_t i = 0; i < events->n_events; i++) {
        const Thorax__V1__RegistryEvent *event = events->events[i];
        if (!digest_ok(&event->digest) || !text_ok(event->kind, SOFTWARE_BYTES) ||
            !text_ok(event->by, BY_BYTES) || !text_ok(event->detail, POOL_MAX_TEXT_BYTES))
            return "an event's digest or texts";
    }
    return NULL;
}

const char *pool_reply_fault(const Thorax__V1__ControlReply *message) {
    if (message->registry_id.len != 0 && message->registry_id.len != 16)
        return "a registry's id has not 16 bytes";
    switch (message->body_case) {
    case THORAX__V1__CONTROL_REPLY__BODY_SNAPSHOT:
        return snapshot_fault(message->snapshot);
    case THORAX__V1__CONTROL_REPLY__BODY_TURN:
        return message->turn->digest.len == 32 ? NULL : "a turn without a digest";
    case THORAX__V1__CONTROL_REPLY__BODY_UPLOAD:
        return message->upload->digest.len == 32 && text_ok(message->upload->gate, POOL_MAX_TEXT_BYTES)
                   ? NULL
                   : "an upload without a digest, or a text that is too long or no plain UTF-8";
    case THORAX__V1__CONTROL_REPLY__BODY_MODELS:
        return models_fault(message->models);
    case THORAX__V1__CONTROL_REPLY__BODY_ROLLOUT:
        return rollout_fault(message->rollout);
    case THORAX__V1__CONTROL_REPLY__BODY_EVENTS:
        return events_fault(message->events);
    case THORAX__V1__CONTROL_REPLY__BODY_DONE:
        return text_ok(message->done->message, POOL_MAX_TEXT_BYTES) ? NULL
                                                                    : "a text is too long or no plain UTF-8";
    case THORAX__V1__CONTROL_REPLY__BODY_REFUSAL:
        return text_ok(message->refusal->message, POOL_MAX_TEXT_BYTES)
                   ? NULL
                   : "a refusal's text is too long or no plain UTF-8";
    default:
        return NULL;
    }
}

const char *pool_blob_request_fault(const Thorax__V1__BlobRequest *message) {
    if (message->digest.len != 32)
        return "no digest";
    return message->offset <= INT64_MAX && message->chunks >= 1 && message->chunks <= POOL_MAX_CREDIT
               ? NULL
               : "offset or credit out of range";
}

const char *pool_blob_chunk_fault(const Thorax__V1__BlobChunk *message) {
    if (message->digest.len != 32 || message->offset > INT64_MAX)
        return "no digest, or an offset out of range";
    return !message->refusal || text_ok(message->refusal->message, POOL_MAX_TEXT_BYTES)
               ? NULL
               : "a refusal's text is too long or no plain UTF-8";
}
