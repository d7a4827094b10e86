#pragma once
#include "common/base/digest.h"
#include "common/base/error.h"
#include "common/pool/descriptor.h"
#include "inferd/model_stats.h"
#include <stddef.h>
#include <stdint.h>

/**
 * Follows a publisher: fetches the models that it offers, asks for its turn, has the daemon activate, and
 * reports. Owns two threads (one for the sockets, one in which `activate` runs), neither of which ever waits
 * for the other or for serving. With no publisher in reach it keeps trying, with growing pauses, and the
 * daemon serves what it has.
 */
struct subscriber;
struct wire_security;

enum { SUBSCRIBER_RESIDENTS_MAX = 4 };

/** What only the daemon knows of what a report says. */
struct subscriber_facts {
    int resident_count; /**< models besides the active one that it could answer with at once */
    struct digest residents[SUBSCRIBER_RESIDENTS_MAX];
    bool has_shadow; /**< one is loaded and compared */
    struct digest shadow;
    int stats_count;
    struct model_record stats[MODEL_STATS_MAX];
};

struct subscriber_spec {
    const char *announce, *control,
        *blobs;               /**< the publisher's endpoints; NULL: the defaults of common/pool/message.h */
    struct wire_security *security; /**< borrowed for the subscriber's life: our key; NULL: clear text */
    const char *server_key;   /**< with security: the publisher's public key, Z85 */
    const char *member;       /**< this member's name, unique in the pool: 1 to 100 of [A-Za-z0-9._-] */
    const char *store_folder; /**< of this member alone */
    int64_t max_model_bytes;  /**< 0: 1 GiB */
    int heartbeat_ms;         /**< as the publisher's; 0: 1000 */
    int window_chunks;        /**< chunks on their way at a time; 0: 16; at most 64 */
    int staged_max;           /**< staged models that are fetched ahead of time, the newest; 0: 16, which is also the most */
    int retry_ms; /**< first pause after a failed fetch or activation, then doubling up to 64 times that; 0:
                     5000 */
    uint64_t incarnation; /**< of the member's process, for its reports; 0: drawn at random */
    /**
     * Makes the model at model_path the one that serves: load, warm up, self-test, swap. False, with the old
     * model still serving, where that fails. The file has the digest; it stays there at least as long as the
     * model is the last or last but one activated. Called on the subscriber's own thread, one call at a time;
     * may take its time.
     */
    bool (*activate)(void *context, const char *model_path, const struct digest *digest, struct error *err);
    /**
     * Loads a model that is computed beside the active one on so many of a thousand pictures; again with the same digest:
     * the share changed. path NULL: none any more. Called as activate is. NULL: this daemon has no shadows.
     */
    bool (*shadow)(void *context, const char *model_path, const struct digest *digest, int permille,
                   struct error *err);
    /**
     * Whether a model may be fetched and run here (inferd/trust.h); descriptor NULL: nothing is known of it. Called
     * before anything is fetched, before it is activated, and for what was stored. Any of the subscriber's threads.
     * NULL: everything that the publisher did not revoke.
     */
    bool (*admit)(void *context, const struct descriptor *descriptor, struct error *err);
    /** Fills in facts, all of them, for a report. Called on the network thread; must not block. NULL: there are none. */
    void (*describe)(void *context, struct subscriber_facts *facts);
    /**
     * This model, one of facts->residents, may not run here any more, for the reason given: it was revoked after it
     * was loaded. Called on the network thread; must not block. NULL: this daemon keeps no others than the active one.
     */
    void (*drop)(void *context, const struct digest *digest, const struct error *reason);
    void *context;
};

/** Opens the store; no thread runs yet. Returns owned. Borrows spec.context and spec.security, nothing else. ERROR_BUSY: the
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
    uint64_t reused_bytes;                /**< of fetched models, taken from others that are here */
    uint64_t transferred_bytes;         /**< all chunks that arrived since start, good or bad */
    uint64_t bad_chunks;
    struct error error; /**< the last failure; code ERROR_NONE after a success */
};
/** A copy of how it is now. Any thread; never waits for the network. */
void subscriber_status(struct subscriber *subscriber, struct subscriber_status *status);
