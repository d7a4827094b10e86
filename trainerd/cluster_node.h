#pragma once
#include "trainerd/crew.h"
#include "trainerd/metrics_log.h"

/**
 * One node of a run: comes to the coordinator (trainerd/cluster_coordinator.h), starts the ranks that it is told to, says how
 * they ended, and waits for the next orders, until the run is over. Where the coordinator is not heard of any more its ranks are
 * ended, and it tries to come again. Opaque; one thread, which must live as long as the ranks.
 */
struct cluster_node;

struct cluster_node_spec {
    struct wire_context *wire; /**< borrowed, like all below */
    struct crew_spec crew;     /**< endpoint: the coordinator's; slots: the ranks that it offers; without address */
    int nodes;
    const char *fingerprint;        /**< what all nodes must agree on */
    struct wire_security *security; /**< NULL: in the clear */
    const char *server_key;
    int64_t join_timeout_ms; /**< for the coordinator to be found, or to come back; 0: none */
    int64_t silence_ms;      /**< longest silence of a rank's process; the coordinator may be silent twice as long */
    void *context;
    /** Something to show: "joined", "coordinator_lost". May be NULL. */
    void (*on_event)(void *context, const char *event, const struct metric *metrics, int count);
};

/** Opens the connection, without waiting for it. Returns owned. */
struct cluster_node *cluster_node_open(const struct cluster_node_spec *spec, struct error *err);
/** Kills what still runs. Takes NULL. */
void cluster_node_close(struct cluster_node *node);

/** For wire_poll; borrowed, and another one after each cluster_node_step. */
struct wire_socket *cluster_node_socket(struct cluster_node *node);

/**
 * Takes what has arrived and does what is due; to be called whenever the socket is readable, on SIGCHLD, and ten times a second.
 * SIGTERM and its like (common/base/signals.h) are told to the coordinator, which stops the whole run; a second one kills the
 * ranks here. False: this node cannot take part, with the reason.
 */
bool cluster_node_step(struct cluster_node *node, struct error *err);

/** Whether the run is over. outcome CLUSTER_FAILED comes with the error. */
bool cluster_node_is_over(const struct cluster_node *node, enum cluster_outcome *outcome, struct error *err);
