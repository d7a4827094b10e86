#pragma once
#include "common/image/image.h"
#include "common/wire/security.h"
#include "inferd/counters.h"
#include "inferd/model_stats.h"
#include "inferd/pins.h"
#include "inferd/shadow.h"
#include "inferd/slot.h"

/**
 * Answers requests: one thread owns the ROUTER socket and everything that touches it. It checks and admits,
 * hands work to the pipeline, and sends what comes back.
 */
struct server;

struct server_spec {
    const char *const *bind;      /**< NULL-ended: tcp://, ipc:// */
    bool insecure;                /**< see struct wire_socket_spec */
    struct wire_security *security; /**< borrowed for the server's life: clients and administrators in its list
                                       may ask; NULL: clear text */
    const char *member, *version; /**< borrowed for the server's life */
    struct slot *slot;            /**< borrowed; may be empty: NOT_READY until a model is put in */
    int64_t max_message_bytes; /**< larger ones are TOO_LARGE; a peer that sends twice as much is cut off */
    int64_t default_timeout_ms, max_timeout_ms;
    int64_t drain_timeout_ms; /**< what a drain reply tells; server_drain takes its own */
    bool allow_drain;         /**< a peer may ask for it (with security: an administrator): see server_draining */
    int decode_threads;
    int max_jobs;         /**< requests in flight; more are BUSY */
    size_t max_job_bytes; /**< of their images together */
    int max_batch;
    int64_t max_delay_us;
    const struct instances *instances; /**< borrowed for the server's life; NULL: one, not pinned */
    struct image_limits limits;
    struct pins_spec pins;     /**< of routing keys; zero: none is pinned */
    struct model_stats *stats; /**< borrowed; NULL: nobody counts */
    struct shadow *shadow;     /**< borrowed; outlives the server; NULL: there are no shadows */
    uint64_t incarnation;      /**< of the process, for status replies */
};

/** Binds and starts the pipeline. Returns owned, NULL on error. Use from one thread. */
struct server *server_create(const struct server_spec *spec, struct error *err);
/** Takes NULL. After server_drain: what it accepted has been answered. Without it, waits for what is computed
 * and drops the answers. */
void server_destroy(struct server *server);

/** The endpoint that was really bound. Returns out, or NULL. */
const char *server_bound(struct server *server, int i, char *out, size_t size);

/** Waits up to timeout_ms, or until a signal, for something to do, and does it. False only where the socket
 * itself fails. */
bool server_step(struct server *server, int64_t timeout_ms, struct error *err);

/** A peer asked to drain: new requests are refused already, and the caller is to call server_drain. Any thread. */
bool server_draining(const struct server *server);

/** How it is now. Any thread. */
struct server_health {
    int64_t silent_ms;    /**< since the server's thread last turned; -1: it did not begin yet */
    int64_t computing_ms; /**< how long the longest of the batches under way takes already; 0: none is */
    int in_flight, queue_limit;
    bool draining;
    bool lost; /**< an instance's device cannot be used any more: the process is to drain and end */
};
void server_health(const struct server *server, struct server_health *out);
/** Borrowed; any thread. */
const struct counters *server_counters(const struct server *server);

/** Refuses what is new as NOT_READY and answers what was accepted. ERROR_TIMEOUT where that takes longer than
 * timeout_ms. */
bool server_drain(struct server *server, int64_t timeout_ms, struct error *err);
