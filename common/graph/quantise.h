#pragma once
#include "common/graph/parameters.h"
#include "common/graph/range.h"

/**
 * How one node of a folded graph is quantised. `int8`: its convolution computes in integers. `dtype` and `scale`: how its output
 * is kept where a reader wants integers, real value = scale * integer; u8 where nothing is negative, else s8.
 */
struct quantisation_row {
    char node[GRAPH_NAME_SIZE];
    bool int8;
    enum dtype dtype;
    float scale;
};

/** A network's quantisation: what of it does not follow from graph and weights. Pooled tensors keep their source's scale. */
struct quantisation {
    int count;
    struct quantisation_row *rows; /**< owned or borrowed, as its maker says */
};

/** Whether a node has a row: the pictures, and what convolutions write. Pools keep their source's scale. */
bool quantisation_has_row(const struct graph_node *node);
/** A node's row from what was seen of its output, computing in 8 bits where it is a convolution; a ReLU6's integers end at 6. */
struct quantisation_row quantisation_row_of(const struct graph_node *node, const struct range *range, enum range_method method);

/** The row of a node; NULL where it has none. */
const struct quantisation_row *quantisation_find(const struct quantisation *table, const char *node);

/**
 * The graph that computes in 8 bits what `folded` (graph_fold_for_inference) computes in f32: 8-bit convolutions where the table
 * says so, rescaling between them and what stays in f32, pools in the dtype of their source; an average of integers hands its
 * scale to the linear layer behind it. Nodes keep their names. The same table gives the same graph anywhere. Returns owned; NULL:
 * ERROR_INVALID names a node that the graph does not have, that stands twice, that is to compute in 8 bits and is no convolution,
 * or whose output is wanted in integers and has no scale.
 */
struct graph *graph_quantise(const struct graph *folded, const struct quantisation *table, struct error *err);

/**
 * The parameters of graph_quantise's graph from those of the folded one: weights in s8 with a scale per output channel, and the
 * factors and biases that struct conv2d_int8 wants. weight_bits 8: a channel's largest |w| becomes 127. 7: for processors that
 * would saturate (device_info.int8_weight_bits), it becomes 63 where the source is u8, and 126 where it is s8, with even weights
 * only. Returns owned; NULL on error.
 */
struct parameters *quantise_parameters(const struct graph *folded, const struct parameters *parameters,
                                       const struct quantisation *table, const struct graph *quantised, int weight_bits,
                                       struct error *err);
