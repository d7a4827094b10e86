#include "tests/emulation/runtime/kernels.h"

#include "common/device/cuda/kernels.h"
#include "tests/emulation/runtime/kernel_ranges.h"

#include <string.h>

/* The bodies are the GPU's own text. Elements run in either direction: none may count on another one's result. */
#define DEFINE_RUN(kernel)                                                                                                   \
    static void run_##kernel(const void *arguments, int64_t count, bool backwards) {                                         \
        if (backwards)                                                                                                       \
            for (int64_t i = count; i-- > 0;)                                                                                \
                kernel##_element(arguments, i);                                                                              \
        else                                                                                                                 \
            for (int64_t i = 0; i < count; i++)                                                                              \
                kernel##_element(arguments, i);                                                                              \
    }
CUDA_KERNELS(DEFINE_RUN)

#define DEFINE_DECLARE(kernel)                                                                                               \
    static void declare_##kernel(const void *arguments, int64_t count, struct declaration *out) {                            \
        kernel##_ranges(arguments, count, out);                                                                              \
    }
CUDA_KERNELS(DEFINE_DECLARE)

#define ROW(kernel) {#kernel "_kernel", sizeof(struct kernel), run_##kernel, declare_##kernel},
static const struct kernel_row rows[] = {CUDA_KERNELS(ROW)};

const struct kernel_row *kernel_find(const char *name) {
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (strcmp(rows[i].name, name) == 0)
            return &rows[i];
    return NULL;
}
