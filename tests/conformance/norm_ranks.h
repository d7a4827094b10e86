#pragma once
#include "tests/conformance/device_run.h"

/**
 * A synchronised batch norm of two ranks on one device: what OP_BATCH_NORM_SUMS leaves is added up here, as a collective
 * would, and OP_BATCH_NORM takes the sum. For gradient and device tests.
 */
enum { NORM_RANKS = 2 };

struct norm_ranks {
    struct device *device;
    struct op op;        /**< OP_BATCH_NORM, synchronised */
    struct shape src;    /**< (N, C, H, W) of each rank */
    enum dtype dtype;    /**< of all but the sums: f32 or f64 */
    struct tensor tensors[NORM_RANKS][ARG_COUNT]; /**< of all passes; the test fills in what goes in */
    struct workspace workspaces[NORM_RANKS];
};

/** Makes the tensors, zeroed. device, op, src and dtype are set. */
bool norm_ranks_init(struct norm_ranks *ranks, struct error *err);
void norm_ranks_fini(struct norm_ranks *ranks);

/** PASS_FORWARD, or PASS_BACKWARD_DATA after it: gathers on each rank, adds up, and applies on each rank. */
bool norm_ranks_run(struct norm_ranks *ranks, enum pass pass, struct error *err);
