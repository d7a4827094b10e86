#include "trainerd/control.h"

#include "common/base/clock.h"

#include <stdlib.h>

bool control_open(struct control *control, const char *endpoint, int64_t timeout_ms, const struct control_keys *keys,
                  struct error *err) {
    const char *const connect[] = {endpoint, NULL};
    struct wire_socket_spec spec = {.kind = WIRE_DEALER,
                                    .connect = connect,
                                    .security = keys ? keys->security : NULL,
                                    .server_key = keys ? keys->server_key : NULL,
                                    .max_frame_bytes = POOL_MAX_MESSAGE_BYTES,
                                    .watch = &control->watch};
    *control = (struct control){.endpoint = endpoint, .timeout_ms = timeout_ms, .keys = keys};
    control->context = wire_context_create(1, err);
    control->socket = control->context ? wire_socket_open(control->context, &spec, err) : NULL;
    return control->socket;
}

void control_close(struct control *control) {
    wire_socket_close(control->watch);
    wire_socket_close(control->socket);
    wire_context_destroy(control->context);
    *control = (struct control){0};
}

static bool send_request(struct control *control, Thorax__V1__ControlRequest *request,
                         const struct wire_frame *data, struct error *err) {
    request->protocol_version = POOL_PROTOCOL_VERSION;
    struct packed packed = pool_pack(&request->base);
    struct wire_frame frames[2] = {{packed.data, packed.size}};
    if (data)
        frames[1] = *data;
    bool ok = packed.data ? wire_send(control->socket, frames, data ? 2 : 1, control->timeout_ms, err)
                          : error_set(err, ERROR_MEMORY, "out of memory for a request");
    free(packed.data);
    return ok;
}

/** Follows the connection. True where it broke. */
static bool look_at_connection(struct control *control) {
    enum wire_event event;
    bool broke = false;
    while (wire_watch_next(control->watch, &event)) {
        broke = broke || (event == WIRE_DISCONNECTED && control->connected);
        control->connected = event == WIRE_CONNECTED;
        control->handshake_failed =
            event == WIRE_HANDSHAKE_FAILED || (control->handshake_failed && event == WIRE_DISCONNECTED);
    }
    return broke;
}

/** Why nobody answers, as far as the connection tells. */
static bool hint_silence(const struct control *control, struct error *err) {
    if (!control->handshake_failed)
        return error_hint(err, "is a publisher running there? its config calls this endpoint publish.control");
    if (!control->keys || !control->keys->security)
        return error_hint(err, "the handshake fails: it may want keys, and we gave none (--key, --server-key)");
    return error_hint(err, "the handshake fails: the server key is not its own, or its allow-list does not have ours, %s",
                      wire_security_key(control->keys->security)->public_key);
}

/** The next message; a question that went down with its connection is not waited for. */
static bool receive_answer(struct control *control, struct wire_message *message, struct error *err) {
    int64_t end_ms = clock_now_ms() + control->timeout_ms;
    bool broke = false;
    do {
        struct wire_poll_item items[] = {{.socket = control->socket}, {.socket = control->watch}};
        if (wire_poll(items, 2, clock_left_ms(end_ms), err) < 0)
            return false;
        broke = items[1].readable && look_at_connection(control);
        if (wire_receive(control->socket, message, 0, NULL))
            return true;
    } while (!broke && clock_left_ms(end_ms) > 0);
    if (broke)
        return error_set(err, ERROR_PEER, "%s: the connection broke before there was an answer", control->endpoint);
    error_set(err, ERROR_TIMEOUT, "%s: no answer within %lld ms", control->endpoint, (long long)control->timeout_ms);
    return hint_silence(control, err);
}

Thorax__V1__ControlReply *control_ask(struct control *control, Thorax__V1__ControlRequest *request,
                                      const struct wire_frame *data, struct error *err) {
    struct wire_message message = {0};
    look_at_connection(control);
    if (!send_request(control, request, data, err) || !receive_answer(control, &message, err))
        return NULL;
    Thorax__V1__ControlReply *reply = NULL;
    if (message.count == 1)
        reply = pool_unpack_reply(message.frames[0].data, message.frames[0].size, err);
    else
        error_set(err, ERROR_FORMAT, "%s: an answer of %d frames", control->endpoint, message.count);
    wire_message_fini(&message);
    if (reply && reply->body_case == THORAX__V1__CONTROL_REPLY__BODY_REFUSAL) {
        pool_refusal_error(reply->refusal, err);
        pool_free(reply);
        return NULL;
    }
    return reply;
}
