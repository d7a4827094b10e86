#pragma once
#include "trainerd/cluster_coordinator.h"
#include "trainerd/cluster_node.h"
#include "trainerd/cluster_place.h"
#include "trainerd/supervisor_worker.h"

/**
 * This process' part in a training run: its ranks, as worker processes, and on node 0 also the coordinator of all nodes
 * (trainerd/cluster_coordinator.h says what ends a run, and after what it goes on). A run on one machine is one node, whose ranks
 * meet in a folder that only its user can enter.
 *
 * SIGTERM, SIGINT or SIGUSR1 (common/base/signals.h) to any node stops the whole run, with a checkpoint; a second one kills at
 * once. When supervisor_run returns, no process, socket or folder is left.
 */
struct supervisor_spec {
    const char *program;    /**< NULL: this program */
    char *const *arguments; /**< NULL-ended, the program's name first; `--worker RANK` is added */
    const struct cluster_place *place;
    struct coordinator_spec coordinator; /**< without socket, nodes and fingerprint */
    const char *fingerprint;             /**< what all nodes must agree on, as lines; "" where there is one node */
    struct wire_security *security;      /**< NULL: in the clear */
    const char *server_key;              /**< with security: the coordinator's */
    bool insecure;                       /**< it may be in the clear where others listen */
    int threads_per_rank;                /**< 0: as many as the rank's share of cores has */
    bool active_wait; /**< OpenMP teams spin between kernels; only where a rank owns its cores, else ignored */
};

/**
 * Runs the job to its end, on the calling thread. signals_install was called. False where it failed, with the reason; else
 * *outcome is CLUSTER_FINISHED or CLUSTER_STOPPED.
 */
bool supervisor_run(const struct supervisor_spec *spec, enum cluster_outcome *outcome, struct error *err);
