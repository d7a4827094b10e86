#pragma once
#include "common/wire/endpoint.h"
#include "trainerd/collective/collective.h"

/**
 * Where the ranks of one generation meet: the supervisor serves, every worker joins. It knows who is there
 * and whether they agree on what they are about to do, keeps a few keys and values for them, and carries
 * their reports and heartbeats. On one machine the endpoint is ipc:// in a folder that only its user can
 * enter; between machines it is TCP, with CURVE where there are keys. What is over the limits or malformed is dropped, never
 * acted on.
 */
enum {
    RENDEZVOUS_RANKS_MAX = 1024,
    RENDEZVOUS_KEY_MAX = 255,           /**< bytes of a key or of a report's kind */
    RENDEZVOUS_VALUE_MAX = 1 << 20,     /**< bytes of a value or report */
    RENDEZVOUS_STORE_MAX = 64 << 20,    /**< bytes of all values */
    RENDEZVOUS_FINGERPRINT_MAX = 16384, /**< bytes */
};

/** The supervisor's side. Opaque; one thread. */
struct rendezvous_server;

struct rendezvous_server_spec {
    struct wire_socket *socket; /**< a ROUTER, borrowed: what others say over it is not looked at */
    int world_size;
    uint64_t generation; /**< workers of any other generation are turned away */
    void *context;
    /** A worker's report, in the order it sent them; borrows all. False makes rendezvous_server_take fail with
     * that error. May be NULL. */
    bool (*on_report)(void *context, int rank, const char *kind, const void *data, size_t size,
                      struct error *err);
};

/** Returns owned. */
struct rendezvous_server *rendezvous_server_open(const struct rendezvous_server_spec *spec,
                                                 struct error *err);
/** Takes NULL. */
void rendezvous_server_close(struct rendezvous_server *server);
/** Whether a message that arrived over the socket is a worker's; the coordinator's socket carries others too. */
bool rendezvous_server_is_for(const struct wire_message *received);
/**
 * Handles a message. False where the job cannot go on: ERROR_INVALID where fingerprints
 * differ (the message shows the first difference and both sides, and the workers get it too), or on_report's
 * error.
 */
bool rendezvous_server_take(struct rendezvous_server *server, const struct wire_message *received, struct error *err);
/** Monotonic milliseconds when the rank was heard of last; 0: never. */
int64_t rendezvous_server_heard_ms(const struct rendezvous_server *server, int rank);
/** The lowest rank that has not joined; world_size where all have. */
int rendezvous_server_missing(const struct rendezvous_server *server);

/** A worker's side. Opaque; one thread. */
struct rendezvous;

struct rendezvous_spec {
    struct wire_context *wire; /**< borrowed */
    struct wire_security *security; /**< borrowed; NULL: in the clear */
    const char *server_key;         /**< with security: the other side's */
    const char *endpoint;
    int rank, world_size;
    uint64_t generation;
    /**
     * Lines of key=value on which all ranks must agree: configuration, data digest, bucket plan, layouts,
     * versions. Nothing about a patient: a difference is shown and logged.
     */
    const char *fingerprint;
    int64_t timeout_ms; /**< for everyone to join */
};

/**
 * Joins and waits until all ranks have, and agree. Returns owned. ERROR_TIMEOUT: somebody did not come;
 * ERROR_INVALID: fingerprints differ, or the supervisor turned this worker away (the message says why);
 * ERROR_STATE: SIGTERM came.
 */
struct rendezvous *rendezvous_join(const struct rendezvous_spec *spec, struct error *err);
/** Takes NULL. Waits up to 2 s until the supervisor has handled all reports. */
void rendezvous_leave(struct rendezvous *rendezvous);

/** Publishes a value that nobody has set before (else ERROR_INVALID). */
bool rendezvous_set(struct rendezvous *rendezvous, const char *key, const void *data, size_t size,
                    struct error *err);
/** Waits until the key is set; *out is owned (free). ERROR_TIMEOUT past the monotonic deadline, ERROR_STATE
 * where SIGTERM comes first. */
bool rendezvous_get(struct rendezvous *rendezvous, const char *key, int64_t deadline_ms, struct bytes *out,
                    struct error *err);
/** The same two, for collective_open. Borrows the rendezvous. */
struct collective_store rendezvous_store(struct rendezvous *rendezvous);

/** Sends a report; does not wait for an answer. Counts as a heartbeat. */
bool rendezvous_report(struct rendezvous *rendezvous, const char *kind, const void *data, size_t size,
                       struct error *err);

/**
 * Says that this rank is getting on. To be called from the loop that does the work (every step, every file
 * read), not from a thread beside it: a rank that hangs must fall silent. Cheap: sends at most twice a
 * second.
 */
void rendezvous_heartbeat(struct rendezvous *rendezvous);
