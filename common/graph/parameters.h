#pragma once
#include "common/graph/graph.h"

/** Host tensors (canonical, of the dtypes that the operations say) for all parameters of a graph, by parameter id. */
struct parameters {
    int count;
    struct tensor *tensors;
};

/** Zeroed tensors for every parameter of the graph. Returns owned, NULL on error. */
struct parameters *parameters_create(const struct graph *graph, struct error *err);
/** Takes NULL. */
void parameters_destroy(struct parameters *parameters);

/**
 * Fresh values, as torchvision does it: convolutions normal with sqrt(2 / fan_out) (He et al. 2015), batch
 * norm scale 1, shift 0, mean 0, variance 1; linear layers normal with deviation .01 and bias 0; 8-bit
 * weights stay as they are. The same for every device and rank: it depends on seed and names alone.
 */
void parameters_initialise(const struct graph *graph, struct parameters *parameters, uint64_t seed);

/** The tensor of a node's parameter in that role; NULL where it has none. */
struct tensor *parameters_in_role(const struct graph *graph, const struct parameters *parameters, int node, enum arg arg);

/** Copies all tensors; both belong to the same graph. */
void parameters_copy(struct parameters *to, const struct parameters *from);
