#pragma once
#include "common/graph/graph.h"

/** What a network is built from; what a model file says of itself. Plain data. */
struct model_spec {
    const char *architecture; /**< a registry row: "resnet18", ... "efficientnet_lite0" */
    const char *stem; /**< "7x7" (stride 2, then max-pool) or "3x3" (stride 1, for small images); others
                         ignore it; NULL: 7x7 */
    int input_channels;       /**< 1 or 3 */
    int size;                 /**< height and width in pixels, 28 to 512 */
    int classes;              /**< at least 2 */
    double dropout;           /**< before the last linear layer; 0: none */
};

/** One row per architecture. */
struct model_architecture {
    const char *name;
    const char *help;
    /** Adds the nodes. Returns the logits' id, -1 on error. */
    int (*build)(struct graph *graph, const struct model_architecture *row, const struct model_spec *spec, struct error *err);
    int blocks[7]; /**< per stage */
    bool bottleneck;
    const char *first_convolution, *head; /**< node names: for import and fresh heads */
};

/** The row of that name; NULL: ERROR_NOT_FOUND lists the names. */
const struct model_architecture *model_find(const char *name, struct error *err);
/** Checks the spec and builds the graph. Returns owned, NULL on error. */
struct graph *model_build(const struct model_spec *spec, struct error *err);
