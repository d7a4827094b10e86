#include "inferd/route.h"
#include <string.h>

static bool append(struct route *route, struct wire_frame frame, size_t *used) {
    if (route->count == ROUTE_MAX_FRAMES || frame.size > ROUTE_MAX_BYTES - *used) {
        return false;
    }
    if (frame.size) {
        memcpy(route->bytes + *used, frame.data, frame.size);
    }
    route->sizes[route->count++] = (uint16_t)frame.size;
    *used += frame.size;
    return true;
}

/** Leads to the peer alone: what is used to answer a message without form. */
static void route_to_peer(const struct wire_message *message, struct route *out) {
    size_t used = 0;
    out->count = 0;
    append(out, message->frames[0], &used);
    append(out, (struct wire_frame){"", 0}, &used);
}

static bool split(const struct wire_message *message, struct route *out, struct wire_frame *payload,
                  struct error *err) {
    size_t used = 0;
    int delimiter = 1; /* frame 0 is the identity that ROUTER puts there */
    while (delimiter < message->count && message->frames[delimiter].size > 0) {
        delimiter++;
    }
    if (delimiter >= message->count) {
        return error_set(err, ERROR_FORMAT, "no empty frame before the payload");
    }
    if (delimiter + 2 != message->count) {
        return error_set(err, ERROR_FORMAT, "%d frames after the empty one: expected one",
                         message->count - delimiter - 1);
    }
    for (int i = 0; i <= delimiter; i++) {
        if (!append(out, message->frames[i], &used)) {
            return error_set(err, ERROR_TOO_LARGE, "more than %d frames or %d bytes before the payload",
                             ROUTE_MAX_FRAMES, ROUTE_MAX_BYTES);
        }
    }
    *payload = message->frames[delimiter + 1];
    return true;
}

bool route_split(const struct wire_message *message, struct route *out, struct wire_frame *payload,
                 struct error *err) {
    out->count = 0;
    if (split(message, out, payload, err)) {
        return true;
    }
    route_to_peer(message, out);
    return false;
}

bool route_send(const struct route *route, struct wire_socket *router, struct wire_frame payload,
                struct error *err) {
    struct wire_frame frames[ROUTE_MAX_FRAMES + 1];
    const uint8_t *at = route->bytes;
    for (int i = 0; i < route->count; i++) {
        frames[i] = (struct wire_frame){at, route->sizes[i]};
        at += route->sizes[i];
    }
    frames[route->count] = payload;
    return wire_send(router, frames, route->count + 1, 0, err);
}
