#include "inferd/intake.h"
#include "common/wire/message.h"

enum {
    REQUEST_MAX_FIELDS = 64,
    REQUEST_MAX_DEPTH = 3, /* Envelope, DiagnosisRequest, RawPixels or Age */
};

Thorax__V1__Status intake_status(enum error_code code) {
    switch (code) {
    case ERROR_TOO_LARGE:
        return THORAX__V1__STATUS__STATUS_TOO_LARGE;
    case ERROR_UNSUPPORTED:
        return THORAX__V1__STATUS__STATUS_UNSUPPORTED_VERSION;
    case ERROR_MEMORY:
        return THORAX__V1__STATUS__STATUS_INTERNAL;
    default:
        return THORAX__V1__STATUS__STATUS_INVALID_ARGUMENT;
    }
}

/** Reads the version before anything else: what another version allows is not ours to judge. */
static bool check_version(struct wire_frame payload, struct error *err) {
    uint64_t version;
    if (payload.size == 0 || !message_peek(payload, 1, &version)) {
        return true; /* message_unpack says what is wrong */
    }
    return version == MESSAGE_PROTOCOL_VERSION ||
           error_set(err, ERROR_UNSUPPORTED, "protocol_version: this member speaks %d",
                     MESSAGE_PROTOCOL_VERSION);
}

Thorax__V1__Envelope *intake_unpack(struct wire_frame payload, size_t max_bytes, struct error *err) {
    struct message_limits limits = {
        .max_bytes = max_bytes, .max_fields = REQUEST_MAX_FIELDS, .max_depth = REQUEST_MAX_DEPTH};
    if (!check_version(payload, err)) {
        return NULL;
    }
    return (Thorax__V1__Envelope *)message_unpack(&thorax__v1__envelope__descriptor, payload, &limits, err);
}
