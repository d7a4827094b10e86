#pragma once
#include "common/device/cuda/kernels_lanes.h"
#include "common/op/dropout.h"
#include "common/op/op.h"

#include <math.h>

/**
 * What each of our kernels does for one element, in plain C: kernels.cu runs these functions on the GPU, one thread to an
 * element, and a test double runs the same text on a CPU. A kernel NAME is `struct NAME` (its arguments, pointers into device
 * memory) and NAME_element(arguments, i) for i in [0, count).
 *
 * No element reads what another one of the same launch writes, there is no shared memory, no barrier and no atomic: sums are
 * made of slices, whose partial sums (in double) a second launch folds in a fixed order. So every result is bitwise the same
 * from run to run. `const void *` tensors are of the struct's dtype, computed with in f32; neighbouring elements take
 * neighbouring memory, whatever the layout. The formulas are the reference device's.
 *
 * Here: elementwise kernels, copies, pooling. Sums and batch norm, the loss and the optimisers are in headers of their own.
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

/** dst = activation(a + b); b NULL: activation(a). dst may be a or b. */
struct pointwise {
    const void *a, *b;
    void *dst;
    enum dtype dtype;
    enum activation activation;
    int width;
};

static inline void pointwise_lanes(const struct pointwise *k, int64_t at, int width) {
    struct lanes y = load_lanes(k->a, k->dtype, at, width);
    if (k->b) {
        struct lanes b = load_lanes(k->b, k->dtype, at, width);
        for (int l = 0; l < width; l++)
            y.v[l] += b.v[l];
    }
    for (int l = 0; l < width; l++)
        y.v[l] = activated(k->activation, y.v[l]);
    store_lanes(k->dst, k->dtype, at, width, &y);
}
DEFINE_LANES_ELEMENT(pointwise)

/** diff_src = diff_dst where the activation whose output is dst lets it pass, else 0; dst NULL: everywhere. */
struct gate {
    const void *dst, *diff_dst;
    void *diff_src;
    enum dtype dtype;
    enum activation activation;
    int width;
};

static inline void gate_lanes(const struct gate *k, int64_t at, int width) {
    struct lanes g = load_lanes(k->diff_dst, k->dtype, at, width);
    if (k->dst) {
        struct lanes y = load_lanes(k->dst, k->dtype, at, width);
        for (int l = 0; l < width; l++)
            g.v[l] = passes(k->activation, y.v[l]) ? g.v[l] : 0;
    }
    store_lanes(k->diff_src, k->dtype, at, width, &g);
}
DEFINE_LANES_ELEMENT(gate)

/** Dropout forward and backward alike; what is kept follows from an element's place in NCHW. */
struct drop {
    const void *src;
    void *dst;
    const int64_t *seed; /* (3) */
    struct images shape;
    struct dropout dropout;
    enum dtype dtype;
};

static inline void drop_element(const struct drop *k, int64_t i) {
    struct images canonical = k->shape;
    struct place p = place_of(&k->shape, i);
    canonical.last = false;
    int64_t features = k->shape.channels * k->shape.height * k->shape.width;
    int64_t index = index_of(&canonical, p.image, p.channel, p.y, p.x);
    bool kept = dropout_keeps(k->seed, k->dropout.salt, k->dropout.rate, features, index);
    store_one(k->dst, k->dtype, i, kept ? load_one(k->src, k->dtype, i) / (1 - k->dropout.rate) : 0);
}

/* --- copies --- */

/** dst = src in another dtype. */
struct cast {
    const void *src;
    void *dst;
    enum dtype from, to;
    int width;
};

static inline void cast_lanes(const struct cast *k, int64_t at, int width) {
    struct lanes x = load_lanes(k->src, k->from, at, width);
    store_lanes(k->dst, k->to, at, width, &x);
}
DEFINE_LANES_ELEMENT(cast)

/** dst = src in the other layout, and perhaps another dtype. `to`: dst's shape. An element is one of dst's. */
struct permute {
    const void *src;
    void *dst;
    enum dtype from_dtype, to_dtype;
    struct channels to;
};

static inline void permute_element(const struct permute *k, int64_t i) {
    const struct channels *s = &k->to;
    struct channels from = {s->batch, s->count, s->plane, !s->last};
    int64_t rest = i / s->count, c = channel_at(s, i);
    int64_t pixel = s->last ? rest : i / (s->plane * s->count) * s->plane + i % s->plane;
    store_one(k->dst, k->to_dtype, i, load_one(k->src, k->from_dtype, pixel_at(&from, c, pixel)));
}

/**
 * Places planes of one size in planes of another, `down` and `right` of the corner, zeros around: padding, or with negative
 * numbers cutting out. An element is one of dst's.
 */
struct shift_planes {
    const void *src;
    void *dst;
    struct images from, to;
    int64_t down, right;
    enum dtype dtype;
};

static inline void shift_planes_element(const struct shift_planes *k, int64_t i) {
    struct place p = place_of(&k->to, i);
    int64_t y = p.y - k->down, x = p.x - k->right;
    bool inside = x >= 0 && x < k->from.width && y >= 0 && y < k->from.height;
    int64_t at = inside ? index_of(&k->from, p.image, p.channel, y, x) : 0;
    store_one(k->dst, k->dtype, i, inside ? load_one(k->src, k->dtype, at) : 0);
}

/* --- what follows a convolution or a matrix product --- */

/** dst = activation(dst + bias + residual), in place; bias (channels) and residual may be NULL. */
struct epilogue {
    const float *bias;
    const void *residual;
    void *dst;
    struct channels shape;
    enum dtype dtype;
    enum activation activation;
    int width;
};

static inline void epilogue_lanes(const struct epilogue *k, int64_t at, int width) {
    struct lanes y = load_lanes(k->dst, k->dtype, at, width);
    if (k->bias) {
        struct lanes b = load_channels(k->bias, &k->shape, channel_at(&k->shape, at), width);
        for (int l = 0; l < width; l++)
            y.v[l] += b.v[l];
    }
    if (k->residual) {
        struct lanes r = load_lanes(k->residual, k->dtype, at, width);
        for (int l = 0; l < width; l++)
            y.v[l] += r.v[l];
    }
    for (int l = 0; l < width; l++)
        y.v[l] = activated(k->activation, y.v[l]);
    store_lanes(k->dst, k->dtype, at, width, &y);
}
DEFINE_LANES_ELEMENT(epilogue)

/* --- pooling --- */

/** The largest under each window, and its position in its plane; the first of equals, a NaN before all. */
struct max_pool {
    const void *src;
    void *dst;
    int32_t *winners; /* like dst, or NULL */
    struct images from, to;
    struct window window;
    enum dtype dtype;
    int width; /* LANES only where channels are last */
};

static inline void max_pool_lanes(const struct max_pool *k, int64_t at, int width) {
    const struct window *w = &k->window;
    struct place o = place_of(&k->to, at);
    int32_t best[LANES];
    struct lanes most = {{0}};
    for (int l = 0; l < width; l++)
        best[l] = -1;
    for (int a = 0; a < w->kernel[0]; a++)
        for (int b = 0; b < w->kernel[1]; b++) {
            int64_t y = o.y * w->stride[0] + a - w->pad_before[0], x = o.x * w->stride[1] + b - w->pad_before[1];
            if (y < 0 || y >= k->from.height || x < 0 || x >= k->from.width)
                continue;
            struct lanes v = load_lanes(k->src, k->dtype, index_of(&k->from, o.image, o.channel, y, x), width);
            for (int l = 0; l < width; l++) {
                bool takes = best[l] < 0 || v.v[l] > most.v[l] || (isnan(v.v[l]) && !isnan(most.v[l]));
                best[l] = takes ? (int32_t)(y * k->from.width + x) : best[l];
                most.v[l] = takes ? v.v[l] : most.v[l];
            }
        }
    store_lanes(k->dst, k->dtype, at, width, &most);
    for (int l = 0; k->winners && l < width; l++)
        k->winners[at + l] = best[l];
}
DEFINE_LANES_ELEMENT(max_pool)

/** diff_src = the sum of diff_dst over the windows that the element won. An element is one of diff_src, or LANES of them. */
struct max_pool_gradient {
    const void *diff_dst;
    const int32_t *winners;
    void *diff_src;
    struct images from, to; /* of diff_src, of diff_dst */
    struct window window;
    enum dtype dtype;
    int width; /* as above */
};

/** The window whose tap lies at `at` along an axis with `count` windows; -1 where there is none. */
static inline int64_t max_pool_window(const struct window *w, int axis, int64_t count, int64_t at, int tap) {
    int64_t offset = at + w->pad_before[axis] - tap, p = offset / w->stride[axis];
    return offset >= 0 && offset % w->stride[axis] == 0 && p < count ? p : -1;
}

static inline void max_pool_gradient_lanes(const struct max_pool_gradient *k, int64_t i, int width) {
    struct place e = place_of(&k->from, i);
    int32_t own = (int32_t)(e.y * k->from.width + e.x);
    double sums[LANES] = {0};
    struct lanes out = {{0}};
    for (int a = 0; a < k->window.kernel[0]; a++)
        for (int b = 0; b < k->window.kernel[1]; b++) {
            int64_t p = max_pool_window(&k->window, 0, k->to.height, e.y, a);
            int64_t q = max_pool_window(&k->window, 1, k->to.width, e.x, b);
            if (p < 0 || q < 0)
                continue;
            int64_t at = index_of(&k->to, e.image, e.channel, p, q);
            struct lanes g = load_lanes(k->diff_dst, k->dtype, at, width);
            for (int l = 0; l < width; l++)
                sums[l] += k->winners[at + l] == own ? (double)g.v[l] : 0;
        }
    for (int l = 0; l < width; l++)
        out.v[l] = (float)sums[l];
    store_lanes(k->diff_src, k->dtype, i, width, &out);
}
DEFINE_LANES_ELEMENT(max_pool_gradient)

/** The mean of each plane: dst (batch, channels). An element is a plane; src and dst may differ in dtype. */
struct plane_average {
    const void *src;
    void *dst;
    struct channels shape; /* of src */
    enum dtype src_dtype, dst_dtype;
};

static inline void plane_average_element(const struct plane_average *k, int64_t i) {
    int64_t image = i / k->shape.count, c = i % k->shape.count, plane = k->shape.plane;
    double sum = 0;
    for (int64_t p = 0; p < plane; p++)
        sum += (double)load_one(k->src, k->src_dtype, pixel_at(&k->shape, c, image * plane + p));
    store_one(k->dst, k->dst_dtype, i, (float)(sum / (double)plane));
}

/** An element is one of diff_src. */
struct plane_spread {
    const void *diff_dst;
    void *diff_src;
    struct channels shape; /* of diff_src */
    enum dtype src_dtype, dst_dtype;
};

static inline void plane_spread_element(const struct plane_spread *k, int64_t i) {
    int64_t image = i / (k->shape.count * k->shape.plane), c = channel_at(&k->shape, i);
    float g = load_one(k->diff_dst, k->dst_dtype, image * k->shape.count + c);
    store_one(k->diff_src, k->src_dtype, i, g / (float)k->shape.plane);
}
