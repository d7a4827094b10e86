#include "common/graph/quantise.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool quantisation_has_row(const struct graph_node *node) {
    return node->op.kind == OP_CONV2D || node->op.kind == OP_INPUT;
}

struct quantisation_row quantisation_row_of(const struct graph_node *node, const struct range *range, enum range_method method) {
    bool convolution = node->op.kind == OP_CONV2D;
    bool six = convolution && node->op.conv2d.activation == ACTIVATION_RELU6;
    float scale = range_scale(range, method);
    struct quantisation_row row = {
        .int8 = convolution, .dtype = range_dtype(range), .scale = six ? fminf(scale, 6.0f / UINT8_MAX) : scale};
    memcpy(row.node, node->name, sizeof row.node);
    return row;
}

const struct quantisation_row *quantisation_find(const struct quantisation *table, const char *node) {
    for (int i = 0; i < table->count; i++) {
        if (strcmp(table->rows[i].node, node) == 0)
            return &table->rows[i];
    }
    return NULL;
}

/** The scale that a node's output has in integers: a pool's is its source's. */
static const struct quantisation_row *row_of_output(const struct graph *folded, const struct quantisation *table, int node) {
    while (folded->nodes[node].op.kind == OP_MAX_POOL || folded->nodes[node].op.kind == OP_GLOBAL_AVERAGE_POOL)
        node = folded->nodes[node].inputs[0];
    return quantisation_find(table, folded->nodes[node].name);
}

static bool computes_in_int8(const struct graph *folded, const struct quantisation *table, int node) {
    const struct quantisation_row *row = quantisation_find(table, folded->nodes[node].name);
    return folded->nodes[node].op.kind == OP_CONV2D && row && row->int8;
}

/* --- the graph --- */

/** What an old node has become. */
struct image {
    int node, as_int8, as_float; /* new ids: as it comes out; rescaled where somebody wanted the other, or -1 */
    enum dtype dtype;            /* of `node`: DTYPE_F32 or 8-bit */
};

struct quantiser {
    const struct graph *from;
    const struct quantisation *table;
    struct graph *to;
    struct image *images; /* by old node */
    struct error *err;
};

static bool feeds_only_linear(const struct graph *graph, int node) {
    for (int i = node + 1; i < graph->node_count; i++) {
        for (int k = 0; k < op_input_count(&graph->nodes[i].op); k++) {
            if (graph->nodes[i].inputs[k] == node && graph->nodes[i].op.kind != OP_LINEAR)
                return false;
        }
    }
    return true;
}

/** Whether anybody who reads the node can use integers. */
static bool wanted_in_int8(const struct quantiser *q, int node) {
    for (int i = node + 1; i < q->from->node_count; i++) {
        const struct graph_node *reader = &q->from->nodes[i];
        for (int k = 0; k < op_input_count(&reader->op); k++) {
            bool average = reader->op.kind == OP_GLOBAL_AVERAGE_POOL && feeds_only_linear(q->from, i);
            bool pool = reader->op.kind == OP_MAX_POOL && wanted_in_int8(q, i);
            if (reader->inputs[k] == node && (average || pool || computes_in_int8(q->from, q->table, i)))
                return true;
        }
    }
    return false;
}

static int add_rescale(struct quantiser *q, int old, const char *suffix, const struct rescale *rescale) {
    char name[GRAPH_NAME_SIZE];
    struct op op = {.kind = OP_RESCALE, .rescale = *rescale};
    int length = snprintf(name, sizeof name, "%s.%s", q->from->nodes[old].name, suffix);
    if (length < 0 || (size_t)length >= sizeof name) {
        error_set(q->err, ERROR_TOO_LARGE, "node %s: its name is too long to be rescaled", q->from->nodes[old].name);
        return -1;
    }
    return graph_add(q->to, name, &op, &q->images[old].node, q->err);
}

/** The new node that has an old node's output in integers; -1 on error. */
static int in_int8(struct quantiser *q, int old) {
    struct image *image = &q->images[old];
    const struct quantisation_row *row = row_of_output(q->from, q->table, old);
    if (image->dtype != DTYPE_F32)
        return image->node;
    if (!row || !(row->scale > 0)) {
        error_set(q->err, ERROR_INVALID, "quantisation: node %s has no scale, and its output is wanted in integers",
                  q->from->nodes[old].name);
        return -1;
    }
    if (image->as_int8 < 0)
        image->as_int8 = add_rescale(q, old, dtype_name(row->dtype), &(struct rescale){DTYPE_F32, row->dtype, 1 / row->scale});
    return image->as_int8;
}

/** The new node that has an old node's output in f32; -1 on error. */
static int in_float(struct quantiser *q, int old) {
    struct image *image = &q->images[old];
    if (image->dtype == DTYPE_F32)
        return image->node;
    if (image->as_float < 0) {
        float scale = row_of_output(q->from, q->table, old)->scale;
        image->as_float = add_rescale(q, old, "f32", &(struct rescale){image->dtype, DTYPE_F32, scale});
    }
    return image->as_float;
}

static enum dtype dtype_of_int8(const struct quantiser *q, int old) {
    const struct image *image = &q->images[old];
    return image->dtype != DTYPE_F32 ? image->dtype : row_of_output(q->from, q->table, old)->dtype;
}

static bool convolution(struct quantiser *q, int old) {
    const struct graph_node *node = &q->from->nodes[old];
    const struct quantisation_row *row = quantisation_find(q->table, node->name);
    struct op op = node->op;
    int inputs[OP_MAX_INPUTS] = {-1, -1};
    for (int k = 0; k < op_input_count(&op); k++) {
        if ((inputs[k] = in_int8(q, node->inputs[k])) < 0)
            return false;
    }
    bool integers = wanted_in_int8(q, old);
    if (op.conv2d.activation == ACTIVATION_RELU6 && !(integers && row->dtype == DTYPE_U8 && row->scale * UINT8_MAX <= 6.0001f))
        return error_set(q->err, ERROR_INVALID, "quantisation: node %s ends at 6, which its integers do not", node->name);
    float scale = integers ? row->scale : 1;
    op.conv2d.bias = true;
    op.conv2d.activation = op.conv2d.activation == ACTIVATION_NONE ? ACTIVATION_NONE : ACTIVATION_RELU; /* 6 is u8's end */
    op.conv2d.int8 = (struct conv2d_int8){.src = dtype_of_int8(q, node->inputs[0]), .dst = integers ? row->dtype : DTYPE_F32};
    if (op.conv2d.residual) {
        op.conv2d.int8.residual = dtype_of_int8(q, node->inputs[1]);
        op.conv2d.int8.residual_factor = row_of_output(q->from, q->table, node->inputs[1])->scale / scale;
    }
    q->images[old] = (struct image){graph_add(q->to, node->name, &op, inputs, q->err), -1, -1, op.conv2d.int8.dst};
    return q->images[old].node >= 0;
}

/** A pool of integers, where that is what its source is and what readers of its output take. */
static bool pool(struct quantiser *q, int old) {
    const struct graph_node *node = &q->from->nodes[old];
    const struct image *source = &q->images[node->inputs[0]];
    bool average = node->op.kind == OP_GLOBAL_AVERAGE_POOL;
    bool integers = source->dtype != DTYPE_F32 && (!average || feeds_only_linear(q->from, old));
    int input = integers ? source->node : in_float(q, node->inputs[0]);
    struct op op = node->op;
    if (integers && average)
        op.global_average_pool_of = source->dtype;
    else if (integers)
        op.max_pool_of = source->dtype;
    enum dtype dtype = integers && !average ? source->dtype : DTYPE_F32;
    q->images[old] = (struct image){input < 0 ? -1 : graph_add(q->to, node->name, &op, &input, q->err), -1, -1, dtype};
    return q->images[old].node >= 0;
}

static bool plain(struct quantiser *q, int old) {
    const struct graph_node *node = &q->from->nodes[old];
    int inputs[OP_MAX_INPUTS] = {-1, -1};
    for (int k = 0; k < op_input_count(&node->op); k++) {
        if ((inputs[k] = in_float(q, node->inputs[k])) < 0)
            return false;
    }
    q->images[old] = (struct image){graph_add(q->to, node->name, &node->op, inputs, q->err), -1, -1, DTYPE_F32};
    return q->images[old].node >= 0;
}

/** The node of that name; node_count where there is none. */
static int find_node(const struct graph *graph, const char *name) {
    int i = 0;
    while (i < graph->node_count && strcmp(graph->nodes[i].name, name) != 0)
        i++;
    return i;
}

static bool check_row(const struct graph *folded, const struct quantisation *table, int index, struct error *err) {
    const struct quantisation_row *row = &table->rows[index];
    int node = find_node(folded, row->node);
    if (node == folded->node_count)
        return error_set(err, ERROR_INVALID, "quantisation: the network has no node %.90s", row->node);
    if (quantisation_find(table, row->node) != row)
        return error_set(err, ERROR_INVALID, "quantisation: node %.90s stands twice", row->node);
    if (row->int8 && folded->nodes[node].op.kind != OP_CONV2D)
        return error_set(err, ERROR_INVALID, "quantisation: node %.90s is no convolution and computes in int8", row->node);
    if (!(row->scale > 0) || !isfinite(row->scale) || (row->dtype != DTYPE_U8 && row->dtype != DTYPE_S8))
        return error_set(err, ERROR_INVALID, "quantisation: node %.90s: a scale of %g for %s", row->node, (double)row->scale,
                         dtype_name(row->dtype));
    return true;
}

static bool check_table(const struct graph *folded, const struct quantisation *table, struct error *err) {
    for (int i = 0; i < table->count; i++) {
        if (!check_row(folded, table, i, err))
            return false;
    }
    return true;
}

static bool convert_node(struct quantiser *q, int old) {
    enum op_kind kind = q->from->nodes[old].op.kind;
    if (computes_in_int8(q->from, q->table, old))
        return convolution(q, old);
    if (kind == OP_MAX_POOL || kind == OP_GLOBAL_AVERAGE_POOL)
        return pool(q, old);
    return plain(q, old);
}

struct graph *graph_quantise(const struct graph *folded, const struct quantisation *table, struct error *err) {
    struct quantiser q = {.from = folded, .table = table, .err = err};
    if (!check_table(folded, table, err))
        return NULL;
    q.images = calloc((size_t)folded->node_count + 1, sizeof *q.images);
    q.to = graph_create();
    bool ok = (q.images && q.to) || error_set(err, ERROR_MEMORY, "quantising: out of memory");
    for (int i = 0; ok && i < folded->node_count; i++)
        ok = convert_node(&q, i);
    free(q.images);
    if (ok)
        return q.to;
    graph_destroy(q.to);
    return NULL;
}

/* --- the parameters --- */

/** One node's parameters, old and new. */
struct carry {
    const struct graph *folded, *quantised;
    const struct parameters *from;
    struct parameters *to;
    int old, new;
    float source_scale, target_scale; /* of the integers that are read and written; 1: f32 */
    int weight_bits;
};

/** The integers that weights may be: multiples of `step`, -most..most. */
struct weight_grid {
    int step, most;
};

/**
 * Where products are added in pairs in 16 bits, 255 * 63 * 2 fits. A source of s8 is moved up by 128 there to be unsigned, and
 * the weights are halved on the way into the kernel: 126 becomes 63, and nothing is lost where they are even.
 */
static struct weight_grid grid_of(enum dtype source, int weight_bits) {
    if (weight_bits == 8)
        return (struct weight_grid){1, INT8_MAX};
    return source == DTYPE_S8 ? (struct weight_grid){2, 126} : (struct weight_grid){1, 63};
}

/** Rounds one output channel's weights; returns its scale. */
static float round_channel(const float *weights, int64_t count, const struct weight_grid *grid, int8_t *out) {
    float largest = 0;
    for (int64_t i = 0; i < count; i++)
        largest = fmaxf(largest, fabsf(weights[i]));
    float scale = largest > 0 ? largest / (float)grid->most : 1, step = (float)grid->step;
    for (int64_t i = 0; i < count; i++)
        out[i] = (int8_t)(step * nearbyintf(weights[i] / (scale * step)));
    return scale;
}

static void carry_convolution(const struct carry *carry) {
    const struct tensor *weight = parameters_in_role(carry->folded, carry->from, carry->old, ARG_WEIGHT);
    const struct tensor *bias = parameters_in_role(carry->folded, carry->from, carry->old, ARG_BIAS);
    int8_t *out = parameters_in_role(carry->quantised, carry->to, carry->new, ARG_WEIGHT)->data;
    float *factor = parameters_in_role(carry->quantised, carry->to, carry->new, ARG_SCALE)->data;
    float *shift = parameters_in_role(carry->quantised, carry->to, carry->new, ARG_BIAS)->data;
    int64_t channels = weight->shape.dims[0], each = shape_count(&weight->shape) / channels;
    struct weight_grid grid = grid_of(carry->quantised->nodes[carry->new].op.conv2d.int8.src, carry->weight_bits);
    for (int64_t c = 0; c < channels; c++) {
        float scale = round_channel((const float *)weight->data + c * each, each, &grid, out + c * each);
        factor[c] = (float)((double)scale * (double)carry->source_scale / (double)carry->target_scale);
        shift[c] = bias ? ((const float *)bias->data)[c] / carry->target_scale : 0;
    }
}

/** Copies; a linear layer behind an average of integers takes their scale into its weights. */
static void carry_plain(const struct carry *carry) {
    const struct graph_node *old = &carry->folded->nodes[carry->old], *new = &carry->quantised->nodes[carry->new];
    for (int i = 0; i < new->parameter_count; i++) {
        struct tensor *to = &carry->to->tensors[new->parameters[i]];
        memcpy(to->data, carry->from->tensors[old->parameters[i]].data, tensor_bytes(to));
    }
    struct tensor *weight = old->op.kind == OP_LINEAR
                                ? parameters_in_role(carry->quantised, carry->to, carry->new, ARG_WEIGHT)
                                : NULL;
    for (int64_t i = 0; weight && i < shape_count(&weight->shape); i++)
        ((float *)weight->data)[i] *= carry->source_scale;
}

static struct carry carry_of(const struct graph *folded, const struct quantisation *table, const struct graph *quantised,
                             int old) {
    const struct graph_node *node = &folded->nodes[old];
    struct carry carry = {.folded = folded, .quantised = quantised, .old = old, .source_scale = 1, .target_scale = 1};
    carry.new = find_node(quantised, node->name);
    const struct op *op = &quantised->nodes[carry.new].op;
    if (op->kind == OP_CONV2D && op_is_int8(op)) {
        carry.source_scale = row_of_output(folded, table, node->inputs[0])->scale;
        if (op->conv2d.int8.dst != DTYPE_F32)
            carry.target_scale = quantisation_find(table, node->name)->scale;
    } else if (op->kind == OP_LINEAR && op_is_int8(&quantised->nodes[quantised->nodes[carry.new].inputs[0]].op)) {
        const struct op *source = &quantised->nodes[quantised->nodes[carry.new].inputs[0]].op;
        if (source->kind == OP_GLOBAL_AVERAGE_POOL)
            carry.source_scale = row_of_output(folded, table, node->inputs[0])->scale;
    }
    return carry;
}

struct parameters *quantise_parameters(const struct graph *folded, const struct parameters *parameters,
                                       const struct quantisation *table, const struct graph *quantised, int weight_bits,
                                       struct error *err) {
    struct parameters *out = parameters_create(quantised, err);
    for (int i = 0; out && i < folded->node_count; i++) {
        struct carry carry = carry_of(folded, table, quantised, i);
        carry.from = parameters;
        carry.to = out;
        carry.weight_bits = weight_bits;
        if (op_is_int8(&quantised->nodes[carry.new].op) && folded->nodes[i].op.kind == OP_CONV2D)
            carry_convolution(&carry);
        else
            carry_plain(&carry);
    }
    return out;
}
