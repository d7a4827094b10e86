#pragma once
#include "common/device/cuda/kernels_body.h"

/** As kernels_body.h: sums over channels, and batch norm. */

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

/** Pairs of sums, (rows, channels): a channel's sum is that of its column. */
struct channel_pairs {
    const struct pair *pairs;
    int64_t rows, channels;
};

static inline struct pair column_sum(const struct channel_pairs *k, int64_t c) {
    struct pair sum = {0, 0};
    for (int64_t i = c; i < k->rows * k->channels; i += k->channels) {
        sum.a += k->pairs[i].a;
        sum.b += k->pairs[i].b;
    }
    return sum;
}

/**
 * How sums over the pixels of each channel are cut: an element is one slice of `width` neighbours, which are channels where
 * those are last, else pixels of one channel. Neighbouring elements are neighbours in memory.
 */
struct sliced {
    struct channels shape;
    int64_t slices;
    int width;
};

/** An element's first channel and slice. */
struct slice {
    int64_t c, slice;
};

static inline struct slice slice_of(const struct sliced *s, int64_t i, int width) {
    int64_t groups = s->shape.count / width;
    struct slice last = {i % groups * width, i / groups}, planes = {i / s->slices, i % s->slices};
    return s->shape.last ? last : planes;
}

/** How many steps of `slices` runs there are in a channel (or group of them), and where the k-th run begins. */
static inline int64_t run_count(const struct sliced *s, int width) {
    return s->shape.batch * s->shape.plane / (s->shape.last ? 1 : width);
}

static inline int64_t run_at(const struct sliced *s, int64_t c, int64_t k, int width) {
    return pixel_at(&s->shape, c, s->shape.last ? k : k * width);
}

/** Stores an element's sums, one pair a lane, as channel_pairs with `slices` rows. */
static inline void store_sums(const struct sliced *s, struct slice at, const struct pair *sums, int width, struct pair *out) {
    struct pair sum = sums[0];
    for (int l = 0; s->shape.last && l < width; l++)
        out[at.slice * s->shape.count + at.c + l] = sums[l];
    if (s->shape.last)
        return;
    for (int l = 1; l < width; l++) {
        sum.a += sums[l].a;
        sum.b += sums[l].b;
    }
    out[at.slice * s->shape.count + at.c] = sum;
}

/** NAME_element for elements that are slices. */
#define DEFINE_SLICE_ELEMENT(name)                                                                                           \
    static inline void name##_element(const struct name *k, int64_t i) {                                                     \
        if (k->cut.width == LANES)                                                                                           \
            name##_slice(k, slice_of(&k->cut, i, LANES), LANES);                                                             \
        else                                                                                                                 \
            name##_slice(k, slice_of(&k->cut, i, 1), 1);                                                                     \
    }

/** Sums and sums of squares. */
struct channel_moments {
    struct sliced cut;
    const void *src;
    struct pair *sums; /* (slices, channels) */
    enum dtype dtype;
};

static inline void channel_moments_slice(const struct channel_moments *k, struct slice at, int width) {
    struct pair sums[LANES] = {{0, 0}};
    int64_t runs = run_count(&k->cut, width);
    for (int64_t i = at.slice; i < runs; i += k->cut.slices) {
        struct lanes x = load_lanes(k->src, k->dtype, run_at(&k->cut, at.c, i, width), width);
        for (int l = 0; l < width; l++) {
            sums[l].a += (double)x.v[l];
            sums[l].b += (double)x.v[l] * (double)x.v[l];
        }
    }
    store_sums(&k->cut, at, sums, width, k->sums);
}
DEFINE_SLICE_ELEMENT(channel_moments)

/** The first of each channel's sums, as f32: the gradient of a bias. */
struct finish_channel_sum {
    struct channel_pairs sums;
    float *sum; /* (channels) */
};

static inline void finish_channel_sum_element(const struct finish_channel_sum *k, int64_t c) {
    k->sum[c] = (float)column_sum(&k->sums, c).a;
}

/* --- batch norm: what is the same for all pixels of a channel is computed once, into `terms` --- */

/** What a batch norm sums, of this rank and as ARG_SUMS has it: n, then a pair of sums a channel. */
struct publish_sums {
    struct channel_pairs sums; /* backward, those of norm_gradient_sums */
    double *all;               /* (3, channels) */
    double count;              /* elements of a channel */
    const float *variance;     /* (channels), backward: the second sum is wanted of g (x - mean), not of g xhat */
    float epsilon;
};

static inline void publish_sums_element(const struct publish_sums *k, int64_t c) {
    struct pair sum = column_sum(&k->sums, c);
    double inverse = k->variance ? (double)(1 / sqrtf(k->variance[c] + k->epsilon)) : 1;
    k->all[c] = k->count;
    k->all[k->sums.channels + c] = sum.a;
    k->all[2 * k->sums.channels + c] = sum.b / inverse;
}

/** terms (channels) = scale / sqrt(variance + epsilon): what (src - mean) is multiplied by. */
struct norm_terms {
    const float *scale, *variance; /* (channels) each */
    float *terms;
    float epsilon;
};

static inline void norm_terms_element(const struct norm_terms *k, int64_t c) {
    k->terms[c] = k->scale[c] / sqrtf(k->variance[c] + k->epsilon);
}

/** Mean, biased variance, running statistics and terms of a channel, from its moments or those of all ranks. */
struct finish_moments {
    struct channel_pairs sums; /* pairs NULL: */
    const double *all;         /* (3, channels), ARG_SUMS */
    const float *scale;
    float *mean, *variance, *running_mean, *running_variance, *terms; /* (channels) each */
    double count; /* elements of a channel, where the sums are this rank's */
    float momentum, epsilon;
};

static inline void finish_moments_element(const struct finish_moments *k, int64_t c) {
    int64_t channels = k->sums.channels;
    struct pair own = {0, 0};
    if (!k->all)
        own = column_sum(&k->sums, c);
    double n = k->all ? k->all[c] : k->count, momentum = (double)k->momentum;
    double mean = (k->all ? k->all[channels + c] : own.a) / n;
    double variance = (k->all ? k->all[2 * channels + c] : own.b) / n - mean * mean;
    variance = variance < 0 ? 0 : variance;
    double unbiased = n > 1 ? variance * n / (n - 1) : variance;
    k->mean[c] = (float)mean;
    k->variance[c] = (float)variance;
    k->running_mean[c] = (float)((1 - momentum) * (double)k->running_mean[c] + momentum * mean);
    k->running_variance[c] = (float)((1 - momentum) * (double)k->running_variance[c] + momentum * unbiased);
    k->terms[c] = k->scale[c] / sqrtf((float)variance + k->epsilon);
}

/** dst = activation(terms (src - mean) + shift + residual); mask: a bit for each element, set where the gradient passes. */
struct normalise {
    struct channels shape;
    const void *src, *residual;        /* residual may be NULL */
    const float *shift, *mean, *terms; /* (channels) each */
    void *dst;
    unsigned char *mask; /* a byte for `width` elements, or NULL */
    enum dtype dtype;
    enum activation activation;
    int width;
};

static inline void normalise_lanes(const struct normalise *k, int64_t at, int width) {
    int64_t c = channel_at(&k->shape, at);
    struct lanes y = load_lanes(k->src, k->dtype, at, width), mean = load_channels(k->mean, &k->shape, c, width);
    struct lanes terms = load_channels(k->terms, &k->shape, c, width), shift = load_channels(k->shift, &k->shape, c, width);
    struct lanes residual = {{0}};
    unsigned mask = 0;
    if (k->residual)
        residual = load_lanes(k->residual, k->dtype, at, width);
    for (int l = 0; l < width; l++) {
        float x = terms.v[l] * (y.v[l] - mean.v[l]) + shift.v[l];
        x = k->residual ? x + residual.v[l] : x;
        mask |= (unsigned)passes(k->activation, x) << l;
        y.v[l] = activated(k->activation, x);
    }
    if (k->mask)
        k->mask[at / width] = (unsigned char)mask;
    store_lanes(k->dst, k->dtype, at, width, &y);
}
DEFINE_LANES_ELEMENT(normalise)

/** What both halves of the backward pass read. g = diff_dst where the mask (or NULL) lets it pass, else 0. */
struct norm_backward {
    const void *src, *diff_dst;
    const float *mean; /* (channels) */
    const unsigned char *mask;
    enum dtype dtype;
};

static inline struct lanes norm_incoming(const struct norm_backward *b, int64_t at, int width) {
    struct lanes g = load_lanes(b->diff_dst, b->dtype, at, width);
    unsigned mask = b->mask ? b->mask[at / width] : ~0u;
    for (int l = 0; l < width; l++)
        g.v[l] = mask >> l & 1 ? g.v[l] : 0;
    return g;
}

/** Sums of g and of g (x - mean) / deviation. */
struct norm_gradient_sums {
    struct sliced cut;
    struct norm_backward in;
    struct pair *sums; /* (slices, channels) */
    const float *variance;
    float epsilon;
};

static inline void norm_gradient_sums_slice(const struct norm_gradient_sums *k, struct slice at, int width) {
    struct pair sums[LANES] = {{0, 0}};
    struct lanes mean = load_channels(k->in.mean, &k->cut.shape, at.c, width);
    struct lanes variance = load_channels(k->variance, &k->cut.shape, at.c, width);
    int64_t runs = run_count(&k->cut, width);
    for (int64_t i = at.slice; i < runs; i += k->cut.slices) {
        int64_t first = run_at(&k->cut, at.c, i, width);
        struct lanes x = load_lanes(k->in.src, k->in.dtype, first, width), g = norm_incoming(&k->in, first, width);
        for (int l = 0; l < width; l++) {
            sums[l].a += (double)g.v[l];
            sums[l].b += (double)g.v[l] * ((double)x.v[l] - (double)mean.v[l]);
        }
    }
    for (int l = 0; l < width; l++)
        sums[l].b *= (double)(1 / sqrtf(variance.v[l] + k->epsilon));
    store_sums(&k->cut, at, sums, width, k->sums);
}
DEFINE_SLICE_ELEMENT(norm_gradient_sums)

/**
 * diff_src = scale / deviation (g - through (sum g + xhat sum g xhat)), with `through` 1 / count, or 0 where the statistics are
 * frozen: a g + b (x - mean) + d, whose (3, channels) terms are a, b and d.
 */
struct gradient_terms {
    const float *scale, *variance; /* (channels) each */
    float *terms;                  /* (3, channels), or NULL */
    int64_t channels;
    double through;
    float epsilon;
};

static inline void store_gradient_terms(const struct gradient_terms *k, int64_t c, struct pair sums, double through) {
    double inverse = (double)(1 / sqrtf(k->variance[c] + k->epsilon)), a = (double)k->scale[c] * inverse;
    k->terms[c] = (float)a;
    k->terms[k->channels + c] = (float)(-a * inverse * sums.b * through);
    k->terms[2 * k->channels + c] = (float)(-a * sums.a * through);
}

/** diff_shift, diff_scale and the terms of a channel, from this rank's sums. */
struct finish_norm_gradient {
    struct channel_pairs sums;
    float *diff_shift, *diff_scale; /* (channels) */
    struct gradient_terms out;
};

static inline void finish_norm_gradient_element(const struct finish_norm_gradient *k, int64_t c) {
    struct pair sum = column_sum(&k->sums, c);
    k->diff_shift[c] = (float)sum.a;
    k->diff_scale[c] = (float)sum.b;
    if (k->out.terms)
        store_gradient_terms(&k->out, c, sum, k->out.through);
}

/** The terms of a channel, from all ranks' sums; out.through is not looked at. */
struct total_norm_gradient {
    const double *all; /* (3, channels), ARG_SUMS */
    struct gradient_terms out;
};

static inline void total_norm_gradient_element(const struct total_norm_gradient *k, int64_t c) {
    int64_t channels = k->out.channels;
    double inverse = (double)(1 / sqrtf(k->out.variance[c] + k->out.epsilon));
    struct pair sums = {k->all[channels + c], k->all[2 * channels + c] * inverse};
    store_gradient_terms(&k->out, c, sums, 1 / k->all[c]);
}

/** diff_src by its terms, and diff_residual = g. Either output may be diff_dst. */
struct norm_gradient {
    struct channels shape;
    struct norm_backward in;
    const float *terms;             /* (3, channels) */
    void *diff_src, *diff_residual; /* diff_residual may be NULL */
    int width;
};

static inline void norm_gradient_lanes(const struct norm_gradient *k, int64_t at, int width) {
    const struct channels *s = &k->shape;
    int64_t c = channel_at(s, at);
    struct lanes g = norm_incoming(&k->in, at, width), x = load_lanes(k->in.src, k->in.dtype, at, width);
    struct lanes mean = load_channels(k->in.mean, s, c, width), a = load_channels(k->terms, s, c, width);
    struct lanes b = load_channels(k->terms + s->count, s, c, width), d = load_channels(k->terms + 2 * s->count, s, c, width);
    for (int l = 0; l < width; l++)
        x.v[l] = a.v[l] * g.v[l] + (b.v[l] * (x.v[l] - mean.v[l]) + d.v[l]);
    store_lanes(k->diff_src, k->in.dtype, at, width, &x);
    if (k->diff_residual)
        store_lanes(k->diff_residual, k->in.dtype, at, width, &g);
}
DEFINE_LANES_ELEMENT(norm_gradient)
