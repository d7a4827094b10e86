#include "tests/conformance/cases.h"

#include "common/op/variation.h"

#define LENGTH(array) ((int)(sizeof(array) / sizeof *(array)))
/* clang-format off */
#define WINDOW(k, s, before, after) {.kernel = {k, k}, .stride = {s, s}, .pad_before = {before, before}, .pad_after = {after, after}}
#define SRC4(n, c, h, w) .src = {.rank = 4, .dims = {n, c, h, w}}
#define SRC2(n, f) .src = {.rank = 2, .dims = {n, f}}
#define ROWS(n, h, w) .src = {.rank = 2, .dims = {n, (int64_t)((sizeof(struct variation) + (h) * (w) + 7) / 8 * 8)}}
#define VARY(c, h, w) .op = {OP_VARY, .vary = {c, h, w, .mean = {.485f, .456f, .406f}, .stddev = {.229f, .224f, .225f}}}
#define FLAT(n) .src = {.rank = 1, .dims = {n}}
#define CONV(out, in_groups, ...) .op = {OP_CONV2D, .conv2d = {.channels_out = out, .groups = in_groups, __VA_ARGS__}}
#define NORM(...) .op = {OP_BATCH_NORM, .batch_norm = {.epsilon = 1e-5f, .momentum = 0.1f, __VA_ARGS__}}
#define SUMS .op = {OP_BATCH_NORM_SUMS, .batch_norm = {.epsilon = 1e-5f, .momentum = 0.1f, .synchronised = true}}
#define POOL(...) .op = {OP_MAX_POOL, .max_pool = __VA_ARGS__}
#define LOSS(smoothing) .op = {OP_SOFTMAX_CROSS_ENTROPY, .softmax_cross_entropy = {smoothing}}
/* clang-format on */

const struct op_case conformance_cases[] = {
    /* Convolutions as networks have them: stems, 3x3, bottlenecks, down-sampling. */
    {CONV(64, 1, .window = WINDOW(7, 2, 3, 3)), SRC4(2, 3, 57, 57)},
    {CONV(64, 1, .window = WINDOW(7, 2, 3, 3)), SRC4(1, 1, 56, 56)},
    {CONV(16, 1, .window = WINDOW(3, 1, 1, 1)), SRC4(3, 3, 28, 28)},
    {CONV(16, 1, .window = WINDOW(3, 1, 1, 1)), SRC4(5, 1, 28, 28)},
    {CONV(32, 1, .window = WINDOW(3, 2, 0, 1)), SRC4(2, 3, 32, 32)}, /* TensorFlow's SAME */
    {CONV(32, 1, .window = WINDOW(3, 1, 1, 1)), SRC4(2, 32, 29, 31)},
    {CONV(48, 1, .window = WINDOW(3, 2, 1, 1)), SRC4(4, 16, 29, 28)},
    {CONV(64, 1, .window = WINDOW(1, 1, 0, 0)), SRC4(2, 16, 28, 28)},
    {CONV(16, 1, .window = WINDOW(1, 1, 0, 0)), SRC4(1, 64, 7, 7)},
    {CONV(32, 1, .window = WINDOW(1, 2, 0, 0)), SRC4(3, 16, 28, 29)},
    {CONV(64, 1, .window = WINDOW(3, 1, 1, 1)), SRC4(2, 64, 7, 7)},
    {CONV(32, 1, .window = WINDOW(3, 1, 1, 1)), SRC4(1, 32, 4, 4)},
    /* Enough tiles of 4 x 4 for Winograd's filtering, whole ones and cut ones. */
    {CONV(64, 1, .window = WINDOW(3, 1, 1, 1)), SRC4(1, 64, 28, 28)},
    {CONV(48, 1, .window = WINDOW(3, 1, 1, 1), .bias = true), SRC4(3, 80, 14, 14)},
    {CONV(96, 1, .window = WINDOW(3, 1, 1, 1)), SRC4(12, 64, 7, 7)},
    {CONV(32, 1, .window = WINDOW(3, 1, 0, 1)), SRC4(1, 32, 29, 31)},
    /* Odd channels, windows and paddings, biases. */
    {CONV(17, 1, .window = WINDOW(3, 1, 1, 1), .bias = true), SRC4(5, 13, 15, 11)},
    {CONV(3, 1, .window = WINDOW(5, 3, 2, 1), .bias = true), SRC4(2, 7, 33, 30)},
    {CONV(1, 1, .window = WINDOW(3, 1, 1, 1)), SRC4(2, 1, 28, 28)},
    {CONV(16, 1, .window = {{2, 3}, {1, 2}, {1, 0}, {0, 2}}, .bias = true), SRC4(2, 16, 14, 17)},
    {CONV(16, 1, .window = {{1, 7}, {1, 1}, {0, 3}, {0, 3}}), SRC4(2, 8, 17, 17)},
    {CONV(19, 1, .window = WINDOW(1, 1, 0, 0), .bias = true), SRC4(1, 5, 1, 1)},
    /* Groups and depthwise. */
    {CONV(32, 32, .window = WINDOW(3, 1, 1, 1)), SRC4(2, 32, 28, 28)},
    {CONV(32, 32, .window = WINDOW(3, 2, 0, 1)), SRC4(2, 32, 56, 56)},
    {CONV(48, 48, .window = WINDOW(5, 1, 2, 2)), SRC4(1, 48, 14, 14)},
    {CONV(24, 24, .window = WINDOW(5, 2, 1, 2), .bias = true), SRC4(3, 24, 28, 28)},
    {CONV(7, 7, .window = WINDOW(3, 1, 1, 1)), SRC4(2, 7, 13, 13)},
    {CONV(32, 4, .window = WINDOW(3, 1, 1, 1)), SRC4(2, 64, 14, 14)},
    {CONV(9, 3, .window = WINDOW(3, 2, 1, 1), .bias = true), SRC4(2, 6, 15, 15)},
    {CONV(10, 5, .window = WINDOW(3, 1, 1, 1)), SRC4(1, 5, 9, 9)}, /* two outputs for each depth */
    /* Fused, as inference plans ask for. */
    {CONV(32, 1, .window = WINDOW(3, 1, 1, 1), .bias = true, .activation = ACTIVATION_RELU),
     SRC4(2, 16, 28, 28)},
    {CONV(32, 1, .window = WINDOW(3, 1, 1, 1), .bias = true, .residual = true), SRC4(2, 32, 15, 15)},
    {CONV(64, 1, .window = WINDOW(1, 1, 0, 0), .bias = true, .residual = true, .activation = ACTIVATION_RELU),
     SRC4(1, 16, 28, 28)},
    {CONV(17, 1, .window = WINDOW(3, 2, 1, 1), .bias = true, .residual = true, .activation = ACTIVATION_RELU),
     SRC4(3, 5, 15, 13)},
    {CONV(32, 32, .window = WINDOW(3, 1, 1, 1), .bias = true, .activation = ACTIVATION_RELU6),
     SRC4(2, 32, 28, 28), .reach = 8},
    {CONV(16, 1, .window = WINDOW(1, 1, 0, 0), .residual = true, .activation = ACTIVATION_RELU6),
     SRC4(2, 24, 14, 14), .reach = 8},
    {CONV(8, 1, .window = WINDOW(3, 1, 1, 1), .activation = ACTIVATION_RELU), SRC4(1, 3, 9, 9)},
    {CONV(64, 1, .window = WINDOW(3, 1, 1, 1), .bias = true, .activation = ACTIVATION_RELU), SRC4(1, 64, 28, 28)},
    {CONV(64, 1, .window = WINDOW(3, 1, 1, 1), .bias = true, .residual = true, .activation = ACTIVATION_RELU),
     SRC4(1, 32, 29, 29)},
    {CONV(32, 1, .window = WINDOW(3, 1, 1, 1), .bias = true, .residual = true), SRC4(1, 48, 30, 28)},

    {NORM(.activation = ACTIVATION_NONE), SRC4(4, 16, 28, 28)},
    {NORM(.activation = ACTIVATION_NONE), SRC4(2, 13, 7, 9)},
    {NORM(.activation = ACTIVATION_RELU), SRC4(3, 32, 14, 15)},
    {NORM(.activation = ACTIVATION_RELU), SRC4(5, 1, 57, 57)},
    {NORM(.activation = ACTIVATION_RELU6), SRC4(2, 19, 9, 9), .reach = 8},
    {NORM(.residual = true), SRC4(2, 32, 7, 7)},
    {NORM(.residual = true, .activation = ACTIVATION_RELU), SRC4(4, 64, 14, 14)},
    {NORM(.residual = true, .activation = ACTIVATION_RELU), SRC4(1, 17, 5, 3)},
    {NORM(.frozen = true), SRC4(2, 32, 9, 9)},
    {NORM(.frozen = true, .activation = ACTIVATION_RELU), SRC4(2, 16, 28, 28)},
    {NORM(.frozen = true, .residual = true, .activation = ACTIVATION_RELU), SRC4(3, 24, 7, 7)},
    {NORM(.frozen = true, .residual = true), SRC4(1, 3, 11, 5)},

    {NORM(.synchronised = true), SRC4(4, 16, 28, 28)},
    {NORM(.synchronised = true, .activation = ACTIVATION_RELU), SRC4(3, 32, 14, 15)},
    {NORM(.synchronised = true, .residual = true, .activation = ACTIVATION_RELU6), SRC4(2, 19, 9, 9), .reach = 8},
    {NORM(.synchronised = true, .residual = true), SRC4(5, 1, 57, 57)},
    {SUMS, SRC4(4, 16, 28, 28)}, /* behind an activation: tests/unit/device/synchronised_norm_test.c */
    {SUMS, SRC4(3, 32, 14, 15)},
    {SUMS, SRC4(2, 19, 9, 9), .reach = 8},
    {SUMS, SRC4(5, 1, 57, 57)},

    {.op = {OP_ACTIVATION, .activation = ACTIVATION_RELU}, SRC4(2, 16, 28, 28)},
    {.op = {OP_ACTIVATION, .activation = ACTIVATION_RELU}, SRC4(3, 5, 7, 9)},
    {.op = {OP_ACTIVATION, .activation = ACTIVATION_RELU6}, SRC4(2, 19, 13, 13), .reach = 12},
    {.op = {OP_ACTIVATION, .activation = ACTIVATION_RELU}, SRC2(5, 33)},
    {.op = {OP_ADD, .activation = ACTIVATION_NONE}, SRC4(2, 32, 14, 14)},
    {.op = {OP_ADD, .activation = ACTIVATION_RELU}, SRC4(2, 32, 15, 13)},
    {.op = {OP_ADD, .activation = ACTIVATION_RELU6}, SRC4(3, 7, 9, 5), .reach = 6},

    {POOL(WINDOW(3, 2, 1, 1)), SRC4(2, 64, 28, 28)},
    {POOL(WINDOW(3, 2, 1, 1)), SRC4(3, 16, 57, 55)},
    {POOL(WINDOW(3, 2, 0, 1)), SRC4(2, 5, 28, 28)},
    {POOL(WINDOW(2, 2, 0, 0)), SRC4(1, 32, 15, 15)},
    {POOL({{3, 2}, {1, 3}, {1, 0}, {0, 1}}), SRC4(2, 19, 11, 13)},
    {.op = {.kind = OP_GLOBAL_AVERAGE_POOL}, SRC4(3, 64, 7, 7)},
    {.op = {.kind = OP_GLOBAL_AVERAGE_POOL}, SRC4(2, 13, 4, 5)},
    {.op = {.kind = OP_GLOBAL_AVERAGE_POOL}, SRC4(1, 16, 1, 1)},

    {.op = {OP_LINEAR, .linear = {3, true}}, SRC2(4, 512)},
    {.op = {OP_LINEAR, .linear = {1000, true}}, SRC2(1, 64)},
    {.op = {OP_LINEAR, .linear = {17, false}}, SRC2(5, 33)},
    {.op = {OP_LINEAR, .linear = {3, true}}, SRC4(3, 16, 4, 3)},
    {.op = {OP_DROPOUT, .dropout = {0.2f, 0}}, SRC2(4, 1280)},
    {.op = {OP_DROPOUT, .dropout = {0.5f, 9}}, SRC4(2, 19, 5, 7)},
    {.op = {OP_DROPOUT, .dropout = {0, 0}}, SRC2(3, 40)},
    {LOSS(0), SRC2(16, 3), .reach = 5},
    {LOSS(0.1f), SRC2(5, 3), .reach = 5},
    {LOSS(0.1f), SRC2(7, 1000), .reach = 5},
    {LOSS(0), SRC2(4, 2), .reach = 60},

    {.op = {.kind = OP_REORDER}, SRC4(2, 17, 9, 11)},
    {.op = {.kind = OP_REORDER}, SRC4(3, 32, 8, 5), .variant = 1},

    {VARY(1, 28, 28), ROWS(13, 28, 28)},
    {VARY(3, 31, 45), ROWS(7, 31, 45)},
    {VARY(2, 33, 17), ROWS(4, 33, 17)},
    {VARY(3, 112, 112), ROWS(5, 112, 112)},
    {VARY(1, 5, 8), ROWS(1, 5, 8)},
    {.op = {.kind = OP_GRADIENT_NORM}, FLAT(64)},
    {.op = {.kind = OP_GRADIENT_NORM}, FLAT(64 * 1237)},
    {.op = {.kind = OP_GRADIENT_NORM}, FLAT(64 * 33), .variant = 2},
    {.op = {OP_SGD, .optimizer = {false}}, FLAT(64)},
    {.op = {OP_SGD, .optimizer = {true}}, FLAT(64 * 531)},
    {.op = {OP_SGD, .optimizer = {true}}, FLAT(64 * 7), .variant = 1},
    {.op = {OP_SGD, .optimizer = {true}}, FLAT(64 * 3), .variant = 2},
    {.op = {OP_ADAMW, .optimizer = {false}}, FLAT(64 * 5)},
    {.op = {OP_ADAMW, .optimizer = {true}}, FLAT(64 * 531)},
    {.op = {OP_ADAMW, .optimizer = {true}}, FLAT(64 * 7), .variant = 1},
    {.op = {OP_ADAMW, .optimizer = {true}}, FLAT(64 * 3), .variant = 2},
};
const int conformance_case_count = LENGTH(conformance_cases);

static int between(struct rng *rng, int low, int high) {
    return low + (int)rng_below(rng, (uint32_t)(high - low + 1));
}

static struct window random_window(struct rng *rng) {
    struct window w;
    for (int i = 0; i < 2; i++) {
        w.kernel[i] = between(rng, 1, 5);
        w.stride[i] = between(rng, 1, 3);
        w.pad_before[i] = between(rng, 0, w.kernel[i] - 1);
        w.pad_after[i] = between(rng, 0, w.kernel[i] - 1);
    }
    return w;
}

static void random_conv2d(struct rng *rng, struct op_case *out) {
    int groups = between(rng, 0, 2) ? 1 : between(rng, 2, 9);
    bool depthwise = groups > 1 && between(rng, 0, 1);
    int64_t in = depthwise ? groups : (int64_t)groups * between(rng, 1, 20);
    int64_t channels_out = depthwise ? groups : (int64_t)groups * between(rng, 1, 20);
    bool fused = between(rng, 0, 2) == 0;
    out->op = (struct op){
        OP_CONV2D, .conv2d = {.channels_out = channels_out,
                              .window = random_window(rng),
                              .groups = groups,
                              .bias = between(rng, 0, 1),
                              .residual = fused && between(rng, 0, 1),
                              .activation = fused ? (enum activation)between(rng, 0, 2) : ACTIVATION_NONE}};
    out->src.dims[1] = in;
}

/* As large as Winograd's filtering wants them, mostly. */
static void random_3x3(struct rng *rng, struct op_case *out) {
    random_conv2d(rng, out);
    out->op.conv2d.groups = 1;
    if (out->op.conv2d.activation == ACTIVATION_RELU6)
        out->op.conv2d.activation = ACTIVATION_RELU; /* which Winograd's kernels take */
    out->op.conv2d.channels_out = between(rng, 32, 48);
    out->src.dims[1] = between(rng, 32, 48);
    out->src.dims[0] = between(rng, 4, 5);
    for (int i = 0; i < 2; i++) {
        out->op.conv2d.window.kernel[i] = 3;
        out->op.conv2d.window.stride[i] = 1;
        out->op.conv2d.window.pad_before[i] = between(rng, 0, 4) ? 1 : between(rng, 0, 2);
        out->op.conv2d.window.pad_after[i] = between(rng, 0, 4) ? 1 : between(rng, 0, 2);
        out->src.dims[2 + i] = between(rng, 9, 14);
    }
}

static void random_int8_conv2d(struct rng *rng, struct op_case *out) {
    random_conv2d(rng, out);
    conformance_random_int8(rng, &out->op.conv2d, &out->variant);
}

static void random_batch_norm(struct rng *rng, struct op_case *out) {
    out->op = (struct op){OP_BATCH_NORM, .batch_norm = {.epsilon = 1e-3f,
                                                        .momentum = rng_uniform(rng, 0, 1),
                                                        .frozen = between(rng, 0, 3) == 0,
                                                        .synchronised = between(rng, 0, 2) == 0,
                                                        .residual = between(rng, 0, 1),
                                                        .activation = (enum activation)between(rng, 0, 2)}};
    out->src.dims[0] += 1; /* two values of a channel are the least that say something of a variance */
}

static void random_max_pool(struct rng *rng, struct op_case *out) {
    out->op = (struct op){OP_MAX_POOL, .max_pool = random_window(rng)};
}

void conformance_random_case(enum precision precision, uint64_t seed, uint32_t i, struct op_case *out) {
    static void (*const makers[])(struct rng *, struct op_case *) = {
        random_conv2d, random_conv2d, random_conv2d, random_3x3, random_batch_norm, random_max_pool};
    struct shape inputs[OP_MAX_INPUTS], shape;
    struct rng rng;
    rng_init(&rng, seed, RNG_TEST, i, 1);
    do { /* until the window fits */
        *out = (struct op_case){.reach = rng_uniform(&rng, 1, 8)};
        out->src = (struct shape){
            4, {between(&rng, 1, 5), between(&rng, 1, 40), between(&rng, 1, 19), between(&rng, 1, 19)}};
        if (precision == PRECISION_INT8)
            random_int8_conv2d(&rng, out);
        else
            makers[between(&rng, 0, LENGTH(makers) - 1)](&rng, out);
    } while (!case_inputs(out, inputs, NULL) || !op_output_shape(&out->op, inputs, &shape, NULL));
}
