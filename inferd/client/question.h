#pragma once
#include "common/base/digest.h"
#include "common/wire/endpoint.h"
#include "proto/diagnosis.pb-c.h"

enum { QUESTION_ID_SIZE = 129, QUESTION_KEY_MAX = 128, QUESTION_REFUSAL_SIZE = 200 };

/**
 * A diagnosis request that may be sent several times: its bytes as the asker packed them, but for the two
 * fields that change from one sending to the next (timeout_ms, pinned_model), which stand before them. So the
 * picture is never packed again. Owned by whoever holds it; not thread-safe.
 */
struct question {
    char request_id[QUESTION_ID_SIZE];
    struct digest image; /**< of what a reply must echo */
    uint8_t routing_key[QUESTION_KEY_MAX];
    size_t routing_key_size;
    bool particular, urgent; /**< names a model; STAT */
    bool has_pin;            /**< pin is a model's digest: the asker's, or that of its routing key */
    struct digest pin;
    int64_t deadline_ms;                 /**< monotonic: for the caller to set */
    void *owner;                         /**< the caller's */
    int attempts;                        /**< how often it was sent */
    Thorax__V1__Status refused_as;       /**< the last refusal that was not passed on; UNSPECIFIED: none */
    char refusal[QUESTION_REFUSAL_SIZE]; /**< its message */
    uint8_t *buffer;                     /**< owned; room, then the packed fields */
    size_t size_bytes;                   /**< of the packed fields */
};

/** Packs a request, all of whose fields are borrowed. Its request_id, routing_key and picture must be there
 * and within their limits: ERROR_INVALID. Returns owned. */
struct question *question_pack(const Thorax__V1__DiagnosisRequest *request, struct error *err);

/** As question_pack, from the packed bytes that `request` was unpacked from (message_check has seen them). */
struct question *question_take(struct wire_frame packed, const Thorax__V1__DiagnosisRequest *request,
                               struct error *err);

/** Takes NULL. */
void question_destroy(struct question *question);

/** The Envelope to send, with that much time and, where has_pin says so, the pin. Lives until the next call.
 */
struct wire_frame question_envelope(struct question *question, uint32_t timeout_ms);
