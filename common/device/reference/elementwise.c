#include "common/device/reference/kernels.h"
#include "common/op/dropout.h"

/* --- activations: y = max(x, 0), y = min(max(x, 0), 6); dx = dy where 0 < y (< 6), else 0 --- */

double activation_apply(enum activation activation, double x) {
    if (activation == ACTIVATION_NONE)
        return x;
    /* Written so that a NaN stays one: it must reach the loss and be seen there. */
    double y = x < 0 ? 0 : x;
    return activation == ACTIVATION_RELU6 && y > 6 ? 6 : y;
}

bool activation_passes(enum activation activation, double x) {
    return activation == ACTIVATION_NONE || (x > 0 && (activation != ACTIVATION_RELU6 || x < 6));
}

static void activation_forward(const struct kernel *kernel, void *const buffers[ARG_COUNT]) {
    struct view src = view_of(kernel, buffers, ARG_SRC), dst = view_of(kernel, buffers, ARG_DST);
    for (int64_t k = 0; k < count_of(kernel, ARG_DST); k++)
        view_set(dst, k, activation_apply(kernel->op.activation, view_get(src, k)));
}

static void activation_backward(const struct kernel *kernel, void *const buffers[ARG_COUNT]) {
    struct view dst = view_of(kernel, buffers, ARG_DST), diff_dst = view_of(kernel, buffers, ARG_DIFF_DST);
    struct view diff_src = view_of(kernel, buffers, ARG_DIFF_SRC);
    for (int64_t k = 0; k < count_of(kernel, ARG_DIFF_SRC); k++) {
        bool passes = !dst.data || activation_passes(kernel->op.activation, view_get(dst, k));
        view_set(diff_src, k, passes ? view_get(diff_dst, k) : 0);
    }
}

const struct reference_row reference_activation = {
    .run = {[PASS_INFER] = activation_forward,
            [PASS_FORWARD] = activation_forward,
            [PASS_BACKWARD_DATA] = activation_backward},
};

/* --- add: y = activation(a + b); da = db = dy behind the activation --- */

static void add_forward(const struct kernel *kernel, void *const buffers[ARG_COUNT]) {
    struct view a = view_of(kernel, buffers, ARG_SRC), b = view_of(kernel, buffers, ARG_SRC2);
    struct view dst = view_of(kernel, buffers, ARG_DST);
    for (int64_t k = 0; k < count_of(kernel, ARG_DST); k++)
        view_set(dst, k, activation_apply(kernel->op.activation, view_get(a, k) + view_get(b, k)));
}

const struct reference_row reference_add = {
    .run = {[PASS_INFER] = add_forward,
            [PASS_FORWARD] = add_forward,
            [PASS_BACKWARD_DATA] = activation_backward},
};

/* --- dropout: y = x / (1 - rate) where kept, else 0; the same map takes dy to dx; inference: y = x --- */

static void dropout_map(const struct kernel *kernel, void *const buffers[ARG_COUNT], enum arg from,
                        enum arg to) {
    struct view src = view_of(kernel, buffers, from), dst = view_of(kernel, buffers, to);
    const struct dropout *dropout = &kernel->op.dropout;
    const int64_t *seed = buffers[ARG_SEED];
    int64_t count = count_of(kernel, to), features = count / dims_of(kernel, to)[0];
    for (int64_t k = 0; k < count; k++) {
        bool kept = dropout_keeps(seed, dropout->salt, dropout->rate, features, k);
        view_set(dst, k, kept ? view_get(src, k) / (1 - (double)dropout->rate) : 0);
    }
}

static void dropout_forward(const struct kernel *kernel, void *const buffers[ARG_COUNT]) {
    dropout_map(kernel, buffers, ARG_SRC, ARG_DST);
}

static void dropout_backward(const struct kernel *kernel, void *const buffers[ARG_COUNT]) {
    dropout_map(kernel, buffers, ARG_DIFF_DST, ARG_DIFF_SRC);
}

static void dropout_infer(const struct kernel *kernel, void *const buffers[ARG_COUNT]) {
    struct view src = view_of(kernel, buffers, ARG_SRC), dst = view_of(kernel, buffers, ARG_DST);
    for (int64_t k = 0; k < count_of(kernel, ARG_DST); k++)
        view_set(dst, k, view_get(src, k));
}

const struct reference_row reference_dropout = {
    .run = {[PASS_INFER] = dropout_infer,
            [PASS_FORWARD] = dropout_forward,
            [PASS_BACKWARD_DATA] = dropout_backward},
};
