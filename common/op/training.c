#include "common/op/kind.h"

#include <stdio.h>

/* Kinds that plans and training add around a model's graph. */

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
