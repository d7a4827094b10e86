#pragma once
#include "common/base/digest.h"
#include "common/base/error.h"
#include "common/pool/descriptor.h"
#include "trainerd/gate.h"
#include <stdint.h>

/**
 * Offers models to the pool: announces them, serves their bytes, and lets the members activate one after the
 * other. Owns a thread, which owns the three sockets (proto/pool.proto); the functions here may be called
 * from any other thread.
 *
 * What it publishes is kept in the store's folder (objects, and the file registry.sqlite), so a publisher
 * that was killed at any moment goes on where it was, in the middle of a rollout (rollout.h) too.
 */
struct publisher;
struct wire_security;

enum publisher_activate {
    PUBLISHER_ACTIVATE_AUTO,   /**< a published model is rolled out by itself; what is under way then ends */
    PUBLISHER_ACTIVATE_MANUAL, /**< it is staged only; a person approves it and starts its rollout */
};

enum { PUBLISHER_MAX_METRICS = 64 };

/** What a model file says of itself. Plain data. */
struct publisher_findings {
    char name[DESCRIPTOR_NAME_SIZE], version[DESCRIPTOR_NAME_SIZE];
    char architecture[DESCRIPTOR_NAME_SIZE], precision[DESCRIPTOR_NAME_SIZE];
    char provenance[DESCRIPTOR_PROVENANCE_SIZE]; /**< for people */
    int64_t head_bytes; /**< its header: what may differ while the weights are the same */
    struct digest weights;
    uint64_t memory_bytes; /**< about what it takes to serve it */
    int metric_count;      /**< figures that it carries, the first PUBLISHER_MAX_METRICS of them */
    struct registry_metric metrics[PUBLISHER_MAX_METRICS];
};

/** What became of a file that was published. */
struct publisher_published {
    struct digest digest;
    bool offered;                  /**< to the pool */
    char gate[REGISTRY_TEXT_SIZE]; /**< what the gate has against it; "": nothing */
};

struct publisher_spec {
    const char *announce, *control,
        *blobs; /**< endpoints to bind; NULL: the defaults of common/pool/message.h */
    const char *store_folder;
    int64_t max_model_bytes; /**< 0: 1 GiB */
    enum publisher_activate activate;
    bool registers_only; /**< a new model is offered to the members only once it is approved; not with activate AUTO */
    /** Of a rollout that starts by itself; copied. NULL: all members, one after the other. */
    const struct Thorax__V1__RolloutPlan *plan;
    int heartbeat_ms;            /**< 0: 1000. A member that says nothing for three of them is gone. */
    int activation_timeout_ms;   /**< how long a member may take over its turn; 0: 120000 */
    int keep_models;             /**< retired models that stay in the store; 0: 8 */
    const struct gate_rule *gate; /**< (gate_count), copied: what a new model is judged by */
    int gate_count;
    const char *sign_key;        /**< a .key file of trainctl keygen sign: signs what comes unsigned; NULL: nothing */
    bool insecure;               /**< bind addresses other than loopback in the clear */
    struct wire_security *security; /**< borrowed for the publisher's life; NULL: clear text, everybody may ask anything */
    /**
     * Looks into a file before it is published: is it a model that loads, and what does it say of itself? NULL: any
     * file will do, and uploads keep the name they come with. Called with the file's path in the store, on the
     * thread that publishes (for uploads: the publisher's), one at a time on each.
     */
    bool (*inspect)(void *context, const char *path, struct publisher_findings *findings, struct error *err);
    void *inspect_context;
};

/** Opens the store, binds, starts the thread. Returns owned. Borrows spec.security, nothing else. ERROR_BUSY: the store
 * is in use. */
struct publisher *publisher_create(const struct publisher_spec *spec, struct error *err);
/** Stops the thread, closes all. Takes NULL. Members go on serving what they have. */
void publisher_destroy(struct publisher *publisher);

/**
 * Puts a model file into the store and publishes it. name and version: NULL, or what spec.inspect must find
 * in the file (without inspect they are needed). Waits until the state is on disk and the event is announced,
 * not for the members. A file that is published already is no error: it is made current again where
 * activation is automatic. published: out, may be NULL.
 */
bool publisher_publish_file(struct publisher *publisher, const char *path, const char *name,
                            const char *version, struct publisher_published *published, struct error *err);

/** Makes a published model the one that the pool is to run, everywhere and without a rollout; one that is under way
 * ends. ERROR_NOT_FOUND. */
bool publisher_activate(struct publisher *publisher, const struct digest *digest, struct error *err);

/** How the pool is, for logs, waiting and tests. */
struct publisher_status {
    uint64_t number; /**< of the last event */
    bool has_current;
    struct digest current; /**< what the pool is to run */
    int models;            /**< published, retired ones included */
    int members;           /**< heard of lately */
    int members_current;   /**< of these: run `current` */
    int members_failed;    /**< of these: could not fetch or activate what they should run */
    uint64_t uploads;      /**< models that arrived over the network and were accepted, since the start */
    uint64_t sent_bytes;   /**< of models, to members, since the start */
    int rollout_state;     /**< RolloutState of the newest rollout; 0: there never was one */
};
/** Answered by the thread: false only where it is stopped. */
bool publisher_status(struct publisher *publisher, struct publisher_status *status, struct error *err);

/** Milliseconds since its thread last turned, which it does each heartbeat; more means that it is busy or stuck. Any
 * thread. */
int64_t publisher_silent_ms(const struct publisher *publisher);

enum publisher_socket { PUBLISHER_ANNOUNCE, PUBLISHER_CONTROL, PUBLISHER_BLOBS };
/** The endpoint that was really bound (a port of * resolved). Borrowed; lives as long as the publisher. */
const char *publisher_endpoint(const struct publisher *publisher, enum publisher_socket socket);
