#pragma once
#include "common/tensor/dtype.h"
#include <stdbool.h>
#include <stdint.h>

/** How the range that 8 bits are spread over is chosen from what a tensor held while it was observed. */
enum range_method {
    RANGE_MIN_MAX,    /**< all that was seen */
    RANGE_PERCENTILE, /**< but for one in ten thousand, which saturate */
    RANGE_MSE,        /**< where rounding and saturating together cost the least squared error */
    RANGE_ENTROPY,    /**< where the quantised histogram diverges least from the real one (Migacz, "8-bit inference with
                           TensorRT", 2017) */
    RANGE_METHOD_COUNT
};

enum { RANGE_BINS = 2048 };

/** What was seen of one tensor: extremes first, then, in a second pass over the same data, how often each magnitude came. */
struct range {
    float low, high;
    int64_t count; /**< of the second pass */
    int64_t bins[RANGE_BINS]; /**< of |x|, from 0 to the largest */
};

/** "min_max", "percentile", "mse", "entropy". */
const char *range_method_name(enum range_method method);

/** Widens low and high. A zeroed range has seen 0, as every tensor that is padded has. */
void range_widen(struct range *range, const float *values, int64_t count);
/** Counts values into the bins; all have been given to range_widen. */
void range_count(struct range *range, const float *values, int64_t count);

/** u8 where nothing negative was seen, else s8. */
enum dtype range_dtype(const struct range *range);
/** The scale: what the largest integer of range_dtype stands for, divided by it. Positive, whatever was seen. */
float range_scale(const struct range *range, enum range_method method);
