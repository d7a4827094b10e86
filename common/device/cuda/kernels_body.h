#pragma once
#include "common/op/dropout.h"
#include "common/op/op.h"

#include <math.h>
#include <string.h>

/**
 * What each of our kernels does for one element, in plain C: kernels.cu runs these functions on the GPU, one
 * thread to an element, and a test double can run the same text on a CPU. A kernel NAME is `struct NAME` (its
 * arguments, pointers into device memory) and NAME_element(arguments, i) for i in [0, count).
 *
 * No element reads what another one of the same launch writes, there is no shared memory, no barrier and no
 * atomic: sums are made of slices, whose partial sums (in double) a second launch folds in a fixed order. So
 * every result is bitwise the same from run to run. Tensors are canonical (NCHW) f32 unless a comment says
 * otherwise. The formulas are the reference device's.
 */

/* --- activations --- */

/** Written so that a NaN stays one: it must reach the loss and be seen there. */
static inline float activated(enum activation activation, float x) {
    if (activation == ACTIVATION_NONE)
        return x;
    float y = x < 0 ? 0 : x;
    return activation == ACTIVATION_RELU6 && y > 6 ? 6 : y;
}

/** Whether the gradient passes, told from the activation's input or output alike. */
static inline bool passes(enum activation activation, float x) {
    return activation == ACTIVATION_NONE || (x > 0 && (activation != ACTIVATION_RELU6 || x < 6));
}

/** dst = activation(a + b); b NULL: activation(a). dst may be a. */
struct pointwise {
    const float *a, *b;
    float *dst;
    enum activation activation;
};

static inline void pointwise_element(const struct pointwise *k, int64_t i) {
    k->dst[i] = activated(k->activation, k->b ? k->a[i] + k->b[i] : k->a[i]);
}

/** diff_src = diff_dst where the activation whose output is dst lets it pass, else 0; dst NULL: everywhere.
 */
struct gate {
    const float *dst, *diff_dst;
    float *diff_src;
    enum activation activation;
};

static inline void gate_element(const struct gate *k, int64_t i) {
    k->diff_src[i] = !k->dst || passes(k->activation, k->dst[i]) ? k->diff_dst[i] : 0;
}

/** Dropout forward and backward alike; `features` elements to a sample. */
struct drop {
    const float *src;
    float *dst;
    const int64_t *seed; /* (3) */
    int64_t features;
    struct dropout dropout;
};

static inline void drop_element(const struct drop *k, int64_t i) {
    bool kept = dropout_keeps(k->seed, k->dropout.salt, k->dropout.rate, k->features, i);
    k->dst[i] = kept ? k->src[i] / (1 - k->dropout.rate) : 0;
}

/* --- copies --- */

/** bf16 is the upper half of an f32. */
static inline float bf16_decode(uint16_t bits) {
    uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, sizeof value);
    return value;
}

/** Rounds to nearest, ties to even; a NaN stays a (quiet) NaN. */
static inline uint16_t bf16_encode(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if (value != value)
        return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

/** dst = src in another dtype: f32 and bf16, either way. */
struct cast {
    const void *src;
    void *dst;
    enum dtype from, to;
};

static inline void cast_element(const struct cast *k, int64_t i) {
    float x = k->from == DTYPE_BF16 ? bf16_decode(((const uint16_t *)k->src)[i]) : ((const float *)k->src)[i];
    if (k->to == DTYPE_BF16)
        ((uint16_t *)k->dst)[i] = bf16_encode(x);
    else
        ((float *)k->dst)[i] = x;
}

/**
 * Places planes of one size in planes of another, `down` and `right` of the corner, zeros around: padding, or
 * with negative numbers cutting out. An element is one of dst's.
 */
struct shift_planes {
    const float *src;
    float *dst;
    int64_t src_size[2], dst_size[2]; /* height, width */
    int64_t down, right;
};

static inline void shift_planes_element(const struct shift_planes *k, int64_t i) {
    int64_t x = i % k->dst_size[1] - k->right, y = i / k->dst_size[1] % k->dst_size[0] - k->down;
    int64_t plane = i / (k->dst_size[0] * k->dst_size[1]);
    bool inside = x >= 0 && x < k->src_size[1] && y >= 0 && y < k->src_size[0];
    k->dst[i] = inside ? k->src[(plane * k->src_size[0] + y) * k->src_size[1] + x] : 0;
}

/* --- what follows a convolution or a matrix product --- */

/** dst = activation(dst + bias + residual), in place; bias (channels) and residual may be NULL. */
struct epilogue {
    const float *bias, *residual;
    float *dst;
    int64_t channels, plane;
    enum activation activation;
};

static inline void epilogue_element(const struct epilogue *k, int64_t i) {
    float y = k->dst[i];
    if (k->bias)
        y += k->bias[i / k->plane % k->channels];
    if (k->residual)
        y += k->residual[i];
    k->dst[i] = activated(k->activation, y);
}

/** sum(c) = sum of a (batch, channels, plane) tensor over batch and plane: the gradient of a bias. */
struct channel_sum {
    const float *src;
    float *sum; /* (channels) */
    int64_t batch, channels, plane;
};

static inline void channel_sum_element(const struct channel_sum *k, int64_t c) {
    double sum = 0;
    for (int64_t n = 0; n < k->batch; n++)
        for (int64_t p = 0; p < k->plane; p++)
            sum += (double)k->src[(n * k->channels + c) * k->plane + p];
    k->sum[c] = (float)sum;
}

/* --- sums in slices --- */

/** A pair of partial sums. */
struct pair {
    double a, b;
};

/** to(j) = the sum of from(j), from(j + to_count), from(j + 2 to_count), ... An element is one of `to`. */
struct fold_pairs {
    const struct pair *from;
    struct pair *to;
    int64_t from_count, to_count;
};

static inline void fold_pairs_element(const struct fold_pairs *k, int64_t j) {
    struct pair sum = {0, 0};
    for (int64_t i = j; i < k->from_count; i += k->to_count) {
        sum.a += k->from[i].a;
        sum.b += k->from[i].b;
    }
    k->to[j] = sum;
}

/* --- batch norm --- */

/** The channels of an (N, C, H, W) tensor, each cut into `slices` for the sums. */
struct channels {
    int64_t batch, count, plane;
    int64_t slices;
};

/** The position in the tensor of channel c's k-th element. */
static inline int64_t channel_at(const struct channels *s, int64_t c, int64_t k) {
    return (k / s->plane * s->count + c) * s->plane + k % s->plane;
}

/** The pairs of element i = c * slices + slice lie as fold_pairs with to_count = channels wants them. */
static inline int64_t slice_at(const struct channels *s, int64_t i) {
    return i % s->slices * s->count + i / s->slices;
}

/** Sums and sums of squares; an element is one slice of one channel. */
struct channel_moments {
    struct channels shape;
    const float *src;
    struct pair *sums; /* (slices, channels) */
};

static inline void channel_moments_element(const struct channel_moments *k, int64_t i) {
    const struct channels *s = &k->shape;
    struct pair sum = {0, 0};
    for (int64_t at = i % s->slices; at < s->batch * s->plane; at += s->slices) {
        double x = (double)k->src[channel_at(s, i / s->slices, at)];
        sum.a += x;
        sum.b += x * x;
    }
    k->sums[slice_at(s, i)] = sum;
}

/** What a batch norm sums, of this rank and as ARG_SUMS has it: n, then a pair of sums a channel. */
struct publish_sums {
    const struct pair *sums; /* (channels); backward, those of norm_gradient_sums */
    double *all;             /* (3, channels) */
    int64_t channels;
    double count;          /* elements of a channel */
    const float *variance; /* (channels), backward: the second sum is wanted of g (x - mean), not of g xhat */
    float epsilon;
};

static inline void publish_sums_element(const struct publish_sums *k, int64_t c) {
    double inverse = k->variance ? (double)(1 / sqrtf(k->variance[c] + k->epsilon)) : 1;
    k->all[c] = k->count;
    k->all[k->channels + c] = k->sums[c].a;
    k->all[2 * k->channels + c] = k->sums[c].b / inverse;
}

/** Mean, biased variance and the running statistics of a channel, from its folded moments or those of all ranks. */
struct finish_moments {
    const struct pair *sums;                                  /* (channels), or NULL: */
    const double *all;                                        /* (3, channels), ARG_SUMS */
    float *mean, *variance, *running_mean, *running_variance; /* (channels) each */
    int64_t channels;
    double count; /* elements of a channel, where the sums are this rank's */
    float momentum;
};

static inline void finish_moments_element(const struct finish_moments *k, int64_t c) {
    double n = k->all ? k->all[c] : k->count, momentum = (double)k->momentum;
    double mean = (k->all ? k->all[k->channels + c] : k->sums[c].a) / n;
    double variance = (k->all ? k->all[2 * k->channels + c] : k->sums[c].b) / n - mean * mean;
    variance = variance < 0 ? 0 : variance;
    double unbiased = n > 1 ? variance * n / (n - 1) : variance;
    k->mean[c] = (float)mean;
    k->variance[c] = (float)variance;
    k->running_mean[c] = (float)((1 - momentum) * (double)k->running_mean[c] + momentum * mean);
    k->running_variance[c] = (float)((1 - momentum) * (double)k->running_variance[c] + momentum * unbiased);
}

/** dst = activation(scale (src - mean) / sqrt(variance + epsilon) + shift + residual); mask: what passes. */
struct normalise {
    struct channels shape;
    const float *src, *residual; /* residual may be NULL */
    const float *scale, *shift, *mean, *variance;
    float *dst;
    unsigned char *mask; /* one byte an element, or NULL */
    float epsilon;
    enum activation activation;
};

static inline void normalise_element(const struct normalise *k, int64_t i) {
    int64_t c = i / k->shape.plane % k->shape.count;
    float y = k->scale[c] / sqrtf(k->variance[c] + k->epsilon) * (k->src[i] - k->mean[c]) + k->shift[c];
    if (k->residual)
        y += k->residual[i];
    if (k->mask)
        k->mask[i] = passes(k->activation, y);
    k->dst[i] = activated(k->activation, y);
}

/** What both halves of the backward pass read. g = diff_dst where the mask (or NULL) lets it pass, else 0. */
struct norm_backward {
    struct channels shape;
    const float *src, *diff_dst, *scale, *mean, *variance;
    const unsigned char *mask;
    float epsilon;
};

static inline float norm_incoming(const struct norm_backward *b, int64_t at) {
    return b->mask && !b->mask[at] ? 0 : b->diff_dst[at];
}

static inline float norm_inverse_deviation(const struct norm_backward *b, int64_t c) {
    return 1 / sqrtf(b->variance[c] + b->epsilon);
}

/** Sums of g and of g xhat; an element is one slice of one channel. */
struct norm_gradient_sums {
    struct norm_backward in;
    struct pair *sums; /* (slices, channels) */
};

static inline void norm_gradient_sums_element(const struct norm_gradient_sums *k, int64_t i) {
    const struct channels *s = &k->in.shape;
    int64_t c = i / s->slices;
    double inverse = (double)norm_inverse_deviation(&k->in, c);
    struct pair sum = {0, 0};
    for (int64_t n = i % s->slices; n < s->batch * s->plane; n += s->slices) {
        int64_t at = channel_at(s, c, n);
        double g = (double)norm_incoming(&k->in, at);
        sum.a += g;
        sum.b += g * ((double)k->in.src[at] - (double)k->in.mean[c]) * inverse;
    }
    k->sums[slice_at(s, i)] = sum;
}

/** An element is a channel. */
struct finish_norm_gradient {
    const struct pair *sums;        /* (channels) */
    float *diff_shift, *diff_scale; /* (channels) */
};

static inline void finish_norm_gradient_element(const struct finish_norm_gradient *k, int64_t c) {
    k->diff_shift[c] = (float)k->sums[c].a;
    k->diff_scale[c] = (float)k->sums[c].b;
}

/**
 * diff_src = scale / deviation (g - through (sum g + xhat sum g xhat)), diff_residual = g; the sums are diff_shift and
 * diff_scale, and `through` is 1 / count, or 0 where the statistics are frozen; or all that is of all ranks, in `all`.
 * Either output may be diff_dst.
 */
struct norm_gradient {
    struct norm_backward in;
    const float *diff_shift, *diff_scale; /* (channels), or NULL: */
    const double *all;                    /* (3, channels), ARG_SUMS */
    float *diff_src, *diff_residual;      /* diff_residual may be NULL */
    float through;
};

static inline void norm_gradient_element(const struct norm_gradient *k, int64_t i) {
    int64_t channels = k->in.shape.count, c = i / k->in.shape.plane % channels;
    float inverse = norm_inverse_deviation(&k->in, c), g = norm_incoming(&k->in, i);
    float sum = k->all ? (float)k->all[channels + c] : k->diff_shift[c];
    float product = k->all ? (float)k->all[2 * channels + c] * inverse : k->diff_scale[c];
    float through = k->all ? (float)(1 / k->all[c]) : k->through;
    float normalised = (k->in.src[i] - k->in.mean[c]) * inverse;
    k->diff_src[i] = k->in.scale[c] * inverse * (g - (sum + normalised * product) * through);
    if (k->diff_residual)
        k->diff_residual[i] = g;
}

/* --- pooling --- */

/** The largest under each window, and its position in its plane; the first of equals, a NaN before all. */
struct max_pool {
    const float *src;
    float *dst;
    int32_t *winners; /* like dst, or NULL */
    int64_t src_size[2], dst_size[2];
    struct window window;
};

static inline bool max_pool_takes(const float *plane, int32_t best, int64_t at) {
    return best < 0 || plane[at] > plane[best] || (isnan(plane[at]) && !isnan(plane[best]));
}

static inline void max_pool_element(const struct max_pool *k, int64_t i) {
    const struct window *w = &k->window;
    int64_t q = i % k->dst_size[1], p = i / k->dst_size[1] % k->dst_size[0];
    const float *plane = k->src + i / (k->dst_size[0] * k->dst_size[1]) * (k->src_size[0] * k->src_size[1]);
    int32_t best = -1;
    for (int a = 0; a < w->kernel[0]; a++)
        for (int b = 0; b < w->kernel[1]; b++) {
            int64_t y = p * w->stride[0] + a - w->pad_before[0], x = q * w->stride[1] + b - w->pad_before[1];
            bool inside = y >= 0 && y < k->src_size[0] && x >= 0 && x < k->src_size[1];
            if (inside && max_pool_takes(plane, best, y * k->src_size[1] + x))
                best = (int32_t)(y * k->src_size[1] + x);
        }
    k->dst[i] = plane[best];
    if (k->winners)
        k->winners[i] = best;
}

/** diff_src = the sum of diff_dst over the windows that the element won. An element is one of diff_src. */
struct max_pool_gradient {
    const float *diff_dst;
    const int32_t *winners;
    float *diff_src;
    int64_t src_size[2], dst_size[2];
    struct window window;
};

/** The window whose tap lies at `at` along an axis; -1 where there is none. */
static inline int64_t max_pool_window(const struct max_pool_gradient *k, int axis, int64_t at, int tap) {
    int64_t offset = at + k->window.pad_before[axis] - tap, p = offset / k->window.stride[axis];
    return offset >= 0 && offset % k->window.stride[axis] == 0 && p < k->dst_size[axis] ? p : -1;
}

static inline void max_pool_gradient_element(const struct max_pool_gradient *k, int64_t i) {
    int64_t x = i % k->src_size[1], y = i / k->src_size[1] % k->src_size[0];
    int64_t plane = i / (k->src_size[0] * k->src_size[1]);
    double sum = 0;
    for (int a = 0; a < k->window.kernel[0]; a++)
        for (int b = 0; b < k->window.kernel[1]; b++) {
            int64_t p = max_pool_window(k, 0, y, a), q = max_pool_window(k, 1, x, b);
            int64_t at = (plane * k->dst_size[0] + p) * k->dst_size[1] + q;
            if (p >= 0 && q >= 0 && k->winners[at] == y * k->src_size[1] + x)
                sum += (double)k->diff_dst[at];
        }
    k->diff_src[i] = (float)sum;
}

/** An element is a plane. */
struct plane_average {
    const float *src;
    float *dst;
    int64_t plane;
};

static inline void plane_average_element(const struct plane_average *k, int64_t i) {
    double sum = 0;
    for (int64_t at = 0; at < k->plane; at++)
        sum += (double)k->src[i * k->plane + at];
    k->dst[i] = (float)(sum / (double)k->plane);
}

struct plane_spread {
    const float *diff_dst;
    float *diff_src;
    int64_t plane;
};

static inline void plane_spread_element(const struct plane_spread *k, int64_t i) {
    k->diff_src[i] = k->diff_dst[i / k->plane] / (float)k->plane;
}
