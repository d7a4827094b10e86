#include "inferd/client/answer.h"
#include <stdlib.h>
#include <string.h>

/** What an answer's pointers point to. */
struct owned {
    Thorax__V1__Envelope *envelope;
    char request_id[QUESTION_ID_SIZE];
    struct thorax_probability *probabilities;
    struct thorax_warning *warnings;
};

static void destroy(struct owned *owned) {
    if (owned) {
        message_free(owned->envelope ? &owned->envelope->base : NULL);
        free(owned->probabilities);
        free(owned->warnings);
        free(owned);
    }
}

static struct owned *create(const Thorax__V1__DiagnosisReply *reply) {
    struct owned *owned = calloc(1, sizeof *owned);
    if (owned) {
        owned->probabilities = calloc(reply->n_probabilities + 1, sizeof *owned->probabilities);
        owned->warnings = calloc(reply->n_warnings + 1, sizeof *owned->warnings);
    }
    if (!owned || !owned->probabilities || !owned->warnings) {
        destroy(owned);
        return NULL;
    }
    return owned;
}

static void fill_diagnosis(struct thorax_answer *out, const struct owned *owned,
                           const Thorax__V1__DiagnosisReply *reply) {
    out->decision = (enum thorax_decision)reply->decision;
    out->decision_reason = reply->decision_reason;
    out->probabilities = owned->probabilities;
    out->probability_count = reply->n_probabilities;
    for (size_t i = 0; i < reply->n_probabilities; i++) {
        owned->probabilities[i] =
            (struct thorax_probability){reply->probabilities[i]->label, reply->probabilities[i]->probability};
    }
    out->warnings = owned->warnings;
    out->warning_count = reply->n_warnings;
    for (size_t i = 0; i < reply->n_warnings; i++) {
        owned->warnings[i] =
            (struct thorax_warning){(int)reply->warnings[i]->code, reply->warnings[i]->message};
    }
    if (reply->operating_point) {
        out->operating_point = reply->operating_point->name;
        out->operating_point_label = reply->operating_point->label;
        out->rule_in = reply->operating_point->rule_in;
        out->rule_out = reply->operating_point->rule_out;
    }
}

static void fill_model(struct thorax_answer *out, const Thorax__V1__ModelIdentity *model) {
    out->model_name = model->name;
    out->model_version = model->version;
    if (model->digest.len == sizeof out->model_digest) {
        memcpy(out->model_digest, model->digest.data, sizeof out->model_digest);
    }
}

/** Another model than before: as the pool says it, or as the pin that was sent shows it. */
static void fill_change(struct thorax_answer *out, const struct question *question,
                        const Thorax__V1__DiagnosisReply *reply) {
    if (reply->pinned_model.len == sizeof out->pinned_digest) {
        out->model_changed = true;
        memcpy(out->pinned_digest, reply->pinned_model.data, sizeof out->pinned_digest);
    } else if (exchange_model_changed(question, reply)) {
        out->model_changed = true;
        memcpy(out->pinned_digest, question->pin.bytes, sizeof out->pinned_digest);
    }
}

bool answer_fill(struct thorax_answer *out, const struct question *question, Thorax__V1__Envelope *envelope,
                 struct error *err) {
    const Thorax__V1__DiagnosisReply *reply = envelope->diagnosis_reply;
    struct owned *owned = create(reply);
    if (!owned) {
        message_free(&envelope->base);
        return error_set(err, ERROR_MEMORY, "no memory for an answer");
    }
    owned->envelope = envelope;
    memcpy(owned->request_id, question->request_id, sizeof owned->request_id);
    *out = (struct thorax_answer){.status = (enum thorax_status)reply->status,
                                  .retryable = reply->retryable,
                                  .retry_after_ms = reply->retry_after_ms,
                                  .message = reply->message,
                                  .request_id = owned->request_id,
                                  .member = reply->member,
                                  .decision_reason = "",
                                  .operating_point = "",
                                  .operating_point_label = "",
                                  .model_name = "",
                                  .model_version = "",
                                  .attempts = question->attempts,
                                  .owned = owned};
    memcpy(out->image_sha256, question->image.bytes, sizeof out->image_sha256);
    if (reply->times) {
        out->queue_us = reply->times->queue_us;
        out->decode_us = reply->times->decode_us;
        out->compute_us = reply->times->compute_us;
    }
    if (reply->model) {
        fill_model(out, reply->model);
    }
    if (reply->status == THORAX__V1__STATUS__STATUS_OK) {
        fill_diagnosis(out, owned, reply);
        fill_change(out, question, reply);
    }
    return true;
}

void thorax_answer_free(struct thorax_answer *answer) {
    if (answer) {
        destroy(answer->owned);
        memset(answer, 0, sizeof *answer);
    }
}
