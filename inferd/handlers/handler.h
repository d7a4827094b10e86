#pragma once
#include "inferd/counters.h"
#include "inferd/model_stats.h"
#include "inferd/pins.h"
#include "inferd/pipeline.h"
#include "inferd/reply.h"
#include "inferd/route.h"
#include "inferd/slot.h"

/** A request from its arrival to its reply. Owned by the server's thread, or, while a stage works on it, by
 * the pipeline. */
struct request {
    struct job job; /**< first, so that the pipeline's jobs are our requests */
    struct route route;
    struct wire_peer peer;          /**< who asks */
    Thorax__V1__Envelope *envelope; /**< owned; version and form are checked */
};

/** What handlers work with. All of it belongs to the server's thread, but for slot, counters and what is atomic,
 * which any may use. */
struct service {
    const char *member, *version;
    int64_t default_timeout_ms, max_timeout_ms, drain_timeout_ms;
    int max_jobs;
    struct slot *slot;
    struct pipeline *pipeline;
    struct pins *pins;         /**< which model answers for a routing key */
    struct model_stats *stats; /**< borrowed; NULL: nobody counts */
    struct shadow *shadow;     /**< borrowed; NULL: there are no shadows here */
    struct counters counters;
    int64_t started_ms;
    uint64_t incarnation; /**< of the process */
    bool allow_drain;     /**< a peer may ask for it */
    atomic_bool draining; /**< for good: nothing new is accepted */
};

enum handled {
    HANDLED_NOW,   /**< reply is filled in; the request is still the server's */
    HANDLED_LATER, /**< the pipeline has taken the request */
};

/** One kind of request. To add one: a message in proto/, a member of Envelope's oneof, a file in handlers/, a
 * row in registry.c. */
struct handler {
    Thorax__V1__Envelope__BodyCase body;
    const char *name;
    /** Called on the server's thread; must not block. False: nothing can be sent (err says why); the request
     * is still the server's. */
    bool (*handle)(struct service *service, struct request *request, struct bytes *reply, enum handled *how,
                   struct error *err);
};

/** The row for what an envelope holds; NULL where that is no request. */
const struct handler *handler_find(Thorax__V1__Envelope__BodyCase body);

/** Counts and packs a reply without an answer. Any handler may end in it. */
bool service_refuse(struct service *service, const struct refusal *refusal, struct bytes *reply,
                    struct error *err);

/** Counts and packs the reply to a job that the pipeline gave back. */
bool service_conclude(struct service *service, struct job *job, struct bytes *reply, struct error *err);

extern const struct handler handler_diagnose, handler_status, handler_drain;
