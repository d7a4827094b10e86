#pragma once
#include "common/graph/parameters.h"

/** The formulas of make_golden.py: values that follow from a name, so that nothing large is stored. */

/** Uniform in [-1, 1): FNV-1a of the name seeds SplitMix64. */
void pattern_fill(const char *name, float *out, int64_t count);

/** A plausible value for every parameter of the graph, as pattern_value there. */
void pattern_parameters(const struct graph *graph, struct parameters *parameters);
