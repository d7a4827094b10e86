#include "inferd/reply.h"
#include "common/wire/message.h"
#include <stdio.h>

enum { DRAIN_REASON_SIZE = 96 };

/* The generated messages have char * where they mean const char *: packing reads only. */
static char *text(const char *borrowed) {
    union {
        const char *from;
        char *to;
    } cast = {borrowed};
    return cast.to;
}

bool reply_is_retryable(Thorax__V1__Status status) {
    return status == THORAX__V1__STATUS__STATUS_BUSY || status == THORAX__V1__STATUS__STATUS_NOT_READY ||
           status == THORAX__V1__STATUS__STATUS_DEADLINE_EXCEEDED ||
           status == THORAX__V1__STATUS__STATUS_INTERNAL;
}

static bool pack(Thorax__V1__DiagnosisReply *reply, struct bytes *out, struct error *err) {
    Thorax__V1__Envelope envelope = THORAX__V1__ENVELOPE__INIT;
    envelope.protocol_version = MESSAGE_PROTOCOL_VERSION;
    envelope.body_case = THORAX__V1__ENVELOPE__BODY_DIAGNOSIS_REPLY;
    envelope.diagnosis_reply = reply;
    reply->retryable = reply_is_retryable(reply->status);
    return message_pack(&envelope.base, out, err);
}

bool reply_refuse(const struct refusal *refusal, const char *member, struct bytes *out, struct error *err) {
    Thorax__V1__DiagnosisReply reply = THORAX__V1__DIAGNOSIS_REPLY__INIT;
    reply.request_id = text(refusal->request_id);
    reply.status = refusal->status;
    reply.message = text(refusal->message);
    reply.retry_after_ms = refusal->retry_after_ms;
    reply.member = text(member);
    return pack(&reply, out, err);
}

static Thorax__V1__Status judge_drain(const struct drain_terms *terms, char *why, size_t size) {
    if (!terms->allowed) {
        snprintf(why, size, "this %s does not drain on request; SIGTERM does the same", terms->what);
        return THORAX__V1__STATUS__STATUS_INVALID_ARGUMENT;
    }
    if (terms->peer->authenticated && !(terms->peer->roles & WIRE_ADMIN)) {
        snprintf(why, size, "only a key with the role admin may end this %s", terms->what);
        return THORAX__V1__STATUS__STATUS_PERMISSION_DENIED;
    }
    return THORAX__V1__STATUS__STATUS_OK;
}

bool reply_to_drain(const struct drain_terms *terms, bool *granted, struct bytes *out, struct error *err) {
    char why[DRAIN_REASON_SIZE] = "";
    Thorax__V1__DrainReply reply = THORAX__V1__DRAIN_REPLY__INIT;
    Thorax__V1__Envelope envelope = THORAX__V1__ENVELOPE__INIT;
    reply.in_flight = terms->in_flight;
    reply.timeout_ms = terms->timeout_ms;
    reply.status = judge_drain(terms, why, sizeof why);
    reply.message = why;
    *granted = reply.status == THORAX__V1__STATUS__STATUS_OK;
    envelope.protocol_version = MESSAGE_PROTOCOL_VERSION;
    envelope.body_case = THORAX__V1__ENVELOPE__BODY_DRAIN_REPLY;
    envelope.drain_reply = &reply;
    return message_pack(&envelope.base, out, err);
}

void reply_identify(const struct model_info *info, Thorax__V1__ModelIdentity *out) {
    thorax__v1__model_identity__init(out);
    out->name = text(info->name);
    out->version = text(info->version);
    out->digest =
        (ProtobufCBinaryData){sizeof info->digest.bytes, (uint8_t *)text((const char *)info->digest.bytes)};
}

/** What an OK reply points to while it is packed. */
struct answer {
    Thorax__V1__ClassProbability classes[MODEL_MAX_CLASSES], *class_list[MODEL_MAX_CLASSES];
    Thorax__V1__Warning warnings[VERDICT_MAX_WARNINGS], *warning_list[VERDICT_MAX_WARNINGS];
    Thorax__V1__Calibration calibration;
    Thorax__V1__OperatingPoint point;
    char recipe[RECIPE_JSON_SIZE];
};

static void fill_probabilities(const struct job *job, struct answer *answer,
                               Thorax__V1__DiagnosisReply *reply) {
    const struct model_info *info = &job->model->info;
    for (int i = 0; i < info->class_count; i++) {
        thorax__v1__class_probability__init(&answer->classes[i]);
        answer->classes[i].label = text(info->classes[i]);
        answer->classes[i].probability = job->verdict.probabilities[i];
        answer->class_list[i] = &answer->classes[i];
    }
    reply->n_probabilities = (size_t)info->class_count;
    reply->probabilities = answer->class_list;
    thorax__v1__calibration__init(&answer->calibration);
    answer->calibration.method = THORAX__V1__CALIBRATION_METHOD__CALIBRATION_TEMPERATURE;
    answer->calibration.temperature = info->temperature;
    reply->calibration = &answer->calibration;
}

static void fill_decision(const struct job *job, struct answer *answer, Thorax__V1__DiagnosisReply *reply) {
    const struct decision_point *point = job->point;
    thorax__v1__operating_point__init(&answer->point);
    answer->point.name = text(point->name);
    answer->point.label = text(job->model->info.classes[point->class_index]);
    answer->point.rule_in = point->rule_in;
    answer->point.rule_out = point->rule_out;
    reply->operating_point = &answer->point;
    reply->decision = job->verdict.decision;
    reply->decision_reason = text(job->verdict.reason);
    for (int i = 0; i < job->verdict.warning_count; i++) {
        thorax__v1__warning__init(&answer->warnings[i]);
        answer->warnings[i].code = job->verdict.warnings[i].code;
        answer->warnings[i].message = text(job->verdict.warnings[i].message);
        answer->warning_list[i] = &answer->warnings[i];
    }
    reply->n_warnings = (size_t)job->verdict.warning_count;
    reply->warnings = answer->warning_list;
}

bool reply_to_job(const struct job *job, const char *member, struct bytes *out, struct error *err) {
    Thorax__V1__DiagnosisReply reply = THORAX__V1__DIAGNOSIS_REPLY__INIT;
    Thorax__V1__ModelIdentity identity;
    Thorax__V1__Times times = THORAX__V1__TIMES__INIT;
    struct answer answer;
    reply.request_id = job->ask->request_id;
    reply.status = job->status;
    reply.member = text(member);
    reply_identify(&job->model->info, &identity);
    reply.model = &identity;
    times.queue_us = job->queue_us;
    times.decode_us = job->decode_us;
    times.compute_us = job->compute_us;
    reply.times = &times;
    if (job->has_digest) {
        reply.image_sha256 =
            (ProtobufCBinaryData){sizeof job->digest.bytes, (uint8_t *)text((const char *)job->digest.bytes)};
    }
    if (job->status != THORAX__V1__STATUS__STATUS_OK) {
        reply.message = text(job->error.message);
        return pack(&reply, out, err);
    }
    if (job->model_changed) {
        reply.pinned_model =
            (ProtobufCBinaryData){sizeof job->pinned.bytes, (uint8_t *)text((const char *)job->pinned.bytes)};
    }
    fill_probabilities(job, &answer, &reply);
    fill_decision(job, &answer, &reply);
    if (!recipe_print(&job->model->info.recipe, answer.recipe, sizeof answer.recipe, err)) {
        return false;
    }
    reply.preprocessing = answer.recipe;
    return pack(&reply, out, err);
}
