#include "common/op/op.h"
#include "common/op/kind.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

static const struct op_row row_none = {.name = "none"};

static const struct op_row *const rows[OP_KIND_COUNT] = {
    [OP_NONE] = &row_none,
    [OP_INPUT] = &op_row_input,
    [OP_CONV2D] = &op_row_conv2d,
    [OP_BATCH_NORM] = &op_row_batch_norm,
    [OP_ACTIVATION] = &op_row_activation,
    [OP_ADD] = &op_row_add,
    [OP_MAX_POOL] = &op_row_max_pool,
    [OP_GLOBAL_AVERAGE_POOL] = &op_row_global_average_pool,
    [OP_LINEAR] = &op_row_linear,
    [OP_DROPOUT] = &op_row_dropout,
    [OP_SOFTMAX_CROSS_ENTROPY] = &op_row_softmax_cross_entropy,
    [OP_RESCALE] = &op_row_rescale,
    [OP_BATCH_NORM_SUMS] = &op_row_batch_norm_sums,
    [OP_VARY] = &op_row_vary,
    [OP_REORDER] = &op_row_reorder,
    [OP_GRADIENT_NORM] = &op_row_gradient_norm,
    [OP_SGD] = &op_row_sgd,
    [OP_ADAMW] = &op_row_adamw,
};

static const char *const pass_names[PASS_COUNT] = {
    [PASS_INFER] = "infer",
    [PASS_FORWARD] = "forward",
    [PASS_BACKWARD_DATA] = "backward_data",
    [PASS_BACKWARD_WEIGHT] = "backward_weight",
};

static const char *const arg_names[ARG_COUNT] = {
    [ARG_NONE] = "none",
    [ARG_SRC] = "src",
    [ARG_SRC2] = "src2",
    [ARG_WEIGHT] = "weight",
    [ARG_BIAS] = "bias",
    [ARG_SCALE] = "scale",
    [ARG_SHIFT] = "shift",
    [ARG_RUNNING_MEAN] = "running_mean",
    [ARG_RUNNING_VARIANCE] = "running_variance",
    [ARG_DST] = "dst",
    [ARG_SAVED_MEAN] = "saved_mean",
    [ARG_SAVED_VARIANCE] = "saved_variance",
    [ARG_SUMS] = "sums",
    [ARG_WORKSPACE] = "workspace",
    [ARG_SCRATCH] = "scratch",
    [ARG_LABEL] = "label",
    [ARG_CLASS_WEIGHT] = "class_weight",
    [ARG_LOSS] = "loss",
    [ARG_DIFF_DST] = "diff_dst",
    [ARG_DIFF_SRC] = "diff_src",
    [ARG_DIFF_SRC2] = "diff_src2",
    [ARG_DIFF_WEIGHT] = "diff_weight",
    [ARG_DIFF_BIAS] = "diff_bias",
    [ARG_DIFF_SCALE] = "diff_scale",
    [ARG_DIFF_SHIFT] = "diff_shift",
    [ARG_SEED] = "seed",
    [ARG_PARAMETER] = "parameter",
    [ARG_GRADIENT] = "gradient",
    [ARG_STATE] = "state",
    [ARG_STATE2] = "state2",
    [ARG_EMA] = "ema",
    [ARG_DECAY] = "decay",
    [ARG_HYPER] = "hyper",
    [ARG_NORM] = "norm",
};

const struct op_row *op_row_of(enum op_kind kind) {
    return (unsigned)kind < OP_KIND_COUNT ? rows[kind] : &row_none;
}

const char *op_kind_name(enum op_kind kind) {
    return op_row_of(kind)->name;
}

const char *pass_name(enum pass pass) {
    return (unsigned)pass < PASS_COUNT ? pass_names[pass] : "none";
}

const char *arg_name(enum arg arg) {
    return (unsigned)arg < ARG_COUNT ? arg_names[arg] : "none";
}

const char *op_text(const struct op *op, char *out, size_t size) {
    const struct op_row *row = op_row_of(op->kind);
    int length = snprintf(out, size, "%s", row->name);
    if (row->text && length >= 0 && (size_t)length < size)
        row->text(op, out + length, size - (size_t)length);
    return out;
}

int op_input_count(const struct op *op) {
    const struct op_row *row = op_row_of(op->kind);
    return row->input_count ? row->input_count(op) : 1;
}

bool op_chooses_layout(const struct op *op) {
    return op_row_of(op->kind)->chooses_layout;
}

bool op_output_shape(const struct op *op, const struct shape *inputs, struct shape *out, struct error *err) {
    const struct op_row *row = op_row_of(op->kind);
    size_t bytes;
    if (row == &row_none)
        return error_set(err, ERROR_INVALID, "operation %d is not a kind of operation", (int)op->kind);
    if (!row->output_shape)
        *out = inputs[0];
    else if (!row->output_shape(op, inputs, out, err))
        return error_prefix(err, "%s", row->name);
    return shape_checked_bytes(out, DTYPE_F64, &bytes, err);
}

int op_parameters(const struct op *op, const struct shape *inputs, struct op_parameter *out) {
    const struct op_row *row = op_row_of(op->kind);
    return row->parameters ? row->parameters(op, inputs, out) : 0;
}

bool op_arguments(const struct op *op, enum pass pass, const struct shape *inputs, struct op_args *out,
                  struct error *err) {
    const struct op_row *row = op_row_of(op->kind);
    struct shape dst;
    if ((unsigned)pass >= PASS_COUNT || !row->arguments[pass] || (row->has_pass && !row->has_pass(op, pass)))
        return error_set(err, ERROR_UNSUPPORTED, "%s has no %s pass with these attributes", row->name,
                         pass_name(pass));
    if (!op_output_shape(op, inputs, &dst, err))
        return false;
    *out = (struct op_args){0};
    row->arguments[pass](op, inputs, &dst, out);
    return true;
}

bool op_is_int8(const struct op *op) {
    const struct op_row *row = op_row_of(op->kind);
    return row->is_int8 && row->is_int8(op);
}

bool op_backward_is_identity(const struct op *op) {
    const struct op_row *row = op_row_of(op->kind);
    return row->backward_is_identity && row->backward_is_identity(op);
}

double op_flops(const struct op *op, enum pass pass, const struct shape *inputs) {
    const struct op_row *row = op_row_of(op->kind);
    struct shape dst;
    if ((unsigned)pass >= PASS_COUNT || !row->flops || !op_output_shape(op, inputs, &dst, NULL))
        return 0;
    return row->flops(op, inputs, &dst);
}

void args_put(struct op_args *args, enum arg arg, enum arg_direction direction, const struct shape *shape) {
    args->desc[arg] = tensor_desc_dense(DTYPE_F32, shape);
    args->direction[arg] = direction;
}

void args_set_dtype(struct op_args *args, enum arg arg, enum dtype dtype) {
    args->desc[arg] = tensor_desc_dense(dtype, &args->desc[arg].shape);
}

void args_put_vector(struct op_args *args, enum arg arg, enum arg_direction direction, enum dtype dtype,
                     int64_t count) {
    struct shape shape = shape_of(1, count);
    args->desc[arg] = tensor_desc_dense(dtype, &shape);
    args->direction[arg] = direction;
}

void args_put_in_place(struct op_args *args, enum arg arg, const struct shape *shape, enum arg over) {
    assert(args->direction[over] == ARG_IN);
    args_put(args, arg, ARG_OUT, shape);
    args->in_place[arg] = over;
}

void args_put_weighted_inputs(struct op_args *args, const struct weighted *shapes) {
    args_put(args, ARG_SRC, ARG_IN, shapes->src);
    args_put(args, ARG_WEIGHT, ARG_IN, shapes->weight);
    if (shapes->bias)
        args_put_vector(args, ARG_BIAS, ARG_IN, DTYPE_F32, shapes->weight->dims[0]);
}

void args_put_weighted_backward_data(struct op_args *args, const struct weighted *shapes) {
    args_put(args, ARG_DIFF_DST, ARG_IN, shapes->dst);
    args_put(args, ARG_WEIGHT, ARG_IN, shapes->weight);
    args_put(args, ARG_DIFF_SRC, ARG_OUT, shapes->src);
}

void args_put_weighted_backward_weight(struct op_args *args, const struct weighted *shapes) {
    args_put(args, ARG_SRC, ARG_IN, shapes->src);
    args_put(args, ARG_DIFF_DST, ARG_IN, shapes->dst);
    args_put(args, ARG_DIFF_WEIGHT, ARG_OUT, shapes->weight);
    if (shapes->bias)
        args_put_vector(args, ARG_DIFF_BIAS, ARG_OUT, DTYPE_F32, shapes->weight->dims[0]);
}

bool op_check_rank(const char *what, const struct shape *shape, int rank, struct error *err) {
    char text[SHAPE_TEXT_SIZE];
    bool good = shape->rank == rank;
    for (int i = 0; good && i < rank; i++)
        good = shape->dims[i] >= 1;
    return good || error_set(err, ERROR_SHAPE, "%s should have %d dimensions of at least 1, not be %s", what,
                             rank, shape_text(shape, text));
}

bool op_check_activation(enum activation activation, struct error *err) {
    return (unsigned)activation <= ACTIVATION_RELU6 ||
           error_set(err, ERROR_INVALID, "%d is not an activation", (int)activation);
}

bool op_check_addend(const struct shape *addend, const struct shape *dst, struct error *err) {
    char a[SHAPE_TEXT_SIZE], b[SHAPE_TEXT_SIZE];
    return shape_equal(addend, dst) ||
           error_set(err, ERROR_SHAPE, "cannot add %s to %s", shape_text(addend, a), shape_text(dst, b));
}

const char *op_activation_suffix(enum activation activation) {
    static const char *const suffixes[] = {
        [ACTIVATION_NONE] = "", [ACTIVATION_RELU] = " relu", [ACTIVATION_RELU6] = " relu6"};
    return (unsigned)activation <= ACTIVATION_RELU6 ? suffixes[activation] : " activation?";
}
