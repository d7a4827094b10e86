#pragma once
#include "common/op/op.h"

/**
 * The innermost loops of the kernels that memory bandwidth bounds, compiled once per instruction set
 * (loops_*.c share loops_body.h) and chosen when the device is opened. One thread each; they know nothing of
 * teams or layouts.
 */

/** Floats that are worked on side by side: a cache line of them. */
enum { LANES = 16 };

/** Numbers of up to LANES channels side by side; in planar layouts all are the same. */
struct norm_lanes {
    float mean[LANES], gain[LANES], shift[LANES]; /**< forward: gain (x - mean) + shift */
    float slope[LANES], offset[LANES];            /**< backward: gain g - slope (x - mean) - offset */
};

/** The most tiles that a row may have side by side. */
enum { MOST_TILES = 64 };

/**
 * Rows of one tile of channels (struct channel_view), or of several tiles of LANES channels that lie side by side in every row,
 * of the element type of the loops that get them. Pointers that an operation does not have are NULL.
 */
struct norm_rows {
    int64_t rows, stride;             /**< stride in elements */
    int lanes, tiles;                 /**< lanes: of one tile; LANES where there are several */
    int64_t ahead; /**< of several tiles: how many elements further on to fetch into the cache what comes next; 0: none */
    const struct norm_lanes *numbers; /**< of each tile */
    const void *src, *residual, *diff_dst;
    void *dst, *diff_src, *diff_residual; /**< diff_src or diff_residual may be diff_dst itself */
    uint16_t *mask_out; /**< a bit per lane: the activation lets the gradient pass; those of a row's tiles lie side by side */
    const uint16_t *mask;
    int64_t mask_stride; /**< from row to row */
    enum activation activation;
    bool stream; /**< rows of all LANES are written to dst or diff_src past the cache; each starts on a multiple of its size */
};

/** What is gathered of up to LANES channels, in double: moments (count, mean, squared deviations from it) or plain sums. */
struct lane_sums {
    double count[LANES], first[LANES], second[LANES];
};

/** Factors of one step, worked out from ARG_HYPER and ARG_NORM. */
struct optimizer_step {
    float rate, weight_decay, momentum, gradient_factor, ema_decay;
    float beta1, beta2, epsilon, inverse_bias1, inverse_root_bias2;
};

/** Where the optimiser's flat buffers are; second and ema may be NULL. */
struct optimizer_buffers {
    float *parameter, *state, *second, *ema;
    const float *gradient, *decay;
};

/** Loops over activations of one element type. They compute in f32 and round what they store. */
struct row_loops {
    size_t element_bytes;
    /** Merges count, mean and sum of squared deviations from it of each tile's lanes into the tile's sums. */
    void (*moments)(const struct norm_rows *rows, struct lane_sums *sums);
    /** dst = activation(gain (src - mean) + shift + residual). */
    void (*normalise)(const struct norm_rows *rows);
    /** Adds the sums of g and of g (src - mean) to each tile's first and second; g is diff_dst behind the mask. */
    void (*gradient_sums)(const struct norm_rows *rows, struct lane_sums *sums);
    /** diff_src = gain g - slope (src - mean) - offset; diff_residual = g. */
    void (*gradient)(const struct norm_rows *rows);
    /** Sum of each lane of one tile. */
    void (*sum)(const struct norm_rows *rows, float sum[LANES]);
    /** Writes numbers->shift to every row of dst, of one tile. */
    void (*fill)(const struct norm_rows *rows);

    /** dst = activation(a + b); b may be NULL, dst may be a or b. */
    void (*activate)(void *dst, const void *a, const void *b, int64_t count, enum activation activation);
    /** diff_src = diff_dst where 0 < dst (< 6), else 0; diff_src may be diff_dst. */
    void (*activate_gradient)(void *diff_src, const void *diff_dst, const void *dst, int64_t count,
                              enum activation activation);
};

struct loops {
    const char *name; /**< of the instruction set, for profiles */
    const struct row_loops *f32, *bf16;
    /** f32 to bf16, to nearest, and back; the same bits from all loops. */
    void (*narrow)(uint16_t *to, const float *from, int64_t count);
    void (*widen)(float *to, const uint16_t *from, int64_t count);
    /** Adds to sum the squares of the finite values, and to bad the number of the others. */
    void (*square_sum)(const float *values, int64_t count, double *sum, double *bad);
    /** Updates blocks of OPTIMIZER_BLOCK elements. */
    void (*sgd)(const struct optimizer_buffers *buffers, int64_t first_block, int64_t last_block,
                const struct optimizer_step *step);
    void (*adamw)(const struct optimizer_buffers *buffers, int64_t first_block, int64_t last_block,
                  const struct optimizer_step *step);
};

/** Those for activations of a dtype, f32 or bf16. */
static inline const struct row_loops *loops_of(const struct loops *loops, enum dtype dtype) {
    return dtype == DTYPE_BF16 ? loops->bf16 : loops->f32;
}

/** Those that this CPU runs, the fastest first; NULL past the last. */
const struct loops *loops_row(int i);
