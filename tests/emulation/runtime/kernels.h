#pragma once
#include "tests/emulation/emulation.h"

/** Our kernels on the CPU: the bodies of common/device/cuda, each with a declaration of the memory that a launch uses. */

enum { MOST_RANGES = 24 };

/** What one launch reads and writes. */
struct declaration {
    const char *kernel;
    struct emulation_range ranges[MOST_RANGES];
    int count;
    bool right; /**< no address was misaligned, and nothing was too many */
};

struct kernel_row {
    const char *name; /**< as nvcc registers it: NAME_kernel */
    size_t argument_bytes;
    /** Computes elements 0 .. count - 1, in no order that anybody should count on. */
    void (*run)(const void *arguments, int64_t count, bool backwards);
    void (*declare)(const void *arguments, int64_t count, struct declaration *out);
};

/** The row of that name, or NULL. */
const struct kernel_row *kernel_find(const char *name);

/** Adds `count` elements of `size` bytes; required: NULL is wrong, else NULL is nothing. */
void declare_range(struct declaration *out, const void *memory, int64_t count, size_t size, bool written, bool required);
