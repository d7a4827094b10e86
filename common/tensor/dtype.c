#include "common/tensor/dtype.h"

#include <string.h>

static const struct {
    const char *name;
    size_t size;
} rows[DTYPE_COUNT] = {
    [DTYPE_NONE] = {"none", 0}, [DTYPE_F32] = {"f32", 4}, [DTYPE_BF16] = {"bf16", 2},
    [DTYPE_F16] = {"f16", 2},   [DTYPE_S8] = {"s8", 1},   [DTYPE_U8] = {"u8", 1},
    [DTYPE_S32] = {"s32", 4},   [DTYPE_S64] = {"s64", 8}, [DTYPE_F64] = {"f64", 8},
};

size_t dtype_size(enum dtype dtype) {
    return rows[dtype].size;
}

const char *dtype_name(enum dtype dtype) {
    return rows[dtype].name;
}

enum dtype dtype_parse(const char *name) {
    for (int i = DTYPE_NONE + 1; i < DTYPE_COUNT; i++) {
        if (strcmp(rows[i].name, name) == 0)
            return (enum dtype)i;
    }
    return DTYPE_NONE;
}
