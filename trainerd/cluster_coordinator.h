#pragma once
#include "trainerd/cluster_message.h"
#include "trainerd/cluster_shape.h"
#include "trainerd/metrics_log.h"

/**
 * Brings the ranks of a run together, over however many nodes, and again where some are lost: generation by generation, each of
 * fresh worker processes that go on from the newest checkpoint. Nodes (trainerd/cluster_node.h) come and say how their ranks
 * ended; ranks meet at the rendezvous (trainerd/rendezvous.h) on the same socket. Opaque; one thread.
 *
 * A generation ends early where a rank dies, hangs or is stopped, or a node falls silent: the rest is ended within seconds, and
 * those that are left meet again, as long as they are enough. What a rank itself says that it cannot do (its data are bad, the
 * loss is not finite) ends the run: it would come again. Nodes that come back are taken in at the next checkpoint. A place (a
 * GPU, a share of cores) whose rank alone was lost again and again gets none any more, until its node is started anew.
 */
struct coordinator;

struct coordinator_spec {
    struct wire_socket *socket; /**< a ROUTER that is bound; borrowed */
    int nodes;
    const char *fingerprint; /**< lines on which all nodes must agree (cluster_members.h); borrowed */
    struct cluster_batch batch; /**< ranks 0: as many as all nodes have at the start */
    int min_ranks;  /**< with fewer, the run waits for some to come back */
    int restarts;   /**< generations that may be lost in a row without a new checkpoint; more of one place leave that out */
    bool resumes;   /**< the first generation, from the newest checkpoint, if there is one */
    uint64_t run;   /**< whose checkpoints are meant; 0: whatever the newest is */
    int64_t gather_timeout_ms; /**< for nodes to come; 0: none */
    int64_t join_timeout_ms;   /**< for all ranks to meet at the rendezvous; 0: none */
    int64_t hang_timeout_ms;   /**< longest silence of a rank that has joined; 0: none. Above the collective's time-out */
    int64_t silence_ms;        /**< longest silence of a node */
    int64_t grace_ms;          /**< for ranks to end when the run is stopped */
    void *context;
    /** A worker's rendezvous_report; borrows all. False ends the run with that error. May be NULL. */
    bool (*on_report)(void *context, int rank, const char *kind, const void *data, size_t size, struct error *err);
    /** Something to show: "generation", "lost", "node_joined", "node_lost", "node_refused", "regroup",
     * "left_out". May be NULL. */
    void (*on_event)(void *context, const char *event, const struct metric *metrics, int count);
    /** The step of the newest checkpoint, -1: none. May be NULL. */
    int64_t (*saved_step)(void *context);
};

/** Returns owned. */
struct coordinator *coordinator_create(const struct coordinator_spec *spec, struct error *err);
/** Takes NULL. */
void coordinator_destroy(struct coordinator *coordinator);

/**
 * Takes what has arrived and does what is due; to be called whenever the socket is readable, and ten times a second. False: the
 * socket fails, and there is no way on.
 */
bool coordinator_step(struct coordinator *coordinator, struct error *err);

/** Whether the run has ended and every node knows. outcome CLUSTER_FAILED comes with the error. */
bool coordinator_is_over(const struct coordinator *coordinator, enum cluster_outcome *outcome, struct error *err);
