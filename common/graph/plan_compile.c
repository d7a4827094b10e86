#include "common/graph/compiler.h"

#include <stdlib.h>
#include <string.h>

int plan_add_value(struct plan *plan, const struct tensor_desc *desc, enum storage storage, struct error *err) {
    struct tensor_desc copy = *desc; /* desc may lie in the array that grows */
    if (plan->value_count == plan->value_capacity) {
        int wanted = plan->value_capacity ? 2 * plan->value_capacity : 256;
        struct value *grown = realloc(plan->values, (size_t)wanted * sizeof *grown);
        if (!grown) {
            error_set(err, ERROR_MEMORY, "plan: out of memory");
            return -1;
        }
        plan->values = grown;
        plan->value_capacity = wanted;
    }
    int id = plan->value_count++;
    plan->values[id] = (struct value){.desc = copy, .storage = storage, .parameter = -1, .copy_of = -1, .first = -1,
                                      .last = -1, .root = id};
    return id;
}

/** Appends a step for the kernel (taken, released where memory ends). */
static struct step *add_step(struct compiler *compiler, int node, struct kernel *kernel) {
    struct plan *plan = compiler->plan;
    if (plan->step_count == plan->step_capacity) {
        int wanted = plan->step_capacity ? 2 * plan->step_capacity : 256;
        struct step *grown = realloc(plan->steps, (size_t)wanted * sizeof *grown);
        if (!grown) {
            kernel_release(kernel);
            error_set(compiler->err, ERROR_MEMORY, "plan: out of memory");
            return NULL;
        }
        plan->steps = grown;
        plan->step_capacity = wanted;
    }
    struct step *step = &plan->steps[plan->step_count++];
    *step = (struct step){.node = node, .kernel = kernel};
    for (int i = 0; i < ARG_COUNT; i++)
        step->values[i] = -1;
    return step;
}

/** Binds a value to the last step's argument, and stretches its life to that step. */
static void bind(struct compiler *compiler, enum arg arg, int value) {
    struct plan *plan = compiler->plan;
    int index = plan->step_count - 1;
    plan->steps[index].values[arg] = value;
    struct value *row = &plan->values[value];
    if (row->first < 0)
        row->first = index;
    row->last = index;
}

bool compiler_emit_between(struct compiler *compiler, int node, struct kernel *kernel, int from, int to) {
    struct plan *plan = compiler->plan;
    if (!add_step(compiler, node, kernel))
        return false;
    bind(compiler, ARG_SRC, from);
    bind(compiler, ARG_DST, to);
    if (kernel->args.direction[ARG_SCRATCH] == ARG_ABSENT)
        return true;
    int scratch = plan_add_value(plan, &kernel->args.desc[ARG_SCRATCH], STORAGE_ARENA, compiler->err);
    if (scratch < 0)
        return false;
    bind(compiler, ARG_SCRATCH, scratch);
    return true;
}

/** Emits a step that writes `from` into `to`. */
static bool emit_reorder(struct compiler *compiler, int node, int from, int to) {
    struct plan *plan = compiler->plan;
    struct kernel *kernel =
        kernel_prepare_reorder(plan->device, &plan->values[from].desc, &plan->values[to].desc, compiler->err);
    return kernel && compiler_emit_between(compiler, node, kernel, from, to);
}

static bool same_format(const struct tensor_desc *a, const struct tensor_desc *b) {
    return a->layout == b->layout && a->dtype == b->dtype;
}

/** The value, or a copy of it in the wanted format: one that is there already, or a new one that a reorder step makes. */
static int value_as(struct compiler *compiler, int node, int value, const struct tensor_desc *wanted) {
    struct plan *plan = compiler->plan;
    if (same_format(&plan->values[value].desc, wanted))
        return value;
    for (int i = 0; i < plan->value_count; i++) {
        if (plan->values[i].copy_of == value && same_format(&plan->values[i].desc, wanted))
            return i;
    }
    int copy = plan_add_value(plan, wanted, STORAGE_ARENA, compiler->err);
    if (copy < 0 || !emit_reorder(compiler, node, value, copy))
        return -1;
    plan->values[copy].copy_of = value;
    return copy;
}

static struct kernel *prepare(struct compiler *compiler, int node, const struct op *op, enum pass pass);

/**
 * What a weight that a kernel wants in a narrow dtype is kept as between the steps: f32, as its gradient arrives, so that the
 * gradient needs no reorder and the weights' own conversion is their only copy in a step.
 */
static bool master_desc(struct compiler *compiler, int parameter, struct tensor_desc *out) {
    const struct graph_parameter *row = &compiler->plan->graph->parameters[parameter];
    const struct op *op = &compiler->plan->graph->nodes[row->node].op;
    struct kernel *backward = prepare(compiler, row->node, op, PASS_BACKWARD_WEIGHT);
    if (!backward)
        return false;
    *out = backward->args.desc[row->role.diff];
    kernel_release(backward);
    return true;
}

/** The value of a parameter; the first kernel to ask decides its layout, but for weights that are trained in a narrow dtype. */
static int parameter_value(struct compiler *compiler, int parameter, const struct tensor_desc *wanted) {
    struct tensor_desc master = *wanted;
    if (compiler->parameter_values[parameter] < 0) {
        bool narrow = compiler->plan->mode == PLAN_TRAIN && wanted->dtype != DTYPE_F32;
        if (narrow && !master_desc(compiler, parameter, &master))
            return -1;
        int value = plan_add_value(compiler->plan, &master, STORAGE_PARAMETER, compiler->err);
        if (value < 0)
            return -1;
        compiler->plan->values[value].parameter = parameter;
        compiler->parameter_values[parameter] = value;
    }
    return compiler->parameter_values[parameter];
}

/** A value that outlives the run: labels, seeds and the like. `slot` is the plan's id for it. */
static int fixed_value(struct compiler *compiler, int *slot, const struct tensor_desc *desc) {
    if (*slot < 0)
        *slot = plan_add_value(compiler->plan, desc, STORAGE_FIXED, compiler->err);
    return *slot;
}

/** A batch norm that is computed again normalises with what it saved; -1: for another argument, or where nothing was saved. */
static int saved_in_place_of(enum arg arg, const struct node_state *state) {
    if (arg == ARG_RUNNING_MEAN)
        return state->args[ARG_SAVED_MEAN];
    return arg == ARG_RUNNING_VARIANCE ? state->args[ARG_SAVED_VARIANCE] : -1;
}

/** The value that a kernel should read for an argument, in whatever format it is; -1: no such value. */
static int input_value(struct compiler *compiler, int node, enum arg arg, const struct tensor_desc *desc) {
    struct plan *plan = compiler->plan;
    const struct graph_node *row = &plan->graph->nodes[node];
    const struct node_state *state = &compiler->nodes[node];
    switch (arg) {
    case ARG_SRC: return compiler->nodes[row->inputs[0]].output;
    case ARG_SRC2: return compiler->nodes[row->inputs[1]].output;
    case ARG_DST: return state->output;
    case ARG_DIFF_DST: return state->diff;
    case ARG_LABEL: return fixed_value(compiler, &plan->labels, desc);
    case ARG_CLASS_WEIGHT: return fixed_value(compiler, &plan->class_weights, desc);
    case ARG_SEED: return fixed_value(compiler, &plan->seed, desc);
    default: break;
    }
    int parameter = graph_parameter_in_role(plan->graph, node, arg, false);
    if (compiler->recomputing && saved_in_place_of(arg, state) >= 0)
        return saved_in_place_of(arg, state);
    return parameter >= 0 ? parameter_value(compiler, parameter, desc) : state->args[arg];
}

/** The layout of a value that is there, where it can be asked for: a layout belongs to one dtype. */
static const struct layout *layout_for(const struct tensor_desc *desc, const struct tensor_desc *there) {
    return desc->dtype == there->dtype ? there->layout : LAYOUT_ANY;
}

/** Asks for the layouts: free choice for the kinds that choose, else what the forward values have. */
static void request_layouts(struct compiler *compiler, int node, struct kernel_request *request) {
    const struct plan *plan = compiler->plan;
    const struct graph_node *row = &plan->graph->nodes[node];
    bool chooses = op_chooses_layout(&request->op);
    const struct node_state *state = &compiler->nodes[node];
    for (int arg = 0; arg < ARG_COUNT; arg++) {
        struct tensor_desc *desc = &request->args.desc[arg];
        if (request->args.direction[arg] == ARG_ABSENT)
            continue;
        bool data = arg == ARG_SRC || arg == ARG_DIFF_SRC || arg == ARG_DST || arg == ARG_DIFF_DST || arg == ARG_SRC2 ||
                    arg == ARG_DIFF_SRC2;
        if (chooses && (data || arg == ARG_WEIGHT || arg == ARG_DIFF_WEIGHT))
            desc->layout = LAYOUT_ANY;
        else if (arg == ARG_SRC || arg == ARG_DIFF_SRC)
            desc->layout = layout_for(desc, &plan->values[compiler->nodes[row->inputs[0]].output].desc);
        else if (data && state->output >= 0)
            desc->layout = layout_for(desc, &plan->values[state->output].desc);
        else if (data)
            desc->layout = LAYOUT_ANY;
        else if (arg == ARG_WORKSPACE && state->args[arg] >= 0)
            *desc = plan->values[state->args[arg]].desc;
    }
}

static struct kernel *prepare(struct compiler *compiler, int node, const struct op *op, enum pass pass) {
    const struct plan *plan = compiler->plan;
    const struct graph_node *row = &plan->graph->nodes[node];
    struct kernel_request request = {.op = *op, .pass = pass};
    struct shape shapes[OP_MAX_INPUTS] = {0};
    graph_input_shapes(plan->graph, row, plan->batch, shapes);
    struct kernel *kernel = NULL;
    if (op_arguments(&request.op, pass, shapes, &request.args, compiler->err)) {
        precision_apply(plan->precision, &request.op, &request.args);
        request_layouts(compiler, node, &request);
        kernel = kernel_prepare(plan->device, &request, compiler->err);
    }
    if (!kernel)
        error_prefix(compiler->err, "node %s, %s", row->name, pass_name(pass));
    return kernel;
}

/** Of two gradients of a node's output, the one that lies as the output does: there its backward pass will want their sum. */
static int leading_diff(const struct compiler *compiler, int node, int first, int second) {
    const struct value *values = compiler->plan->values;
    const struct tensor_desc *output = &values[compiler->nodes[node].output].desc;
    return !same_format(&values[first].desc, output) && same_format(&values[second].desc, output) ? second : first;
}

/** Adds a gradient to what has arrived at a node's output already. */
static bool add_diff(struct compiler *compiler, int node, int diff) {
    struct plan *plan = compiler->plan;
    struct node_state *state = &compiler->nodes[node];
    if (state->diff < 0) {
        state->diff = diff;
        return true;
    }
    int leading = leading_diff(compiler, node, state->diff, diff), other = leading == diff ? state->diff : diff;
    struct kernel_request request = {.op = {.kind = OP_ADD}, .pass = PASS_FORWARD};
    struct shape shapes[2] = {plan->values[diff].desc.shape, plan->values[diff].desc.shape};
    if (!op_arguments(&request.op, PASS_FORWARD, shapes, &request.args, compiler->err))
        return false;
    request.args.desc[ARG_SRC] = request.args.desc[ARG_SRC2] = request.args.desc[ARG_DST] = plan->values[leading].desc;
    request.args.desc[ARG_SRC2].layout = request.args.desc[ARG_DST].layout = LAYOUT_ANY;
    struct kernel *kernel = kernel_prepare(plan->device, &request, compiler->err);
    if (!kernel)
        return false;
    int first = value_as(compiler, node, leading, &kernel->args.desc[ARG_SRC]);
    int second = first < 0 ? -1 : value_as(compiler, node, other, &kernel->args.desc[ARG_SRC2]);
    int sum = second < 0 ? -1 : plan_add_value(plan, &kernel->args.desc[ARG_DST], STORAGE_ARENA, compiler->err);
    if (sum < 0) {
        kernel_release(kernel);
        return false;
    }
    if (!add_step(compiler, node, kernel))
        return false;
    bind(compiler, ARG_SRC, first);
    bind(compiler, ARG_SRC2, second);
    bind(compiler, ARG_DST, sum);
    state->diff = sum;
    return true;
}

/** The value that a kernel should write for an argument; new but for running statistics, gradients and the loss. */
static int output_value(struct compiler *compiler, int node, enum arg arg, const struct tensor_desc *desc) {
    struct plan *plan = compiler->plan;
    if (arg == ARG_LOSS)
        return fixed_value(compiler, &plan->loss, desc);
    int parameter = graph_parameter_in_role(plan->graph, node, arg, true);
    if (parameter < 0)
        return plan_add_value(plan, desc, STORAGE_ARENA, compiler->err);
    struct value *master = &plan->values[compiler->parameter_values[parameter]];
    bool direct = same_format(&master->desc, desc);
    int value = plan_add_value(plan, direct ? &master->desc : desc, direct ? STORAGE_GRADIENT : STORAGE_ARENA, compiler->err);
    if (value >= 0)
        plan->values[value].parameter = parameter;
    return value;
}

/** Finds or makes the value of every argument. Reorder steps that inputs need are emitted here. */
static bool choose_values(struct compiler *compiler, int node, const struct kernel *kernel, int *values) {
    for (int arg = 0; arg < ARG_COUNT; arg++) {
        enum arg_direction direction = kernel->args.direction[arg];
        const struct tensor_desc *desc = &kernel->args.desc[arg];
        values[arg] = -1;
        if (direction == ARG_ABSENT)
            continue;
        if (direction == ARG_OUT || arg == ARG_SCRATCH) {
            values[arg] = output_value(compiler, node, (enum arg)arg, desc);
        } else {
            int value = input_value(compiler, node, (enum arg)arg, desc);
            if (value < 0)
                return compiler->err && compiler->err->code != ERROR_NONE
                           ? false
                           : error_set(compiler->err, ERROR_INTERNAL, "node %s: nothing to bind to its %s",
                                       compiler->plan->graph->nodes[node].name, arg_name((enum arg)arg));
            values[arg] = value_as(compiler, node, value, desc);
        }
        if (values[arg] < 0)
            return false;
    }
    return true;
}

/** As compiler_emit, of an operation that need not be the node's own. */
static bool emit(struct compiler *compiler, int node, const struct op *op, enum pass pass, int values[ARG_COUNT]) {
    struct kernel *kernel = prepare(compiler, node, op, pass);
    if (!kernel)
        return false;
    if (!choose_values(compiler, node, kernel, values)) {
        kernel_release(kernel);
        return false;
    }
    if (!add_step(compiler, node, kernel))
        return false;
    for (int arg = 0; arg < ARG_COUNT; arg++) {
        if (values[arg] >= 0)
            bind(compiler, (enum arg)arg, values[arg]);
    }
    return true;
}

bool compiler_emit(struct compiler *compiler, int node, enum pass pass, int values[ARG_COUNT]) {
    return emit(compiler, node, &compiler->plan->graph->nodes[node].op, pass, values);
}

/**
 * What a synchronised batch norm needs before its pass: a step that gathers this rank's sums, behind which the ranks add theirs.
 * `values` are that step's; all -1 for any other operation.
 */
static bool emit_sums(struct compiler *compiler, int node, enum pass pass, int values[ARG_COUNT]) {
    struct plan *plan = compiler->plan;
    struct op op = plan->graph->nodes[node].op;
    for (int arg = 0; arg < ARG_COUNT; arg++)
        values[arg] = -1;
    if (op.kind != OP_BATCH_NORM || !op.batch_norm.synchronised || pass == PASS_INFER)
        return true;
    op.kind = OP_BATCH_NORM_SUMS;
    if (!emit(compiler, node, &op, pass, values))
        return false;
    compiler->nodes[node].args[ARG_SUMS] = values[ARG_SUMS];
    plan->steps[plan->step_count - 1].blocks = true;
    return true;
}

static bool emit_forward(struct compiler *compiler, int node) {
    struct plan *plan = compiler->plan;
    struct node_state *state = &compiler->nodes[node];
    const struct op *op = &plan->graph->nodes[node].op;
    if (op->kind == OP_INPUT)
        return compiler_emit_input(compiler, node);
    int values[ARG_COUNT];
    enum pass pass = plan->mode == PLAN_TRAIN ? PASS_FORWARD : PASS_INFER;
    if (!emit_sums(compiler, node, pass, values) || !compiler_emit(compiler, node, pass, values))
        return false;
    memcpy(state->args, values, sizeof values);
    state->output = values[ARG_DST];
    return true;
}

/** Moves weight gradients that a kernel left in another layout to their place beside the weights. */
static bool collect_gradients(struct compiler *compiler, int node, const int *values) {
    struct plan *plan = compiler->plan;
    for (int arg = 0; arg < ARG_COUNT; arg++) {
        int parameter = values[arg] >= 0 ? graph_parameter_in_role(plan->graph, node, (enum arg)arg, true) : -1;
        if (parameter < 0)
            continue;
        int gradient = values[arg];
        if (plan->values[gradient].storage != STORAGE_GRADIENT) {
            const struct tensor_desc desc = plan->values[compiler->parameter_values[parameter]].desc;
            gradient = plan_add_value(plan, &desc, STORAGE_GRADIENT, compiler->err);
            if (gradient < 0)
                return false;
            plan->values[gradient].parameter = parameter;
            if (!emit_reorder(compiler, node, values[arg], gradient))
                return false;
        }
        plan->parameters[parameter].gradient = gradient;
        plan->parameters[parameter].ready_step = plan->step_count - 1;
    }
    return true;
}

static bool needs_diff(const struct graph *graph, int node) {
    return graph->nodes[node].op.kind != OP_INPUT;
}

static bool emit_backward_data(struct compiler *compiler, int node) {
    struct plan *plan = compiler->plan;
    const struct graph_node *row = &plan->graph->nodes[node];
    bool wanted = needs_diff(plan->graph, row->inputs[0]) || row->op.kind == OP_BATCH_NORM;
    if (!wanted)
        return true;
    int inputs = op_input_count(&row->op);
    if (op_backward_is_identity(&row->op)) {
        for (int i = 0; i < inputs; i++) {
            if (!add_diff(compiler, row->inputs[i], compiler->nodes[node].diff))
                return false;
        }
        return true;
    }
    int values[ARG_COUNT];
    if (!emit_sums(compiler, node, PASS_BACKWARD_DATA, values) || !collect_gradients(compiler, node, values))
        return false;
    if (!compiler_emit(compiler, node, PASS_BACKWARD_DATA, values) || !collect_gradients(compiler, node, values))
        return false;
    if (!add_diff(compiler, row->inputs[0], values[ARG_DIFF_SRC]))
        return false;
    if (inputs == 1)
        return true;
    int second = values[ARG_DIFF_SRC2] >= 0 ? values[ARG_DIFF_SRC2] : values[ARG_DIFF_SRC];
    return add_diff(compiler, row->inputs[1], second);
}

static bool emit_backward(struct compiler *compiler, int node) {
    const struct graph_node *row = &compiler->plan->graph->nodes[node];
    bool is_loss = row->op.kind == OP_SOFTMAX_CROSS_ENTROPY;
    if (row->op.kind == OP_INPUT || (!is_loss && compiler->nodes[node].diff < 0))
        return true;
    bool has_weights = row->op.kind == OP_CONV2D || row->op.kind == OP_LINEAR;
    int values[ARG_COUNT];
    if (has_weights &&
        (!compiler_emit(compiler, node, PASS_BACKWARD_WEIGHT, values) || !collect_gradients(compiler, node, values)))
        return false;
    return emit_backward_data(compiler, node);
}

static bool compile_nodes(struct compiler *compiler) {
    struct plan *plan = compiler->plan;
    int count = plan->graph->node_count;
    for (int i = 0; i < count; i++) {
        if (!emit_forward(compiler, i))
            return false;
    }
    int logits = plan->mode == PLAN_TRAIN ? plan->graph->nodes[count - 1].inputs[0] : count - 1;
    const struct value *output = &plan->values[compiler->nodes[logits].output];
    struct tensor_desc dense = tensor_desc_dense(DTYPE_F32, &output->desc.shape);
    plan->logits = value_as(compiler, logits, compiler->nodes[logits].output, &dense);
    if (plan->logits < 0)
        return false;
    for (int i = count - 1; i >= 0 && plan->mode == PLAN_TRAIN; i--) {
        if (!recompute_for(compiler, i) || !emit_backward(compiler, i))
            return false;
    }
    plan->values[plan->logits].last = plan->step_count; /* is read after the run */
    return true;
}

static bool note_outputs(struct compiler *compiler) {
    struct plan *plan = compiler->plan;
    plan->outputs = malloc(((size_t)plan->graph->node_count + 1) * sizeof *plan->outputs);
    if (!plan->outputs)
        return error_set(compiler->err, ERROR_MEMORY, "plan: out of memory");
    for (int i = 0; i < plan->graph->node_count; i++)
        plan->outputs[i] = compiler->nodes[i].output;
    return true;
}

bool plan_compile(struct plan *plan, const struct plan_spec *spec, struct error *err) {
    struct error local = {0};
    size_t nodes = (size_t)plan->graph->node_count, parameters = (size_t)plan->graph->parameter_count;
    struct compiler compiler = {.plan = plan, .spec = spec, .err = err ? err : &local};
    compiler.err->code = ERROR_NONE;
    compiler.nodes = malloc(nodes * sizeof *compiler.nodes);
    compiler.parameter_values = malloc((parameters + 1) * sizeof(int));
    compiler.stretch_first = malloc((nodes + 1) * sizeof(int));
    plan->parameters = calloc(parameters + 1, sizeof *plan->parameters);
    bool ok = compiler.nodes && compiler.parameter_values && compiler.stretch_first && plan->parameters;
    if (!ok)
        error_set(err, ERROR_MEMORY, "plan: out of memory");
    for (size_t i = 0; ok && i < nodes; i++) {
        compiler.nodes[i].output = compiler.nodes[i].diff = -1;
        for (int arg = 0; arg < ARG_COUNT; arg++)
            compiler.nodes[i].args[arg] = -1;
    }
    for (size_t i = 0; ok && i < parameters; i++) {
        compiler.parameter_values[i] = -1;
        plan->parameters[i] = (struct flat_parameter){.offset = -1, .value = -1, .gradient = -1, .ready_step = -1};
    }
    ok = ok && recompute_choose(&compiler) && compile_nodes(&compiler);
    for (size_t i = 0; ok && i < parameters; i++)
        plan->parameters[i].value = compiler.parameter_values[i];
    ok = ok && (!spec->keep_outputs || note_outputs(&compiler));
    free(compiler.nodes);
    free(compiler.parameter_values);
    free(compiler.stretch_first);
    return ok;
}
