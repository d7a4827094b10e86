#include "common/weights/model_network.h"

#include "common/base/text.h"
#include "common/graph/passes.h"

#include <stdlib.h>
#include <string.h>

bool model_quantisation(const struct manifest *manifest, struct quantisation *out, struct error *err) {
    *out = (struct quantisation){0};
    out->rows = calloc((size_t)manifest->quantised_count + 1, sizeof *out->rows);
    if (!out->rows)
        return error_set(err, ERROR_MEMORY, "out of memory");
    for (; out->count < manifest->quantised_count; out->count++) {
        const struct manifest_quantised *from = &manifest->quantised[out->count];
        struct quantisation_row *to = &out->rows[out->count];
        if (!text_copy(to->node, sizeof to->node, from->node)) {
            free(out->rows);
            *out = (struct quantisation){0};
            return error_set(err, ERROR_TOO_LARGE, "quantised: the node's name %.40s... is too long", from->node);
        }
        to->int8 = strcmp(from->computes, "int8") == 0;
        to->dtype = dtype_parse(from->dtype);
        to->scale = (float)from->scale;
    }
    return true;
}

/** The graph that computes in 8 bits: what is folded into what follows from the architecture alone. */
static struct graph *quantised_graph(const struct graph *graph, const struct manifest *manifest, struct error *err) {
    struct quantisation table = {0};
    struct parameters *zeros = parameters_create(graph, err), *nothing = NULL;
    struct graph *folded = zeros ? graph_fold_for_inference(graph, zeros, NULL, PRECISION_F32, &nothing, err) : NULL;
    struct graph *quantised = NULL;
    if (folded && model_quantisation(manifest, &table, err))
        quantised = graph_quantise(folded, &table, err);
    free(table.rows);
    parameters_destroy(nothing);
    parameters_destroy(zeros);
    graph_destroy(folded);
    return quantised;
}

static bool build_graph(const struct model_file *file, struct model_network *out, struct error *err) {
    struct model_spec spec = model_file_spec(file);
    struct graph *graph = model_build(&spec, err);
    out->precision = strcmp(file->manifest.precision, "bf16") == 0 ? PRECISION_BF16 : PRECISION_F32;
    if (!graph || strcmp(file->manifest.precision, "int8") != 0) {
        out->graph = graph;
        return graph != NULL;
    }
    out->graph = quantised_graph(graph, &file->manifest, err);
    graph_destroy(graph);
    return out->graph || error_prefix(err, "model %s", file->manifest.name);
}

bool model_network_open(const struct model_file *file, struct model_network *out, struct error *err) {
    *out = (struct model_network){0};
    bool ok = build_graph(file, out, err) && (out->parameters = parameters_create(out->graph, err)) &&
              model_file_load(file, out->graph, out->parameters, err);
    if (!ok)
        model_network_close(out);
    return ok;
}

void model_network_close(struct model_network *network) {
    parameters_destroy(network->parameters);
    graph_destroy(network->graph);
    *network = (struct model_network){0};
}

/** The bits that an integer takes, with its sign: -64..63 in 7. */
static int bits_of(int value) {
    int bits = 1;
    for (int magnitude = value < 0 ? ~value : value; magnitude; magnitude >>= 1)
        bits++;
    return bits;
}

static const struct tensor *weight_of(const struct model_network *network, const struct graph_node *node) {
    for (int i = 0; i < node->parameter_count; i++) {
        if (network->graph->parameters[node->parameters[i]].role.arg == ARG_WEIGHT)
            return &network->parameters->tensors[node->parameters[i]];
    }
    return NULL;
}

/** Of one convolution: beside a source of s8, weights are halved where bits are short, and odd ones lose one of 8. */
static int weight_bits_of(const struct tensor *weight, enum dtype source) {
    const int8_t *values = weight->data;
    int bits = 0;
    for (int64_t i = 0; i < shape_count(&weight->shape); i++) {
        if (source == DTYPE_S8 && values[i] % 2 != 0)
            return 8;
        int here = bits_of(source == DTYPE_S8 ? values[i] / 2 : values[i]);
        bits = here > bits ? here : bits;
    }
    return bits;
}

int model_network_weight_bits(const struct model_network *network) {
    int most = 0;
    for (int i = 0; i < network->graph->node_count; i++) {
        const struct graph_node *node = &network->graph->nodes[i];
        if (node->op.kind != OP_CONV2D || !op_is_int8(&node->op))
            continue;
        int bits = weight_bits_of(weight_of(network, node), node->op.conv2d.int8.src);
        most = bits > most ? bits : most;
    }
    return most;
}

bool model_network_is_exact_on(const struct model_network *network, struct device *device, struct error *err) {
    struct device_info info;
    int bits = model_network_weight_bits(network);
    device->ops->info(device, &info);
    return info.int8_weight_bits == 0 || bits <= info.int8_weight_bits ||
           error_set(err, ERROR_UNSUPPORTED,
                     "the model's weights take %d bits, and this processor's 8-bit arithmetic is exact for %d: "
                     "quantise it with --weight-bits %d",
                     bits, info.int8_weight_bits, info.int8_weight_bits);
}
