#pragma once
#include "common/device/cuda/kernels.h"
#include "tests/emulation/runtime/kernels.h"

/** NAME_ranges(arguments, count, out): the memory of one launch of NAME. A kernel without one does not compile. */
#define DECLARE_RANGES(name) void name##_ranges(const struct name *k, int64_t count, struct declaration *out);
CUDA_KERNELS(DECLARE_RANGES)
