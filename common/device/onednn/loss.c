#include "common/device/onednn/kernel.h"

#include <math.h>

/*
 * Softmax and cross-entropy: a few numbers per image, so plain loops in double.
 *   p_k = exp(x_k - max) / sum_j exp(x_j - max)
 *   loss = 1/N sum_n sum_k t_k (-log p_k),  t_k = (1 - s) w(y) [k = y] + s/K w(k)
 *   dx_k = 1/N (p_k sum_j t_j - t_k)
 * A label outside [0, K) asks for nothing: t = 0.
 */
struct target {
    const float *class_weight;
    double smoothing;
    int64_t label, classes;
};

static double target_at(const struct target *t, int64_t k) {
    if (t->label < 0 || t->label >= t->classes)
        return 0;
    double hard = k == t->label ? 1 - t->smoothing : 0;
    return (hard + t->smoothing / (double)t->classes) * (double)t->class_weight[k];
}

static struct target target_of(const struct onednn_kernel *kernel, void *const buffers[ARG_COUNT], int64_t row) {
    return (struct target){
        .class_weight = buffers[ARG_CLASS_WEIGHT],
        .smoothing = (double)kernel->base.op.softmax_cross_entropy.label_smoothing,
        .label = ((const int32_t *)buffers[ARG_LABEL])[row],
        .classes = kernel->base.args.desc[ARG_DST].shape.dims[1],
    };
}

/* log sum_j exp(x_j). */
static double log_sum_exp(const float *x, int64_t classes) {
    double most = -INFINITY, sum = 0;
    for (int64_t k = 0; k < classes; k++)
        most = fmax(most, (double)x[k]);
    for (int64_t k = 0; k < classes; k++)
        sum += exp((double)x[k] - most);
    return most + log(sum);
}

static bool loss_forward(struct onednn_kernel *kernel, void *const buffers[ARG_COUNT], struct error *err) {
    const int64_t *dims = kernel->base.args.desc[ARG_DST].shape.dims, classes = dims[1];
    const float *src = buffers[ARG_SRC];
    float *dst = buffers[ARG_DST];
    bool training = kernel->base.pass == PASS_FORWARD;
    double loss = 0;
    (void)err;
    for (int64_t n = 0; n < dims[0]; n++) {
        const float *x = src + n * classes;
        double total = log_sum_exp(x, classes);
        struct target target = training ? target_of(kernel, buffers, n) : (struct target){0};
        for (int64_t k = 0; k < classes; k++) {
            loss += training ? target_at(&target, k) * (total - (double)x[k]) : 0;
            dst[n * classes + k] = (float)exp((double)x[k] - total);
        }
    }
    if (training)
        *(float *)buffers[ARG_LOSS] = (float)(loss / (double)dims[0]);
    return true;
}

static bool loss_backward(struct onednn_kernel *kernel, void *const buffers[ARG_COUNT], struct error *err) {
    const int64_t *dims = kernel->base.args.desc[ARG_DST].shape.dims, classes = dims[1];
    const float *dst = buffers[ARG_DST];
    float *diff_src = buffers[ARG_DIFF_SRC];
    (void)err;
    for (int64_t n = 0; n < dims[0]; n++) {
        struct target target = target_of(kernel, buffers, n);
        double sum = 0;
        for (int64_t k = 0; k < classes; k++)
            sum += target_at(&target, k);
        for (int64_t k = n * classes; k < (n + 1) * classes; k++)
            diff_src[k] = (float)(((double)dst[k] * sum - target_at(&target, k - n * classes)) / (double)dims[0]);
    }
    return true;
}

static struct onednn_kernel *loss_prepare(struct onednn_device *device, const struct kernel_request *request,
                                          struct error *err) {
    struct onednn_kernel *kernel = kernel_create(device, request, sizeof *kernel, "loops:double", err);
    if (!kernel)
        return NULL;
    kernel_follow(kernel, NULL);
    kernel->run = request->pass == PASS_BACKWARD_DATA ? loss_backward : loss_forward;
    return kernel;
}

const struct onednn_kind onednn_loss = {.supports = kernel_precision_fits, .prepare = loss_prepare};
