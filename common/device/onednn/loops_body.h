/*
 * The loops of loops.h, for inclusion by one loops_*.c per instruction set, which has defined LOOPS_TABLE,
 * LOOPS_NAME and lanes_pack, lanes_stream and lanes_fence. Bodies are inlined with a constant number of lanes
 * where it matters: full rows of 16 and of 8.
 */
#include <math.h>

#define LOOPS_INLINE static inline __attribute__((always_inline))
enum { UNROLL = 4 };

/* --- moments --- */

LOOPS_INLINE void moments_body(const struct norm_rows *r, float mean[LANES], float squares[LANES],
                               int lanes) {
    lanes_f32 sum[UNROLL] = {{0}}, square[UNROLL] = {{0}};
    int64_t whole = r->rows / UNROLL * UNROLL;
    for (int64_t i = 0; i < whole; i += UNROLL)
        for (int u = 0; u < UNROLL; u++)
            sum[u] += lanes_load(r->src + (i + u) * r->stride, lanes);
    for (int64_t i = whole; i < r->rows; i++)
        sum[0] += lanes_load(r->src + i * r->stride, lanes);
    lanes_f32 centre = (sum[0] + sum[1] + sum[2] + sum[3]) / (float)r->rows;
    for (int64_t i = 0; i < whole; i += UNROLL)
        for (int u = 0; u < UNROLL; u++) {
            lanes_f32 d = lanes_load(r->src + (i + u) * r->stride, lanes) - centre;
            square[u] += d * d;
        }
    for (int64_t i = whole; i < r->rows; i++) {
        lanes_f32 d = lanes_load(r->src + i * r->stride, lanes) - centre;
        square[0] += d * d;
    }
    lanes_store(mean, centre, LANES);
    lanes_store(squares, square[0] + square[1] + square[2] + square[3], LANES);
}

static void moments(const struct norm_rows *r, float mean[LANES], float squares[LANES]) {
    if (r->lanes == LANES)
        moments_body(r, mean, squares, LANES);
    else if (r->lanes == 8)
        moments_body(r, mean, squares, 8);
    else
        moments_body(r, mean, squares, r->lanes);
}

/* --- batch norm, forward --- */

LOOPS_INLINE void normalise_body(const struct norm_rows *r, int lanes, enum activation activation,
                                 bool stream) {
    const lanes_f32 mean = lanes_load(r->numbers->mean, LANES), gain = lanes_load(r->numbers->gain, LANES);
    const lanes_f32 shift = lanes_load(r->numbers->shift, LANES);
    for (int64_t i = 0; i < r->rows; i++) {
        lanes_f32 y = (lanes_load(r->src + i * r->stride, lanes) - mean) * gain + shift;
        if (r->residual)
            y += lanes_load(r->residual + i * r->stride, lanes);
        if (activation != ACTIVATION_NONE && r->mask_out)
            r->mask_out[i] = lanes_pack(lanes_passes(y, activation));
        if (stream)
            lanes_stream(r->dst + i * r->stride, lanes_activate(y, activation));
        else
            lanes_store(r->dst + i * r->stride, lanes_activate(y, activation), lanes);
    }
    if (stream)
        lanes_fence();
}

static void normalise(const struct norm_rows *r) {
    if (r->lanes != LANES)
        normalise_body(r, r->lanes, r->activation, false);
    else if (r->stream && r->activation == ACTIVATION_RELU)
        normalise_body(r, LANES, ACTIVATION_RELU, true);
    else if (r->stream)
        normalise_body(r, LANES, r->activation, true);
    else if (r->activation == ACTIVATION_RELU)
        normalise_body(r, LANES, ACTIVATION_RELU, false);
    else
        normalise_body(r, LANES, r->activation, false);
}

/* --- batch norm, backward --- */

LOOPS_INLINE lanes_f32 masked(const struct norm_rows *r, int64_t i, int lanes) {
    lanes_f32 g = lanes_load(r->diff_dst + i * r->stride, lanes);
    return r->mask ? lanes_where(lanes_unpack(r->mask[i]), g) : g;
}

LOOPS_INLINE void gradient_sums_body(const struct norm_rows *r, float sum[LANES], float product[LANES],
                                     int lanes) {
    const lanes_f32 mean = lanes_load(r->numbers->mean, LANES);
    lanes_f32 s[2] = {{0}}, p[2] = {{0}};
    int64_t i = 0;
    for (; i + 1 < r->rows; i += 2)
        for (int u = 0; u < 2; u++) {
            lanes_f32 g = masked(r, i + u, lanes);
            s[u] += g;
            p[u] += g * (lanes_load(r->src + (i + u) * r->stride, lanes) - mean);
        }
    for (; i < r->rows; i++) {
        lanes_f32 g = masked(r, i, lanes);
        s[0] += g;
        p[0] += g * (lanes_load(r->src + i * r->stride, lanes) - mean);
    }
    lanes_store(sum, s[0] + s[1], LANES);
    lanes_store(product, p[0] + p[1], LANES);
}

static void gradient_sums(const struct norm_rows *r, float sum[LANES], float product[LANES]) {
    if (r->lanes == LANES)
        gradient_sums_body(r, sum, product, LANES);
    else
        gradient_sums_body(r, sum, product, r->lanes);
}

LOOPS_INLINE void gradient_body(const struct norm_rows *r, int lanes) {
    const lanes_f32 mean = lanes_load(r->numbers->mean, LANES), gain = lanes_load(r->numbers->gain, LANES);
    const lanes_f32 slope = lanes_load(r->numbers->slope, LANES),
                    offset = lanes_load(r->numbers->offset, LANES);
    for (int64_t i = 0; i < r->rows; i++) {
        lanes_f32 g = masked(r, i, lanes), x = lanes_load(r->src + i * r->stride, lanes);
        lanes_store(r->diff_src + i * r->stride, gain * g - slope * (x - mean) - offset, lanes);
        if (r->diff_residual)
            lanes_store(r->diff_residual + i * r->stride, g, lanes);
    }
}

static void gradient(const struct norm_rows *r) {
    if (r->lanes == LANES)
        gradient_body(r, LANES);
    else
        gradient_body(r, r->lanes);
}

/* --- averages --- */

static void sum_rows(const struct norm_rows *r, float sum[LANES]) {
    lanes_f32 s = {0};
    if (r->lanes == LANES)
        for (int64_t i = 0; i < r->rows; i++)
            s += lanes_load(r->src + i * r->stride, LANES);
    else
        for (int64_t i = 0; i < r->rows; i++)
            s += lanes_load(r->src + i * r->stride, r->lanes);
    lanes_store(sum, s, LANES);
}

static void fill_rows(const struct norm_rows *r) {
    const lanes_f32 value = lanes_load(r->numbers->shift, LANES);
    for (int64_t i = 0; i < r->rows; i++)
        lanes_store(r->dst + i * r->stride, value, r->lanes);
}

/* --- elementwise --- */

LOOPS_INLINE void activate_part(float *dst, const float *a, const float *b, int lanes,
                                enum activation activation) {
    lanes_f32 v = lanes_load(a, lanes);
    if (b)
        v += lanes_load(b, lanes);
    lanes_store(dst, lanes_activate(v, activation), lanes);
}

LOOPS_INLINE void activate_body(float *dst, const float *a, const float *b, int64_t count,
                                enum activation activation) {
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES)
        activate_part(dst + i, a + i, b ? b + i : NULL, LANES, activation);
    if (i < count)
        activate_part(dst + i, a + i, b ? b + i : NULL, (int)(count - i), activation);
}

static void activate(float *dst, const float *a, const float *b, int64_t count, enum activation activation) {
    if (activation == ACTIVATION_NONE)
        activate_body(dst, a, b, count, ACTIVATION_NONE);
    else if (activation == ACTIVATION_RELU)
        activate_body(dst, a, b, count, ACTIVATION_RELU);
    else
        activate_body(dst, a, b, count, ACTIVATION_RELU6);
}

LOOPS_INLINE void activate_gradient_part(float *diff_src, const float *diff_dst, const float *dst, int lanes,
                                         enum activation activation) {
    lanes_s32 passes = lanes_passes(lanes_load(dst, lanes), activation);
    lanes_store(diff_src, lanes_where(passes, lanes_load(diff_dst, lanes)), lanes);
}

LOOPS_INLINE void activate_gradient_body(float *diff_src, const float *diff_dst, const float *dst,
                                         int64_t count, enum activation activation) {
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES)
        activate_gradient_part(diff_src + i, diff_dst + i, dst + i, LANES, activation);
    if (i < count)
        activate_gradient_part(diff_src + i, diff_dst + i, dst + i, (int)(count - i), activation);
}

static void activate_gradient(float *diff_src, const float *diff_dst, const float *dst, int64_t count,
                              enum activation activation) {
    if (activation == ACTIVATION_RELU)
        activate_gradient_body(diff_src, diff_dst, dst, count, ACTIVATION_RELU);
    else
        activate_gradient_body(diff_src, diff_dst, dst, count, ACTIVATION_RELU6);
}

/* --- optimisers --- */

static void square_sum(const float *values, int64_t count, double *sum, double *bad) {
    double squares[LANES] = {0};
    int64_t wrong = 0;
    for (int64_t i = 0; i + LANES <= count; i += LANES)
        for (int lane = 0; lane < LANES; lane++) {
            uint32_t bits;
            memcpy(&bits, values + i + lane, sizeof bits);
            uint32_t finite = (bits & 0x7f800000u) != 0x7f800000u ? 0xffffffffu : 0;
            float kept;
            bits &= finite;
            memcpy(&kept, &bits, sizeof kept);
            squares[lane] += (double)kept * (double)kept;
            wrong += 1 & ~finite;
        }
    for (int lane = 0; lane < LANES; lane++)
        *sum += squares[lane];
    *bad += (double)wrong;
}

static void sgd(const struct optimizer_buffers *b, int64_t first_block, int64_t last_block,
                const struct optimizer_step *s) {
    for (int64_t block = first_block; block < last_block; block++) {
        const lanes_f32 decay = (lanes_f32){0} + s->weight_decay * b->decay[block];
        for (int64_t i = block * OPTIMIZER_BLOCK; i < (block + 1) * OPTIMIZER_BLOCK; i += LANES) {
            lanes_f32 p = lanes_load(b->parameter + i, LANES);
            lanes_f32 g = lanes_load(b->gradient + i, LANES) * s->gradient_factor + decay * p;
            lanes_f32 m = lanes_load(b->state + i, LANES) * s->momentum + g;
            p -= s->rate * m;
            lanes_store(b->state + i, m, LANES);
            lanes_store(b->parameter + i, p, LANES);
            if (b->ema) {
                lanes_f32 e = lanes_load(b->ema + i, LANES);
                lanes_store(b->ema + i, e * s->ema_decay + p * (1 - s->ema_decay), LANES);
            }
        }
    }
}

LOOPS_INLINE lanes_f32 root(lanes_f32 v) {
    for (int lane = 0; lane < LANES; lane++)
        v[lane] = sqrtf(v[lane]);
    return v;
}

static void adamw(const struct optimizer_buffers *b, int64_t first_block, int64_t last_block,
                  const struct optimizer_step *s) {
    for (int64_t block = first_block; block < last_block; block++) {
        const float keep = 1 - s->rate * s->weight_decay * b->decay[block];
        for (int64_t i = block * OPTIMIZER_BLOCK; i < (block + 1) * OPTIMIZER_BLOCK; i += LANES) {
            lanes_f32 g = lanes_load(b->gradient + i, LANES) * s->gradient_factor;
            lanes_f32 m = lanes_load(b->state + i, LANES) * s->beta1 + g * (1 - s->beta1);
            lanes_f32 v = lanes_load(b->second + i, LANES) * s->beta2 + g * g * (1 - s->beta2);
            lanes_f32 p = lanes_load(b->parameter + i, LANES) * keep;
            p -= s->rate * (m * s->inverse_bias1) / (root(v) * s->inverse_root_bias2 + s->epsilon);
            lanes_store(b->state + i, m, LANES);
            lanes_store(b->second + i, v, LANES);
            lanes_store(b->parameter + i, p, LANES);
            if (b->ema) {
                lanes_f32 e = lanes_load(b->ema + i, LANES);
                lanes_store(b->ema + i, e * s->ema_decay + p * (1 - s->ema_decay), LANES);
            }
        }
    }
}

extern const struct loops LOOPS_TABLE;
const struct loops LOOPS_TABLE = {
    .name = LOOPS_NAME,
    .moments = moments,
    .normalise = normalise,
    .gradient_sums = gradient_sums,
    .gradient = gradient,
    .sum = sum_rows,
    .fill = fill_rows,
    .activate = activate,
    .activate_gradient = activate_gradient,
    .square_sum = square_sum,
    .sgd = sgd,
    .adamw = adamw,
};
