#pragma once
#include "common/base/file.h"
#include "common/wire/security.h"
#include "inferd/job.h"
#include "proto/envelope.pb-c.h"

/** Why a request got no answer. Nothing of the request stands in it but the id. */
struct refusal {
    const char *request_id; /**< "" where it could not be read */
    Thorax__V1__Status status;
    const char *message;
    uint32_t retry_after_ms; /**< BUSY */
};

/** True where the same request may succeed later or elsewhere. */
bool reply_is_retryable(Thorax__V1__Status status);

/** Packs the reply to a finished job; probabilities and a decision stand in it only where its status is OK.
 * out->data is owned. */
bool reply_to_job(const struct job *job, const char *member, struct bytes *out, struct error *err);

/** Packs a reply without an answer. */
bool reply_refuse(const struct refusal *refusal, const char *member, struct bytes *out, struct error *err);

/** What a drain request meets. */
struct drain_terms {
    const char *what;             /**< "member" or "router" */
    bool allowed;                 /**< by the configuration */
    const struct wire_peer *peer; /**< who asks; borrowed */
    uint32_t in_flight, timeout_ms;
};

/**
 * Packs the reply to a drain request. *granted: whether it is followed: where the configuration allows it, and on
 * sockets with keys only for administrators.
 */
bool reply_to_drain(const struct drain_terms *terms, bool *granted, struct bytes *out, struct error *err);

/** Fills in which model it was; borrows from info. */
void reply_identify(const struct model_info *info, Thorax__V1__ModelIdentity *out);
