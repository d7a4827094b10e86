#include "common/op/precision.h"

#include "common/op/kind.h"

#include <string.h>

/* `narrow`: the dtype of what op_row.narrow names; DTYPE_NONE where that is f32. */
static const struct {
    const char *name;
    enum dtype narrow;
} rows[PRECISION_COUNT] = {
    [PRECISION_F32] = {"f32", DTYPE_NONE},
    [PRECISION_BF16] = {"bf16", DTYPE_BF16},
    [PRECISION_F16] = {"f16", DTYPE_F16},
    [PRECISION_INT8] = {"int8", DTYPE_NONE},
};

const char *precision_name(enum precision precision) {
    return rows[precision].name;
}

enum precision precision_parse(const char *name) {
    enum precision found = PRECISION_F32;
    while (found < PRECISION_COUNT && strcmp(rows[found].name, name) != 0)
        found++;
    return found;
}

static void narrow_one(struct op_args *args, enum arg arg, enum dtype dtype) {
    if (args->direction[arg] != ARG_ABSENT && args->desc[arg].dtype == DTYPE_F32)
        args->desc[arg] = tensor_desc_dense(dtype, &args->desc[arg].shape);
}

void precision_apply(enum precision precision, const struct op *op, struct op_args *args) {
    static const enum arg data[] = {ARG_SRC, ARG_DIFF_SRC, ARG_SRC2, ARG_DIFF_SRC2, ARG_DST, ARG_DIFF_DST, ARG_WEIGHT};
    static const int counts[] = {[NARROW_NONE] = 0, [NARROW_SOURCE] = 2, [NARROW_DATA] = 6, [NARROW_DATA_AND_WEIGHT] = 7};
    enum dtype narrow = rows[precision].narrow;
    for (int i = 0; narrow != DTYPE_NONE && i < counts[op_row_of(op->kind)->narrow]; i++)
        narrow_one(args, data[i], narrow);
}

bool precision_fits(enum precision precision, const struct op *op, const struct op_args *args) {
    static const bool fixed[ARG_COUNT] = {[ARG_LABEL] = true, [ARG_SEED] = true,      [ARG_NORM] = true,
                                          [ARG_SUMS] = true,  [ARG_WORKSPACE] = true, [ARG_SCRATCH] = true};
    struct op_args want = *args;
    for (enum arg arg = ARG_NONE + 1; arg < ARG_COUNT; arg++)
        want.desc[arg].dtype = DTYPE_F32;
    precision_apply(precision, op, &want);
    for (enum arg arg = ARG_NONE + 1; arg < ARG_COUNT; arg++)
        if (want.direction[arg] != ARG_ABSENT && !fixed[arg] && want.desc[arg].dtype != args->desc[arg].dtype)
            return false;
    return true;
}
