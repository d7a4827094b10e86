#include "common/models/architectures.h"

#include "common/models/layers.h"

#include <stdio.h>

/**
 * EfficientNet-Lite0 (Tan & Le, ICML 2019, in the Lite form of 2020: no squeeze-and-excite, ReLU6, stem and head not scaled).
 * Node names are those of the PyTorch port whose ImageNet weights are published; TensorFlow's SAME padding and epsilon 1e-3.
 */
static const struct stage {
    int kernel, stride, expand;
    int64_t channels;
} stages[] = {
    {3, 1, 1, 16}, {3, 2, 6, 24}, {5, 2, 6, 40}, {3, 2, 6, 80},
    {5, 1, 6, 112}, {5, 2, 6, 192}, {3, 1, 6, 320},
};

/** Convolution CONV and batch norm NORM under the prefix, then ReLU6 unless linear. */
struct unit {
    const char *conv, *norm;
    struct convolution convolution;
    bool linear;
};

static int add_unit(const struct layers *layers, const char *prefix, int input, const struct unit *unit) {
    char name[GRAPH_NAME_SIZE];
    snprintf(name, sizeof name, "%s%s", prefix, unit->conv);
    int x = layer_convolution(layers, name, input, &unit->convolution);
    snprintf(name, sizeof name, "%s%s", prefix, unit->norm);
    x = layer_batch_norm(layers, name, x);
    if (unit->linear)
        return x;
    snprintf(name, sizeof name, "%s%s.relu6", prefix, unit->norm);
    return layer_activation(layers, name, x, ACTIVATION_RELU6);
}

/** An inverted residual (Sandler et al., MobileNetV2, CVPR 2018): expand, depthwise, project, and add where shapes allow. */
static int add_block(const struct layers *layers, const char *prefix, int input, const struct stage *stage, int stride) {
    if (input < 0)
        return -1;
    int64_t in = layers->graph->nodes[input].output.dims[1], wide = in * stage->expand;
    int x = input;
    if (stage->expand != 1)
        x = add_unit(layers, prefix, x, &(struct unit){"_expand_conv", "_bn0", {wide, 1, 1, 1, true}, false});
    struct convolution depthwise = {wide, stage->kernel, stride, (int)wide, true};
    x = add_unit(layers, prefix, x, &(struct unit){"_depthwise_conv", "_bn1", depthwise, false});
    x = add_unit(layers, prefix, x, &(struct unit){"_project_conv", "_bn2", {stage->channels, 1, 1, 1, true}, true});
    if (stride != 1 || in != stage->channels)
        return x;
    char name[GRAPH_NAME_SIZE];
    snprintf(name, sizeof name, "%sadd", prefix);
    return layer_add(layers, name, x, input);
}

int efficientnet_lite_build(struct graph *graph, const struct model_architecture *row, const struct model_spec *spec,
                            struct error *err) {
    struct layers layers = {graph, err, 1e-3f};
    int x = graph_add_input(graph, spec->input_channels, spec->size, spec->size, err);
    x = add_unit(&layers, "", x, &(struct unit){"_conv_stem", "_bn0", {32, 3, 2, 1, true}, false});
    int index = 0;
    for (size_t s = 0; s < sizeof stages / sizeof *stages; s++) {
        for (int i = 0; i < row->blocks[s]; i++) {
            char prefix[32];
            snprintf(prefix, sizeof prefix, "_blocks.%d.", index++);
            x = add_block(&layers, prefix, x, &stages[s], i == 0 ? stages[s].stride : 1);
        }
    }
    x = add_unit(&layers, "", x, &(struct unit){"_conv_head", "_bn1", {1280, 1, 1, 1, true}, false});
    return layer_head(&layers, row->head, x, spec->classes, spec->dropout);
}
