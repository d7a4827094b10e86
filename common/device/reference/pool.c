#include "common/device/reference/kernels.h"

#include <math.h>

/* --- max pooling: y = max over the window, padding being minus infinity; the first of equals wins --- */

/* The position in its plane of the largest element under the window at (p, q). A NaN counts as the largest.
 */
static int32_t largest_in(const struct window *w, struct view src, int64_t plane, const int64_t size[2],
                          int64_t p, int64_t q) {
    int32_t best = -1;
    double most = 0;
    for (int i = 0; i < w->kernel[0]; i++)
        for (int j = 0; j < w->kernel[1]; j++) {
            int64_t y = p * w->stride[0] + i - w->pad_before[0], x = q * w->stride[1] + j - w->pad_before[1];
            if (y < 0 || y >= size[0] || x < 0 || x >= size[1])
                continue;
            double value = view_get(src, plane * size[0] * size[1] + y * size[1] + x);
            if (best < 0 || value > most || (isnan(value) && !isnan(most))) {
                best = (int32_t)(y * size[1] + x);
                most = value;
            }
        }
    return best;
}

static void max_forward(const struct kernel *kernel, void *const buffers[ARG_COUNT]) {
    const int64_t *dims = dims_of(kernel, ARG_DST), *size = dims_of(kernel, ARG_SRC) + 2;
    struct view src = view_of(kernel, buffers, ARG_SRC), dst = view_of(kernel, buffers, ARG_DST);
    int32_t *winners = view_of(kernel, buffers, ARG_WORKSPACE).data;
    int64_t count = count_of(kernel, ARG_DST);
    for (int64_t k = 0; k < count; k++) {
        int64_t q = k % dims[3], p = k / dims[3] % dims[2], plane = k / (dims[3] * dims[2]);
        int32_t winner = largest_in(&kernel->op.max_pool, src, plane, size, p, q);
        view_set(dst, k, view_get(src, plane * size[0] * size[1] + winner));
        if (winners)
            winners[k] = winner;
    }
}

/* The window whose tap i lies at `at` along an axis of `count` windows; -1 where there is none. */
static int64_t window_with(const struct window *w, int axis, int64_t at, int i, int64_t count) {
    int64_t offset = at + w->pad_before[axis] - i, p = offset / w->stride[axis];
    return offset >= 0 && offset % w->stride[axis] == 0 && p < count ? p : -1;
}

/* dx(position) = the sum of dy over the windows that the position won; y and x are where it lies in its
 * plane. */
static double won_by(const struct kernel *kernel, void *const buffers[ARG_COUNT], int64_t plane, int64_t y,
                     int64_t x) {
    const struct window *w = &kernel->op.max_pool;
    const int64_t *out = dims_of(kernel, ARG_DIFF_DST), *in = dims_of(kernel, ARG_DIFF_SRC);
    struct view diff_dst = view_of(kernel, buffers, ARG_DIFF_DST);
    const int32_t *winners = buffers[ARG_WORKSPACE];
    double sum = 0;
    for (int i = 0; i < w->kernel[0]; i++)
        for (int j = 0; j < w->kernel[1]; j++) {
            int64_t p = window_with(w, 0, y, i, out[2]), q = window_with(w, 1, x, j, out[3]);
            int64_t k = (plane * out[2] + p) * out[3] + q;
            if (p >= 0 && q >= 0 && winners[k] == y * in[3] + x)
                sum += view_get(diff_dst, k);
        }
    return sum;
}

static void max_backward(const struct kernel *kernel, void *const buffers[ARG_COUNT]) {
    const int64_t *in = dims_of(kernel, ARG_DIFF_SRC);
    struct view diff_src = view_of(kernel, buffers, ARG_DIFF_SRC);
    int64_t count = count_of(kernel, ARG_DIFF_SRC);
    for (int64_t k = 0; k < count; k++)
        view_set(diff_src, k, won_by(kernel, buffers, k / (in[2] * in[3]), k / in[3] % in[2], k % in[3]));
}

static size_t max_workspace_bytes(const struct kernel_request *request) {
    enum arg dst = request->pass == PASS_BACKWARD_DATA ? ARG_DIFF_DST : ARG_DST;
    return (size_t)shape_count(&request->args.desc[dst].shape) * sizeof(int32_t);
}

const struct reference_row reference_max_pool = {
    .run = {[PASS_INFER] = max_forward, [PASS_FORWARD] = max_forward, [PASS_BACKWARD_DATA] = max_backward},
    .workspace_bytes = max_workspace_bytes,
};

/* --- global average pooling: y(n,c) = sum_{h,w} x(n,c,h,w) / HW, dx(n,c,h,w) = dy(n,c) / HW --- */

static void average_forward(const struct kernel *kernel, void *const buffers[ARG_COUNT]) {
    struct view src = view_of(kernel, buffers, ARG_SRC), dst = view_of(kernel, buffers, ARG_DST);
    int64_t count = count_of(kernel, ARG_DST), plane = count_of(kernel, ARG_SRC) / count;
    for (int64_t k = 0; k < count; k++) {
        double sum = 0;
        for (int64_t at = 0; at < plane; at++)
            sum += view_get(src, k * plane + at);
        view_set(dst, k, sum / (double)plane);
    }
}

static void average_backward(const struct kernel *kernel, void *const buffers[ARG_COUNT]) {
    struct view diff_dst = view_of(kernel, buffers, ARG_DIFF_DST),
                diff_src = view_of(kernel, buffers, ARG_DIFF_SRC);
    int64_t count = count_of(kernel, ARG_DIFF_SRC), plane = count / count_of(kernel, ARG_DIFF_DST);
    for (int64_t k = 0; k < count; k++)
        view_set(diff_src, k, view_get(diff_dst, k / plane) / (double)plane);
}

const struct reference_row reference_global_average_pool = {
    .run = {[PASS_INFER] = average_forward,
            [PASS_FORWARD] = average_forward,
            [PASS_BACKWARD_DATA] = average_backward},
};
