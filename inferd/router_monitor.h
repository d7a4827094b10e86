#pragma once
#include "inferd/router.h"

/** /healthz (the loop turns), /readyz (a member takes requests) and /metrics of a router, on a thread of its
 * own that reads atomics only. As a member's (monitor.h). */
struct router_monitor;

struct router_monitor_spec {
    const char *bind;            /**< HOST:PORT, see struct http_spec */
    bool insecure;               /**< see struct http_spec */
    const char *version;         /**< of the program; borrowed */
    const struct router *router; /**< borrowed for the monitor's life */
};

/** Starts to answer. Returns owned. */
struct router_monitor *router_monitor_create(const struct router_monitor_spec *spec, struct error *err);
/** Before the router ends. Takes NULL. */
void router_monitor_destroy(struct router_monitor *monitor);
/** The port that was bound. */
int router_monitor_port(const struct router_monitor *monitor);
