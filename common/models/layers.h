#pragma once
#include "common/graph/graph.h"

/**
 * The few phrases in which networks are written down. Each adds a node after `input` and returns its id, -1 on error or where
 * input is -1, so that a model's code looks at the error once, at the end.
 */
struct layers {
    struct graph *graph;
    struct error *err;
    float epsilon; /**< of batch norm */
};

/** A convolution without bias: `size` square, the same padding on both sides. */
struct convolution {
    int64_t channels;
    int size, stride, groups;
    bool tensorflow_same; /**< pad as TensorFlow's SAME does, which is uneven where stride is 2; else size / 2 all around */
};

int layer_convolution(const struct layers *layers, const char *name, int input, const struct convolution *convolution);
int layer_batch_norm(const struct layers *layers, const char *name, int input);
int layer_activation(const struct layers *layers, const char *name, int input, enum activation activation);
int layer_add(const struct layers *layers, const char *name, int a, int b);
int layer_max_pool(const struct layers *layers, const char *name, int input, int size, int stride);
/** Global average pooling, dropout where rate > 0, and the linear layer `name`. */
int layer_head(const struct layers *layers, const char *name, int input, int classes, double dropout);
