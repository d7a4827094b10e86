#pragma once
#include "common/device/device.h"
#include "trainerd/checkpoint.h"
#include "trainerd/collective/collective.h"

/** What a rank brings to the question which checkpoint all go on from. Borrows everything. */
struct checkpoint_agree_spec {
    const char *folder;   /**< of the run's checkpoints, as this rank's node sees it */
    bool resumes;         /**< goes on from one where there is one; false: there may be none */
    bool replicates;      /**< each node has a folder of its own: the one that lacks the checkpoint is sent it */
    uint64_t run;         /**< whose checkpoints count; 0: any run's, but of one only */
    int node, local_rank; /**< this rank's node, and its place among the ranks there */
    size_t bytes_max;     /**< longer files are not sent */
    struct collective *collective;
    struct device *device;        /**< whose memory the collective works in */
    void (*alive)(void *context); /**< called while a file is on its way; may be NULL */
    void *context;
};

struct checkpoint_agreement {
    char path[CHECKPOINT_PATH_SIZE]; /**< of the checkpoint, readable here now; "": there is none anywhere */
    int nodes;                       /**< that have ranks */
    int skipped;                     /**< damaged ones in this rank's folder */
    int received;                    /**< nodes that were sent it */
};

/**
 * All ranks call it alike, before anybody writes to the folders; half-written files there are removed. Each tells its newest
 * whole checkpoint; the newest step of all is taken, and those who do not see it get it from the first rank that does.
 * Errors, which name two ranks with their nodes and what they have: checkpoints of two runs; of one step but with other bytes;
 * one that is not seen by all though nothing is replicated; one that is too large. Where nobody resumes, a folder with
 * checkpoints in it.
 */
bool checkpoint_agree(const struct checkpoint_agree_spec *spec, struct checkpoint_agreement *out, struct error *err);
