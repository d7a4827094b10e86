#pragma once
#include "trainerd/publisher.h"

/**
 * /healthz (the publisher's thread turns), /readyz (the publisher takes members and models) and /metrics of
 * trainerd, on a thread of its own. deploy/prometheus uses the names of the metrics.
 */
struct publisher_monitor;

struct publisher_monitor_spec {
    const char *bind;            /**< HOST:PORT, see struct http_spec */
    bool insecure;               /**< see struct http_spec */
    const char *version;         /**< of the program; borrowed */
    struct publisher *publisher; /**< borrowed for the monitor's life; NULL: this run only trains */
};

/** Starts to answer. Returns owned. */
struct publisher_monitor *publisher_monitor_create(const struct publisher_monitor_spec *spec,
                                                   struct error *err);
/** Before the publisher ends. Takes NULL. */
void publisher_monitor_destroy(struct publisher_monitor *monitor);
/** The port that was bound. */
int publisher_monitor_port(const struct publisher_monitor *monitor);
