#pragma once
#include "tests/conformance/device_run.h"

struct rng;

/** One operation on inputs of one shape: a row of the tables of conformance and gradient cases. */
struct op_case {
    struct op op;
    struct shape src; /**< the first input; a second one has the shape that it must have */
    float
        reach; /**< sources, biases and shifts are drawn from [-reach, reach); 0: 1. For ReLU6, more than 6 */
    int variant; /**< optimisers: 0 plain, 1 clipped, 2 not finite; gradient norm: 2 has values that are not
                    finite; reorder, in a precision that is narrower than f32: 0 to it, 1 from it; operations on
                    integers: enum int8_variant */
    bool pairs_in_16_bits; /**< 8-bit weights are drawn as device_info.int8_weight_bits says of such devices */
};

/** What 8-bit tensors are like: all their values; the ends of their range only, so that sums are as large as they can be;
 * small, with factors that are powers of two, so that every other result is a tie between two integers. */
enum int8_variant { INT8_ANY, INT8_ENDS, INT8_TIES };

/** The shapes of all inputs of a case. */
bool case_inputs(const struct op_case *c, struct shape inputs[OP_MAX_INPUTS], struct error *err);

/** Values for one input of an operation on integers (inputs_int8.c). */
void inputs_fill_int8(const struct op_case *c, const struct op_args *args, enum arg arg, struct rng *rng,
                      struct tensor *tensor);

/** Pictures with their variations, for OP_VARY (inputs_vary.c). Every third one is not blurred, every fourth not noisy. */
void inputs_fill_vary(const struct op_case *c, struct rng *rng, struct tensor *rows);

/** Random values that make sense for each role, the same for the same seed, dtype and shapes. Outputs are
 * left alone. */
void inputs_fill(const struct op_case *c, const struct op_args *args, uint64_t seed,
                 struct tensor tensors[ARG_COUNT]);
