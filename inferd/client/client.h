#pragma once
#include "inferd/client/check.h"

/**
 * Asks one member, once: for tools and tests. Who wants answers from a pool uses libthorax (thorax.h).
 * Believes only what was meant for it: every reply's form, request id and image digest are checked, so that a
 * late, mixed-up or empty reply can never be read as another patient's diagnosis. One thread at a time; one
 * request at a time.
 */
struct client;

struct client_spec {
    const char *endpoint;
    struct wire_security *security; /**< borrowed for the client's life: our key; NULL: clear text */
    const char *server_key;         /**< with security: the endpoint's public key, Z85; NULL: it is ipc */
};

/** Connects (in the background: nothing is waited for). Returns owned. */
struct client *client_open(const struct client_spec *spec, struct error *err);
/** Takes NULL. */
void client_close(struct client *client);

struct client_request {
    const char *request_id; /**< NULL: one is drawn at random */
    const void *image;      /**< borrowed; an encoded file as it is */
    size_t image_size;
    const char *model, *operating_point; /**< NULL: the default */
    const float *age_years;              /**< NULL: unknown */
    Thorax__V1__View view;
    bool stat;
    int64_t timeout_ms; /**< for everything, waiting included; > 0 */
};

/** A checked reply. Zeroed is empty. */
struct client_reply {
    Thorax__V1__Envelope *envelope;              /**< owned */
    const Thorax__V1__DiagnosisReply *diagnosis; /**< inside envelope, or NULL */
    const Thorax__V1__StatusReply *status;       /**< inside envelope, or NULL */
    const Thorax__V1__DrainReply *drain;         /**< inside envelope, or NULL */
    int64_t elapsed_us;
};
void client_reply_fini(struct client_reply *reply);

/**
 * Asks once. True: a reply came and belongs to the request; its status may still be any, and only OK has an
 * answer. Errors: TIMEOUT; PEER where a reply is not what WIRE.md promises.
 */
bool client_diagnose(struct client *client, const struct client_request *request, struct client_reply *out,
                     struct error *err);

/** Asks for the member's status. */
bool client_status(struct client *client, int64_t timeout_ms, struct client_reply *out, struct error *err);

/** Asks the member to end; the reply says whether it does. ERROR_UNSUPPORTED: it does not know how. */
bool client_drain(struct client *client, int64_t timeout_ms, struct client_reply *out, struct error *err);
