#pragma once
#include "trainerd/cluster_message.h"

/** What is to come of a generation whose ranks have all ended. */
enum cluster_verdict {
    CLUSTER_VERDICT_FINISHED, /**< training has reached its end */
    CLUSTER_VERDICT_STOPPED,  /**< it was told to stop */
    CLUSTER_VERDICT_REGROUP,  /**< it ended at a checkpoint, so that ranks which came back can take part */
    CLUSTER_VERDICT_LOST,     /**< a rank or a node was lost: the others can go on without */
    CLUSTER_VERDICT_FAILED,   /**< to try again would only repeat it */
};

/** A generation that is over. */
struct cluster_case {
    int ranks, nodes;
    const struct cluster_end *ends; /**< (ranks), by rank */
    const bool *ended;              /**< (ranks) whether its end is known: those of a lost node's are not */
    const int *node_of;             /**< (ranks) */
    const int64_t *heard_ago_ms;    /**< (ranks) when the rendezvous heard of it last; -1: never */
    const struct error *failure;    /**< what the coordinator found wrong first; code ERROR_NONE: nothing */
    bool fatal;                     /**< the failure is one that would come again */
    int failed_rank;                /**< whom the failure is about; -1: nobody in particular */
    int suspect;                    /**< the one rank that was silent when a rank failed first; -1: none */
    int64_t suspect_silent_ms;
    bool told; /**< to stop, by a signal */
    int64_t grace_ms;
};

/**
 * Who was the cause? Every rank's end counts, for the first that is noticed may be a victim: a rank that a signal killed, then
 * one that failed by itself, then those that only lost a peer. LOST and FAILED come with the error, which names the rank, and
 * with that rank; -1: no single one.
 */
enum cluster_verdict cluster_judge(const struct cluster_case *judged, int *culprit, struct error *err);

/** Whether the rank's process ended as it should: at the end of training, or with a checkpoint. */
bool cluster_ended_well(const struct cluster_end *end);

/** "rank 2", or with several nodes "rank 2 on node 1". Returns out. */
const char *cluster_rank_name(int rank, int node, int nodes, char *out, size_t size);
