#pragma once
#include "tests/conformance/device_run.h"

/** One operation on inputs of one shape: a row of the tables of conformance and gradient cases. */
struct op_case {
    struct op op;
    struct shape src; /**< the first input; a second one has the shape that it must have */
    float
        reach; /**< sources, biases and shifts are drawn from [-reach, reach); 0: 1. For ReLU6, more than 6 */
    int variant; /**< optimisers: 0 plain, 1 clipped, 2 not finite; gradient norm: 2 has values that are not
                    finite; reorder, in a precision that is narrower than f32: 0 to it, 1 from it */
};

/** The shapes of all inputs of a case. */
bool case_inputs(const struct op_case *c, struct shape inputs[OP_MAX_INPUTS], struct error *err);

/** Random values that make sense for each role, the same for the same seed, dtype and shapes. Outputs are
 * left alone. */
void inputs_fill(const struct op_case *c, const struct op_args *args, uint64_t seed,
                 struct tensor tensors[ARG_COUNT]);
