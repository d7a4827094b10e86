#pragma once
#include "common/wire/endpoint.h"
#include <stdint.h>

enum { ROUTE_MAX_FRAMES = 16, ROUTE_MAX_BYTES = 1024 };

/**
 * The way back to an asker: every frame up to and with the empty delimiter, whatever they are. REQ puts only
 * the delimiter there, ZMQ_REQ_CORRELATE a number before it, proxies an identity each.
 */
struct route {
    int count;
    uint16_t sizes[ROUTE_MAX_FRAMES];
    uint8_t bytes[ROUTE_MAX_BYTES]; /* the frames behind one another */
};

/**
 * Splits a message of a ROUTER into its way back and its payload, which stays inside message. False where it
 * does not have the form of WIRE.md; out then leads to the peer itself with a delimiter, so that it can be
 * told. Errors: FORMAT, TOO_LARGE.
 */
bool route_split(const struct wire_message *message, struct route *out, struct wire_frame *payload,
                 struct error *err);

/** Sends a payload back along the way without waiting. ERROR_PEER, ERROR_TIMEOUT: the asker is gone or does
 * not read. */
bool route_send(const struct route *route, struct wire_socket *router, struct wire_frame payload,
                struct error *err);
