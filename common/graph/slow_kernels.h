#pragma once
#include "common/graph/plan.h"

/**
 * For daemons, when a plan is made: logs a warning `engine_slow_kernel` for every kind, pass and implementation of steps that the
 * device's library has no fast kernel for, with the first such node and how many there are; and `engine_not_recorded` where
 * plan_unrecorded has a reason. Returns how many steps are slow.
 */
int slow_kernels_log(const struct plan *plan);
