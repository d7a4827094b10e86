#pragma once
#include "common/pool/message.h"
#include "common/wire/endpoint.h"

/** What proves who we are to a publisher with keys, and who it is to us. Zeroed is none. */
struct control_keys {
    struct wire_security *security;
    char server_key[CURVE_TEXT_SIZE]; /**< the publisher's public key, Z85 */
};

/** A conversation with a publisher's control socket, for trainctl and for what a training job hands over. One thread. */
struct control {
    struct wire_context *context;
    struct wire_socket *socket, *watch;
    bool connected;
    const char *endpoint; /**< borrowed */
    int64_t timeout_ms;   /**< for each answer */
    const struct control_keys *keys; /**< borrowed; NULL: clear text */
    bool handshake_failed;           /**< the last that was heard of the connection */
};

/** endpoint: as "tcp://127.0.0.1:5702". keys: borrowed until control_close; NULL: clear text. control_close it, also after a
 * failure. */
bool control_open(struct control *control, const char *endpoint, int64_t timeout_ms, const struct control_keys *keys,
                  struct error *err);
void control_close(struct control *control);

/**
 * Sends request (initialised, its body set), with data as second frame where it is not NULL, and waits for
 * the answer. Returns owned (pool_free). A refusal comes as an error. ERROR_TIMEOUT: no publisher there, or
 * it says nothing. ERROR_PEER: it went away before it answered. After either close: a late answer would be
 * taken for the next.
 */
Thorax__V1__ControlReply *control_ask(struct control *control, Thorax__V1__ControlRequest *request,
                                      const struct wire_frame *data, struct error *err);
