/*
 * The loops of loops.h, for inclusion by one loops_*.c per instruction set, which has defined WIDTH, LOOPS_TABLE, LOOPS_NAME,
 * lanes_greater (the bits of the lanes where a > b), lanes_keep, lanes_widen, lanes_narrow, lanes_stream_f32, lanes_stream_u16
 * and lanes_fence.
 */
#include <math.h>

#define LOOPS_INLINE static inline __attribute__((always_inline))
enum {
    UNROLL = 4 / PARTS, /* rows, so that what is summed up in stays in registers */
    BLOCK_ROWS = 4, /* of wide rows, gone through together */
    FIRST_ROWS = 8, /* to take a mean of */
    LINE_BYTES = 64,
};

/* How many parts of a row there are, and how many lanes one has. */
LOOPS_INLINE int parts_of(int lanes) {
    return (lanes + WIDTH - 1) / WIDTH;
}

LOOPS_INLINE int lanes_of_part(int lanes, int part) {
    int left = lanes - part * WIDTH;
    return left < WIDTH ? left : WIDTH;
}

/* Which part of which row, of how many lanes. */
struct place {
    int64_t row;
    int part, lanes;
};

LOOPS_INLINE int64_t offset_of(const struct norm_rows *r, struct place at) {
    return at.row * r->stride + at.part * WIDTH;
}

/* Where an activation with this input, or this output, lets the gradient pass: a bit per lane. */
LOOPS_INLINE uint16_t lanes_passes(lanes_f32 v, enum activation activation) {
    const lanes_f32 zero = {0}, six = zero + 6;
    uint16_t above = lanes_greater(v, zero);
    return activation == ACTIVATION_RELU6 ? above & lanes_greater(six, v) : above;
}

/* --- bf16: the upper half of an f32 (f32 itself is in lanes.h) --- */

LOOPS_INLINE lanes_f32 lanes_load_bf16(const uint16_t *from, int count) {
    lanes_u16 halves = {0};
    if (count == WIDTH)
        memcpy(&halves, from, sizeof halves);
    else
        memcpy(&halves, from, (size_t)count * sizeof *from);
    return lanes_widen(halves);
}

LOOPS_INLINE void lanes_store_bf16(uint16_t *to, lanes_f32 v, int count) {
    lanes_u16 halves = lanes_narrow(v);
    if (count == WIDTH)
        memcpy(to, &halves, sizeof halves);
    else
        memcpy(to, &halves, (size_t)count * sizeof *to);
}

LOOPS_INLINE void lanes_stream_bf16(uint16_t *to, lanes_f32 v) {
    lanes_stream_u16(to, lanes_narrow(v));
}

/* --- sums of some rows: in float, then into the double ones --- */

/* What is gathered of a tile: rows_body.h has the formula. */
struct what {
    lanes_f32 centre[PARTS];
    int lanes;
    bool moments;
};

struct lanes_pair {
    lanes_f32 first[PARTS], second[PARTS];
};

LOOPS_INLINE void load_parts(const float from[LANES], lanes_f32 to[PARTS]) {
    for (int part = 0; part < PARTS; part++)
        to[part] = lanes_load_f32(from + part * WIDTH, WIDTH);
}

LOOPS_INLINE void store_parts(const lanes_f32 from[PARTS], float to[LANES]) {
    for (int part = 0; part < PARTS; part++)
        lanes_store_f32(to + part * WIDTH, from[part], WIDTH);
}

/* Sums of d and d^2, d being the distance from the centre, become mean and squared deviations, and merge as
 * sweep_merge_moments does. Lanes that the rows do not have hold the rounding of the centre's square, and give nothing. */
LOOPS_INLINE void merge_moments(struct lane_sums *into, const struct lanes_pair *sums, const struct what *what, int64_t rows) {
    lanes_f32 shift[PARTS], square[PARTS];
    float centres[LANES], shifts[LANES], squares[LANES];
    for (int part = 0; part < PARTS; part++) {
        shift[part] = sums->first[part] / (float)rows;
        square[part] = sums->second[part] - sums->first[part] * shift[part];
    }
    store_parts(what->centre, centres);
    store_parts(shift, shifts);
    store_parts(square, squares);
    for (int i = 0; i < LANES; i++) {
        double more = i < what->lanes ? (double)rows : 0, count = into->count[i] + more;
        double share = more / (count > 0 ? count : 1);
        double apart = (double)centres[i] + (double)shifts[i] - into->first[i];
        into->second[i] += (more > 0 && squares[i] > 0 ? (double)squares[i] : 0) + apart * apart * into->count[i] * share;
        into->first[i] += apart * share;
        into->count[i] = count;
    }
}

LOOPS_INLINE void flush(struct lane_sums *into, const struct lanes_pair *sums, const struct what *what, int64_t rows) {
    float first[LANES], second[LANES];
    if (what->moments) {
        merge_moments(into, sums, what, rows);
        return;
    }
    store_parts(sums->first, first);
    store_parts(sums->second, second);
    for (int i = 0; i < LANES; i++) {
        into->first[i] += (double)first[i];
        into->second[i] += (double)second[i];
    }
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

/* --- copies into the other type. Not lanes_narrow: some processors' own instruction takes subnormal numbers for zero --- */

static void narrow(uint16_t *to, const float *from, int64_t count) {
    for (int64_t i = 0; i < count; i += WIDTH) {
        int lanes = count - i < WIDTH ? (int)(count - i) : WIDTH;
        lanes_u16 halves = lanes_narrow_portable(lanes_load_f32(from + i, lanes));
        if (lanes == WIDTH)
            memcpy(to + i, &halves, sizeof halves);
        else
            memcpy(to + i, &halves, (size_t)lanes * sizeof *to);
    }
}

static void widen(float *to, const uint16_t *from, int64_t count) {
    for (int64_t i = 0; i < count; i += WIDTH) {
        int lanes = count - i < WIDTH ? (int)(count - i) : WIDTH;
        lanes_store_f32(to + i, lanes_load_bf16(from + i, lanes), lanes);
    }
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
        for (int64_t i = block * OPTIMIZER_BLOCK; i < (block + 1) * OPTIMIZER_BLOCK; i += WIDTH) {
            lanes_f32 p = lanes_load_f32(b->parameter + i, WIDTH);
            lanes_f32 g = lanes_load_f32(b->gradient + i, WIDTH) * s->gradient_factor + decay * p;
            lanes_f32 m = lanes_load_f32(b->state + i, WIDTH) * s->momentum + g;
            p -= s->rate * m;
            lanes_store_f32(b->state + i, m, WIDTH);
            lanes_store_f32(b->parameter + i, p, WIDTH);
            if (b->ema) {
                lanes_f32 e = lanes_load_f32(b->ema + i, WIDTH);
                lanes_store_f32(b->ema + i, e * s->ema_decay + p * (1 - s->ema_decay), WIDTH);
            }
        }
    }
}

LOOPS_INLINE lanes_f32 root(lanes_f32 v) {
    for (int lane = 0; lane < WIDTH; lane++)
        v[lane] = sqrtf(v[lane]);
    return v;
}

static void adamw(const struct optimizer_buffers *b, int64_t first_block, int64_t last_block,
                  const struct optimizer_step *s) {
    for (int64_t block = first_block; block < last_block; block++) {
        const float keep = 1 - s->rate * s->weight_decay * b->decay[block];
        for (int64_t i = block * OPTIMIZER_BLOCK; i < (block + 1) * OPTIMIZER_BLOCK; i += WIDTH) {
            lanes_f32 g = lanes_load_f32(b->gradient + i, WIDTH) * s->gradient_factor;
            lanes_f32 m = lanes_load_f32(b->state + i, WIDTH) * s->beta1 + g * (1 - s->beta1);
            lanes_f32 v = lanes_load_f32(b->second + i, WIDTH) * s->beta2 + g * g * (1 - s->beta2);
            lanes_f32 p = lanes_load_f32(b->parameter + i, WIDTH) * keep;
            p -= s->rate * (m * s->inverse_bias1) / (root(v) * s->inverse_root_bias2 + s->epsilon);
            lanes_store_f32(b->state + i, m, WIDTH);
            lanes_store_f32(b->second + i, v, WIDTH);
            lanes_store_f32(b->parameter + i, p, WIDTH);
            if (b->ema) {
                lanes_f32 e = lanes_load_f32(b->ema + i, WIDTH);
                lanes_store_f32(b->ema + i, e * s->ema_decay + p * (1 - s->ema_decay), WIDTH);
            }
        }
    }
}

extern const struct loops LOOPS_TABLE;
const struct loops LOOPS_TABLE = {
    .name = LOOPS_NAME,
    .f32 = &rows_f32,
    .bf16 = &rows_bf16,
    .narrow = narrow,
    .widen = widen,
    .square_sum = square_sum,
    .sgd = sgd,
    .adamw = adamw,
};
