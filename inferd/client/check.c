#include "inferd/client/check.h"
#include <inttypes.h>
#include <math.h>
#include <string.h>

enum { REPLY_MAX_FIELDS = 512, REPLY_MAX_DEPTH = 4 };
static const size_t REPLY_MAX_BYTES = 1 << 20;

Thorax__V1__Envelope *client_unpack(struct wire_frame payload, struct error *err) {
    struct message_limits limits = {REPLY_MAX_BYTES, REPLY_MAX_FIELDS, REPLY_MAX_DEPTH};
    Thorax__V1__Envelope *envelope =
        (Thorax__V1__Envelope *)message_unpack(&thorax__v1__envelope__descriptor, payload, &limits, err);
    if (!envelope) {
        error_prefix(err, "reply");
        return NULL;
    }
    if (envelope->protocol_version != MESSAGE_PROTOCOL_VERSION) {
        error_set(err, ERROR_PEER, "the reply is of protocol version %" PRIu32, envelope->protocol_version);
        message_free(&envelope->base);
        return NULL;
    }
    return envelope;
}

const char *client_hint(bool with_keys, bool refused) {
    if (with_keys) {
        return refused ? "is the server key that of the other side, does that side use keys, and is our key in its "
                         "allow-list (role client)?"
                       : "is a member listening there, with that server key, a model, and our key in its allow-list "
                         "(role client)?";
    }
    return refused ? "the other side may want keys" : "is a member listening there, and has it a model?";
}

const char *client_status_name(Thorax__V1__Status status) {
    const ProtobufCEnumValue *value =
        protobuf_c_enum_descriptor_get_value(&thorax__v1__status__descriptor, (int)status);
    return value ? value->name + strlen("STATUS_") : "UNKNOWN";
}

const char *client_decision_name(Thorax__V1__Decision decision) {
    const ProtobufCEnumValue *value =
        protobuf_c_enum_descriptor_get_value(&thorax__v1__decision__descriptor, (int)decision);
    return value ? value->name + strlen("DECISION_") : "UNKNOWN";
}

static bool check_answer(const Thorax__V1__DiagnosisReply *reply, const char *request_id,
                         const struct digest *image, struct error *err) {
    double sum = 0;
    if (strcmp(reply->request_id, request_id) != 0) {
        return error_set(err, ERROR_PEER, "the reply is to another request");
    }
    if (reply->image_sha256.len != sizeof image->bytes ||
        memcmp(reply->image_sha256.data, image->bytes, sizeof image->bytes) != 0) {
        return error_set(err, ERROR_PEER, "the reply is about another image");
    }
    for (size_t i = 0; i < reply->n_probabilities; i++) {
        double probability = reply->probabilities[i]->probability;
        if (!(probability >= 0 && probability <= 1)) {
            return error_set(err, ERROR_PEER, "a probability is not within 0 to 1");
        }
        sum += probability;
    }
    if (reply->n_probabilities < 2 || fabs(sum - 1) > 1e-6 ||
        reply->decision == THORAX__V1__DECISION__DECISION_UNSPECIFIED) {
        return error_set(err, ERROR_PEER, "the reply says OK and has no complete answer");
    }
    return (reply->model && reply->model->digest.len == sizeof(struct digest)) ||
           error_set(err, ERROR_PEER, "the reply does not say which model answered");
}

bool client_check(const Thorax__V1__DiagnosisReply *reply, const char *request_id, const struct digest *image,
                  struct error *err) {
    if (reply->status == THORAX__V1__STATUS__STATUS_OK) {
        return check_answer(reply, request_id, image, err);
    }
    if (reply->status == THORAX__V1__STATUS__STATUS_UNSPECIFIED) {
        return error_set(err, ERROR_PEER, "the reply has no status");
    }
    if (reply->n_probabilities > 0 || reply->decision != THORAX__V1__DECISION__DECISION_UNSPECIFIED) {
        return error_set(err, ERROR_PEER, "the reply says %s and has an answer all the same",
                         client_status_name(reply->status));
    }
    return !*reply->request_id || strcmp(reply->request_id, request_id) == 0 ||
           error_set(err, ERROR_PEER, "the reply is to another request");
}
