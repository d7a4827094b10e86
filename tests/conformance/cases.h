#pragma once
#include "common/base/rng.h"
#include "common/op/precision.h"
#include "tests/conformance/inputs.h"

/** The cases that every device must compute as the reference does: odd sizes, strides, paddings, groups and
 * batches. */
extern const struct op_case conformance_cases[];
extern const int conformance_case_count;

/** Those on 8-bit integers. */
extern const struct op_case conformance_int8_cases[];
extern const int conformance_int8_case_count;

/** Makes an 8-bit convolution of a random one. */
void conformance_random_int8(struct rng *rng, struct conv2d *conv2d, int *variant);

/**
 * The i-th case of an endless random series: convolutions, batch norms and pools of any attributes on small images; in int8,
 * convolutions of integers.
 */
void conformance_random_case(enum precision precision, uint64_t seed, uint32_t i, struct op_case *out);
