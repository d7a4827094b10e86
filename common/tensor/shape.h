#pragma once
#include "common/base/error.h"
#include "common/tensor/dtype.h"
#include <stdint.h>

enum { SHAPE_MAX_RANK = 5, SHAPE_TEXT_SIZE = 64 };

/** Dimensions, outermost first: (N, C, H, W) for images, (O, I/groups, KH, KW) for convolution weights. Rank 0 is a scalar. */
struct shape {
    int rank;
    int64_t dims[SHAPE_MAX_RANK];
};

/** The shape of these dimensions; rank is at most SHAPE_MAX_RANK. */
struct shape shape_make(int rank, const int64_t dims[SHAPE_MAX_RANK]);

/** shape_of(3, n, c, 7) and the like, for integers of any type: a macro, because varargs would read an int as an int64_t. */
#define shape_of(rank, ...) shape_make((rank), (const int64_t[SHAPE_MAX_RANK]){__VA_ARGS__})

bool shape_equal(const struct shape *a, const struct shape *b);

/** Number of elements. Dimensions must be trusted (ours); shape_checked_bytes is for those from outside. */
int64_t shape_count(const struct shape *shape);

/** Bytes of a dense tensor; an error where a dimension is negative or the product overflows. */
bool shape_checked_bytes(const struct shape *shape, enum dtype dtype, size_t *out, struct error *err);

/** Writes "(2, 3, 224, 224)". Returns out. */
const char *shape_text(const struct shape *shape, char out[SHAPE_TEXT_SIZE]);
