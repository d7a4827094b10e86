#include "common/op/kind.h"

#include <stdio.h>

/* Kinds that slide a window over H and W, and the pool over all of it. */

static bool check_window(const struct window *w, struct error *err) {
    for (int i = 0; i < 2; i++) {
        int before = w->pad_before[i], after = w->pad_after[i], kernel = w->kernel[i];
        if (kernel < 1 || w->stride[i] < 1)
            return error_set(err, ERROR_INVALID, "kernel %d and stride %d should be at least 1", kernel,
                             w->stride[i]);
        /* Else a window could lie in the padding altogether: a maximum of nothing, and oneDNN 2.6 crashes on
         * some such convolutions. */
        if (before < 0 || after < 0 || before >= kernel || after >= kernel)
            return error_set(err, ERROR_INVALID,
                             "padding %d, %d should be at least 0 and less than the kernel of %d", before,
                             after, kernel);
    }
    return true;
}

/* Fills in dims[2] and dims[3] of out from those of src. */
static bool slide(const struct window *w, const struct shape *src, struct shape *out, struct error *err) {
    for (int i = 0; i < 2; i++) {
        int64_t room = src->dims[2 + i] + w->pad_before[i] + w->pad_after[i] - w->kernel[i];
        if (room < 0)
            return error_set(err, ERROR_SHAPE, "a kernel of %d does not fit into %lld with padding %d, %d",
                             w->kernel[i], (long long)src->dims[2 + i], w->pad_before[i], w->pad_after[i]);
        out->dims[2 + i] = room / w->stride[i] + 1;
    }
    return true;
}

static int window_text(const struct window *w, char *out, size_t size) {
    char stride[32] = "", pad[64];
    if (w->stride[0] != w->stride[1])
        snprintf(stride, sizeof stride, "/%dx%d", w->stride[0], w->stride[1]);
    else if (w->stride[0] != 1)
        snprintf(stride, sizeof stride, "/%d", w->stride[0]);
    if (w->pad_before[0] == w->pad_before[1] && w->pad_before[0] == w->pad_after[0] &&
        w->pad_after[0] == w->pad_after[1])
        snprintf(pad, sizeof pad, "%d", w->pad_before[0]);
    else
        snprintf(pad, sizeof pad, "%d:%d,%d:%d", w->pad_before[0], w->pad_after[0], w->pad_before[1],
                 w->pad_after[1]);
    return snprintf(out, size, " %dx%d%s pad %s", w->kernel[0], w->kernel[1], stride, pad);
}

/* --- convolution --- */

static int conv2d_input_count(const struct op *op) {
    return op->conv2d.residual ? 2 : 1;
}

static struct shape conv2d_weight_shape(const struct op *op, const struct shape *src) {
    const struct conv2d *c = &op->conv2d;
    return shape_of(4, c->channels_out, src->dims[1] / c->groups, (int64_t)c->window.kernel[0],
                    (int64_t)c->window.kernel[1]);
}

static bool conv2d_is_int8(const struct op *op) {
    return op->conv2d.int8.src != DTYPE_NONE;
}

static bool conv2d_output_shape(const struct op *op, const struct shape *inputs, struct shape *out,
                                struct error *err) {
    const struct conv2d *c = &op->conv2d;
    const struct shape *src = &inputs[0];
    if (!op_check_rank("the input", src, 4, err) || !check_window(&c->window, err) ||
        !op_check_activation(c->activation, err))
        return false;
    if (c->channels_out < 1 || c->groups < 1 || src->dims[1] % c->groups || c->channels_out % c->groups)
        return error_set(err, ERROR_INVALID, "%d groups should divide %lld input and %lld output channels",
                         c->groups, (long long)src->dims[1], (long long)c->channels_out);
    struct shape weight = conv2d_weight_shape(op, src);
    size_t bytes;
    *out = shape_of(4, src->dims[0], c->channels_out, (int64_t)0, (int64_t)0);
    return shape_checked_bytes(&weight, DTYPE_F64, &bytes, err) && op_check_int8(c, &weight, err) &&
           slide(&c->window, src, out, err) && (!c->residual || op_check_addend(&inputs[1], out, err));
}

static int conv2d_parameters(const struct op *op, const struct shape *inputs, struct op_parameter *out) {
    const struct conv2d *c = &op->conv2d;
    struct shape weight = conv2d_weight_shape(op, &inputs[0]), channels = shape_of(1, c->channels_out);
    bool int8 = conv2d_is_int8(op); /* as it is: nothing of it is learnt */
    int count = 0;
    out[count++] = (struct op_parameter){ARG_WEIGHT, int8 ? ARG_NONE : ARG_DIFF_WEIGHT, "weight",
                                         int8 ? DTYPE_S8 : DTYPE_F32, weight, .decay = !int8};
    if (c->bias)
        out[count++] = (struct op_parameter){ARG_BIAS, int8 ? ARG_NONE : ARG_DIFF_BIAS, "bias", DTYPE_F32, channels,
                                             .decay = false};
    if (int8)
        out[count++] = (struct op_parameter){ARG_SCALE, ARG_NONE, "factor", DTYPE_F32, channels, .decay = false};
    return count;
}

/* Fused and 8-bit forms exist for inference only: nothing is kept for a backward pass through the activation. */
static bool conv2d_has_pass(const struct op *op, enum pass pass) {
    return pass == PASS_INFER || (!conv2d_is_int8(op) && !op->conv2d.residual && op->conv2d.activation == ACTIVATION_NONE);
}

static void conv2d_forward(const struct op *op, const struct shape *in, const struct shape *dst,
                           struct op_args *out) {
    struct shape weight = conv2d_weight_shape(op, &in[0]);
    args_put_weighted_inputs(out, &(struct weighted){&in[0], &weight, dst, op->conv2d.bias});
    if (op->conv2d.residual) {
        args_put(out, ARG_SRC2, ARG_IN, dst);
        args_put_in_place(out, ARG_DST, dst, ARG_SRC2);
    } else {
        args_put(out, ARG_DST, ARG_OUT, dst);
    }
    if (conv2d_is_int8(op))
        args_make_int8(out, &op->conv2d);
}

static void conv2d_backward_data(const struct op *op, const struct shape *in, const struct shape *dst,
                                 struct op_args *out) {
    struct shape weight = conv2d_weight_shape(op, &in[0]);
    args_put_weighted_backward_data(out, &(struct weighted){&in[0], &weight, dst, op->conv2d.bias});
}

static void conv2d_backward_weight(const struct op *op, const struct shape *in, const struct shape *dst,
                                   struct op_args *out) {
    struct shape weight = conv2d_weight_shape(op, &in[0]);
    args_put_weighted_backward_weight(out, &(struct weighted){&in[0], &weight, dst, op->conv2d.bias});
}

static double conv2d_flops(const struct op *op, const struct shape *in, const struct shape *dst) {
    const struct conv2d *c = &op->conv2d;
    double taps = (double)(in[0].dims[1] / c->groups) * c->window.kernel[0] * c->window.kernel[1];
    return 2.0 * (double)shape_count(dst) * taps;
}

static void conv2d_text(const struct op *op, char *out, size_t size) {
    const struct conv2d *c = &op->conv2d;
    char window[128], int8[64] = "";
    window_text(&c->window, window, sizeof window);
    if (conv2d_is_int8(op))
        op_int8_text(c, int8, sizeof int8);
    snprintf(out, size, " %lld%s groups %d%s%s%s%s", (long long)c->channels_out, window, c->groups,
             c->bias ? " +bias" : "", c->residual ? " +residual" : "", op_activation_suffix(c->activation), int8);
}

const struct op_row op_row_conv2d = {
    .name = "conv2d",
    .narrow = NARROW_DATA_AND_WEIGHT,
    .chooses_layout = true,
    .input_count = conv2d_input_count,
    .is_int8 = conv2d_is_int8,
    .output_shape = conv2d_output_shape,
    .parameters = conv2d_parameters,
    .arguments = {[PASS_INFER] = conv2d_forward,
                  [PASS_FORWARD] = conv2d_forward,
                  [PASS_BACKWARD_DATA] = conv2d_backward_data,
                  [PASS_BACKWARD_WEIGHT] = conv2d_backward_weight},
    .has_pass = conv2d_has_pass,
    .flops = conv2d_flops,
    .text = conv2d_text,
};

/* --- max pooling --- */

static bool max_pool_is_int8(const struct op *op) {
    return op->max_pool_of != DTYPE_NONE;
}

static bool max_pool_output_shape(const struct op *op, const struct shape *inputs, struct shape *out,
                                  struct error *err) {
    const struct window *w = &op->max_pool;
    if (!op_check_rank("the input", &inputs[0], 4, err) || !check_window(w, err) ||
        !op_check_pool_of(op->max_pool_of, err))
        return false;
    *out = inputs[0];
    return slide(w, &inputs[0], out, err);
}

/* Integers are pooled for an answer only. */
static bool pool_has_pass(const struct op *op, enum pass pass) {
    return pass == PASS_INFER || !op_is_int8(op);
}

static void pool_infer(const struct op *op, const struct shape *in, const struct shape *dst,
                       struct op_args *out) {
    (void)op;
    args_put(out, ARG_SRC, ARG_IN, &in[0]);
    args_put(out, ARG_DST, ARG_OUT, dst);
}

static void max_pool_infer(const struct op *op, const struct shape *in, const struct shape *dst,
                           struct op_args *out) {
    pool_infer(op, in, dst, out);
    if (max_pool_is_int8(op)) {
        args_set_dtype(out, ARG_SRC, op->max_pool_of);
        args_set_dtype(out, ARG_DST, op->max_pool_of);
    }
}

static void max_pool_forward(const struct op *op, const struct shape *in, const struct shape *dst,
                             struct op_args *out) {
    pool_infer(op, in, dst, out);
    args_put_vector(out, ARG_WORKSPACE, ARG_OUT, DTYPE_U8, 0);
}

static void max_pool_backward(const struct op *op, const struct shape *in, const struct shape *dst,
                              struct op_args *out) {
    (void)op;
    args_put(out, ARG_DIFF_DST, ARG_IN, dst);
    args_put_vector(out, ARG_WORKSPACE, ARG_IN, DTYPE_U8, 0);
    args_put(out, ARG_DIFF_SRC, ARG_OUT, &in[0]);
}

static void max_pool_text(const struct op *op, char *out, size_t size) {
    int used = window_text(&op->max_pool, out, size);
    if (max_pool_is_int8(op) && used >= 0 && (size_t)used < size)
        snprintf(out + used, size - (size_t)used, " %s", dtype_name(op->max_pool_of));
}

const struct op_row op_row_max_pool = {
    .name = "max_pool",
    .narrow = NARROW_DATA,
    .is_int8 = max_pool_is_int8,
    .output_shape = max_pool_output_shape,
    .arguments = {[PASS_INFER] = max_pool_infer,
                  [PASS_FORWARD] = max_pool_forward,
                  [PASS_BACKWARD_DATA] = max_pool_backward},
    .has_pass = pool_has_pass,
    .text = max_pool_text,
};

/* --- global average pooling --- */

static bool average_is_int8(const struct op *op) {
    return op->global_average_pool_of != DTYPE_NONE;
}

static bool average_output_shape(const struct op *op, const struct shape *inputs, struct shape *out,
                                 struct error *err) {
    if (!op_check_rank("the input", &inputs[0], 4, err) || !op_check_pool_of(op->global_average_pool_of, err))
        return false;
    *out = shape_of(2, inputs[0].dims[0], inputs[0].dims[1]);
    return true;
}

static void average_infer(const struct op *op, const struct shape *in, const struct shape *dst,
                          struct op_args *out) {
    pool_infer(op, in, dst, out);
    if (average_is_int8(op))
        args_set_dtype(out, ARG_SRC, op->global_average_pool_of);
}

static void average_text(const struct op *op, char *out, size_t size) {
    if (average_is_int8(op))
        snprintf(out, size, " %s", dtype_name(op->global_average_pool_of));
}

static void average_backward(const struct op *op, const struct shape *in, const struct shape *dst,
                             struct op_args *out) {
    (void)op;
    args_put(out, ARG_DIFF_DST, ARG_IN, dst);
    args_put(out, ARG_DIFF_SRC, ARG_OUT, &in[0]);
}

const struct op_row op_row_global_average_pool = {
    .name = "global_average_pool",
    .narrow = NARROW_SOURCE,
    .is_int8 = average_is_int8,
    .output_shape = average_output_shape,
    .arguments =
        {[PASS_INFER] = average_infer, [PASS_FORWARD] = pool_infer, [PASS_BACKWARD_DATA] = average_backward},
    .has_pass = pool_has_pass,
    .text = average_text,
};
