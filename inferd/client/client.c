#include "inferd/client/client.h"
#include "common/base/clock.h"
#include "common/base/text.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ID_SIZE = 40, SEND_LINGER_MS = 0 };
static const int64_t REQUEST_MAX_BYTES = 256 << 20;

struct client {
    struct wire_context *context;
    struct wire_socket *socket, *watch;
    bool with_keys;
    uint64_t correlation; /* stands before the delimiter: the member echoes it, so late replies are known */
};

struct client *client_open(const struct client_spec *spec, struct error *err) {
    const char *const connect[] = {spec->endpoint, NULL};
    struct wire_socket_spec socket = {.kind = WIRE_DEALER,
                                      .connect = connect,
                                      .linger_ms = SEND_LINGER_MS,
                                      .max_frame_bytes = REQUEST_MAX_BYTES,
                                      .security = spec->security,
                                      .server_key = spec->server_key};
    struct client *client = calloc(1, sizeof *client);
    if (!client || !digest_start(err)) {
        free(client);
        return NULL;
    }
    client->correlation = digest_random_u64();
    client->with_keys = spec->security != NULL;
    socket.watch = &client->watch;
    client->context = wire_context_create(1, err);
    client->socket = client->context ? wire_socket_open(client->context, &socket, err) : NULL;
    if (!client->socket) {
        client_close(client);
        return NULL;
    }
    return client;
}

void client_close(struct client *client) {
    if (client) {
        wire_socket_close(client->watch);
        wire_socket_close(client->socket);
        wire_context_destroy(client->context);
        free(client);
    }
}

void client_reply_fini(struct client_reply *reply) {
    message_free(reply->envelope ? &reply->envelope->base : NULL);
    memset(reply, 0, sizeof *reply);
}

/** Waits for the reply with our correlation; older ones, to requests given up, are dropped. */
static bool receive(struct client *client, int64_t deadline_ms, struct wire_message *message,
                    struct error *err) {
    while (wire_receive(client->socket, message, clock_left_ms(deadline_ms), err)) {
        if (message->count == 3 && message->frames[0].size == sizeof client->correlation &&
            memcmp(message->frames[0].data, &client->correlation, sizeof client->correlation) == 0 &&
            message->frames[1].size == 0) {
            return true;
        }
        wire_message_fini(message);
    }
    return false;
}

static bool unpack(const struct wire_message *message, struct client_reply *out, struct error *err) {
    out->envelope = client_unpack(message->frames[2], err);
    if (!out->envelope) {
        return false;
    }
    if (out->envelope->body_case == THORAX__V1__ENVELOPE__BODY_DIAGNOSIS_REPLY) {
        out->diagnosis = out->envelope->diagnosis_reply;
    } else if (out->envelope->body_case == THORAX__V1__ENVELOPE__BODY_STATUS_REPLY) {
        out->status = out->envelope->status_reply;
    } else if (out->envelope->body_case == THORAX__V1__ENVELOPE__BODY_DRAIN_REPLY) {
        out->drain = out->envelope->drain_reply;
    }
    return true;
}

/** Whether the last that was heard of the connection is a handshake that failed. */
static bool was_refused(struct client *client) {
    enum wire_event event;
    bool refused = false;
    while (wire_watch_next(client->watch, &event)) {
        refused = event == WIRE_HANDSHAKE_FAILED || (refused && event == WIRE_DISCONNECTED);
    }
    return refused;
}

/** Says why there is no reply. */
static bool explain(struct client *client, const struct error *reason, int64_t timeout_ms, struct error *err) {
    if (reason->code != ERROR_TIMEOUT) {
        return error_set(err, reason->code, "%s", reason->message);
    }
    bool refused = was_refused(client);
    error_set(err, ERROR_TIMEOUT, "no reply within %" PRId64 " ms%s", timeout_ms,
              refused ? ": the handshake failed" : "");
    return error_hint(err, "%s", client_hint(client->with_keys, refused));
}

/** Sends an envelope and waits for its reply. */
static bool ask(struct client *client, const Thorax__V1__Envelope *envelope, int64_t timeout_ms,
                struct client_reply *out, struct error *err) {
    int64_t start_ns = clock_now_ns(), deadline_ms = clock_now_ms() + timeout_ms;
    struct bytes packed;
    struct wire_message message;
    if (!message_pack(&envelope->base, &packed, err)) {
        return false;
    }
    client->correlation++;
    struct wire_frame frames[] = {
        {&client->correlation, sizeof client->correlation}, {"", 0}, {packed.data, packed.size}};
    struct error reason = {0};
    bool ok = wire_send(client->socket, frames, 3, timeout_ms, &reason);
    free(packed.data);
    if (!ok || !receive(client, deadline_ms, &message, &reason)) {
        return explain(client, &reason, timeout_ms, err);
    }
    out->elapsed_us = (clock_now_ns() - start_ns) / 1000;
    ok = unpack(&message, out, err);
    wire_message_fini(&message);
    return ok;
}

/** The messages that make up one request; all borrowed. */
struct question {
    Thorax__V1__Envelope envelope;
    Thorax__V1__DiagnosisRequest request;
    Thorax__V1__Age age;
    char id[ID_SIZE];
};

static void fill(const struct client_request *request, struct question *out) {
    thorax__v1__envelope__init(&out->envelope);
    thorax__v1__diagnosis_request__init(&out->request);
    snprintf(out->id, sizeof out->id, "%016" PRIx64 "%016" PRIx64, digest_random_u64(), digest_random_u64());
    out->request.request_id = request->request_id ? text_for_packing(request->request_id) : out->id;
    out->request.model = text_for_packing(request->model);
    out->request.operating_point = text_for_packing(request->operating_point);
    out->request.priority =
        request->stat ? THORAX__V1__PRIORITY__PRIORITY_STAT : THORAX__V1__PRIORITY__PRIORITY_ROUTINE;
    out->request.timeout_ms = request->timeout_ms > UINT32_MAX ? UINT32_MAX : (uint32_t)request->timeout_ms;
    out->request.view = request->view;
    out->request.image_case = THORAX__V1__DIAGNOSIS_REQUEST__IMAGE_ENCODED;
    out->request.encoded = (ProtobufCBinaryData){request->image_size, (uint8_t *)text_for_packing(request->image)};
    if (request->age_years) {
        thorax__v1__age__init(&out->age);
        out->age.years = *request->age_years;
        out->request.age = &out->age;
    }
    out->envelope.protocol_version = MESSAGE_PROTOCOL_VERSION;
    out->envelope.body_case = THORAX__V1__ENVELOPE__BODY_DIAGNOSIS_REQUEST;
    out->envelope.diagnosis_request = &out->request;
}

static bool ask_and_check(struct client *client, const struct question *question, const struct digest *image,
                          int64_t timeout_ms, struct client_reply *out, struct error *err) {
    memset(out, 0, sizeof *out);
    bool ok = ask(client, &question->envelope, timeout_ms, out, err);
    if (ok && !out->diagnosis) {
        ok = error_set(err, ERROR_PEER, "the reply is none to a diagnosis request");
    }
    ok = ok && client_check(out->diagnosis, question->request.request_id, image, err);
    if (!ok) {
        client_reply_fini(out);
    }
    return ok;
}

bool client_diagnose(struct client *client, const struct client_request *request, struct client_reply *out,
                     struct error *err) {
    struct question question;
    fill(request, &question);
    struct digest image = digest_of(request->image, request->image_size);
    return ask_and_check(client, &question, &image, request->timeout_ms, out, err);
}

/** Asks what has no fields; out->envelope is there where it is true. */
static bool ask_plainly(struct client *client, Thorax__V1__Envelope *envelope, int64_t timeout_ms,
                        struct client_reply *out, struct error *err) {
    memset(out, 0, sizeof *out);
    envelope->protocol_version = MESSAGE_PROTOCOL_VERSION;
    return ask(client, envelope, timeout_ms, out, err);
}

bool client_status(struct client *client, int64_t timeout_ms, struct client_reply *out, struct error *err) {
    Thorax__V1__Envelope envelope = THORAX__V1__ENVELOPE__INIT;
    Thorax__V1__StatusRequest request = THORAX__V1__STATUS_REQUEST__INIT;
    envelope.body_case = THORAX__V1__ENVELOPE__BODY_STATUS_REQUEST;
    envelope.status_request = &request;
    bool ok = ask_plainly(client, &envelope, timeout_ms, out, err);
    if (ok && !out->status) {
        ok = error_set(err, ERROR_PEER, "the reply is none to a status request");
    }
    if (!ok) {
        client_reply_fini(out);
    }
    return ok;
}

bool client_drain(struct client *client, int64_t timeout_ms, struct client_reply *out, struct error *err) {
    Thorax__V1__Envelope envelope = THORAX__V1__ENVELOPE__INIT;
    Thorax__V1__DrainRequest request = THORAX__V1__DRAIN_REQUEST__INIT;
    envelope.body_case = THORAX__V1__ENVELOPE__BODY_DRAIN_REQUEST;
    envelope.drain_request = &request;
    bool ok = ask_plainly(client, &envelope, timeout_ms, out, err);
    if (ok && !out->drain) {
        ok = error_set(err, ERROR_UNSUPPORTED,
                       "this member does not know how to drain on request; SIGTERM does the same");
    }
    if (!ok) {
        client_reply_fini(out);
    }
    return ok;
}
