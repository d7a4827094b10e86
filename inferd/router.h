#pragma once
#include "inferd/counters.h"
#include "inferd/client/exchange.h"

/**
 * One address in front of a pool, for clients in any language: a ROUTER towards them with exactly a member's
 * protocol (proto/WIRE.md), a DEALER to each member behind, and the rules of dispatch.h in between. Requests
 * travel on as they came, but for the time that is left and the pin. One thread owns all of it, but for what
 * router_health tells.
 */
struct router;

struct router_spec {
    const char *const *bind;     /**< NULL-ended: tcp://, ipc:// */
    bool insecure;               /**< see struct wire_socket_spec */
    struct wire_security *security; /**< borrowed for the router's life; NULL: clear text, both ways */
    const char *const *server_keys; /**< with security: the members' public keys (Z85); one for all, or one each */
    int server_key_count;
    const char *const *members;  /**< (member_count) endpoints */
    int member_count;
    const char *name, *version; /**< borrowed for the router's life */
    int64_t max_message_bytes;  /**< larger ones are TOO_LARGE; a peer that sends twice as much is cut off */
    int64_t default_timeout_ms, max_timeout_ms;
    int64_t drain_timeout_ms;     /**< what a drain reply tells */
    bool allow_drain;             /**< a peer may ask for it (with security: an administrator): see router_draining */
    int max_requests;             /**< that wait for an answer; more are BUSY */
    size_t max_request_bytes;     /**< of them together */
    int64_t heartbeat_ms, pin_ms; /**< see struct exchange_spec */
};

/** Binds, and connects in the background. Returns owned, NULL on error. */
struct router *router_create(const struct router_spec *spec, struct error *err);
/** Takes NULL. Drops what was not answered: router_drain first. */
void router_destroy(struct router *router);

/** The endpoint that was really bound. Returns out, or NULL. */
const char *router_bound(struct router *router, int i, char *out, size_t size);

/** Waits up to timeout_ms, or until a signal, for something to do, and does it. False only where the socket
 * itself fails. */
bool router_step(struct router *router, int64_t timeout_ms, struct error *err);

/** A peer asked to drain: new requests are refused already, and the caller is to call router_drain. Any
 * thread. */
bool router_draining(const struct router *router);

/** Refuses what is new as NOT_READY and waits for the answers to what was accepted. ERROR_TIMEOUT where that
 * takes longer than timeout_ms. */
bool router_drain(struct router *router, int64_t timeout_ms, struct error *err);

/** How it is now. Any thread. */
struct router_health {
    int64_t silent_ms; /**< since the router's thread last turned; -1: it did not begin yet */
    int in_flight, queue_limit, members, members_ready;
    bool draining;
};
void router_health(const struct router *router, struct router_health *out);
/** Borrowed; any thread. Of the stages none is used. */
const struct counters *router_counters(const struct router *router);
/** How often requests were sent to members, again included. Any thread. */
uint64_t router_sent(const struct router *router);
