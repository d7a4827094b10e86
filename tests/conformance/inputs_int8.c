#include "tests/conformance/inputs.h"

#include "common/base/rng.h"

#include <math.h>

/* Inputs of the operations on integers. Factors are such that results fill the range of dst, and go somewhat over it. */

static const double tie_factor = 0.5;

static void range_of(enum dtype dtype, double *low, double *high) {
    *low = dtype == DTYPE_U8 ? 0 : -128;
    *high = dtype == DTYPE_U8 ? 255 : 127;
}

static double draw(struct rng *rng, double low, double high) {
    return low + floor((double)rng_uniform(rng, 0, 1) * (high - low + 1));
}

/* Where products are added in pairs in 16 bits, 255 * 64 * 2 still fits; a source of s8 has oneDNN halve the weights. */
static double weight_value(const struct op_case *c, struct rng *rng, int64_t channel) {
    bool narrow = c->pairs_in_16_bits && c->op.conv2d.int8.src == DTYPE_U8;
    bool even = c->pairs_in_16_bits && !narrow;
    double low = narrow ? -64 : -128, high = narrow ? 63 : even ? 126 : 127;
    double any = c->variant == INT8_TIES ? draw(rng, -1, 1) : draw(rng, low, high);
    if (c->variant == INT8_ENDS)
        return channel % 3 == 0 ? low : channel % 3 == 1 || any > 0 ? high : low;
    return even ? 2 * floor(any / 2) : any;
}

static double data_value(const struct op_case *c, enum dtype dtype, struct rng *rng, int64_t i) {
    double low, high;
    range_of(dtype, &low, &high);
    if (c->variant == INT8_ENDS)
        return i % 7 ? high : low;
    return c->variant == INT8_TIES ? draw(rng, dtype == DTYPE_U8 ? 0 : -4, 7) : draw(rng, low, high);
}

/* Sums of n products are about sqrt(n) times the root mean squares of both factors; at the ends of the range, n times. */
static double factor_value(const struct op_case *c, const struct op_args *args, struct rng *rng) {
    const struct shape *weight = &args->desc[ARG_WEIGHT].shape;
    double taps = (double)(shape_count(weight) / weight->dims[0]), source = c->op.conv2d.int8.src == DTYPE_U8 ? 147 : 74;
    double sum = c->variant == INT8_ENDS ? taps * 2 * source * 128 : sqrt(taps) * source * 74;
    double wanted = c->variant == INT8_ENDS ? 140 : 60;
    return c->variant == INT8_TIES ? tie_factor : wanted / sum * (double)rng_uniform(rng, 0.5f, 1.5f);
}

static double float_source_value(const struct op_case *c, struct rng *rng, int64_t i) {
    if (c->variant == INT8_ENDS && i % 5 == 0)
        return i % 2 ? 1e30 : -1e30;
    return c->variant == INT8_TIES ? draw(rng, -300, 300) : (double)rng_uniform(rng, -c->reach, c->reach);
}

void inputs_fill_int8(const struct op_case *c, const struct op_args *args, enum arg arg, struct rng *rng,
                      struct tensor *tensor) {
    int64_t count = shape_count(&tensor->shape), channel = count / tensor->shape.dims[0];
    bool integer = tensor->dtype == DTYPE_U8 || tensor->dtype == DTYPE_S8;
    for (int64_t i = 0; i < count; i++) {
        double value;
        if (arg == ARG_WEIGHT)
            value = weight_value(c, rng, i / channel);
        else if (arg == ARG_SCALE)
            value = factor_value(c, args, rng);
        else if (arg == ARG_BIAS)
            value = c->variant == INT8_TIES ? draw(rng, -20, 60) / 2 : (double)rng_uniform(rng, -30, 70);
        else
            value = integer ? data_value(c, tensor->dtype, rng, i) : float_source_value(c, rng, i);
        host_set(tensor, i, value);
    }
}
