#pragma once
#include "common/graph/graph.h"
#include "common/op/precision.h"

/**
 * What a training step, or an inference run, must at least do: operations and bytes, counted out of the
 * graph, and how long a machine takes for that where nothing is in its way. Each tensor that an operation
 * works on moves once, but for batch norm in training, whose moments must be known before it can normalise
 * (and whose sums before it can give a gradient): its source moves once more forward, its source and its
 * output's gradient once more backward.
 */
struct cost_machine {
    const char *name;
    const char *of;     /**< a word of the device's name that says it is this one */
    double flops_16;    /**< a second, dense, bf16 or fp16 with sums in f32: the data sheet's */
    double flops_f32;   /**< without TF32 */
    double bytes_per_s; /**< of its memory */
};
enum { COST_MACHINES = 6, COST_MAX_ROWS = 32 };
extern const struct cost_machine cost_machines[COST_MACHINES];

/** Where a device's name says which machine it is; NULL where no row fits. The first row that fits counts. */
const struct cost_machine *cost_machine_of(const char *device_name);

/** All operations of one kind and pass. */
struct cost_row {
    const char *kind, *pass;
    int count;
    double flops, bytes;
    double floor_s[COST_MACHINES]; /**< sum over the operations, each the longer of its arithmetic and its
                                      traffic */
};

struct costs {
    int count;
    struct cost_row rows[COST_MAX_ROWS];
};

struct cost_options {
    int64_t batch;
    enum precision precision; /**< f32, or one of 16 bits */
    bool infer;               /**< the graph was folded; else it was fused for training */
};

/** Of a graph that was fused for training, or folded for inference, for any device (common/graph/passes.h).
 */
bool costs_count(const struct graph *graph, const struct cost_options *options, struct costs *out,
                 struct error *err);

/** The sum over all rows; kind and pass are "". */
struct cost_row costs_total(const struct costs *costs);
