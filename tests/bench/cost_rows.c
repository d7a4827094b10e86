#include "tests/bench/cost_rows.h"

#include <string.h>

/* NVIDIA's data sheets, without sparsity. A name that holds another's stands before it. */
const struct cost_machine cost_machines[COST_MACHINES] = {
    {"H200", "H200", 989e12, 67e12, 4.8e12},
    {"H100 PCIe", "H100 PCIe", 756e12, 51e12, 2.0e12},
    {"H100 SXM", "H100", 989e12, 67e12, 3.35e12},
    {"A100 80GB PCIe", "A100 80GB PCIe", 312e12, 19.5e12, 1.935e12},
    {"A100 80GB SXM", "A100-SXM4-80GB", 312e12, 19.5e12, 2.039e12},
    {"A100 40GB", "A100", 312e12, 19.5e12, 1.555e12},
};

/* SGD with momentum and the average reads gradient, weight, momentum and average and writes the latter three,
 * in f32; the norm of the gradients, for clipping and for the check that all are finite, reads them once
 * before. */
enum { OPTIMIZER_PASSES = 7, NORM_PASSES = 1 };

struct counting {
    const struct graph *graph;
    const struct cost_options *options;
    struct costs *costs;
};

const struct cost_machine *cost_machine_of(const char *device_name) {
    for (int i = 0; i < COST_MACHINES; i++)
        if (strstr(device_name, cost_machines[i].of))
            return &cost_machines[i];
    return NULL;
}

static struct cost_row *find_row(struct costs *costs, const char *kind, const char *pass, struct error *err) {
    for (int i = 0; i < costs->count; i++)
        if (strcmp(costs->rows[i].kind, kind) == 0 && strcmp(costs->rows[i].pass, pass) == 0)
            return &costs->rows[i];
    if (costs->count == COST_MAX_ROWS) {
        error_set(err, ERROR_TOO_LARGE, "more than %d kinds of operations", COST_MAX_ROWS);
        return NULL;
    }
    struct cost_row *row = &costs->rows[costs->count++];
    *row = (struct cost_row){.kind = kind, .pass = pass};
    return row;
}

static double floor_s(const struct cost_machine *machine, enum precision precision, double flops,
                      double bytes) {
    double arithmetic = flops / (precision == PRECISION_F32 ? machine->flops_f32 : machine->flops_16);
    double traffic = bytes / machine->bytes_per_s;
    return arithmetic > traffic ? arithmetic : traffic;
}

static bool add(const struct counting *counting, const char *kind, const char *pass, double flops,
                double bytes, struct error *err) {
    struct cost_row *row = find_row(counting->costs, kind, pass, err);
    if (!row)
        return false;
    row->count++;
    row->flops += flops;
    row->bytes += bytes;
    for (int i = 0; i < COST_MACHINES; i++)
        row->floor_s[i] += floor_s(&cost_machines[i], counting->options->precision, flops, bytes);
    return true;
}

/* What batch norm in training moves twice. */
static double moved_again(const struct op *op, enum pass pass, const struct op_args *args) {
    if (op->kind != OP_BATCH_NORM || pass == PASS_INFER || op->batch_norm.frozen)
        return 0;
    double source = (double)args->desc[ARG_SRC].bytes;
    return pass == PASS_FORWARD ? source : source + (double)args->desc[ARG_DIFF_DST].bytes;
}

static bool add_operation(const struct counting *counting, const struct graph_node *node, enum pass pass,
                          struct error *err) {
    struct shape inputs[OP_MAX_INPUTS] = {0};
    struct op_args args;
    graph_input_shapes(counting->graph, node, counting->options->batch, inputs);
    if (!op_arguments(&node->op, pass, inputs, &args, err))
        return error_prefix(err, "%s", node->name);
    precision_apply(counting->options->precision, &node->op, &args);
    double bytes = moved_again(&node->op, pass, &args);
    for (int arg = 0; arg < ARG_COUNT; arg++)
        if (args.direction[arg] != ARG_ABSENT)
            bytes += (double)args.desc[arg].bytes;
    return add(counting, op_kind_name(node->op.kind), pass_name(pass), op_flops(&node->op, pass, inputs),
               bytes, err);
}

static size_t element_bytes(enum precision precision) {
    return precision == PRECISION_F32 ? 4 : 2;
}

static double output_bytes(const struct counting *counting, const struct graph_node *node) {
    return (double)shape_count(&node->output) * (double)counting->options->batch *
           (double)element_bytes(counting->options->precision);
}

/* Whoever reads a value gives a gradient for it; all but the first are added to what is there, which is read
 * for that. */
static bool add_branches(const struct counting *counting, int id, struct error *err) {
    const struct graph_node *node = &counting->graph->nodes[id];
    for (int i = 1; i < graph_consumer_count(counting->graph, id); i++)
        if (!add(counting, "branches", "sum_gradients", 0, output_bytes(counting, node), err))
            return false;
    return true;
}

static bool add_node(const struct counting *counting, int id, struct error *err) {
    const struct graph_node *node = &counting->graph->nodes[id];
    enum op_kind kind = node->op.kind;
    double values = (double)shape_count(&node->output) * (double)counting->options->batch;
    if (kind == OP_INPUT) /* a picture is a byte a value */
        return add(counting, "input", "from uint8", 0, values + output_bytes(counting, node), err);
    if (counting->options->infer)
        return add_operation(counting, node, PASS_INFER, err);
    bool first = counting->graph->nodes[node->inputs[0]].op.kind == OP_INPUT;
    bool weighted = kind == OP_CONV2D || kind == OP_LINEAR;
    return add_operation(counting, node, PASS_FORWARD, err) &&
           (first || op_backward_is_identity(&node->op) ||
            add_operation(counting, node, PASS_BACKWARD_DATA, err)) &&
           (!weighted || add_operation(counting, node, PASS_BACKWARD_WEIGHT, err)) &&
           add_branches(counting, id, err);
}

static bool add_loss(const struct counting *counting, struct error *err) {
    int last = counting->graph->node_count - 1;
    struct graph_node loss = {.op = {.kind = OP_SOFTMAX_CROSS_ENTROPY}, .name = "loss", .inputs = {last}};
    return add_operation(counting, &loss, PASS_FORWARD, err) &&
           add_operation(counting, &loss, PASS_BACKWARD_DATA, err);
}

static bool add_update(const struct counting *counting, struct error *err) {
    double learnt = 0, narrow = 0;
    for (int i = 0; i < counting->graph->parameter_count; i++) {
        const struct op_parameter *role = &counting->graph->parameters[i].role;
        double count = (double)shape_count(&role->shape);
        learnt += role->diff != ARG_NONE ? count : 0;
        narrow +=
            role->diff != ARG_NONE && counting->options->precision != PRECISION_F32 && role->shape.rank == 4
                ? count
                : 0;
    }
    return add(counting, "gradient_norm", "update", 0, NORM_PASSES * 4 * learnt, err) &&
           add(counting, "sgd + average", "update", 0, OPTIMIZER_PASSES * 4 * learnt, err) &&
           (narrow == 0 || add(counting, "weights in 16 bits", "update", 0, 2 * narrow, err));
}

bool costs_count(const struct graph *graph, const struct cost_options *options, struct costs *out,
                 struct error *err) {
    struct counting counting = {graph, options, out};
    *out = (struct costs){0};
    for (int id = 0; id < graph->node_count; id++)
        if (!add_node(&counting, id, err))
            return false;
    return options->infer || (add_loss(&counting, err) && add_update(&counting, err));
}

struct cost_row costs_total(const struct costs *costs) {
    struct cost_row total = {.kind = "", .pass = ""};
    for (int i = 0; i < costs->count; i++) {
        total.count += costs->rows[i].count;
        total.flops += costs->rows[i].flops;
        total.bytes += costs->rows[i].bytes;
        for (int k = 0; k < COST_MACHINES; k++)
            total.floor_s[k] += costs->rows[i].floor_s[k];
    }
    return total;
}
