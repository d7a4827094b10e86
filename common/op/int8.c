#include "common/op/kind.h"

#include <math.h>
#include <stdio.h>

/* Operations on 8-bit integers: the forms that other kinds have for them, and the kind that takes tensors there and back. */

static bool is_8_bit(enum dtype dtype) {
    return dtype == DTYPE_U8 || dtype == DTYPE_S8;
}

static bool is_convertible(enum dtype dtype) {
    return is_8_bit(dtype) || dtype == DTYPE_F32 || dtype == DTYPE_BF16;
}

/* --- convolution --- */

static bool check_dtypes(const struct conv2d *c, struct error *err) {
    const struct conv2d_int8 *q = &c->int8;
    if (!is_8_bit(q->src) || !is_convertible(q->dst))
        return error_set(err, ERROR_INVALID, "an 8-bit convolution goes from u8 or s8 to these, f32 or bf16, not %s to %s",
                         dtype_name(q->src), dtype_name(q->dst));
    if (c->residual ? !is_8_bit(q->residual) : q->residual != DTYPE_NONE)
        return error_set(err, ERROR_INVALID, "the residual of an 8-bit convolution is %s, should be %s",
                         dtype_name(q->residual), c->residual ? "u8 or s8" : "none");
    return true;
}

bool op_check_int8(const struct conv2d *conv2d, const struct shape *weight, struct error *err) {
    const int64_t most_taps = INT32_MAX / (UINT8_MAX * -INT8_MIN);
    int64_t taps = weight->dims[1] * weight->dims[2] * weight->dims[3];
    if (conv2d->int8.src == DTYPE_NONE)
        return true;
    if (!check_dtypes(conv2d, err))
        return false;
    if (conv2d->activation == ACTIVATION_RELU6)
        return error_set(err, ERROR_INVALID, "an 8-bit convolution has no ReLU6: let the scale of u8 end at 6");
    if (!isfinite(conv2d->int8.residual_factor))
        return error_set(err, ERROR_INVALID, "the residual's factor is not a finite number");
    if (taps > most_taps)
        return error_set(err, ERROR_TOO_LARGE, "sums of %lld products of 8 bits may exceed 32 bits: %lld are the most",
                         (long long)taps, (long long)most_taps);
    return true;
}

void args_make_int8(struct op_args *args, const struct conv2d *conv2d) {
    const struct conv2d_int8 *q = &conv2d->int8;
    args_set_dtype(args, ARG_SRC, q->src);
    args_set_dtype(args, ARG_WEIGHT, DTYPE_S8);
    args_set_dtype(args, ARG_DST, q->dst);
    args_put_vector(args, ARG_SCALE, ARG_IN, DTYPE_F32, conv2d->channels_out);
    if (!conv2d->residual)
        return;
    args_set_dtype(args, ARG_SRC2, q->residual);
    if (dtype_size(q->dst) != dtype_size(q->residual))
        args->in_place[ARG_DST] = ARG_NONE;
}

int op_int8_text(const struct conv2d *conv2d, char *out, size_t size) {
    const struct conv2d_int8 *q = &conv2d->int8;
    int used = snprintf(out, size, " %s>%s", dtype_name(q->src), dtype_name(q->dst));
    if (conv2d->residual && used >= 0 && (size_t)used < size)
        used += snprintf(out + used, size - (size_t)used, " residual %s*%.9g", dtype_name(q->residual),
                         (double)q->residual_factor);
    return used;
}

/* --- pools --- */

bool op_check_pool_of(enum dtype dtype, struct error *err) {
    return dtype == DTYPE_NONE || is_8_bit(dtype) ||
           error_set(err, ERROR_INVALID, "a pool of %s, should be of u8 or s8, or not say", dtype_name(dtype));
}

/* --- rescale --- */

static bool rescale_is_int8(const struct op *op) {
    (void)op;
    return true;
}

static bool rescale_output_shape(const struct op *op, const struct shape *inputs, struct shape *out, struct error *err) {
    const struct rescale *r = &op->rescale;
    *out = inputs[0];
    if (!is_convertible(r->src) || !is_convertible(r->dst))
        return error_set(err, ERROR_INVALID, "%s to %s: both should be u8, s8, f32 or bf16", dtype_name(r->src),
                         dtype_name(r->dst));
    return isfinite(r->factor) || error_set(err, ERROR_INVALID, "the factor is not a finite number");
}

static void rescale_arguments(const struct op *op, const struct shape *in, const struct shape *dst, struct op_args *out) {
    args_put(out, ARG_SRC, ARG_IN, &in[0]);
    args_put(out, ARG_DST, ARG_OUT, dst);
    args_set_dtype(out, ARG_SRC, op->rescale.src);
    args_set_dtype(out, ARG_DST, op->rescale.dst);
}

static void rescale_text(const struct op *op, char *out, size_t size) {
    snprintf(out, size, " %s>%s *%.9g", dtype_name(op->rescale.src), dtype_name(op->rescale.dst), (double)op->rescale.factor);
}

const struct op_row op_row_rescale = {
    .name = "rescale",
    .narrow = NARROW_DATA,
    .is_int8 = rescale_is_int8,
    .output_shape = rescale_output_shape,
    .arguments = {[PASS_INFER] = rescale_arguments},
    .text = rescale_text,
};
