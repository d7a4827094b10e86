#include "common/tensor/element.h"

#include "common/tensor/half.h"

#include <math.h>

/*
 * A 16-bit float is a sign, an exponent and a fraction; bf16 and f16 share the bits out differently. A double is rounded to it
 * once, where half.h would round to f32 before.
 */
struct half_format {
    int fraction_bits, exponent_bits;
};
static const struct half_format bf16_format = {7, 8}, f16_format = {10, 5};

static uint16_t encode(struct half_format f, double value) {
    int bias = (1 << (f.exponent_bits - 1)) - 1, top = (1 << f.exponent_bits) - 1, exponent;
    uint16_t sign = signbit(value) ? 0x8000 : 0;
    if (isnan(value))
        return (uint16_t)(sign | top << f.fraction_bits | 1 << (f.fraction_bits - 1));
    if (isinf(value))
        return (uint16_t)(sign | top << f.fraction_bits);
    frexp(value, &exponent); /* |value| in [2^(exponent-1), 2^exponent) */
    if (value == 0 || exponent < 2 - bias)
        exponent = 2 - bias; /* subnormal: the spacing of the smallest normal numbers */
    double units = nearbyint(ldexp(fabs(value), f.fraction_bits + 1 - exponent));
    int64_t coded = (int64_t)units + ((int64_t)(exponent - 2 + bias) << f.fraction_bits);
    int64_t infinity = (int64_t)top << f.fraction_bits;
    return (uint16_t)(sign | (coded < infinity ? coded : infinity));
}

bool element_is_floating(enum dtype dtype) {
    return dtype == DTYPE_F32 || dtype == DTYPE_F64 || dtype == DTYPE_BF16 || dtype == DTYPE_F16;
}

/* To the nearest integer, ties to even, as CPUs and GPUs convert; what is outside the range becomes its end, NaN becomes 0. */
static int64_t round_within(double value, int64_t low, int64_t high) {
    double rounded = nearbyint(value);
    if (isnan(rounded))
        return 0;
    return rounded <= (double)low ? low : rounded >= (double)high ? high : (int64_t)rounded;
}

double element_load(const void *data, enum dtype dtype, int64_t i) {
    switch (dtype) {
    case DTYPE_F32: return (double)((const float *)data)[i];
    case DTYPE_F64: return ((const double *)data)[i];
    case DTYPE_BF16: return (double)bf16_decode(((const uint16_t *)data)[i]);
    case DTYPE_F16: return (double)f16_decode(((const uint16_t *)data)[i]);
    case DTYPE_S8: return ((const int8_t *)data)[i];
    case DTYPE_U8: return ((const uint8_t *)data)[i];
    case DTYPE_S32: return ((const int32_t *)data)[i];
    case DTYPE_S64: return (double)((const int64_t *)data)[i];
    default: return NAN;
    }
}

void element_store(void *data, enum dtype dtype, int64_t i, double value) {
    switch (dtype) {
    case DTYPE_F32: ((float *)data)[i] = (float)value; break;
    case DTYPE_F64: ((double *)data)[i] = value; break;
    case DTYPE_BF16: ((uint16_t *)data)[i] = encode(bf16_format, value); break;
    case DTYPE_F16: ((uint16_t *)data)[i] = encode(f16_format, value); break;
    case DTYPE_S8: ((int8_t *)data)[i] = (int8_t)round_within(value, INT8_MIN, INT8_MAX); break;
    case DTYPE_U8: ((uint8_t *)data)[i] = (uint8_t)round_within(value, 0, UINT8_MAX); break;
    case DTYPE_S32: ((int32_t *)data)[i] = (int32_t)round_within(value, INT32_MIN, INT32_MAX); break;
    case DTYPE_S64: ((int64_t *)data)[i] = round_within(value, INT64_MIN, INT64_MAX); break;
    default: break;
    }
}
