#include "common/graph/passes.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/**
 * Both passes walk chains: a head (batch norm, or convolution) and the nodes that only it feeds, which it absorbs. The merged
 * node is emitted where the chain's last node stood, so that its other inputs are there already.
 */
struct chain {
    int head, tail;
    int norm;     /* the batch norm folded into a convolution, or -1 */
    int residual; /* the other input of an absorbed add, or -1 */
    enum activation activation;
};

struct rewrite {
    const struct graph *from;
    struct graph *to;
    struct device *device;
    enum precision precision;
    int *consumer;        /* by node: its only consumer, or -1 */
    int *chain_of;        /* by node: index of the chain that holds it, or -1 */
    struct chain *chains; /* by chain */
    int chain_count;
    int *map;           /* by old node: the new node whose output replaces it */
    int *parameter_map; /* by new parameter: the old one, or -1 (a bias that the fold makes) */
    bool inference;
    enum norm_statistics statistics;
};

static void rewrite_fini(struct rewrite *rewrite) {
    free(rewrite->consumer);
    free(rewrite->chain_of);
    free(rewrite->chains);
    free(rewrite->map);
    free(rewrite->parameter_map);
}

static bool rewrite_init(struct rewrite *rewrite, struct error *err) {
    size_t nodes = (size_t)rewrite->from->node_count + 1;
    rewrite->to = graph_create();
    rewrite->consumer = malloc(nodes * sizeof(int));
    rewrite->chain_of = malloc(nodes * sizeof(int));
    rewrite->map = malloc(nodes * sizeof(int));
    rewrite->chains = calloc(nodes, sizeof(struct chain));
    rewrite->parameter_map = malloc(((size_t)rewrite->from->parameter_count + nodes) * sizeof(int));
    if (!rewrite->to || !rewrite->consumer || !rewrite->chain_of || !rewrite->map || !rewrite->chains ||
        !rewrite->parameter_map) {
        graph_destroy(rewrite->to);
        rewrite_fini(rewrite);
        return error_set(err, ERROR_MEMORY, "graph pass: out of memory");
    }
    for (int i = 0; i < rewrite->from->node_count; i++)
        rewrite->consumer[i] = rewrite->chain_of[i] = rewrite->map[i] = -1;
    for (int i = 0; i < rewrite->from->node_count; i++) {
        const struct graph_node *node = &rewrite->from->nodes[i];
        for (int j = 0; j < op_input_count(&node->op); j++) {
            if (graph_consumer_count(rewrite->from, node->inputs[j]) == 1)
                rewrite->consumer[node->inputs[j]] = i;
        }
    }
    return true;
}

/** The merged operation of a chain. */
static struct op chain_op(const struct rewrite *rewrite, const struct chain *chain) {
    struct op op = rewrite->from->nodes[chain->head].op;
    if (op.kind == OP_CONV2D) {
        op.conv2d.bias |= chain->norm >= 0;
        op.conv2d.residual = chain->residual >= 0;
        op.conv2d.activation = chain->activation;
    } else {
        op.batch_norm.residual = chain->residual >= 0;
        op.batch_norm.activation = chain->activation;
    }
    return op;
}

static bool chain_supported(const struct rewrite *rewrite, const struct chain *chain) {
    struct kernel_request request = {.op = chain_op(rewrite, chain), .pass = rewrite->inference ? PASS_INFER : PASS_FORWARD};
    const struct graph_node *head = &rewrite->from->nodes[chain->head];
    struct shape shapes[OP_MAX_INPUTS] = {0};
    graph_input_shapes(rewrite->from, head, 1, shapes);
    shapes[1] = rewrite->from->nodes[chain->tail].output;
    if (!op_arguments(&request.op, request.pass, shapes, &request.args, NULL))
        return false;
    precision_apply(rewrite->precision, &request.op, &request.args);
    return !rewrite->device || rewrite->device->ops->supports(rewrite->device, &request);
}

/** Tries to make the chain longer by the node that alone consumes its tail. */
static bool chain_extend(struct rewrite *rewrite, struct chain *chain) {
    int next = rewrite->consumer[chain->tail];
    if (next < 0 || rewrite->chain_of[next] >= 0 || chain->activation != ACTIVATION_NONE)
        return false;
    const struct graph_node *node = &rewrite->from->nodes[next];
    struct chain longer = *chain;
    longer.tail = next;
    if (node->op.kind == OP_BATCH_NORM && rewrite->inference && chain->tail == chain->head &&
        rewrite->from->nodes[chain->head].op.kind == OP_CONV2D) {
        longer.norm = next;
    } else if (node->op.kind == OP_ADD && chain->residual < 0) {
        longer.residual = node->inputs[0] == chain->tail ? node->inputs[1] : node->inputs[0];
        longer.activation = node->op.activation;
        if (longer.residual == chain->tail)
            return false; /* x + x */
    } else if (node->op.kind == OP_ACTIVATION) {
        longer.activation = node->op.activation;
    } else {
        return false;
    }
    if (!chain_supported(rewrite, &longer))
        return false;
    *chain = longer;
    return true;
}

/** Whether a head has taken in all that it will: graphs may be folded already. */
static bool is_merged(const struct op *op) {
    return op->kind == OP_CONV2D && (op_is_int8(op) || op->conv2d.residual || op->conv2d.activation != ACTIVATION_NONE);
}

static void find_chains(struct rewrite *rewrite) {
    enum op_kind head_kind = rewrite->inference ? OP_CONV2D : OP_BATCH_NORM;
    for (int i = 0; i < rewrite->from->node_count; i++) {
        const struct op *op = &rewrite->from->nodes[i].op;
        if (op->kind != head_kind || is_merged(op) || rewrite->chain_of[i] >= 0)
            continue;
        struct chain *chain = &rewrite->chains[rewrite->chain_count];
        *chain = (struct chain){.head = i, .tail = i, .norm = -1, .residual = -1};
        rewrite->chain_of[i] = rewrite->chain_count;
        while (chain_extend(rewrite, chain))
            rewrite->chain_of[chain->tail] = rewrite->chain_count;
        rewrite->chain_count++;
    }
}

/** Adds a node, and notes which old parameters its parameters stand for. */
static bool emit(struct rewrite *rewrite, int old, const struct op *op, const int *inputs, int replaces, struct error *err) {
    const struct graph_node *from = &rewrite->from->nodes[old];
    int id = graph_add(rewrite->to, from->name, op, inputs, err);
    if (id < 0)
        return false;
    const struct graph_node *to = &rewrite->to->nodes[id];
    for (int i = 0; i < to->parameter_count; i++) {
        int match = -1;
        for (int j = 0; j < from->parameter_count; j++) {
            if (rewrite->from->parameters[from->parameters[j]].role.arg == rewrite->to->parameters[to->parameters[i]].role.arg)
                match = from->parameters[j];
        }
        rewrite->parameter_map[to->parameters[i]] = match;
    }
    rewrite->map[replaces] = id;
    return true;
}

static bool emit_plain(struct rewrite *rewrite, int old, struct error *err) {
    const struct graph_node *node = &rewrite->from->nodes[old];
    int inputs[OP_MAX_INPUTS] = {0};
    for (int j = 0; j < op_input_count(&node->op); j++)
        inputs[j] = rewrite->map[node->inputs[j]];
    struct op op = node->op;
    if (op.kind == OP_DROPOUT && rewrite->inference) {
        rewrite->map[old] = inputs[0];
        return true;
    }
    return emit(rewrite, old, &op, inputs, old, err);
}

static bool emit_chain(struct rewrite *rewrite, const struct chain *chain, struct error *err) {
    struct op op = chain_op(rewrite, chain);
    if (op.kind == OP_BATCH_NORM) {
        op.batch_norm.frozen |= rewrite->statistics == NORM_STATISTICS_RUNNING;
        op.batch_norm.synchronised = rewrite->statistics == NORM_STATISTICS_ALL_RANKS && !op.batch_norm.frozen;
    }
    int inputs[OP_MAX_INPUTS] = {rewrite->map[rewrite->from->nodes[chain->head].inputs[0]]};
    if (chain->residual >= 0)
        inputs[1] = rewrite->map[chain->residual];
    return emit(rewrite, chain->head, &op, inputs, chain->tail, err);
}

static bool rewrite_run(struct rewrite *rewrite, struct error *err) {
    if (!rewrite_init(rewrite, err))
        return false;
    find_chains(rewrite);
    bool ok = true;
    for (int i = 0; i < rewrite->from->node_count && ok; i++) {
        int chain = rewrite->chain_of[i];
        if (chain < 0)
            ok = emit_plain(rewrite, i, err);
        else if (rewrite->chains[chain].tail == i)
            ok = emit_chain(rewrite, &rewrite->chains[chain], err);
    }
    if (!ok) {
        graph_destroy(rewrite->to);
        rewrite_fini(rewrite);
    }
    return ok;
}

struct graph *graph_fuse_for_training(const struct graph *graph, struct device *device, enum precision precision,
                                      enum norm_statistics statistics, struct error *err) {
    struct rewrite rewrite = {.from = graph, .device = device, .precision = precision, .statistics = statistics};
    if (!rewrite_run(&rewrite, err))
        return NULL;
    rewrite_fini(&rewrite);
    return rewrite.to;
}

/** Scales the folded convolution's weight and makes its bias: w' = w f, b' = (b - m) f + t with f = s / sqrt(v + e). */
static void fold_norm(const struct rewrite *rewrite, const struct parameters *parameters, const struct chain *chain,
                      struct tensor *weight, struct tensor *bias) {
    const struct graph *graph = rewrite->from;
    const float *scale = parameters_in_role(graph, parameters, chain->norm, ARG_SCALE)->data;
    const float *shift = parameters_in_role(graph, parameters, chain->norm, ARG_SHIFT)->data;
    const float *mean = parameters_in_role(graph, parameters, chain->norm, ARG_RUNNING_MEAN)->data;
    const float *variance = parameters_in_role(graph, parameters, chain->norm, ARG_RUNNING_VARIANCE)->data;
    const struct tensor *old_bias = parameters_in_role(graph, parameters, chain->head, ARG_BIAS);
    double epsilon = graph->nodes[chain->norm].op.batch_norm.epsilon;
    int64_t channels = weight->shape.dims[0], each = shape_count(&weight->shape) / channels;
    for (int64_t c = 0; c < channels; c++) {
        double factor = scale[c] / sqrt(variance[c] + epsilon);
        double old = old_bias ? ((const float *)old_bias->data)[c] : 0;
        ((float *)bias->data)[c] = (float)((old - mean[c]) * factor + shift[c]);
        float *row = (float *)weight->data + c * each;
        for (int64_t i = 0; i < each; i++)
            row[i] = (float)(row[i] * factor);
    }
}

static struct parameters *fold_parameters(const struct rewrite *rewrite, const struct parameters *parameters, struct error *err) {
    struct parameters *folded = parameters_create(rewrite->to, err);
    if (!folded)
        return NULL;
    for (int i = 0; i < folded->count; i++) {
        if (rewrite->parameter_map[i] >= 0)
            memcpy(folded->tensors[i].data, parameters->tensors[rewrite->parameter_map[i]].data,
                   tensor_bytes(&folded->tensors[i]));
    }
    for (int i = 0; i < rewrite->chain_count; i++) {
        const struct chain *chain = &rewrite->chains[i];
        if (chain->norm < 0)
            continue;
        int node = rewrite->map[chain->tail];
        fold_norm(rewrite, parameters, chain, parameters_in_role(rewrite->to, folded, node, ARG_WEIGHT),
                  parameters_in_role(rewrite->to, folded, node, ARG_BIAS));
    }
    return folded;
}

struct graph *graph_fold_for_inference(const struct graph *graph, const struct parameters *parameters, struct device *device,
                                       enum precision precision, struct parameters **folded, struct error *err) {
    struct rewrite rewrite = {.from = graph, .device = device, .precision = precision, .inference = true};
    if (!rewrite_run(&rewrite, err))
        return NULL;
    *folded = fold_parameters(&rewrite, parameters, err);
    rewrite_fini(&rewrite);
    if (!*folded) {
        graph_destroy(rewrite.to);
        return NULL;
    }
    return rewrite.to;
}
