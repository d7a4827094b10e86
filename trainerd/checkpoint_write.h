#pragma once
#include "trainerd/checkpoint.h"
#include "trainerd/collective/collective.h"

/** Who writes which checkpoint. Borrows everything. */
struct checkpoint_write_spec {
    const char *folder;
    struct collective *collective;
    struct plan *plan;
    const struct graph *graph;
    struct parameters *host; /**< of the graph; overwritten where it replicates */
    const struct training_state *state;
    int keep_last;
    int node;        /**< of this rank */
    bool writes;     /**< this rank writes: rank 0 does */
    bool replicates; /**< so do ranks of other nodes, each into a folder of its own */
};

/**
 * Writes a checkpoint, by all ranks that do the same bytes: they take rank 0's running statistics for that, which changes nothing
 * that is computed with. All ranks call it alike, and go on once all that write have written. A rank that cannot fails with the
 * reason, the others with ERROR_PEER, which names it and its node.
 */
bool checkpoint_write(const struct checkpoint_write_spec *spec, struct error *err);
