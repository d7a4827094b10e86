#pragma once
#include "common/op/op.h"

/**
 * What a plan computes in. f32: all of it. bf16 and f16: activations, their gradients and what convolutions multiply; batch
 * norm's statistics and parameters, weights as the optimiser sees them, gradients of weights, the classifier and the loss stay
 * f32 (Micikevicius et al., "Mixed precision training", 2018). int8: a graph that was quantised, the rest of it in f32.
 */
enum precision { PRECISION_F32, PRECISION_BF16, PRECISION_F16, PRECISION_INT8, PRECISION_COUNT };

/** "f32", "bf16", "f16", "int8". */
const char *precision_name(enum precision precision);
/** The precision of that name; PRECISION_COUNT where there is none. */
enum precision precision_parse(const char *name);

/** Turns the f32 descriptions that op_arguments made into those of the precision, sizes too. Integers stay what they are. */
void precision_apply(enum precision precision, const struct op *op, struct op_args *args);

/** Whether the arguments have the dtypes of the precision; those that are never of f32 are not looked at. Not for integers. */
bool precision_fits(enum precision precision, const struct op *op, const struct op_args *args);
