#include "common/models/architectures.h"

#include "common/models/layers.h"

#include <stdio.h>
#include <string.h>

/**
 * He et al., "Deep residual learning", CVPR 2016, in torchvision's v1.5 form: the stride of a bottleneck sits in its 3x3
 * convolution. Node names equal torchvision's module names.
 */

/** A convolution and its batch norm: PREFIX.convI, PREFIX.bnI. */
static int conv_norm(const struct layers *layers, const char *prefix, int index, int input,
                     const struct convolution *convolution) {
    char name[GRAPH_NAME_SIZE];
    snprintf(name, sizeof name, "%s.conv%d", prefix, index);
    int x = layer_convolution(layers, name, input, convolution);
    snprintf(name, sizeof name, "%s.bn%d", prefix, index);
    return layer_batch_norm(layers, name, x);
}

static int relu(const struct layers *layers, const char *prefix, int index, int input) {
    char name[GRAPH_NAME_SIZE];
    snprintf(name, sizeof name, "%s.relu%d", prefix, index);
    return layer_activation(layers, name, input, ACTIVATION_RELU);
}

/** What the block adds to its result: its input, projected where the shape changes. */
static int shortcut(const struct layers *layers, const char *prefix, int input, int64_t channels, int stride) {
    if (input < 0 || (stride == 1 && layers->graph->nodes[input].output.dims[1] == channels))
        return input;
    char name[GRAPH_NAME_SIZE];
    snprintf(name, sizeof name, "%s.downsample.0", prefix);
    int x = layer_convolution(layers, name, input, &(struct convolution){channels, 1, stride, 1, false});
    snprintf(name, sizeof name, "%s.downsample.1", prefix);
    return layer_batch_norm(layers, name, x);
}

static int basic_block(const struct layers *layers, const char *prefix, int input, int64_t width, int stride) {
    int identity = shortcut(layers, prefix, input, width, stride);
    int x = conv_norm(layers, prefix, 1, input, &(struct convolution){width, 3, stride, 1, false});
    x = relu(layers, prefix, 1, x);
    x = conv_norm(layers, prefix, 2, x, &(struct convolution){width, 3, 1, 1, false});
    return relu(layers, prefix, 2, layer_add(layers, prefix, x, identity));
}

static int bottleneck_block(const struct layers *layers, const char *prefix, int input, int64_t width, int stride) {
    int identity = shortcut(layers, prefix, input, 4 * width, stride);
    int x = conv_norm(layers, prefix, 1, input, &(struct convolution){width, 1, 1, 1, false});
    x = relu(layers, prefix, 1, x);
    x = conv_norm(layers, prefix, 2, x, &(struct convolution){width, 3, stride, 1, false});
    x = relu(layers, prefix, 2, x);
    x = conv_norm(layers, prefix, 3, x, &(struct convolution){4 * width, 1, 1, 1, false});
    return relu(layers, prefix, 3, layer_add(layers, prefix, x, identity));
}

static int stem(const struct layers *layers, const struct model_spec *spec, int input) {
    bool small = spec->stem && strcmp(spec->stem, "3x3") == 0;
    int x = layer_convolution(layers, "conv1", input, &(struct convolution){64, small ? 3 : 7, small ? 1 : 2, 1, false});
    x = layer_activation(layers, "relu", layer_batch_norm(layers, "bn1", x), ACTIVATION_RELU);
    return small ? x : layer_max_pool(layers, "maxpool", x, 3, 2);
}

int resnet_build(struct graph *graph, const struct model_architecture *row, const struct model_spec *spec, struct error *err) {
    struct layers layers = {graph, err, 1e-5f};
    int x = stem(&layers, spec, graph_add_input(graph, spec->input_channels, spec->size, spec->size, err));
    for (int stage = 0; stage < 4; stage++) {
        for (int block = 0; block < row->blocks[stage]; block++) {
            char prefix[32];
            snprintf(prefix, sizeof prefix, "layer%d.%d", stage + 1, block);
            int stride = stage > 0 && block == 0 ? 2 : 1;
            int64_t width = (int64_t)64 << stage;
            x = row->bottleneck ? bottleneck_block(&layers, prefix, x, width, stride)
                                : basic_block(&layers, prefix, x, width, stride);
        }
    }
    return layer_head(&layers, row->head, x, spec->classes, spec->dropout);
}
