#pragma once
#include "common/tensor/dtype.h"
#include <stdbool.h>
#include <stdint.h>

/** Elements of one dtype, read and written as doubles. data NULL: an absent argument. */
struct view {
    void *data;
    enum dtype dtype;
};

/** f32, f64, bf16 or f16. */
bool element_is_floating(enum dtype dtype);

/**
 * As view_get and view_set, for any dtype. Stores round to nearest, ties to even. Overflow gives infinity in floating dtypes,
 * and the end of the range in integers, where NaN becomes 0.
 */
double element_load(const void *data, enum dtype dtype, int64_t i);
void element_store(void *data, enum dtype dtype, int64_t i, double value);

static inline double view_get(struct view view, int64_t i) {
    if (view.dtype == DTYPE_F32)
        return (double)((const float *)view.data)[i];
    return element_load(view.data, view.dtype, i);
}

static inline void view_set(struct view view, int64_t i, double value) {
    if (view.dtype == DTYPE_F32)
        ((float *)view.data)[i] = (float)value;
    else
        element_store(view.data, view.dtype, i, value);
}
