#pragma once
#include "inferd/server.h"
#include "inferd/subscriber.h"

/**
 * /healthz (the loops turn), /readyz (takes requests) and /metrics of a member, on a thread of its own that
 * reads atomics and copies only. deploy/prometheus uses the names of the metrics.
 */
struct monitor;

struct monitor_spec {
    const char *bind;            /**< HOST:PORT, see struct http_spec */
    bool insecure;               /**< see struct http_spec */
    const char *version;         /**< of the program; borrowed */
    const struct server *server; /**< borrowed for the monitor's life; its socket is bound */
    struct slot *slot;           /**< borrowed for the monitor's life */
    struct shadow *shadow;       /**< likewise; NULL: there are no shadows */
};

/** Starts to answer. Returns owned. */
struct monitor *monitor_create(const struct monitor_spec *spec, struct error *err);
/** Before server, slot and subscriber end. Takes NULL. */
void monitor_destroy(struct monitor *monitor);
/** From now on tells of this subscriber too; borrowed for the monitor's life. Takes a monitor of NULL. */
void monitor_follow(struct monitor *monitor, struct subscriber *subscriber);
/** The port that was bound. */
int monitor_port(const struct monitor *monitor);
