#pragma once
#include "tests/conformance/inputs.h"

/** The cases that every device must compute as the reference does: odd sizes, strides, paddings, groups and
 * batches. */
extern const struct op_case conformance_cases[];
extern const int conformance_case_count;
