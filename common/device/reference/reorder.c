#include "common/device/reference/kernels.h"

/* One layout, so all there is to change is the dtype: through double, rounded once. */
static void reorder(const struct kernel *kernel, void *const buffers[ARG_COUNT]) {
    struct view src = view_of(kernel, buffers, ARG_SRC), dst = view_of(kernel, buffers, ARG_DST);
    for (int64_t k = 0; k < count_of(kernel, ARG_DST); k++)
        view_set(dst, k, view_get(src, k));
}

const struct reference_row reference_reorder = {.run = {[PASS_FORWARD] = reorder}};

/* --- rescale: y = convert(x * factor), the product rounded to f32 --- */

static void rescale(const struct kernel *kernel, void *const buffers[ARG_COUNT]) {
    struct view src = view_of(kernel, buffers, ARG_SRC), dst = view_of(kernel, buffers, ARG_DST);
    for (int64_t k = 0; k < count_of(kernel, ARG_DST); k++) {
        float product = (float)view_get(src, k) * kernel->op.rescale.factor;
        view_set(dst, k, (double)product);
    }
}

const struct reference_row reference_rescale = {.run = {[PASS_INFER] = rescale}};
