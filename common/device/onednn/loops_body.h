/*
 * The loops of loops.h, for inclusion by one loops_*.c per instruction set, which has defined LOOPS_TABLE, LOOPS_NAME,
 * lanes_pack, lanes_fence, lanes_stream_f32, lanes_stream_u16 and lanes_narrow.
 */
#include <math.h>

#define LOOPS_INLINE static inline __attribute__((always_inline))
enum { UNROLL = 4 };

/* --- bf16: the upper half of an f32 (f32 itself is in lanes.h) --- */

LOOPS_INLINE lanes_f32 lanes_load_bf16(const uint16_t *from, int count) {
    lanes_u16 halves = {0};
    if (count == LANES)
        memcpy(&halves, from, sizeof halves);
    else
        memcpy(&halves, from, (size_t)count * sizeof *from);
    return lanes_widen(halves);
}

LOOPS_INLINE void lanes_store_bf16(uint16_t *to, lanes_f32 v, int count) {
    lanes_u16 halves = lanes_narrow(v);
    if (count == LANES)
        memcpy(to, &halves, sizeof halves);
    else
        memcpy(to, &halves, (size_t)count * sizeof *to);
}

LOOPS_INLINE void lanes_stream_bf16(uint16_t *to, lanes_f32 v) {
    lanes_stream_u16(to, lanes_narrow(v));
}

/* --- float sums of some rows into double ones --- */

/* As sweep_merge_moments, for the `lanes` that have values. */
LOOPS_INLINE void merge_moments(struct lane_sums *into, double rows, int lanes, lanes_f32 mean, lanes_f32 squares) {
    for (int i = 0; i < LANES; i++) {
        double more = i < lanes ? rows : 0, count = into->count[i] + more, share = more / (count > 0 ? count : 1);
        double apart = (double)mean[i] - into->first[i];
        into->second[i] += (double)squares[i] + apart * apart * into->count[i] * share;
        into->first[i] += apart * share;
        into->count[i] = count;
    }
}

LOOPS_INLINE void add_lanes(double into[LANES], lanes_f32 v) {
    for (int i = 0; i < LANES; i++)
        into[i] += (double)v[i];
}

#define ELEMENT     float
#define TYPED(name) name##_f32
#include "common/device/onednn/rows_body.h"
#undef ELEMENT
#undef TYPED
#define ELEMENT     uint16_t
#define TYPED(name) name##_bf16
#include "common/device/onednn/rows_body.h"
#undef ELEMENT
#undef TYPED

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
            lanes_f32 p = lanes_load_f32(b->parameter + i, LANES);
            lanes_f32 g = lanes_load_f32(b->gradient + i, LANES) * s->gradient_factor + decay * p;
            lanes_f32 m = lanes_load_f32(b->state + i, LANES) * s->momentum + g;
            p -= s->rate * m;
            lanes_store_f32(b->state + i, m, LANES);
            lanes_store_f32(b->parameter + i, p, LANES);
            if (b->ema) {
                lanes_f32 e = lanes_load_f32(b->ema + i, LANES);
                lanes_store_f32(b->ema + i, e * s->ema_decay + p * (1 - s->ema_decay), LANES);
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
            lanes_f32 g = lanes_load_f32(b->gradient + i, LANES) * s->gradient_factor;
            lanes_f32 m = lanes_load_f32(b->state + i, LANES) * s->beta1 + g * (1 - s->beta1);
            lanes_f32 v = lanes_load_f32(b->second + i, LANES) * s->beta2 + g * g * (1 - s->beta2);
            lanes_f32 p = lanes_load_f32(b->parameter + i, LANES) * keep;
            p -= s->rate * (m * s->inverse_bias1) / (root(v) * s->inverse_root_bias2 + s->epsilon);
            lanes_store_f32(b->state + i, m, LANES);
            lanes_store_f32(b->second + i, v, LANES);
            lanes_store_f32(b->parameter + i, p, LANES);
            if (b->ema) {
                lanes_f32 e = lanes_load_f32(b->ema + i, LANES);
                lanes_store_f32(b->ema + i, e * s->ema_decay + p * (1 - s->ema_decay), LANES);
            }
        }
    }
}

extern const struct loops LOOPS_TABLE;
const struct loops LOOPS_TABLE = {
    .name = LOOPS_NAME,
    .f32 = &rows_f32,
    .bf16 = &rows_bf16,
    .square_sum = square_sum,
    .sgd = sgd,
    .adamw = adamw,
};
