#pragma once
#include "common/base/digest.h"
#include "common/base/error.h"
#include <stddef.h>
#include <stdint.h>

/**
 * Follows a publisher: fetches the models that it offers, asks for its turn, has the daemon activate, and
 * reports. Owns two threads (one for the sockets, one in which `activate` runs), neither of which ever waits
 * for the other or for serving. With no publisher in reach it keeps trying, with growing pauses, and the
 * daemon serves what it has.
 */
struct subscriber;

struct subscriber_spec {
    const char *announce, *control,
        *blobs;               /**< the publisher's endpoints; NULL: the defaults of common/pool/message.h */
    const char *member;       /**< this member's name, unique in the pool: 1 to 100 of [A-Za-z0-9._-] */
    const char *store_folder; /**< of this member alone */
    int64_t max_model_bytes;  /**< 0: 1 GiB */
    int heartbeat_ms;         /**< as the publisher's; 0: 1000 */
    int window_chunks;        /**< chunks on their way at a time; 0: 16; at most 64 */
    int retry_ms; /**< first pause after a failed fetch or activation, then doubling up to 64 times that; 0:
                     5000 */
    /**
     * Makes the model at model_path the one that serves: load, warm up, self-test, swap. False, with the old
     * model still serving, where that fails. The file has the digest; it stays there at least as long as the
     * model is the last or last but one activated. Called on the subscriber's own thread, one call at a time;
     * may take its time.
     */
    bool (*activate)(void *context, const char *model_path, const struct digest *digest, struct error *err);
    void *context;
};

/** Opens the store; no thread runs yet. Returns owned. Borrows spec.context, nothing else. ERROR_BUSY: the
 * store is in use. */
struct subscriber *subscriber_create(const struct subscriber_spec *spec, struct error *err);

/**
 * Before start: the model that was activated last, or the one before where that one's file is damaged;
 * checked against its digest. The daemon loads it itself and then says so by subscriber_set_active. False
 * with ERROR_NOT_FOUND where there is none.
 */
bool subscriber_last_model(struct subscriber *subscriber, char *path, size_t size, struct digest *digest,
                           struct error *err);

/** Before start: the daemon serves this model already, so it need not be activated again. */
bool subscriber_set_active(struct subscriber *subscriber, const struct digest *digest, struct error *err);

bool subscriber_start(struct subscriber *subscriber, struct error *err);

/** Stops (waiting for an activation that runs), frees. Takes NULL. */
void subscriber_destroy(struct subscriber *subscriber);

enum subscriber_phase {
    SUBSCRIBER_IDLE,
    SUBSCRIBER_FETCHING,
    SUBSCRIBER_WAITING, /**< has the model, waits for its turn */
    SUBSCRIBER_ACTIVATING,
    SUBSCRIBER_FAILED, /**< see error; tries again by itself */
};
struct subscriber_status {
    enum subscriber_phase phase;
    bool connected; /**< the publisher was heard of lately */
    bool has_active, has_target;
    struct digest active, target;
    int64_t fetched_bytes, fetch_bytes; /**< of the model that is being fetched; 0 where none is */
    uint64_t transferred_bytes;         /**< all chunks that arrived since start, good or bad */
    uint64_t bad_chunks;
    struct error error; /**< the last failure; code ERROR_NONE after a success */
};
/** A copy of how it is now. Any thread; never waits for the network. */
void subscriber_status(struct subscriber *subscriber, struct subscriber_status *status);
