#pragma once
#include "common/device/cuda/kernels_norm_body.h"

/** As kernels_body.h: the loss and the optimisers. */

/* --- loss --- */

/** What a row's label asks of class c: t_c in op.h's formula; 0 where the label is out of range. */
struct target {
    const int32_t *label;      /* (rows) */
    const float *class_weight; /* (classes) */
    int64_t classes;
    float smoothing;
};

static inline double target_at(const struct target *t, int64_t row, int64_t c) {
    int32_t label = t->label[row];
    if (label < 0 || label >= t->classes)
        return 0;
    double hard = c == label ? 1 - (double)t->smoothing : 0;
    return (hard + (double)t->smoothing / (double)t->classes) * (double)t->class_weight[c];
}

/** Probabilities of a row, and its loss before the division by the rows. dst may be src; an element is a row.
 */
struct softmax_loss {
    const float *src;
    float *dst;
    double *losses; /* (rows), or NULL: probabilities only, `target` is not looked at but for its classes */
    struct target target;
};

static inline void softmax_loss_element(const struct softmax_loss *k, int64_t row) {
    const float *x = k->src + row * k->target.classes;
    double most = (double)x[0], sum = 0, loss = 0;
    for (int64_t c = 1; c < k->target.classes; c++)
        most = (double)x[c] > most ? (double)x[c] : most;
    for (int64_t c = 0; c < k->target.classes; c++)
        sum += exp((double)x[c] - most);
    double total = most + log(sum);
    for (int64_t c = 0; c < k->target.classes && k->losses; c++)
        loss += target_at(&k->target, row, c) * (total - (double)x[c]);
    for (int64_t c = 0; c < k->target.classes; c++)
        k->dst[row * k->target.classes + c] = (float)exp((double)x[c] - total);
    if (k->losses)
        k->losses[row] = loss;
}

/** One element: the mean of all rows. */
struct finish_loss {
    const double *losses;
    float *loss;
    int64_t rows;
};

static inline void finish_loss_element(const struct finish_loss *k, int64_t i) {
    double sum = 0;
    for (int64_t row = 0; row < k->rows; row++)
        sum += k->losses[row];
    k->loss[i] = (float)(sum / (double)k->rows);
}

/** An element is a row; diff_src may be the probabilities. */
struct softmax_gradient {
    const float *probabilities;
    float *diff_src;
    int64_t rows;
    struct target target;
};

static inline void softmax_gradient_element(const struct softmax_gradient *k, int64_t row) {
    double sum = 0;
    for (int64_t c = 0; c < k->target.classes; c++)
        sum += target_at(&k->target, row, c);
    for (int64_t c = 0; c < k->target.classes; c++) {
        int64_t at = row * k->target.classes + c;
        double gradient = (double)k->probabilities[at] * sum - target_at(&k->target, row, c);
        k->diff_src[at] = (float)(gradient / (double)k->rows);
    }
}

/* --- optimisers --- */

/** sums(i) = the squares of the finite values of slice i, and the count of the others; count: a multiple of LANES. */
struct sum_squares {
    const float *gradient;
    struct pair *sums; /* (slices) */
    int64_t count, slices;
};

static inline void sum_squares_element(const struct sum_squares *k, int64_t i) {
    struct pair sum = {0, 0};
    for (int64_t at = i * LANES; at < k->count; at += k->slices * LANES) {
        struct lanes g = load_lanes(k->gradient, DTYPE_F32, at, LANES);
        for (int l = 0; l < LANES; l++) {
            bool finite = isfinite(g.v[l]);
            sum.a += finite ? (double)g.v[l] * (double)g.v[l] : 0;
            sum.b += finite ? 0 : 1;
        }
    }
    k->sums[i] = sum;
}

/** The flat buffers of SGD and AdamW; state2 and ema may be NULL. */
struct flat_buffers {
    float *parameter, *state, *state2, *ema;
    const float *gradient, *decay; /* decay: one value to OPTIMIZER_BLOCK elements */
    const float *hyper;            /* (HYPER_COUNT) */
    const struct pair *norm;       /* sum of squares, count of non-finite values */
};

/** What every gradient is multiplied by: its scale, and the shortening to the clip norm. */
static inline float gradient_factor(const struct flat_buffers *f) {
    double scale = (double)f->hyper[HYPER_GRADIENT_SCALE], clip = (double)f->hyper[HYPER_CLIP_NORM];
    double shrink = clip / (sqrt(f->norm->a) * fabs(scale) + 1e-6);
    return (float)(clip > 0 && shrink < 1 ? scale * shrink : scale);
}

static inline float decay_at(const struct flat_buffers *f, int64_t i) {
    return f->hyper[HYPER_WEIGHT_DECAY] * f->decay[i / OPTIMIZER_BLOCK];
}

/** Stores the parameter's new value and moves its average after it. */
static inline void store_parameter(const struct flat_buffers *f, int64_t i, float p) {
    float d = f->hyper[HYPER_EMA_DECAY];
    f->parameter[i] = p;
    if (f->ema)
        f->ema[i] = d * f->ema[i] + (1 - d) * p;
}

struct sgd {
    struct flat_buffers flat;
};

static inline void sgd_element(const struct sgd *k, int64_t i) {
    const struct flat_buffers *f = &k->flat;
    if (f->norm->b != 0)
        return;
    float g = f->gradient[i] * gradient_factor(f) + decay_at(f, i) * f->parameter[i];
    f->state[i] = f->hyper[HYPER_MOMENTUM] * f->state[i] + g;
    store_parameter(f, i, f->parameter[i] - f->hyper[HYPER_LEARNING_RATE] * f->state[i]);
}

struct adamw {
    struct flat_buffers flat;
};

static inline void adamw_element(const struct adamw *k, int64_t i) {
    const struct flat_buffers *f = &k->flat;
    const float *h = f->hyper;
    if (f->norm->b != 0)
        return;
    float g = f->gradient[i] * gradient_factor(f);
    float p = f->parameter[i] * (1 - h[HYPER_LEARNING_RATE] * decay_at(f, i));
    float m = f->state[i] = h[HYPER_BETA1] * f->state[i] + (1 - h[HYPER_BETA1]) * g;
    float v = f->state2[i] = h[HYPER_BETA2] * f->state2[i] + (1 - h[HYPER_BETA2]) * g * g;
    float step = m / h[HYPER_BIAS1] / (sqrtf(v / h[HYPER_BIAS2]) + h[HYPER_EPSILON]);
    store_parameter(f, i, p - h[HYPER_LEARNING_RATE] * step);
}
