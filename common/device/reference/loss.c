#include "common/device/reference/kernels.h"

#include <math.h>

/*
 * log p_k = x_k - max - log sum_j exp(x_j - max)
 * loss = 1/N sum_n sum_k t_k (-log p_k),  t_k = (1 - s) w(y) [k = y] + s/K w(k); t = 0 where the label y is
 * out of range dx_k = 1/N (p_k sum_j t_j - t_k)
 */

/* log sum_j exp(x_j) of a row. */
static double log_sum_exp(struct view src, int64_t row, int64_t classes) {
    double most = -INFINITY, sum = 0;
    for (int64_t k = 0; k < classes; k++)
        most = fmax(most, view_get(src, row * classes + k));
    for (int64_t k = 0; k < classes; k++)
        sum += exp(view_get(src, row * classes + k) - most);
    return most + log(sum);
}

/* What a row's label asks for: t_k above. */
struct target {
    struct view class_weight;
    double smoothing;
    int64_t label, classes;
};

static struct target target_of(const struct kernel *kernel, void *const buffers[ARG_COUNT], int64_t row) {
    return (struct target){.class_weight = view_of(kernel, buffers, ARG_CLASS_WEIGHT),
                           .smoothing = (double)kernel->op.softmax_cross_entropy.label_smoothing,
                           .label = ((const int32_t *)buffers[ARG_LABEL])[row],
                           .classes = dims_of(kernel, ARG_CLASS_WEIGHT)[0]};
}

static double target_at(const struct target *t, int64_t k) {
    if (t->label < 0 || t->label >= t->classes)
        return 0;
    double hard = k == t->label ? (1 - t->smoothing) : 0;
    return (hard + t->smoothing / (double)t->classes) * view_get(t->class_weight, k);
}

static void infer(const struct kernel *kernel, void *const buffers[ARG_COUNT]) {
    struct view src = view_of(kernel, buffers, ARG_SRC), dst = view_of(kernel, buffers, ARG_DST);
    int64_t rows = dims_of(kernel, ARG_DST)[0], classes = dims_of(kernel, ARG_DST)[1];
    for (int64_t n = 0; n < rows; n++) {
        double total = log_sum_exp(src, n, classes);
        for (int64_t k = 0; k < classes; k++)
            view_set(dst, n * classes + k, exp(view_get(src, n * classes + k) - total));
    }
}

static void forward(const struct kernel *kernel, void *const buffers[ARG_COUNT]) {
    struct view src = view_of(kernel, buffers, ARG_SRC);
    int64_t rows = dims_of(kernel, ARG_SRC)[0], classes = dims_of(kernel, ARG_SRC)[1];
    double loss = 0;
    for (int64_t n = 0; n < rows; n++) {
        struct target target = target_of(kernel, buffers, n);
        double total = log_sum_exp(src, n, classes);
        for (int64_t k = 0; k < classes; k++)
            loss += target_at(&target, k) * (total - view_get(src, n * classes + k));
    }
    view_set(view_of(kernel, buffers, ARG_LOSS), 0, loss / (double)rows);
    infer(kernel, buffers); /* last: dst may overlay src */
}

static void backward(const struct kernel *kernel, void *const buffers[ARG_COUNT]) {
    struct view dst = view_of(kernel, buffers, ARG_DST), diff_src = view_of(kernel, buffers, ARG_DIFF_SRC);
    int64_t rows = dims_of(kernel, ARG_DST)[0], classes = dims_of(kernel, ARG_DST)[1];
    for (int64_t n = 0; n < rows; n++) {
        struct target target = target_of(kernel, buffers, n);
        double sum = 0;
        for (int64_t k = 0; k < classes; k++)
            sum += target_at(&target, k);
        for (int64_t k = 0; k < classes; k++) {
            double gradient = view_get(dst, n * classes + k) * sum - target_at(&target, k);
            view_set(diff_src, n * classes + k, gradient / (double)rows);
        }
    }
}

const struct reference_row reference_softmax_cross_entropy = {
    .run = {[PASS_INFER] = infer, [PASS_FORWARD] = forward, [PASS_BACKWARD_DATA] = backward},
};
