#include "common/device/reference/kernels.h"

#include <math.h>

/* --- gradient norm --- */

static void gradient_norm(const struct kernel *kernel, void *const buffers[ARG_COUNT]) {
    struct view gradient = view_of(kernel, buffers, ARG_GRADIENT), norm = view_of(kernel, buffers, ARG_NORM);
    double squares = 0, bad = 0;
    for (int64_t k = 0; k < count_of(kernel, ARG_GRADIENT); k++) {
        double g = view_get(gradient, k);
        if (isfinite(g))
            squares += g * g;
        else
            bad++;
    }
    view_set(norm, 0, squares);
    view_set(norm, 1, bad);
}

const struct reference_row reference_gradient_norm = {.run = {[PASS_FORWARD] = gradient_norm}};

/* --- what both optimisers do around their step --- */

static double hyper_of(const struct kernel *kernel, void *const buffers[ARG_COUNT], enum hyper hyper) {
    return view_get(view_of(kernel, buffers, ARG_HYPER), hyper);
}

/* What every gradient is multiplied by: its scale, and the shortening to the clip norm. */
static double gradient_factor(const struct kernel *kernel, void *const buffers[ARG_COUNT]) {
    double scale = hyper_of(kernel, buffers, HYPER_GRADIENT_SCALE),
           clip = hyper_of(kernel, buffers, HYPER_CLIP_NORM);
    double norm = sqrt(view_get(view_of(kernel, buffers, ARG_NORM), 0)) * fabs(scale);
    double shrink = clip / (norm + 1e-6);
    return clip > 0 && shrink < 1 ? scale * shrink : scale;
}

static bool gradients_are_finite(const struct kernel *kernel, void *const buffers[ARG_COUNT]) {
    return view_get(view_of(kernel, buffers, ARG_NORM), 1) == 0;
}

/* The weight decay of element k. */
static double decay_at(const struct kernel *kernel, void *const buffers[ARG_COUNT], int64_t k) {
    return hyper_of(kernel, buffers, HYPER_WEIGHT_DECAY) *
           view_get(view_of(kernel, buffers, ARG_DECAY), k / OPTIMIZER_BLOCK);
}

/* Stores the parameter's new value p, and moves its average e after it: e = d e + (1 - d) p. */
static void store_parameter(const struct kernel *kernel, void *const buffers[ARG_COUNT], int64_t k,
                            double p) {
    struct view ema = view_of(kernel, buffers, ARG_EMA);
    view_set(view_of(kernel, buffers, ARG_PARAMETER), k, p);
    if (ema.data) {
        double d = hyper_of(kernel, buffers, HYPER_EMA_DECAY);
        view_set(ema, k, d * view_get(ema, k) + (1 - d) * p);
    }
}

/* --- SGD with momentum, as PyTorch's: g += decay p; m = momentum m + g; p -= rate m --- */

static void sgd(const struct kernel *kernel, void *const buffers[ARG_COUNT]) {
    struct view parameter = view_of(kernel, buffers, ARG_PARAMETER),
                gradient = view_of(kernel, buffers, ARG_GRADIENT);
    struct view state = view_of(kernel, buffers, ARG_STATE);
    double rate = hyper_of(kernel, buffers, HYPER_LEARNING_RATE),
           momentum = hyper_of(kernel, buffers, HYPER_MOMENTUM);
    double factor = gradient_factor(kernel, buffers);
    if (!gradients_are_finite(kernel, buffers))
        return;
    for (int64_t k = 0; k < count_of(kernel, ARG_PARAMETER); k++) {
        double p = view_get(parameter, k);
        double g = view_get(gradient, k) * factor + decay_at(kernel, buffers, k) * p;
        double m = momentum * view_get(state, k) + g;
        view_set(state, k, m);
        store_parameter(kernel, buffers, k, p - rate * m);
    }
}

const struct reference_row reference_sgd = {.run = {[PASS_FORWARD] = sgd}};

/*
 * --- AdamW (Loshchilov & Hutter 2019), as PyTorch's ---
 * p *= 1 - rate decay; m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2; p -= rate (m / c1) / (sqrt(v / c2) +
 * epsilon), c1 = 1 - b1^t, c2 = 1 - b2^t.
 */
static void adamw(const struct kernel *kernel, void *const buffers[ARG_COUNT]) {
    struct view parameter = view_of(kernel, buffers, ARG_PARAMETER),
                gradient = view_of(kernel, buffers, ARG_GRADIENT);
    struct view first = view_of(kernel, buffers, ARG_STATE), second = view_of(kernel, buffers, ARG_STATE2);
    double rate = hyper_of(kernel, buffers, HYPER_LEARNING_RATE),
           epsilon = hyper_of(kernel, buffers, HYPER_EPSILON);
    double beta1 = hyper_of(kernel, buffers, HYPER_BETA1), beta2 = hyper_of(kernel, buffers, HYPER_BETA2);
    double bias1 = hyper_of(kernel, buffers, HYPER_BIAS1), bias2 = hyper_of(kernel, buffers, HYPER_BIAS2);
    double factor = gradient_factor(kernel, buffers);
    if (!gradients_are_finite(kernel, buffers))
        return;
    for (int64_t k = 0; k < count_of(kernel, ARG_PARAMETER); k++) {
        double g = view_get(gradient, k) * factor;
        double p = view_get(parameter, k) * (1 - rate * decay_at(kernel, buffers, k));
        double m = beta1 * view_get(first, k) + (1 - beta1) * g;
        double v = beta2 * view_get(second, k) + (1 - beta2) * g * g;
        view_set(first, k, m);
        view_set(second, k, v);
        store_parameter(kernel, buffers, k, p - rate * (m / bias1) / (sqrt(v / bias2) + epsilon));
    }
}

const struct reference_row reference_adamw = {.run = {[PASS_FORWARD] = adamw}};
