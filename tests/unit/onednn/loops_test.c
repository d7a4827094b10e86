#include "common/device/onednn/loops.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/*
 * The leaf loops of every instruction set that this machine runs, against their formulas in double. The
 * conformance tests go through the fastest alone.
 */

enum { MAX_ROWS = 130, STRIDE = 21, SIZE = MAX_ROWS * STRIDE + LANES };

static const int lane_counts[] = {16, 8, 5, 1};
static const int row_counts[] = {1, 3, 4, 7, 128};

struct fixture {
    float src[SIZE], residual[SIZE], diff_dst[SIZE], dst[SIZE], diff_src[SIZE], diff_residual[SIZE];
    uint16_t mask[MAX_ROWS];
    struct norm_lanes numbers;
    struct norm_rows rows;
};

static float draw(uint32_t *state) {
    *state = *state * 1664525u + 1013904223u;
    return (float)(*state >> 8) / (float)(1 << 23) - 1;
}

static void fixture_init(struct fixture *f, int rows, int lanes) {
    uint32_t state = 7;
    memset(f, 0, sizeof *f);
    for (int i = 0; i < SIZE; i++) {
        f->src[i] = 3 + draw(&state);
        f->residual[i] = draw(&state);
        f->diff_dst[i] = draw(&state);
        f->dst[i] = f->diff_src[i] = f->diff_residual[i] = -99;
    }
    for (int i = 0; i < LANES; i++) {
        f->numbers.mean[i] = 3 + draw(&state);
        f->numbers.gain[i] = 4 * draw(&state);
        f->numbers.shift[i] = 4 * draw(&state);
        f->numbers.slope[i] = draw(&state);
        f->numbers.offset[i] = draw(&state);
    }
    for (int i = 0; i < MAX_ROWS; i++)
        f->mask[i] = (uint16_t)(draw(&state) * 32767);
    f->rows = (struct norm_rows){.rows = rows,
                                 .stride = lanes == LANES ? LANES : STRIDE,
                                 .lanes = lanes,
                                 .numbers = &f->numbers,
                                 .src = f->src};
}

static void assert_near(double a, double b, double scale) {
    if (fabs(a - b) > 2e-6 * scale)
        fail_msg("%.9g should be %.9g", a, b);
}

/* Calls test for every table, number of rows and of lanes. */
static void for_all(void (*test)(const struct loops *loops, struct fixture *f)) {
    struct fixture *f = malloc(sizeof *f);
    assert_non_null(f);
    for (int i = 0; loops_row(i); i++)
        for (size_t r = 0; r < sizeof row_counts / sizeof *row_counts; r++)
            for (size_t l = 0; l < sizeof lane_counts / sizeof *lane_counts; l++) {
                fixture_init(f, row_counts[r], lane_counts[l]);
                test(loops_row(i), f);
            }
    free(f);
}

static void check_moments(const struct loops *loops, struct fixture *f) {
    float mean[LANES], squares[LANES];
    loops->moments(&f->rows, mean, squares);
    for (int lane = 0; lane < f->rows.lanes; lane++) {
        double sum = 0, square = 0;
        for (int64_t i = 0; i < f->rows.rows; i++)
            sum += (double)f->src[i * f->rows.stride + lane];
        sum /= (double)f->rows.rows;
        for (int64_t i = 0; i < f->rows.rows; i++)
            square += pow((double)f->src[i * f->rows.stride + lane] - sum, 2);
        assert_near((double)mean[lane], sum, 4);
        assert_near((double)squares[lane], square, 1 + square);
    }
}

static void moments_are_those_of_the_lane(void **state) {
    (void)state;
    for_all(check_moments);
}

static double activated(double v, enum activation activation) {
    v = activation != ACTIVATION_NONE && v < 0 ? 0 : v;
    return activation == ACTIVATION_RELU6 && v > 6 ? 6 : v;
}

static void check_normalise_with(const struct loops *loops, struct fixture *f, bool residual,
                                 enum activation activation) {
    f->rows.dst = f->dst;
    f->rows.residual = residual ? f->residual : NULL;
    f->rows.mask_out = f->mask;
    f->rows.activation = activation;
    loops->normalise(&f->rows);
    for (int64_t i = 0; i < f->rows.rows; i++)
        for (int lane = 0; lane < f->rows.lanes; lane++) {
            int64_t at = i * f->rows.stride + lane;
            double y = ((double)f->src[at] - (double)f->numbers.mean[lane]) * (double)f->numbers.gain[lane] +
                       (double)f->numbers.shift[lane] + (residual ? (double)f->residual[at] : 0);
            bool passes = f->mask[i] >> lane & 1;
            assert_near((double)f->dst[at], activated(y, activation), 16);
            if (activation != ACTIVATION_NONE && fabs(y) > 1e-4 && fabs(y - 6) > 1e-4)
                assert_int_equal(passes, y > 0 && (activation == ACTIVATION_RELU || y < 6));
        }
}

static void check_normalise(const struct loops *loops, struct fixture *f) {
    int rows = (int)f->rows.rows, lanes = f->rows.lanes;
    for (int activation = ACTIVATION_NONE; activation <= ACTIVATION_RELU6; activation++)
        for (int residual = 0; residual < 2; residual++) {
            fixture_init(f, rows, lanes);
            check_normalise_with(loops, f, residual != 0, (enum activation)activation);
            if (lanes < LANES) /* what lies between the rows is somebody else's */
                assert_true(f->dst[lanes] == -99);
        }
}

static void normalising_adds_activates_and_masks(void **state) {
    (void)state;
    for_all(check_normalise);
}

/* Past the cache or not: the same bits, of dst and of the mask, and nothing beside them. */
static void streamed_rows_are_the_same_bits(void **state) {
    struct fixture *ordinary = malloc(sizeof *ordinary), *streamed = malloc(sizeof *streamed);
    size_t bytes = (MAX_ROWS + 1) * LANES * sizeof(float);
    float *aligned = aligned_alloc(LANES * sizeof(float), bytes);
    (void)state;
    assert_true(ordinary && streamed && aligned);
    for (int i = 0; loops_row(i); i++)
        for (enum activation activation = ACTIVATION_NONE; activation <= ACTIVATION_RELU6; activation++) {
            fixture_init(ordinary, 7, LANES);
            check_normalise_with(loops_row(i), ordinary, true, activation);
            fixture_init(streamed, 7, LANES);
            memset(aligned, 0, bytes);
            streamed->rows.dst = aligned;
            streamed->rows.residual = streamed->residual;
            streamed->rows.mask_out = streamed->mask;
            streamed->rows.activation = activation;
            streamed->rows.stream = true;
            loops_row(i)->normalise(&streamed->rows);
            assert_memory_equal(aligned, ordinary->dst, 7 * LANES * sizeof(float));
            assert_memory_equal(streamed->mask, ordinary->mask, sizeof streamed->mask);
            assert_true(aligned[7 * LANES] == 0);
        }
    free(ordinary);
    free(streamed);
    free(aligned);
}

static double masked(const struct fixture *f, int64_t i, int lane) {
    bool passes = !f->rows.mask || (f->rows.mask[i] >> lane & 1);
    return passes ? (double)f->diff_dst[i * f->rows.stride + lane] : 0;
}

static void check_sums(const struct loops *loops, struct fixture *f) {
    float sum[LANES], product[LANES];
    f->rows.diff_dst = f->diff_dst;
    for (int with_mask = 0; with_mask < 2; with_mask++) {
        f->rows.mask = with_mask ? f->mask : NULL;
        loops->gradient_sums(&f->rows, sum, product);
        for (int lane = 0; lane < f->rows.lanes; lane++) {
            double s = 0, p = 0;
            for (int64_t i = 0; i < f->rows.rows; i++) {
                double d = (double)f->src[i * f->rows.stride + lane] - (double)f->numbers.mean[lane];
                s += masked(f, i, lane);
                p += masked(f, i, lane) * d;
            }
            assert_near((double)sum[lane], s, 20);
            assert_near((double)product[lane], p, 40);
        }
    }
}

static void gradient_sums_see_the_mask(void **state) {
    (void)state;
    for_all(check_sums);
}

static void check_gradient(const struct loops *loops, struct fixture *f) {
    const struct norm_lanes *n = &f->numbers;
    f->rows.diff_dst = f->diff_dst;
    f->rows.diff_src = f->diff_src;
    f->rows.diff_residual = f->diff_residual;
    f->rows.mask = f->mask;
    loops->gradient(&f->rows);
    for (int64_t i = 0; i < f->rows.rows; i++)
        for (int lane = 0; lane < f->rows.lanes; lane++) {
            int64_t at = i * f->rows.stride + lane;
            double g = masked(f, i, lane), d = (double)f->src[at] - (double)n->mean[lane];
            double expected =
                (double)n->gain[lane] * g - (double)n->slope[lane] * d - (double)n->offset[lane];
            assert_near((double)f->diff_src[at], expected, 8);
            assert_true((double)f->diff_residual[at] == g);
        }
}

static void gradients_follow_the_formula(void **state) {
    (void)state;
    for_all(check_gradient);
}

static void activations_keep_what_is_not_a_number(void **state) {
    const float values[19] = {-1, NAN, 7, 3, [17] = -2, [18] = NAN};
    float out[19];
    (void)state;
    for (int i = 0; loops_row(i); i++) {
        loops_row(i)->activate(out, values, NULL, 19, ACTIVATION_RELU6);
        assert_true(out[0] == 0 && isnan(out[1]) && out[2] == 6 && out[3] == 3 && out[17] == 0 &&
                    isnan(out[18]));
        loops_row(i)->activate(out, values, values, 19, ACTIVATION_NONE);
        assert_true(out[0] == -2 && out[2] == 14 && out[17] == -4);
    }
}

static void gradients_pass_strictly_inside(void **state) {
    const float dst[18] = {0, 6, 3, -1, [16] = 6, [17] = 2};
    float gradient[18], out[18];
    (void)state;
    for (int i = 0; i < 18; i++)
        gradient[i] = 5;
    for (int i = 0; loops_row(i); i++) {
        loops_row(i)->activate_gradient(out, gradient, dst, 18, ACTIVATION_RELU6);
        assert_true(out[0] == 0 && out[1] == 0 && out[2] == 5 && out[3] == 0 && out[16] == 0 && out[17] == 5);
        loops_row(i)->activate_gradient(out, gradient, dst, 18, ACTIVATION_RELU);
        assert_true(out[0] == 0 && out[1] == 5 && out[3] == 0 && out[16] == 5);
    }
}

static void square_sums_leave_out_what_is_not_finite(void **state) {
    float values[64] = {3, INFINITY, -4, NAN, -INFINITY};
    (void)state;
    for (int i = 0; loops_row(i); i++) {
        double sum = 0, bad = 0;
        loops_row(i)->square_sum(values, 64, &sum, &bad);
        assert_true(sum == 25 && bad == 3);
    }
}

static void steps_only_touch_their_blocks(void **state) {
    enum { COUNT = 3 * OPTIMIZER_BLOCK };
    const struct optimizer_step step = {.rate = .5f,
                                        .weight_decay = .1f,
                                        .momentum = .9f,
                                        .gradient_factor = 2,
                                        .ema_decay = .75f,
                                        .beta1 = .9f,
                                        .beta2 = .99f,
                                        .epsilon = 1e-8f,
                                        .inverse_bias1 = 10,
                                        .inverse_root_bias2 = 10};
    const float decay[3] = {1, 1, 0};
    (void)state;
    for (int i = 0; loops_row(i); i++) {
        float p[COUNT], g[COUNT], m[COUNT], v[COUNT], e[COUNT];
        for (int k = 0; k < COUNT; k++)
            p[k] = g[k] = m[k] = v[k] = e[k] = 1;
        struct optimizer_buffers buffers = {
            .parameter = p, .state = m, .second = v, .ema = e, .gradient = g, .decay = decay};
        loops_row(i)->sgd(&buffers, 1, 3, &step);
        assert_true(p[OPTIMIZER_BLOCK - 1] == 1 && e[0] == 1 && m[0] == 1);
        /* m = .9 + (2 + .1), p = 1 - .5 m, e = .75 + .25 p; without decay m = .9 + 2 */
        assert_near((double)p[OPTIMIZER_BLOCK], 1 - .5 * 3, 1);
        assert_near((double)e[OPTIMIZER_BLOCK], .75 - .25 * .5, 1);
        assert_near((double)p[COUNT - 1], 1 - .5 * 2.9, 1);
        for (int k = 0; k < COUNT; k++)
            p[k] = m[k] = e[k] = 1;
        loops_row(i)->adamw(&buffers, 0, 2, &step);
        /* m = .9 + .1 2, v = .99 + .01 4, p = 1 (1 - .05) - .5 (10 m) / (10 sqrt(v) + 1e-8) */
        assert_near((double)p[0], .95 - .5 * 1.1 / sqrt(1.03), 1);
        assert_near((double)v[0], 1.03, 1);
        assert_true(p[COUNT - 1] == 1 && v[COUNT - 1] == 1);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(moments_are_those_of_the_lane),
        cmocka_unit_test(normalising_adds_activates_and_masks),
        cmocka_unit_test(streamed_rows_are_the_same_bits),
        cmocka_unit_test(gradient_sums_see_the_mask),
        cmocka_unit_test(gradients_follow_the_formula),
        cmocka_unit_test(activations_keep_what_is_not_a_number),
        cmocka_unit_test(gradients_pass_strictly_inside),
        cmocka_unit_test(square_sums_leave_out_what_is_not_finite),
        cmocka_unit_test(steps_only_touch_their_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
