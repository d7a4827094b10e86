#include "common/op/kind.h"

#include "common/op/variation.h"

#include <stdio.h>

/* Kinds that plans and training add around a model's graph. */

/** Two pixels are the least that are sampled between; fixed point positions hold so many. */
enum { VARY_LEAST_SIDE = 2, VARY_MOST_SIDE = 4096 };

static bool vary_shape(const struct op *op, const struct shape *inputs, struct shape *out, struct error *err) {
    const struct vary *vary = &op->vary;
    if (!op_check_rank("the rows", &inputs[0], 2, err))
        return false;
    if (vary->channels < 1 || vary->channels > 3 || vary->height < VARY_LEAST_SIDE || vary->width < VARY_LEAST_SIDE ||
        vary->height > VARY_MOST_SIDE || vary->width > VARY_MOST_SIDE)
        return error_set(err, ERROR_INVALID, "%d channels of %d x %d pixels", vary->channels, vary->width, vary->height);
    if (inputs[0].dims[1] != (int64_t)variation_bytes(vary->height, vary->width))
        return error_set(err, ERROR_SHAPE, "rows of %lld bytes, should be of %zu", (long long)inputs[0].dims[1],
                         variation_bytes(vary->height, vary->width));
    *out = shape_of(4, inputs[0].dims[0], (int64_t)vary->channels, (int64_t)vary->height, (int64_t)vary->width);
    return true;
}

static void vary_arguments(const struct op *op, const struct shape *in, const struct shape *dst, struct op_args *out) {
    (void)op;
    args_put(out, ARG_SRC, ARG_IN, &in[0]);
    args_set_dtype(out, ARG_SRC, DTYPE_U8);
    args_put(out, ARG_DST, ARG_OUT, dst);
}

static void vary_text(const struct op *op, char *out, size_t size) {
    snprintf(out, size, " %dx%dx%d", op->vary.channels, op->vary.height, op->vary.width);
}

const struct op_row op_row_vary = {
    .name = "vary",
    .narrow = NARROW_DATA,
    .output_shape = vary_shape,
    .arguments = {[PASS_FORWARD] = vary_arguments},
    .text = vary_text,
};

static void reorder_arguments(const struct op *op, const struct shape *in, const struct shape *dst,
                              struct op_args *out) {
    (void)op;
    args_put(out, ARG_SRC, ARG_IN, &in[0]);
    args_put(out, ARG_DST, ARG_OUT, dst);
}

const struct op_row op_row_reorder = {
    .name = "reorder",
    .arguments = {[PASS_FORWARD] = reorder_arguments},
};

static bool flat_shape(const struct op *op, const struct shape *inputs, struct shape *out,
                       struct error *err) {
    (void)op;
    *out = inputs[0];
    if (!op_check_rank("the buffer", out, 1, err))
        return false;
    return out->dims[0] % OPTIMIZER_BLOCK == 0 ||
           error_set(err, ERROR_SHAPE, "%lld elements, should be a multiple of %d", (long long)out->dims[0],
                     OPTIMIZER_BLOCK);
}

static void norm_arguments(const struct op *op, const struct shape *in, const struct shape *dst,
                           struct op_args *out) {
    (void)op;
    (void)dst;
    args_put(out, ARG_GRADIENT, ARG_IN, &in[0]);
    args_put_vector(out, ARG_NORM, ARG_OUT, DTYPE_F64, 2);
}

const struct op_row op_row_gradient_norm = {
    .name = "gradient_norm",
    .output_shape = flat_shape,
    .arguments = {[PASS_FORWARD] = norm_arguments},
};

static void sgd_arguments(const struct op *op, const struct shape *in, const struct shape *dst,
                          struct op_args *out) {
    (void)dst;
    args_put(out, ARG_PARAMETER, ARG_INOUT, &in[0]);
    args_put(out, ARG_GRADIENT, ARG_IN, &in[0]);
    args_put(out, ARG_STATE, ARG_INOUT, &in[0]);
    if (op->optimizer.ema)
        args_put(out, ARG_EMA, ARG_INOUT, &in[0]);
    args_put_vector(out, ARG_DECAY, ARG_IN, DTYPE_F32, in[0].dims[0] / OPTIMIZER_BLOCK);
    args_put_vector(out, ARG_HYPER, ARG_IN, DTYPE_F32, HYPER_COUNT);
    args_put_vector(out, ARG_NORM, ARG_IN, DTYPE_F64, 2);
}

static void adamw_arguments(const struct op *op, const struct shape *in, const struct shape *dst,
                            struct op_args *out) {
    sgd_arguments(op, in, dst, out);
    args_put(out, ARG_STATE2, ARG_INOUT, &in[0]);
}

static void optimizer_text(const struct op *op, char *out, size_t size) {
    snprintf(out, size, "%s", op->optimizer.ema ? " +ema" : "");
}

const struct op_row op_row_sgd = {
    .name = "sgd",
    .output_shape = flat_shape,
    .arguments = {[PASS_FORWARD] = sgd_arguments},
    .text = optimizer_text,
};

const struct op_row op_row_adamw = {
    .name = "adamw",
    .output_shape = flat_shape,
    .arguments = {[PASS_FORWARD] = adamw_arguments},
    .text = optimizer_text,
};
