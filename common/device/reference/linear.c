#include "common/device/reference/kernels.h"

/* y(n,o) = b(o) + sum_f x(n,f) w(o,f); a source of rank 4 is (N, F) as it lies in memory. */

static void forward(const struct kernel *kernel, void *const buffers[ARG_COUNT]) {
    struct view src = view_of(kernel, buffers, ARG_SRC), weight = view_of(kernel, buffers, ARG_WEIGHT);
    struct view bias = view_of(kernel, buffers, ARG_BIAS), dst = view_of(kernel, buffers, ARG_DST);
    int64_t outputs = dims_of(kernel, ARG_WEIGHT)[0], features = dims_of(kernel, ARG_WEIGHT)[1];
    for (int64_t k = 0; k < count_of(kernel, ARG_DST); k++) {
        int64_t n = k / outputs, o = k % outputs;
        double sum = bias.data ? view_get(bias, o) : 0;
        for (int64_t f = 0; f < features; f++)
            sum += view_get(src, n * features + f) * view_get(weight, o * features + f);
        view_set(dst, k, sum);
    }
}

/* dx(n,f) = sum_o dy(n,o) w(o,f) */
static void backward_data(const struct kernel *kernel, void *const buffers[ARG_COUNT]) {
    struct view diff_dst = view_of(kernel, buffers, ARG_DIFF_DST),
                weight = view_of(kernel, buffers, ARG_WEIGHT);
    struct view diff_src = view_of(kernel, buffers, ARG_DIFF_SRC);
    int64_t outputs = dims_of(kernel, ARG_WEIGHT)[0], features = dims_of(kernel, ARG_WEIGHT)[1];
    for (int64_t k = 0; k < count_of(kernel, ARG_DIFF_SRC); k++) {
        int64_t n = k / features, f = k % features;
        double sum = 0;
        for (int64_t o = 0; o < outputs; o++)
            sum += view_get(diff_dst, n * outputs + o) * view_get(weight, o * features + f);
        view_set(diff_src, k, sum);
    }
}

/* dw(o,f) = sum_n dy(n,o) x(n,f), db(o) = sum_n dy(n,o) */
static void backward_weight(const struct kernel *kernel, void *const buffers[ARG_COUNT]) {
    struct view src = view_of(kernel, buffers, ARG_SRC), diff_dst = view_of(kernel, buffers, ARG_DIFF_DST);
    struct view diff_weight = view_of(kernel, buffers, ARG_DIFF_WEIGHT);
    struct view diff_bias = view_of(kernel, buffers, ARG_DIFF_BIAS);
    int64_t outputs = dims_of(kernel, ARG_DIFF_WEIGHT)[0], features = dims_of(kernel, ARG_DIFF_WEIGHT)[1];
    int64_t batch = dims_of(kernel, ARG_SRC)[0];
    for (int64_t k = 0; k < count_of(kernel, ARG_DIFF_WEIGHT); k++) {
        int64_t o = k / features, f = k % features;
        double sum = 0;
        for (int64_t n = 0; n < batch; n++)
            sum += view_get(diff_dst, n * outputs + o) * view_get(src, n * features + f);
        view_set(diff_weight, k, sum);
    }
    for (int64_t o = 0; diff_bias.data && o < outputs; o++) {
        double sum = 0;
        for (int64_t n = 0; n < batch; n++)
            sum += view_get(diff_dst, n * outputs + o);
        view_set(diff_bias, o, sum);
    }
}

const struct reference_row reference_linear = {
    .run = {[PASS_INFER] = forward,
            [PASS_FORWARD] = forward,
            [PASS_BACKWARD_DATA] = backward_data,
            [PASS_BACKWARD_WEIGHT] = backward_weight},
};
