#pragma once
#include "common/graph/quantise.h"
#include "common/op/precision.h"
#include "common/weights/model_file.h"

/** The network of a model file, ready for a plan: with `precision` as plan_spec wants it. Owned. */
struct model_network {
    struct graph *graph;
    struct parameters *parameters;
    enum precision precision;
};

/**
 * Builds the network that the manifest describes and loads the weights: as it was trained (f32, bf16), or folded and quantised
 * (int8). Errors name the tensor or node. model_network_close frees.
 */
bool model_network_open(const struct model_file *file, struct model_network *out, struct error *err);
/** Harmless on a zeroed or closed one. */
void model_network_close(struct model_network *network);

/** How many bits the widest 8-bit weight takes: 8, 7 or fewer where it was made for processors that would saturate; 0: none. */
int model_network_weight_bits(const struct model_network *network);

/** A manifest's quantisation as the graph wants it; rows owned (free()). NULL rows on error. */
bool model_quantisation(const struct manifest *manifest, struct quantisation *out, struct error *err);
