#include "common/graph/parameters.h"

#include "common/base/rng.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct parameters *parameters_create(const struct graph *graph, struct error *err) {
    struct parameters *parameters = calloc(1, sizeof *parameters);
    if (!parameters || !(parameters->tensors = calloc((size_t)graph->parameter_count + 1, sizeof(struct tensor)))) {
        free(parameters);
        error_set(err, ERROR_MEMORY, "out of memory for %d parameters", graph->parameter_count);
        return NULL;
    }
    for (; parameters->count < graph->parameter_count; parameters->count++) {
        const struct graph_parameter *row = &graph->parameters[parameters->count];
        if (!tensor_init(&parameters->tensors[parameters->count], row->role.dtype, &row->role.shape, err)) {
            error_prefix(err, "parameter %s", row->name);
            parameters_destroy(parameters);
            return NULL;
        }
    }
    return parameters;
}

void parameters_destroy(struct parameters *parameters) {
    if (!parameters)
        return;
    for (int i = 0; i < parameters->count; i++)
        tensor_fini(&parameters->tensors[i]);
    free(parameters->tensors);
    free(parameters);
}

/** FNV-1a, so that a parameter's random numbers follow from its name and not from its place in the graph. */
static uint64_t name_hash(const char *name) {
    uint64_t hash = 0xcbf29ce484222325u;
    for (; *name; name++)
        hash = (hash ^ (uint8_t)*name) * 0x100000001b3u;
    return hash;
}

static void fill_constant(struct tensor *tensor, float value) {
    float *data = tensor->data;
    for (int64_t i = 0; i < shape_count(&tensor->shape); i++)
        data[i] = value;
}

static void fill_normal(struct tensor *tensor, float deviation, uint64_t seed, const char *name) {
    struct rng rng;
    rng_init(&rng, seed, RNG_INIT, name_hash(name), 0);
    float *data = tensor->data;
    for (int64_t i = 0; i < shape_count(&tensor->shape); i++)
        data[i] = deviation * rng_normal(&rng);
}

static void initialise_one(const struct graph *graph, const struct graph_parameter *row, struct tensor *tensor, uint64_t seed) {
    const struct op *op = &graph->nodes[row->node].op;
    const int64_t *dims = tensor->shape.dims;
    if (tensor->dtype != DTYPE_F32)
        return; /* quantised weights come from others, never from chance */
    if (row->role.arg == ARG_WEIGHT && op->kind == OP_CONV2D) {
        double fan_out = (double)dims[0] / op->conv2d.groups * (double)(dims[2] * dims[3]);
        fill_normal(tensor, (float)sqrt(2.0 / fan_out), seed, row->name);
    } else if (row->role.arg == ARG_WEIGHT) {
        fill_normal(tensor, 0.01f, seed, row->name);
    } else {
        bool one = row->role.arg == ARG_SCALE || row->role.arg == ARG_RUNNING_VARIANCE;
        fill_constant(tensor, one ? 1.0f : 0.0f);
    }
}

void parameters_initialise(const struct graph *graph, struct parameters *parameters, uint64_t seed) {
    for (int i = 0; i < parameters->count; i++)
        initialise_one(graph, &graph->parameters[i], &parameters->tensors[i], seed);
}

struct tensor *parameters_in_role(const struct graph *graph, const struct parameters *parameters, int node, enum arg arg) {
    int parameter = graph_parameter_in_role(graph, node, arg, false);
    return parameter < 0 ? NULL : &parameters->tensors[parameter];
}

void parameters_copy(struct parameters *to, const struct parameters *from) {
    for (int i = 0; i < to->count; i++)
        memcpy(to->tensors[i].data, from->tensors[i].data, tensor_bytes(&to->tensors[i]));
}
