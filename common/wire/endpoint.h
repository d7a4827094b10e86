#pragma once
#include "common/base/error.h"
#include "common/wire/security.h"
#include <stddef.h>
#include <stdint.h>

/**
 * ZeroMQ behind a small face; no other part of the project includes zmq.h. A context may be shared by threads, a socket
 * belongs to the thread that uses it.
 */
struct wire_context;
struct wire_socket;

/** Returns owned. io_threads: 1 serves about a gigabyte a second. */
struct wire_context *wire_context_create(int io_threads, struct error *err);
/** Takes NULL. All sockets are closed already. */
void wire_context_destroy(struct wire_context *context);

enum wire_kind { WIRE_ROUTER, WIRE_DEALER, WIRE_REQ, WIRE_XPUB, WIRE_SUB, WIRE_PAIR };

struct wire_socket_spec {
    enum wire_kind kind;
    const char *const *bind;     /**< NULL-ended list of endpoints to bind, or NULL */
    const char *const *connect;  /**< NULL-ended list of endpoints to connect to, or NULL */
    const char *identity;        /**< DEALER's routing id as the peer's ROUTER sees it; NULL: ZeroMQ's choice */
    int send_limit, receive_limit; /**< high-water marks in messages; 0: 1000 */
    int64_t max_frame_bytes;     /**< a peer that sends a larger frame is cut off; 0: 64 MiB */
    int linger_ms;               /**< how long close may wait for what was sent; 0: drop */
    bool router_mandatory;       /**< ROUTER: sending to a peer that is gone is ERROR_PEER, not silence */
    bool insecure; /**< without it, or security, binding TCP to anything but loopback is refused */
    struct wire_security *security; /**< borrowed for the socket's life: TCP endpoints speak CURVE; NULL: clear text */
    unsigned roles;          /**< with security, of a socket that binds: whose connections and messages it takes */
    const char *server_key;  /**< with security, of a socket that connects to TCP: the other side's public key, Z85 */
    int heartbeat_ms;            /**< ZMTP ping interval; 0: off */
    struct wire_socket **watch;  /**< out, owned: tells of connections (enum wire_event); NULL: nobody asks */
};

/** Opens, binds and connects. Errors name the endpoint. Returns owned. */
struct wire_socket *wire_socket_open(struct wire_context *context, const struct wire_socket_spec *spec, struct error *err);
/** Takes NULL. */
void wire_socket_close(struct wire_socket *socket);
/** The endpoint that was really bound (a port of * or 0 resolved), of the i-th bind. Returns out, or NULL. */
const char *wire_socket_bound(struct wire_socket *socket, int i, char *out, size_t size);
/** SUB: receive messages whose first frame starts with prefix ("" for all). */
bool wire_subscribe(struct wire_socket *socket, const char *prefix, struct error *err);

/** A frame. In received messages the bytes live until wire_message_fini. */
struct wire_frame {
    const void *data;
    size_t size;
};

enum { WIRE_MAX_FRAMES = 32 };

/** A received message: up to WIRE_MAX_FRAMES frames (one with more is dropped whole, as ERROR_TOO_LARGE). Zeroed is empty. */
struct wire_message {
    int count;
    struct wire_frame frames[WIRE_MAX_FRAMES];
    struct wire_peer peer; /**< who sent it */
    void *opaque; /**< holds the frames' memory */
};
void wire_message_fini(struct wire_message *message);

/** Copies and sends all frames as one message. timeout_ms negative: for ever. ERROR_TIMEOUT, ERROR_PEER. */
bool wire_send(struct wire_socket *socket, const struct wire_frame *frames, int count, int64_t timeout_ms, struct error *err);
/** The next message; ERROR_TIMEOUT where none came; ERROR_BUSY where one came from a peer that is no longer allowed, and
 * was dropped and counted (other messages may be there). Fills in message, which must be finished or zeroed. */
bool wire_receive(struct wire_socket *socket, struct wire_message *message, int64_t timeout_ms, struct error *err);

/**
 * What a watch tells of the socket that it was opened with, from its first connection on. A watch can be polled for;
 * close it before the one that it watches. Same thread.
 */
enum wire_event {
    WIRE_CONNECTED, /**< and shaken hands */
    WIRE_DISCONNECTED,
    WIRE_HANDSHAKE_FAILED, /**< someone is there, and does not take our key, or is not whose key we expect, or only one
                              side has keys: then ZeroMQ does not try again, only a new socket does */
};

/** The next event that has arrived; false where there is none. */
bool wire_watch_next(struct wire_socket *watch, enum wire_event *out);

/** One entry of wire_poll: a socket, or a file descriptor where socket is NULL. */
struct wire_poll_item {
    struct wire_socket *socket;
    int descriptor;
    bool readable; /**< out */
};
/** Waits until an entry is readable, a signal arrives or the time is over. Returns the number of readable
 * ones, 0 on either of the others, -1 on error. */
int wire_poll(struct wire_poll_item *items, int count, int64_t timeout_ms, struct error *err);
