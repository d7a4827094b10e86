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

int model_network_weight_bits(const struct model_network *network) {
    int most = 0, bits = 0;
    for (int i = 0; i < network->parameters->count; i++) {
        const struct tensor *tensor = &network->parameters->tensors[i];
        for (int64_t k = 0; tensor->dtype == DTYPE_S8 && k < shape_count(&tensor->shape); k++) {
            int weight = abs(((const int8_t *)tensor->data)[k]);
            most = weight > most ? weight : most;
        }
    }
    while (most >> bits)
        bits++;
    return most ? bits + 1 : 0; /* and the sign */
}
