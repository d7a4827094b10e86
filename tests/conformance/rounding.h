#pragma once
#include "common/tensor/tensor.h"

/** Elements of a result that was rounded to a narrow dtype. */
struct rounding {
    int64_t elements;
    int64_t differing; /**< from the oracle's */
    int64_t wrong;     /**< differing although the value before it was rounded lies on no edge between two steps */
};

/**
 * Compares got with want, both of one dtype, and adds to `out`. A value may end on the other side of an edge (a tie, an end
 * of the range) that it is within 1e-5 of, relative to itself: `unrounded` (f32) has the values before the last rounding.
 */
void rounding_compare(const struct tensor *got, const struct tensor *want, const struct tensor *unrounded,
                      struct rounding *out);
