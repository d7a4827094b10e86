#pragma once
#include "tests/conformance/inputs.h"

/** The cases that every device must compute as the reference does: odd sizes, strides, paddings, groups and
 * batches. */
extern const struct op_case conformance_cases[];
extern const int conformance_case_count;

/** The i-th case of an endless random series: convolutions, batch norms and pools of any attributes on small images. */
void conformance_random_case(uint64_t seed, uint32_t i, struct op_case *out);
