#include "common/tensor/shape.h"

#include <stdio.h>

struct shape shape_make(int rank, const int64_t dims[SHAPE_MAX_RANK]) {
    struct shape shape = {.rank = rank};
    for (int i = 0; i < rank; i++)
        shape.dims[i] = dims[i];
    return shape;
}

bool shape_equal(const struct shape *a, const struct shape *b) {
    if (a->rank != b->rank)
        return false;
    for (int i = 0; i < a->rank; i++) {
        if (a->dims[i] != b->dims[i])
            return false;
    }
    return true;
}

int64_t shape_count(const struct shape *shape) {
    int64_t count = 1;
    for (int i = 0; i < shape->rank; i++)
        count *= shape->dims[i];
    return count;
}

bool shape_checked_bytes(const struct shape *shape, enum dtype dtype, size_t *out, struct error *err) {
    size_t bytes = dtype_size(dtype);
    for (int i = 0; i < shape->rank; i++) {
        if (shape->dims[i] < 0 || __builtin_mul_overflow(bytes, (size_t)shape->dims[i], &bytes))
            return error_set(err, ERROR_TOO_LARGE, "dimension %d of a tensor is %lld: its size overflows", i,
                             (long long)shape->dims[i]);
    }
    *out = bytes;
    return true;
}

const char *shape_text(const struct shape *shape, char out[SHAPE_TEXT_SIZE]) {
    size_t used = (size_t)snprintf(out, SHAPE_TEXT_SIZE, "(");
    for (int i = 0; i < shape->rank && used < SHAPE_TEXT_SIZE; i++)
        used += (size_t)snprintf(out + used, SHAPE_TEXT_SIZE - used, i ? ", %lld" : "%lld", (long long)shape->dims[i]);
    if (used < SHAPE_TEXT_SIZE)
        snprintf(out + used, SHAPE_TEXT_SIZE - used, ")");
    return out;
}
