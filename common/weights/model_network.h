#pragma once
#include "common/graph/quantise.h"
#include "common/op/precision.h"
#include "common/weights/model_file.h"

struct device;

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

/**
 * What device_info.int8_weight_bits has to be for exact answers: 8, or 7 or fewer where the network was made for processors that
 * would saturate. 0: no convolution of it computes in 8 bits.
 */
int model_network_weight_bits(const struct model_network *network);

/**
 * Whether the device computes the network's 8-bit convolutions exactly; integers that saturate give wrong answers, and not by a
 * little. ERROR_UNSUPPORTED says how to quantise for it. A device without 8-bit convolutions passes: its plans are refused.
 */
bool model_network_is_exact_on(const struct model_network *network, struct device *device, struct error *err);

/** A manifest's quantisation as the graph wants it; rows owned (free()). NULL rows on error. */
bool model_quantisation(const struct manifest *manifest, struct quantisation *out, struct error *err);
