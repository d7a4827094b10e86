#pragma once
#include "common/device/device.h"
#include "common/graph/parameters.h"
#include "common/op/precision.h"

/** What batch norms normalise with in training: their own batch, the batches of all ranks, or the running statistics. */
enum norm_statistics { NORM_STATISTICS_BATCH, NORM_STATISTICS_ALL_RANKS, NORM_STATISTICS_RUNNING };

/**
 * For training: merges batch norm with a residual add and an activation that only it feeds, where the device
 * supports the fused form in that precision; sets `synchronised` or `frozen` on every batch norm as the statistics ask for.
 * Parameters keep their names, not their ids. Returns an owned graph.
 */
struct graph *graph_fuse_for_training(const struct graph *graph, struct device *device, enum precision precision,
                                      enum norm_statistics statistics, struct error *err);

/**
 * For inference: drops dropout, folds batch norm into the convolution before it (w' = w s / sqrt(v + e), b' = (b - m) s /
 * sqrt(v + e) + t), and merges convolution, bias, residual add and activation where the device supports it in that
 * precision; device NULL: wherever it can be. Convolutions that were merged before stay as they are, 8-bit ones too. Returns an
 * owned graph with parameters of its own (owned, in *folded).
 */
struct graph *graph_fold_for_inference(const struct graph *graph, const struct parameters *parameters, struct device *device,
                                       enum precision precision, struct parameters **folded, struct error *err);
