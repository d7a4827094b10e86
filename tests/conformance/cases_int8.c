#include "tests/conformance/cases.h"

#define LENGTH(array) ((int)(sizeof(array) / sizeof *(array)))
/* clang-format off */
#define WINDOW(k, s, before, after) {.kernel = {k, k}, .stride = {s, s}, .pad_before = {before, before}, .pad_after = {after, after}}
#define SRC4(n, c, h, w) .src = {.rank = 4, .dims = {n, c, h, w}}
#define SRC2(n, f) .src = {.rank = 2, .dims = {n, f}}
#define CONV(out, in_groups, ...) .op = {OP_CONV2D, .conv2d = {.channels_out = out, .groups = in_groups, __VA_ARGS__}}
#define STEM(out) CONV(out, 1, .window = WINDOW(7, 2, 3, 3), .bias = true, .activation = ACTIVATION_RELU, U8_U8)
#define U8_U8 .int8 = {DTYPE_U8, DTYPE_U8, DTYPE_NONE, 0}
#define S8_U8 .int8 = {DTYPE_S8, DTYPE_U8, DTYPE_NONE, 0}
#define U8_S8 .int8 = {DTYPE_U8, DTYPE_S8, DTYPE_NONE, 0}
#define S8_S8 .int8 = {DTYPE_S8, DTYPE_S8, DTYPE_NONE, 0}
#define U8_TO(dst) .int8 = {DTYPE_U8, dst, DTYPE_NONE, 0}
#define S8_TO(dst) .int8 = {DTYPE_S8, dst, DTYPE_NONE, 0}
#define ADDING(src, dst, residual_dtype, factor) .residual = true, .int8 = {src, dst, residual_dtype, factor}
#define POOL(dtype, ...) .op = {OP_MAX_POOL, .max_pool = __VA_ARGS__, .max_pool_of = dtype}
#define AVERAGE(dtype) .op = {OP_GLOBAL_AVERAGE_POOL, .global_average_pool_of = dtype}
#define RESCALE(from, to, factor) .op = {OP_RESCALE, .rescale = {from, to, factor}}
/* clang-format on */

const struct op_case conformance_int8_cases[] = {
    /* Stems. */
    {STEM(64), SRC4(2, 3, 57, 57)},
    {STEM(64), SRC4(1, 1, 56, 56)},
    {STEM(64), SRC4(1, 3, 57, 57), .variant = INT8_ENDS},
    {CONV(32, 1, .window = WINDOW(3, 2, 0, 1), .bias = true, S8_U8), SRC4(2, 3, 32, 32)},
    {CONV(16, 1, .window = WINDOW(3, 1, 1, 1), .bias = true, S8_S8), SRC4(2, 1, 28, 28)},
    /* What networks are made of, from and to each dtype. */
    {CONV(64, 1, .window = WINDOW(1, 1, 0, 0), .bias = true, .activation = ACTIVATION_RELU, U8_U8), SRC4(2, 64, 14, 14)},
    {CONV(64, 1, .window = WINDOW(1, 1, 0, 0), .bias = true, .activation = ACTIVATION_RELU, U8_U8), SRC4(2, 64, 14, 14),
     .variant = INT8_ENDS},
    {CONV(64, 1, .window = WINDOW(1, 1, 0, 0), .bias = true, .activation = ACTIVATION_RELU, U8_U8), SRC4(2, 64, 14, 14),
     .variant = INT8_TIES},
    {CONV(128, 1, .window = WINDOW(1, 1, 0, 0), .bias = true, S8_S8), SRC4(2, 48, 15, 13)},
    {CONV(128, 1, .window = WINDOW(1, 1, 0, 0), .bias = true, S8_S8), SRC4(2, 48, 15, 13), .variant = INT8_TIES},
    {CONV(96, 1, .window = WINDOW(1, 2, 0, 0), .bias = true, U8_S8), SRC4(2, 64, 28, 28)},
    {CONV(96, 1, .window = WINDOW(1, 2, 0, 0), .bias = true, .activation = ACTIVATION_RELU, S8_U8), SRC4(3, 64, 27, 28)},
    {CONV(64, 1, .window = WINDOW(3, 1, 1, 1), .bias = true, .activation = ACTIVATION_RELU, U8_U8), SRC4(2, 64, 14, 14)},
    {CONV(64, 1, .window = WINDOW(3, 1, 1, 1), .bias = true, .activation = ACTIVATION_RELU, U8_U8), SRC4(2, 64, 14, 14),
     .variant = INT8_ENDS},
    {CONV(64, 1, .window = WINDOW(3, 1, 1, 1), .bias = true, .activation = ACTIVATION_RELU, U8_U8), SRC4(2, 64, 14, 14),
     .variant = INT8_TIES},
    {CONV(64, 1, .window = WINDOW(3, 1, 1, 1), .bias = true, S8_S8), SRC4(2, 64, 7, 7)},
    {CONV(64, 1, .window = WINDOW(3, 1, 1, 1), .bias = true, S8_S8), SRC4(2, 64, 7, 7), .variant = INT8_ENDS},
    {CONV(32, 1, .window = WINDOW(3, 1, 1, 1), .bias = true, U8_U8), SRC4(1, 512, 7, 7), .variant = INT8_ENDS},
    {CONV(48, 1, .window = WINDOW(3, 2, 1, 1), .bias = true, U8_S8), SRC4(2, 32, 28, 29)},
    {CONV(48, 1, .window = WINDOW(3, 2, 1, 1), .bias = true, S8_U8), SRC4(2, 32, 28, 29)},
    {CONV(32, 1, .window = WINDOW(3, 1, 1, 1), U8_U8), SRC4(2, 32, 9, 9)},
    {CONV(32, 1, .window = WINDOW(3, 1, 1, 1), S8_S8), SRC4(2, 32, 9, 9)},
    {CONV(32, 1, .window = WINDOW(3, 1, 1, 1), .bias = true, U8_TO(DTYPE_F32)), SRC4(2, 32, 13, 13)},
    {CONV(32, 1, .window = WINDOW(1, 1, 0, 0), .bias = true, S8_TO(DTYPE_F32)), SRC4(2, 32, 13, 13)},
    {CONV(32, 1, .window = WINDOW(3, 1, 1, 1), .bias = true, .activation = ACTIVATION_RELU, U8_TO(DTYPE_BF16)),
     SRC4(2, 32, 13, 13)},
    {CONV(32, 1, .window = WINDOW(1, 1, 0, 0), .bias = true, S8_TO(DTYPE_BF16)), SRC4(2, 32, 13, 13)},
    /* Odd channels, windows and paddings. */
    {CONV(17, 1, .window = WINDOW(3, 1, 1, 1), .bias = true, U8_U8), SRC4(3, 13, 15, 11)},
    {CONV(3, 1, .window = WINDOW(5, 3, 2, 1), .bias = true, S8_S8), SRC4(2, 7, 33, 30)},
    {CONV(16, 1, .window = {{2, 3}, {1, 2}, {1, 0}, {0, 2}}, .bias = true, U8_S8), SRC4(2, 16, 14, 17)},
    {CONV(19, 1, .window = WINDOW(1, 1, 0, 0), .bias = true, S8_U8), SRC4(1, 5, 1, 1)},
    /* Groups and depthwise. */
    {CONV(32, 32, .window = WINDOW(3, 1, 1, 1), .bias = true, .activation = ACTIVATION_RELU, U8_U8), SRC4(2, 32, 28, 28)},
    {CONV(32, 32, .window = WINDOW(3, 1, 1, 1), .bias = true, U8_U8), SRC4(2, 32, 14, 14), .variant = INT8_ENDS},
    {CONV(32, 32, .window = WINDOW(3, 1, 1, 1), .bias = true, U8_U8), SRC4(2, 32, 14, 14), .variant = INT8_TIES},
    {CONV(32, 32, .window = WINDOW(3, 2, 0, 1), .bias = true, S8_U8), SRC4(2, 32, 28, 28)},
    {CONV(48, 48, .window = WINDOW(5, 1, 2, 2), .bias = true, U8_S8), SRC4(1, 48, 14, 14)},
    {CONV(48, 48, .window = WINDOW(5, 1, 2, 2), .bias = true, S8_S8), SRC4(1, 48, 14, 14), .variant = INT8_ENDS},
    {CONV(24, 24, .window = WINDOW(5, 2, 1, 2), .bias = true, S8_S8), SRC4(3, 24, 28, 28)},
    {CONV(7, 7, .window = WINDOW(3, 1, 1, 1), .bias = true, U8_U8), SRC4(2, 7, 13, 13)},
    {CONV(27, 27, .window = WINDOW(3, 1, 1, 1), .bias = true, S8_S8), SRC4(2, 27, 13, 13)},
    {CONV(27, 27, .window = WINDOW(3, 1, 1, 1), .bias = true, ADDING(DTYPE_U8, DTYPE_S8, DTYPE_S8, 0.4f)), SRC4(2, 27, 13, 13)},
    {CONV(40, 2, .window = WINDOW(3, 1, 1, 1), .bias = true, U8_U8), SRC4(2, 34, 9, 9)},
    {CONV(32, 32, .window = WINDOW(3, 1, 1, 1), .bias = true, ADDING(DTYPE_U8, DTYPE_U8, DTYPE_S8, 0.4f)), SRC4(2, 32, 14, 14)},
    {CONV(32, 4, .window = WINDOW(3, 1, 1, 1), .bias = true, U8_U8), SRC4(2, 64, 14, 14)},
    {CONV(32, 4, .window = WINDOW(3, 1, 1, 1), .bias = true, S8_S8), SRC4(2, 64, 14, 14)},
    {CONV(9, 3, .window = WINDOW(3, 2, 1, 1), .bias = true, U8_TO(DTYPE_F32)), SRC4(2, 6, 15, 15)},
    {CONV(10, 5, .window = WINDOW(3, 1, 1, 1), .bias = true, S8_U8), SRC4(1, 5, 9, 9)},
    /* Residuals of both dtypes. */
    {CONV(64, 1, .window = WINDOW(1, 1, 0, 0), .bias = true, .activation = ACTIVATION_RELU,
          ADDING(DTYPE_U8, DTYPE_U8, DTYPE_U8, 0.37f)),
     SRC4(2, 16, 28, 28)},
    {CONV(64, 1, .window = WINDOW(1, 1, 0, 0), .bias = true, .activation = ACTIVATION_RELU,
          ADDING(DTYPE_U8, DTYPE_U8, DTYPE_S8, 0.73f)),
     SRC4(2, 16, 28, 28)},
    {CONV(64, 1, .window = WINDOW(1, 1, 0, 0), .bias = true, .activation = ACTIVATION_RELU,
          ADDING(DTYPE_U8, DTYPE_U8, DTYPE_S8, 0.5f)),
     SRC4(2, 16, 28, 28), .variant = INT8_TIES},
    {CONV(64, 1, .window = WINDOW(3, 1, 1, 1), .bias = true, .activation = ACTIVATION_RELU,
          ADDING(DTYPE_U8, DTYPE_U8, DTYPE_U8, 1)),
     SRC4(2, 64, 14, 14)},
    {CONV(64, 1, .window = WINDOW(3, 1, 1, 1), .bias = true, .activation = ACTIVATION_RELU,
          ADDING(DTYPE_U8, DTYPE_U8, DTYPE_U8, 0.9f)),
     SRC4(2, 64, 14, 14), .variant = INT8_ENDS},
    {CONV(24, 1, .window = WINDOW(1, 1, 0, 0), .bias = true, ADDING(DTYPE_U8, DTYPE_S8, DTYPE_S8, 1.3f)), SRC4(2, 96, 14, 14)},
    {CONV(24, 1, .window = WINDOW(1, 1, 0, 0), .bias = true, ADDING(DTYPE_S8, DTYPE_S8, DTYPE_U8, 0.21f)), SRC4(2, 96, 14, 14)},
    {CONV(17, 1, .window = WINDOW(3, 2, 1, 1), .bias = true, .activation = ACTIVATION_RELU,
          ADDING(DTYPE_S8, DTYPE_U8, DTYPE_S8, 0.6f)),
     SRC4(3, 5, 15, 13)},
    {CONV(16, 1, .window = WINDOW(3, 1, 1, 1), ADDING(DTYPE_U8, DTYPE_S8, DTYPE_U8, 0.3f)), SRC4(1, 16, 1, 1)},
    /* So large that GPUs compute it in parts. */
    {CONV(4, 1, .window = WINDOW(1, 1, 0, 0), .bias = true, ADDING(DTYPE_U8, DTYPE_U8, DTYPE_S8, 0.5f)), SRC4(5, 1, 500, 500)},

    {POOL(DTYPE_U8, WINDOW(3, 2, 1, 1)), SRC4(2, 64, 28, 28)},
    {POOL(DTYPE_S8, WINDOW(3, 2, 1, 1)), SRC4(3, 16, 57, 55)},
    {POOL(DTYPE_U8, WINDOW(3, 2, 0, 1)), SRC4(2, 5, 28, 28)},
    {POOL(DTYPE_S8, {{3, 2}, {1, 3}, {1, 0}, {0, 1}}), SRC4(2, 19, 11, 13)},
    {AVERAGE(DTYPE_U8), SRC4(3, 64, 7, 7)},
    {AVERAGE(DTYPE_S8), SRC4(2, 13, 4, 5)},
    {AVERAGE(DTYPE_S8), SRC4(2, 40, 7, 7), .variant = INT8_ENDS},
    {AVERAGE(DTYPE_U8), SRC4(1, 16, 1, 1)},

    {RESCALE(DTYPE_F32, DTYPE_U8, 97.3f), SRC4(2, 3, 28, 28), .reach = 3},
    {RESCALE(DTYPE_F32, DTYPE_S8, 41.7f), SRC4(2, 32, 9, 11), .reach = 3.5f},
    {RESCALE(DTYPE_F32, DTYPE_S8, 0.5f), SRC4(2, 17, 9, 11), .variant = INT8_TIES},
    {RESCALE(DTYPE_F32, DTYPE_U8, 0.5f), SRC4(2, 17, 9, 11), .variant = INT8_TIES},
    {RESCALE(DTYPE_F32, DTYPE_S8, 41.7f), SRC4(2, 16, 5, 5), .reach = 3, .variant = INT8_ENDS},
    {RESCALE(DTYPE_F32, DTYPE_U8, 41.7f), SRC4(2, 16, 5, 5), .reach = 3, .variant = INT8_ENDS},
    {RESCALE(DTYPE_BF16, DTYPE_U8, 60.1f), SRC4(2, 16, 9, 11), .reach = 3},
    {RESCALE(DTYPE_U8, DTYPE_F32, 0.0137f), SRC4(2, 24, 14, 15)},
    {RESCALE(DTYPE_S8, DTYPE_F32, 0.0137f), SRC4(3, 3, 14, 15)},
    {RESCALE(DTYPE_S8, DTYPE_BF16, 0.0137f), SRC4(2, 24, 14, 15)},
    {RESCALE(DTYPE_U8, DTYPE_S8, 0.61f), SRC4(2, 24, 7, 7)},
    {RESCALE(DTYPE_F32, DTYPE_U8, 97.3f), SRC2(5, 33), .reach = 3},
};
const int conformance_int8_case_count = LENGTH(conformance_int8_cases);

static enum dtype either(struct rng *rng) {
    return rng_below(rng, 2) ? DTYPE_U8 : DTYPE_S8;
}

void conformance_random_int8(struct rng *rng, struct conv2d *conv2d, int *variant) {
    if (conv2d->activation == ACTIVATION_RELU6)
        conv2d->activation = ACTIVATION_RELU;
    conv2d->int8 = (struct conv2d_int8){.src = either(rng), .dst = either(rng)};
    if (conv2d->residual) {
        conv2d->int8.residual = either(rng);
        conv2d->int8.residual_factor = rng_uniform(rng, 0.1f, 1.5f);
    }
    *variant = (int)rng_below(rng, INT8_TIES + 1);
}
