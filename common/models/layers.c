#include "common/models/layers.h"

/** TensorFlow's SAME: as many outputs as ceil(size / stride), the odd pixel of padding goes after. */
static void pad_same(int64_t size, int kernel, int stride, int *before, int *after) {
    int64_t outputs = (size + stride - 1) / stride;
    int64_t total = (outputs - 1) * stride + kernel - size;
    total = total > 0 ? total : 0;
    *before = (int)(total / 2);
    *after = (int)(total - total / 2);
}

int layer_convolution(const struct layers *layers, const char *name, int input, const struct convolution *convolution) {
    if (input < 0)
        return -1;
    int size = convolution->size, stride = convolution->stride, half = size / 2;
    struct window window = {{size, size}, {stride, stride}, {half, half}, {half, half}};
    if (convolution->tensorflow_same) {
        const struct shape *shape = &layers->graph->nodes[input].output;
        for (int axis = 0; axis < 2; axis++)
            pad_same(shape->dims[2 + axis], size, stride, &window.pad_before[axis], &window.pad_after[axis]);
    }
    struct op op = {.kind = OP_CONV2D,
                    .conv2d = {.channels_out = convolution->channels, .window = window, .groups = convolution->groups}};
    return graph_add(layers->graph, name, &op, &input, layers->err);
}

int layer_batch_norm(const struct layers *layers, const char *name, int input) {
    struct op op = {.kind = OP_BATCH_NORM, .batch_norm = {.epsilon = layers->epsilon, .momentum = 0.1f}};
    return graph_add(layers->graph, name, &op, &input, layers->err);
}

int layer_activation(const struct layers *layers, const char *name, int input, enum activation activation) {
    struct op op = {.kind = OP_ACTIVATION, .activation = activation};
    return graph_add(layers->graph, name, &op, &input, layers->err);
}

int layer_add(const struct layers *layers, const char *name, int a, int b) {
    struct op op = {.kind = OP_ADD};
    int inputs[] = {a, b};
    return graph_add(layers->graph, name, &op, inputs, layers->err);
}

int layer_max_pool(const struct layers *layers, const char *name, int input, int size, int stride) {
    int half = size / 2;
    struct op op = {.kind = OP_MAX_POOL, .max_pool = {{size, size}, {stride, stride}, {half, half}, {half, half}}};
    return graph_add(layers->graph, name, &op, &input, layers->err);
}

int layer_head(const struct layers *layers, const char *name, int input, int classes, double dropout) {
    struct op pool = {.kind = OP_GLOBAL_AVERAGE_POOL};
    struct op drop = {.kind = OP_DROPOUT, .dropout = {.rate = (float)dropout}};
    struct op linear = {.kind = OP_LINEAR, .linear = {.features_out = classes, .bias = true}};
    int x = graph_add(layers->graph, "avgpool", &pool, &input, layers->err);
    if (dropout > 0)
        x = graph_add(layers->graph, "dropout", &drop, &x, layers->err);
    return graph_add(layers->graph, name, &linear, &x, layers->err);
}
