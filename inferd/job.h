#pragma once
#include "inferd/decide.h"
#include "inferd/shadow.h"

/**
 * One diagnosis on its way through the stages: accepted by the server, decoded on a thread of the pool,
 * batched, computed, and handed back. At any moment exactly one stage owns it, so it needs no lock.
 */
struct job {
    struct job *next; /**< in the lane where it waits */

    /* Filled in by the server. */
    const Thorax__V1__DiagnosisRequest *ask; /**< borrowed; checked by the handler */
    bool urgent;                             /**< STAT */
    int64_t arrived_ns, deadline_ns;         /**< monotonic */
    struct model *model;                     /**< owned reference: the one that it began with */
    const struct decision_point *point;     /**< inside model */
    bool model_changed;   /**< the routing key is pinned to another model, which is not here */
    struct digest pinned; /**< where model_changed: which */
    struct shadow *shadow; /**< borrowed; NULL: this picture is not for comparing */

    /* Filled in on the way. */
    bool has_digest;
    struct digest digest; /**< of the image's bytes */
    uint8_t *grey;        /**< owned; (H, W) as the model's recipe says */
    struct shadow_sample *sample; /**< owned; NULL: none was taken */
    int64_t batch_ns;     /**< when it joined the batcher */
    uint64_t queue_us, decode_us, compute_us; /**< queue_us: all waiting; batch_us of it in the batcher */
    uint64_t batch_us;
    bool computed; /**< it was part of a batch */

    /* The outcome. */
    Thorax__V1__Status status; /**< OK: verdict holds; else error says what is wrong */
    struct verdict verdict;
    struct error error;
};

/** Sets the outcome from an error (whose code is not NONE). */
void job_fail(struct job *job, Thorax__V1__Status status, const struct error *err);

/** Releases the model, the pixels and the sample. */
void job_fini(struct job *job);

/** Bytes of the image asked about: of the encoded file, or of the raw pixels. Borrowed from the request. */
ProtobufCBinaryData job_image_bytes(const struct job *job);

/** True once the deadline is over; the job then has its outcome. */
bool job_expired(struct job *job, int64_t now_ns);
