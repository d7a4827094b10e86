#include "common/op/kind.h"

#include <math.h>
#include <stdio.h>

/* The other kinds that stand in a model's graph. */

/* src -> dst, elementwise: shared by the forward passes below. */
static void elementwise_forward(const struct op *op, const struct shape *in, const struct shape *dst,
                                struct op_args *out) {
    (void)op;
    args_put(out, ARG_SRC, ARG_IN, &in[0]);
    args_put_in_place(out, ARG_DST, dst, ARG_SRC);
}

/* --- input --- */

static int input_input_count(const struct op *op) {
    (void)op;
    return 0;
}

static bool input_output_shape(const struct op *op, const struct shape *inputs, struct shape *out,
                               struct error *err) {
    (void)inputs;
    *out = op->input;
    return op_check_rank("the shape", out, 4, err);
}

static void input_text(const struct op *op, char *out, size_t size) {
    char text[SHAPE_TEXT_SIZE];
    snprintf(out, size, " %s", shape_text(&op->input, text));
}

const struct op_row op_row_input = {
    .name = "input",
    .input_count = input_input_count,
    .output_shape = input_output_shape,
    .text = input_text,
};

/* --- batch norm --- */

static int batch_norm_input_count(const struct op *op) {
    return op->batch_norm.residual ? 2 : 1;
}

static bool batch_norm_output_shape(const struct op *op, const struct shape *inputs, struct shape *out,
                                    struct error *err) {
    const struct batch_norm *b = &op->batch_norm;
    if (!op_check_rank("the input", &inputs[0], 4, err) || !op_check_activation(b->activation, err))
        return false;
    if (!(b->epsilon > 0) || !isfinite(b->epsilon) || !(b->momentum >= 0 && b->momentum <= 1))
        return error_set(err, ERROR_INVALID, "epsilon %g should be positive and momentum %g in [0, 1]",
                         (double)b->epsilon, (double)b->momentum);
    *out = inputs[0];
    return !b->residual || op_check_addend(&inputs[1], out, err);
}

static int batch_norm_parameters(const struct op *op, const struct shape *inputs, struct op_parameter *out) {
    struct shape channels = shape_of(1, inputs[0].dims[1]);
    (void)op;
    out[0] = (struct op_parameter){ARG_SCALE, ARG_DIFF_SCALE, "weight", DTYPE_F32, channels, .decay = false};
    out[1] = (struct op_parameter){ARG_SHIFT, ARG_DIFF_SHIFT, "bias", DTYPE_F32, channels, .decay = false};
    out[2] = (struct op_parameter){ARG_RUNNING_MEAN, ARG_NONE, "running_mean", DTYPE_F32, channels, .decay = false};
    out[3] = (struct op_parameter){ARG_RUNNING_VARIANCE, ARG_NONE, "running_var", DTYPE_F32, channels, .decay = false};
    return 4;
}

static void put_channels(struct op_args *out, enum arg arg, enum arg_direction direction,
                         const struct shape *src) {
    args_put_vector(out, arg, direction, DTYPE_F32, src->dims[1]);
}

static void batch_norm_inputs(const struct op *op, const struct shape *in, struct op_args *out) {
    args_put(out, ARG_SRC, ARG_IN, &in[0]);
    if (op->batch_norm.residual)
        args_put(out, ARG_SRC2, ARG_IN, &in[0]);
    put_channels(out, ARG_SCALE, ARG_IN, &in[0]);
    put_channels(out, ARG_SHIFT, ARG_IN, &in[0]);
}

static bool takes_sums(const struct op *op) {
    return op->batch_norm.synchronised && !op->batch_norm.frozen;
}

/* f64: sums of squares about zero lose what is below n mean^2 2^-53, less than rounding the values to f32 did. */
static void put_sums(struct op_args *out, enum arg_direction direction, const struct shape *src) {
    struct shape shape = shape_of(2, (int64_t)3, src->dims[1]);
    args_put(out, ARG_SUMS, direction, &shape);
    args_set_dtype(out, ARG_SUMS, DTYPE_F64);
}

static void batch_norm_infer(const struct op *op, const struct shape *in, const struct shape *dst,
                             struct op_args *out) {
    batch_norm_inputs(op, in, out);
    put_channels(out, ARG_RUNNING_MEAN, ARG_IN, &in[0]);
    put_channels(out, ARG_RUNNING_VARIANCE, ARG_IN, &in[0]);
    args_put_in_place(out, ARG_DST, dst, ARG_SRC);
}

static void batch_norm_forward(const struct op *op, const struct shape *in, const struct shape *dst,
                               struct op_args *out) {
    bool frozen = op->batch_norm.frozen;
    batch_norm_inputs(op, in, out);
    put_channels(out, ARG_RUNNING_MEAN, frozen ? ARG_IN : ARG_INOUT, &in[0]);
    put_channels(out, ARG_RUNNING_VARIANCE, frozen ? ARG_IN : ARG_INOUT, &in[0]);
    if (takes_sums(op))
        put_sums(out, ARG_IN, &in[0]);
    args_put(out, ARG_DST, ARG_OUT, dst); /* never over src, which the backward pass reads */
    if (!frozen) {
        put_channels(out, ARG_SAVED_MEAN, ARG_OUT, &in[0]);
        put_channels(out, ARG_SAVED_VARIANCE, ARG_OUT, &in[0]);
    }
    if (op->batch_norm.activation != ACTIVATION_NONE)
        args_put_vector(out, ARG_WORKSPACE, ARG_OUT, DTYPE_U8, 0);
}

/* What both the sums and the gradient of the source are worked out from. */
static void batch_norm_backward_inputs(const struct op *op, const struct shape *in, struct op_args *out) {
    const struct batch_norm *b = &op->batch_norm;
    args_put(out, ARG_SRC, ARG_IN, &in[0]);
    args_put(out, ARG_DIFF_DST, ARG_IN, &in[0]);
    put_channels(out, b->frozen ? ARG_RUNNING_MEAN : ARG_SAVED_MEAN, ARG_IN, &in[0]);
    put_channels(out, b->frozen ? ARG_RUNNING_VARIANCE : ARG_SAVED_VARIANCE, ARG_IN, &in[0]);
    if (b->activation != ACTIVATION_NONE)
        args_put_vector(out, ARG_WORKSPACE, ARG_IN, DTYPE_U8, 0);
}

static void put_parameter_gradients(struct op_args *out, const struct shape *src) {
    put_channels(out, ARG_DIFF_SCALE, ARG_OUT, src);
    put_channels(out, ARG_DIFF_SHIFT, ARG_OUT, src);
}

static void batch_norm_backward(const struct op *op, const struct shape *in, const struct shape *dst,
                                struct op_args *out) {
    (void)dst;
    batch_norm_backward_inputs(op, in, out);
    put_channels(out, ARG_SCALE, ARG_IN, &in[0]);
    if (takes_sums(op))
        put_sums(out, ARG_IN, &in[0]);
    else
        put_parameter_gradients(out, &in[0]);
    if (op->batch_norm.residual) {
        /* The residual's gradient is the incoming one behind the mask: it is what may overlay diff_dst. */
        args_put(out, ARG_DIFF_SRC, ARG_OUT, &in[0]);
        args_put_in_place(out, ARG_DIFF_SRC2, &in[0], ARG_DIFF_DST);
    } else {
        args_put_in_place(out, ARG_DIFF_SRC, &in[0], ARG_DIFF_DST);
    }
}

static void batch_norm_text(const struct op *op, char *out, size_t size) {
    const struct batch_norm *b = &op->batch_norm;
    snprintf(out, size, " epsilon %g momentum %g%s%s%s", (double)b->epsilon, (double)b->momentum,
             b->frozen         ? " frozen"
             : b->synchronised ? " synchronised"
                               : "",
             b->residual ? " +residual" : "", op_activation_suffix(b->activation));
}

const struct op_row op_row_batch_norm = {
    .name = "batch_norm",
    .narrow = NARROW_DATA,
    .input_count = batch_norm_input_count,
    .output_shape = batch_norm_output_shape,
    .parameters = batch_norm_parameters,
    .arguments = {[PASS_INFER] = batch_norm_infer,
                  [PASS_FORWARD] = batch_norm_forward,
                  [PASS_BACKWARD_DATA] = batch_norm_backward},
    .text = batch_norm_text,
};

/* --- what a synchronised batch norm sums --- */

static int batch_norm_sums_input_count(const struct op *op) {
    (void)op;
    return 1; /* the residual has no part in them */
}

static bool batch_norm_sums_output_shape(const struct op *op, const struct shape *inputs, struct shape *out,
                                         struct error *err) {
    struct op alone = *op;
    alone.batch_norm.residual = false;
    if (op->batch_norm.frozen)
        return error_set(err, ERROR_INVALID, "a frozen batch norm has nothing to sum");
    return batch_norm_output_shape(&alone, inputs, out, err);
}

static void batch_norm_sums_forward(const struct op *op, const struct shape *in, const struct shape *dst,
                                    struct op_args *out) {
    (void)op;
    (void)dst;
    args_put(out, ARG_SRC, ARG_IN, &in[0]);
    put_sums(out, ARG_OUT, &in[0]);
}

static void batch_norm_sums_backward(const struct op *op, const struct shape *in, const struct shape *dst,
                                     struct op_args *out) {
    (void)dst;
    batch_norm_backward_inputs(op, in, out);
    put_parameter_gradients(out, &in[0]);
    put_sums(out, ARG_OUT, &in[0]);
}

const struct op_row op_row_batch_norm_sums = {
    .name = "batch_norm_sums",
    .narrow = NARROW_DATA,
    .input_count = batch_norm_sums_input_count,
    .output_shape = batch_norm_sums_output_shape,
    .arguments = {[PASS_FORWARD] = batch_norm_sums_forward, [PASS_BACKWARD_DATA] = batch_norm_sums_backward},
    .text = batch_norm_text,
};

/* --- activation --- */

static bool activation_output_shape(const struct op *op, const struct shape *inputs, struct shape *out,
                                    struct error *err) {
    if (op->activation == ACTIVATION_NONE)
        return error_set(err, ERROR_INVALID, "which activation is not said");
    *out = inputs[0];
    return op_check_activation(op->activation, err);
}

/* Both ReLUs are known from their output: the gradient passes where 0 < dst (< 6). */
static void activation_backward(const struct op *op, const struct shape *in, const struct shape *dst,
                                struct op_args *out) {
    if (op->activation != ACTIVATION_NONE)
        args_put(out, ARG_DST, ARG_IN, dst);
    args_put(out, ARG_DIFF_DST, ARG_IN, dst);
    args_put_in_place(out, ARG_DIFF_SRC, &in[0], ARG_DIFF_DST);
}

static void activation_text(const struct op *op, char *out, size_t size) {
    snprintf(out, size, "%s", op_activation_suffix(op->activation));
}

const struct op_row op_row_activation = {
    .name = "activation",
    .narrow = NARROW_DATA,
    .output_shape = activation_output_shape,
    .arguments = {[PASS_INFER] = elementwise_forward,
                  [PASS_FORWARD] = elementwise_forward,
                  [PASS_BACKWARD_DATA] = activation_backward},
    .text = activation_text,
};

/* --- add: one diff_src serves both inputs --- */

static int add_input_count(const struct op *op) {
    (void)op;
    return 2;
}

static bool add_output_shape(const struct op *op, const struct shape *inputs, struct shape *out,
                             struct error *err) {
    *out = inputs[0];
    return op_check_activation(op->activation, err) && op_check_addend(&inputs[1], out, err);
}

static void add_forward(const struct op *op, const struct shape *in, const struct shape *dst,
                        struct op_args *out) {
    elementwise_forward(op, in, dst, out);
    args_put(out, ARG_SRC2, ARG_IN, &in[1]);
}

static bool add_backward_is_identity(const struct op *op) {
    return op->activation == ACTIVATION_NONE;
}

const struct op_row op_row_add = {
    .name = "add",
    .narrow = NARROW_DATA,
    .input_count = add_input_count,
    .output_shape = add_output_shape,
    .arguments = {[PASS_INFER] = add_forward,
                  [PASS_FORWARD] = add_forward,
                  [PASS_BACKWARD_DATA] = activation_backward},
    .backward_is_identity = add_backward_is_identity,
    .text = activation_text,
};

/* --- linear --- */

static struct shape linear_weight_shape(const struct op *op, const struct shape *src) {
    return shape_of(2, op->linear.features_out, shape_count(src) / src->dims[0]);
}

static bool linear_output_shape(const struct op *op, const struct shape *inputs, struct shape *out,
                                struct error *err) {
    if (!op_check_rank("the input", &inputs[0], inputs[0].rank == 4 ? 4 : 2, err))
        return false;
    if (op->linear.features_out < 1)
        return error_set(err, ERROR_INVALID, "%lld output features, should be at least 1",
                         (long long)op->linear.features_out);
    struct shape weight = linear_weight_shape(op, &inputs[0]);
    size_t bytes;
    *out = shape_of(2, inputs[0].dims[0], op->linear.features_out);
    return shape_checked_bytes(&weight, DTYPE_F64, &bytes, err);
}

static int linear_parameters(const struct op *op, const struct shape *inputs, struct op_parameter *out) {
    out[0] = (struct op_parameter){ARG_WEIGHT, ARG_DIFF_WEIGHT, "weight", DTYPE_F32,
                                   linear_weight_shape(op, &inputs[0]), .decay = true};
    out[1] = (struct op_parameter){ARG_BIAS, ARG_DIFF_BIAS, "bias", DTYPE_F32,
                                   shape_of(1, op->linear.features_out), .decay = false};
    return op->linear.bias ? 2 : 1;
}

static void linear_forward(const struct op *op, const struct shape *in, const struct shape *dst,
                           struct op_args *out) {
    struct shape weight = linear_weight_shape(op, &in[0]);
    args_put_weighted_inputs(out, &(struct weighted){&in[0], &weight, dst, op->linear.bias});
    args_put(out, ARG_DST, ARG_OUT, dst);
}

static void linear_backward_data(const struct op *op, const struct shape *in, const struct shape *dst,
                                 struct op_args *out) {
    struct shape weight = linear_weight_shape(op, &in[0]);
    args_put_weighted_backward_data(out, &(struct weighted){&in[0], &weight, dst, op->linear.bias});
}

static void linear_backward_weight(const struct op *op, const struct shape *in, const struct shape *dst,
                                   struct op_args *out) {
    struct shape weight = linear_weight_shape(op, &in[0]);
    args_put_weighted_backward_weight(out, &(struct weighted){&in[0], &weight, dst, op->linear.bias});
}

static double linear_flops(const struct op *op, const struct shape *in, const struct shape *dst) {
    (void)dst;
    return 2.0 * (double)shape_count(&in[0]) * (double)op->linear.features_out;
}

static void linear_text(const struct op *op, char *out, size_t size) {
    snprintf(out, size, " %lld%s", (long long)op->linear.features_out, op->linear.bias ? " +bias" : "");
}

const struct op_row op_row_linear = {
    .name = "linear",
    .chooses_layout = true,
    .output_shape = linear_output_shape,
    .parameters = linear_parameters,
    .arguments = {[PASS_INFER] = linear_forward,
                  [PASS_FORWARD] = linear_forward,
                  [PASS_BACKWARD_DATA] = linear_backward_data,
                  [PASS_BACKWARD_WEIGHT] = linear_backward_weight},
    .flops = linear_flops,
    .text = linear_text,
};

/* --- dropout --- */

static bool dropout_output_shape(const struct op *op, const struct shape *inputs, struct shape *out,
                                 struct error *err) {
    if (!(op->dropout.rate >= 0 && op->dropout.rate < 1))
        return error_set(err, ERROR_INVALID, "rate %g should be in [0, 1)", (double)op->dropout.rate);
    if (inputs[0].rank < 1)
        return error_set(err, ERROR_SHAPE, "the input has no batch dimension");
    *out = inputs[0];
    return true;
}

static void dropout_forward(const struct op *op, const struct shape *in, const struct shape *dst,
                            struct op_args *out) {
    elementwise_forward(op, in, dst, out);
    args_put_vector(out, ARG_SEED, ARG_IN, DTYPE_S64, 3);
}

static void dropout_backward(const struct op *op, const struct shape *in, const struct shape *dst,
                             struct op_args *out) {
    (void)op;
    args_put(out, ARG_DIFF_DST, ARG_IN, dst);
    args_put_vector(out, ARG_SEED, ARG_IN, DTYPE_S64, 3);
    args_put_in_place(out, ARG_DIFF_SRC, &in[0], ARG_DIFF_DST);
}

static bool dropout_backward_is_identity(const struct op *op) {
    return op->dropout.rate == 0;
}

static void dropout_text(const struct op *op, char *out, size_t size) {
    snprintf(out, size, " %g salt %u", (double)op->dropout.rate, (unsigned)op->dropout.salt);
}

const struct op_row op_row_dropout = {
    .name = "dropout",
    .output_shape = dropout_output_shape,
    .arguments = {[PASS_INFER] = elementwise_forward,
                  [PASS_FORWARD] = dropout_forward,
                  [PASS_BACKWARD_DATA] = dropout_backward},
    .backward_is_identity = dropout_backward_is_identity,
    .text = dropout_text,
};

/* --- softmax and cross-entropy --- */

static bool loss_output_shape(const struct op *op, const struct shape *inputs, struct shape *out,
                              struct error *err) {
    float smoothing = op->softmax_cross_entropy.label_smoothing;
    if (!(smoothing >= 0 && smoothing <= 1))
        return error_set(err, ERROR_INVALID, "label smoothing %g should be in [0, 1]", (double)smoothing);
    *out = inputs[0];
    return op_check_rank("the input", out, 2, err);
}

static void loss_targets(const struct shape *dst, struct op_args *out) {
    args_put_vector(out, ARG_LABEL, ARG_IN, DTYPE_S32, dst->dims[0]);
    args_put_vector(out, ARG_CLASS_WEIGHT, ARG_IN, DTYPE_F32, dst->dims[1]);
}

static void loss_forward(const struct op *op, const struct shape *in, const struct shape *dst,
                         struct op_args *out) {
    elementwise_forward(op, in, dst, out);
    loss_targets(dst, out);
    args_put_vector(out, ARG_LOSS, ARG_OUT, DTYPE_F32, 1);
}

static void loss_backward(const struct op *op, const struct shape *in, const struct shape *dst,
                          struct op_args *out) {
    (void)op;
    args_put(out, ARG_DST, ARG_IN, dst);
    loss_targets(dst, out);
    args_put_in_place(out, ARG_DIFF_SRC, &in[0], ARG_DST);
}

static void loss_text(const struct op *op, char *out, size_t size) {
    snprintf(out, size, " smoothing %g", (double)op->softmax_cross_entropy.label_smoothing);
}

const struct op_row op_row_softmax_cross_entropy = {
    .name = "softmax_cross_entropy",
    .output_shape = loss_output_shape,
    .arguments = {[PASS_INFER] = elementwise_forward,
                  [PASS_FORWARD] = loss_forward,
                  [PASS_BACKWARD_DATA] = loss_backward},
    .text = loss_text,
};
