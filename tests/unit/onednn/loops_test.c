#include "common/device/onednn/loops.h"
#include "common/tensor/element.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/*
 * The leaf loops of every instruction set that this machine runs, for both element types, against their formulas in double.
 * The conformance tests go through the fastest alone.
 */

enum { MAX_ROWS = 130, STRIDE = 21, SIZE = MAX_ROWS * STRIDE + LANES };

static const int lane_counts[] = {16, 8, 5, 1};
static const int row_counts[] = {1, 3, 4, 7, 128};
static const enum dtype dtypes[] = {DTYPE_F32, DTYPE_BF16};

/* Tensors of f32 or bf16 elements, in memory that is enough for f32. */
struct fixture {
    enum dtype dtype;
    const struct row_loops *loops;
    float src[SIZE], residual[SIZE], diff_dst[SIZE], dst[SIZE], diff_src[SIZE], diff_residual[SIZE];
    uint16_t mask[MAX_ROWS];
    struct norm_lanes numbers;
    struct norm_rows rows;
};

static float draw(uint32_t *state) {
    *state = *state * 1664525u + 1013904223u;
    return (float)(*state >> 8) / (float)(1 << 23) - 1;
}

static double get(const struct fixture *f, const void *tensor, int64_t at) {
    return element_load(tensor, f->dtype, at);
}

static void fixture_init(struct fixture *f, const struct loops *loops, enum dtype dtype) {
    uint32_t state = 7;
    memset(f, 0, sizeof *f);
    f->dtype = dtype;
    f->loops = loops_of(loops, dtype);
    for (int i = 0; i < SIZE; i++) {
        element_store(f->src, dtype, i, 3 + (double)draw(&state));
        element_store(f->residual, dtype, i, (double)draw(&state));
        element_store(f->diff_dst, dtype, i, (double)draw(&state));
        element_store(f->dst, dtype, i, -99);
        element_store(f->diff_src, dtype, i, -99);
        element_store(f->diff_residual, dtype, i, -99);
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
}

static void set_rows(struct fixture *f, int rows, int lanes) {
    f->rows = (struct norm_rows){.rows = rows,
                                 .stride = lanes == LANES ? LANES : STRIDE,
                                 .lanes = lanes,
                                 .tiles = 1,
                                 .mask_stride = 1,
                                 .numbers = &f->numbers,
                                 .src = f->src};
}

static void assert_near(double a, double b, double scale) {
    if (fabs(a - b) > 2e-6 * scale)
        fail_msg("%.9g should be %.9g", a, b);
}

/* As assert_near, for an element that may have been rounded to bf16. */
static void assert_element(const struct fixture *f, const void *tensor, int64_t at, double expected, double scale) {
    double rounding = f->dtype == DTYPE_BF16 ? ldexp(1, -8) * fabs(expected) : 0, got = get(f, tensor, at);
    if (fabs(got - expected) > 2e-6 * scale + rounding)
        fail_msg("%s: %.9g should be %.9g", dtype_name(f->dtype), got, expected);
}

/* Calls test for every table, element type, number of rows and of lanes. */
static void for_all(void (*test)(struct fixture *f)) {
    struct fixture *f = malloc(sizeof *f);
    assert_non_null(f);
    for (int i = 0; loops_row(i); i++)
        for (size_t d = 0; d < sizeof dtypes / sizeof *dtypes; d++)
            for (size_t r = 0; r < sizeof row_counts / sizeof *row_counts; r++)
                for (size_t l = 0; l < sizeof lane_counts / sizeof *lane_counts; l++) {
                    fixture_init(f, loops_row(i), dtypes[d]);
                    set_rows(f, row_counts[r], lane_counts[l]);
                    test(f);
                }
    free(f);
}

/* Mean, and squared deviations from it, of a lane in the first rows. */
static void expected_moments(const struct fixture *f, int64_t rows, int lane, double *mean, double *squares) {
    *mean = *squares = 0;
    for (int64_t i = 0; i < rows; i++)
        *mean += get(f, f->src, i * f->rows.stride + lane) / (double)rows;
    for (int64_t i = 0; i < rows; i++)
        *squares += pow(get(f, f->src, i * f->rows.stride + lane) - *mean, 2);
}

/* In two stretches, the second merged into the first. */
static void check_moments(struct fixture *f) {
    struct lane_sums sums = {.count = {0}};
    int64_t rows = f->rows.rows, first = (rows + 1) / 2;
    f->rows.rows = first;
    f->loops->moments(&f->rows, &sums);
    f->rows.src = (char *)f->src + (size_t)(first * f->rows.stride) * f->loops->element_bytes;
    f->rows.rows = rows - first;
    if (rows > first)
        f->loops->moments(&f->rows, &sums);
    for (int lane = 0; lane < LANES; lane++) {
        double mean, squares;
        expected_moments(f, rows, lane, &mean, &squares);
        assert_true(sums.count[lane] == (lane < f->rows.lanes ? (double)rows : 0));
        assert_near(sums.first[lane], lane < f->rows.lanes ? mean : 0, 4);
        assert_near(sums.second[lane], lane < f->rows.lanes ? squares : 0, 1 + squares);
    }
}

/* A dark border, then the image: the sums keep their digits though most values are far from where they began. */
static void check_step(struct fixture *f) {
    struct lane_sums sums = {.count = {0}};
    double mean, squares;
    for (int64_t i = 0; i < f->rows.rows; i++)
        for (int lane = 0; lane < f->rows.lanes; lane++) {
            int64_t at = i * f->rows.stride + lane;
            element_store(f->src, f->dtype, at, i < f->rows.rows / 2 ? 0 : 200 + get(f, f->src, at));
        }
    f->loops->moments(&f->rows, &sums);
    for (int lane = 0; lane < f->rows.lanes; lane++) {
        expected_moments(f, f->rows.rows, lane, &mean, &squares);
        assert_near(sums.first[lane], mean, mean);
        assert_near(sums.second[lane], squares, 1 + squares);
    }
}

/* The last row of a plane may have few lanes, and all of them are of one channel: none may bring in what is not there. */
static void check_absent_lanes(struct fixture *f) {
    struct lane_sums before = {.count = {0}}, after;
    struct norm_rows full = f->rows;
    for (int i = 0; i < SIZE; i++)
        element_store(f->src, f->dtype, i, 1e4 + get(f, f->src, i));
    full.rows = 1;
    full.lanes = LANES;
    f->loops->moments(&full, &before);
    after = before;
    f->loops->moments(&f->rows, &after);
    for (int lane = f->rows.lanes; lane < LANES; lane++)
        assert_true(after.count[lane] == before.count[lane] && after.first[lane] == before.first[lane] &&
                    after.second[lane] == before.second[lane]);
}

static void absent_lanes_give_nothing(void **state) {
    (void)state;
    for_all(check_absent_lanes);
}

static void moments_of_a_step_keep_their_digits(void **state) {
    (void)state;
    for_all(check_step);
}

static void moments_are_those_of_the_lane(void **state) {
    (void)state;
    for_all(check_moments);
}

static double activated(double v, enum activation activation) {
    v = activation != ACTIVATION_NONE && v < 0 ? 0 : v;
    return activation == ACTIVATION_RELU6 && v > 6 ? 6 : v;
}

static void check_normalise_with(struct fixture *f, bool residual, enum activation activation) {
    f->rows.dst = f->dst;
    f->rows.residual = residual ? f->residual : NULL;
    f->rows.mask_out = f->mask;
    f->rows.activation = activation;
    f->loops->normalise(&f->rows);
    for (int64_t i = 0; i < f->rows.rows; i++)
        for (int lane = 0; lane < f->rows.lanes; lane++) {
            int64_t at = i * f->rows.stride + lane;
            double y = (get(f, f->src, at) - (double)f->numbers.mean[lane]) * (double)f->numbers.gain[lane] +
                       (double)f->numbers.shift[lane] + (residual ? get(f, f->residual, at) : 0);
            bool passes = f->mask[i] >> lane & 1;
            assert_element(f, f->dst, at, activated(y, activation), 16);
            if (activation != ACTIVATION_NONE && fabs(y) > 1e-4 && fabs(y - 6) > 1e-4)
                assert_int_equal(passes, y > 0 && (activation == ACTIVATION_RELU || y < 6));
        }
}

static void check_normalise(struct fixture *f) {
    for (int activation = ACTIVATION_NONE; activation <= ACTIVATION_RELU6; activation++)
        for (int residual = 0; residual < 2; residual++) {
            check_normalise_with(f, residual != 0, (enum activation)activation);
            if (f->rows.lanes < LANES) /* what lies between the rows is somebody else's */
                assert_true(get(f, f->dst, f->rows.lanes) == -99);
        }
}

static void normalising_adds_activates_and_masks(void **state) {
    (void)state;
    for_all(check_normalise);
}

/* What normalising and differentiating write, past the cache or not. */
static void write_rows(struct fixture *f, void *dst, bool stream) {
    f->rows.residual = f->residual;
    f->rows.diff_dst = f->diff_dst;
    f->rows.mask_out = f->mask;
    f->rows.stream = stream;
    f->rows.dst = dst;
    f->loops->normalise(&f->rows);
    f->rows.mask = f->mask;
    f->rows.diff_src = (char *)dst + 8 * LANES * f->loops->element_bytes;
    f->loops->gradient(&f->rows);
}

static void check_streaming(struct fixture *f, enum activation activation, float *ordinary, float *streamed) {
    enum { ROWS = 7 };
    uint16_t mask[MAX_ROWS];
    set_rows(f, ROWS, LANES);
    f->rows.activation = activation;
    write_rows(f, memset(ordinary, 0, sizeof f->dst), false);
    memcpy(mask, f->mask, sizeof mask);
    write_rows(f, memset(streamed, 0, sizeof f->dst), true);
    assert_memory_equal(streamed, ordinary, sizeof f->dst);
    assert_memory_equal(f->mask, mask, sizeof mask);
    assert_true(get(f, streamed, ROWS * LANES) == 0 && get(f, streamed, 2 * 8 * LANES - 1) == 0);
    assert_true(get(f, streamed, 8 * LANES) != 0);
}

/* Past the cache or not: the same bits, of dst and of the mask, and nothing beside them. */
static void streamed_rows_are_the_same_bits(void **state) {
    enum { BYTES = (SIZE * sizeof(float) + 63) / 64 * 64 };
    struct fixture *f = malloc(sizeof *f);
    float *ordinary = aligned_alloc(64, BYTES), *streamed = aligned_alloc(64, BYTES);
    (void)state;
    assert_true(f && ordinary && streamed);
    for (int i = 0; loops_row(i); i++)
        for (size_t d = 0; d < sizeof dtypes / sizeof *dtypes; d++)
            for (enum activation activation = ACTIVATION_NONE; activation <= ACTIVATION_RELU6; activation++) {
                fixture_init(f, loops_row(i), dtypes[d]);
                check_streaming(f, activation, ordinary, streamed);
            }
    free(f);
    free(ordinary);
    free(streamed);
}

static double masked(const struct fixture *f, int64_t i, int lane) {
    bool passes = !f->rows.mask || (f->rows.mask[i] >> lane & 1);
    return passes ? get(f, f->diff_dst, i * f->rows.stride + lane) : 0;
}

static void check_sums(struct fixture *f) {
    f->rows.diff_dst = f->diff_dst;
    for (int with_mask = 0; with_mask < 2; with_mask++) {
        struct lane_sums sums = {.first = {[0] = 5}, .second = {[0] = 7}};
        f->rows.mask = with_mask ? f->mask : NULL;
        f->loops->gradient_sums(&f->rows, &sums);
        for (int lane = 0; lane < f->rows.lanes; lane++) {
            double s = lane == 0 ? 5 : 0, p = lane == 0 ? 7 : 0;
            for (int64_t i = 0; i < f->rows.rows; i++) {
                double d = get(f, f->src, i * f->rows.stride + lane) - (double)f->numbers.mean[lane];
                s += masked(f, i, lane);
                p += masked(f, i, lane) * d;
            }
            assert_near(sums.first[lane], s, 20);
            assert_near(sums.second[lane], p, 40);
        }
    }
}

static void gradient_sums_see_the_mask(void **state) {
    (void)state;
    for_all(check_sums);
}

static void check_gradient(struct fixture *f) {
    const struct norm_lanes *n = &f->numbers;
    f->rows.diff_dst = f->diff_dst;
    f->rows.diff_src = f->diff_src;
    f->rows.diff_residual = f->diff_residual;
    f->rows.mask = f->mask;
    f->loops->gradient(&f->rows);
    for (int64_t i = 0; i < f->rows.rows; i++)
        for (int lane = 0; lane < f->rows.lanes; lane++) {
            int64_t at = i * f->rows.stride + lane;
            double g = masked(f, i, lane), d = get(f, f->src, at) - (double)n->mean[lane];
            double expected =
                (double)n->gain[lane] * g - (double)n->slope[lane] * d - (double)n->offset[lane];
            assert_element(f, f->diff_src, at, expected, 8);
            assert_true(get(f, f->diff_residual, at) == g);
        }
}

static void gradients_follow_the_formula(void **state) {
    (void)state;
    for_all(check_gradient);
}

static void check_plain_sums(struct fixture *f) {
    float sum[LANES];
    f->loops->sum(&f->rows, sum);
    for (int lane = 0; lane < f->rows.lanes; lane++) {
        double expected = 0;
        for (int64_t i = 0; i < f->rows.rows; i++)
            expected += get(f, f->src, i * f->rows.stride + lane);
        assert_near((double)sum[lane], expected, 1 + expected);
    }
}

static void sums_are_those_of_the_lane(void **state) {
    (void)state;
    for_all(check_plain_sums);
}

/* --- several tiles in a row --- */

enum { WIDE = 3, WIDE_ROWS = 37, WIDE_STRIDE = WIDE * LANES };

static void widen_rows(struct fixture *f, const struct norm_lanes *numbers) {
    f->rows = (struct norm_rows){.rows = WIDE_ROWS,
                                 .stride = WIDE_STRIDE,
                                 .lanes = LANES,
                                 .tiles = WIDE,
                                 .mask_stride = WIDE,
                                 .ahead = 8 * WIDE_STRIDE,
                                 .numbers = numbers,
                                 .src = f->src,
                                 .residual = f->residual,
                                 .diff_dst = f->diff_dst,
                                 .dst = f->dst,
                                 .diff_src = f->diff_src,
                                 .diff_residual = f->diff_residual};
}

/* Everything that reads or writes rows, on one set of buffers. */
static void run_all(const struct row_loops *loops, struct norm_rows rows, uint16_t *mask, struct lane_sums *moments,
                    struct lane_sums *sums) {
    rows.mask_out = mask;
    rows.activation = ACTIVATION_RELU;
    loops->moments(&rows, moments);
    loops->normalise(&rows);
    rows.mask = mask;
    loops->gradient_sums(&rows, sums);
    loops->gradient(&rows);
}

static void point_at_tile(const struct fixture *f, struct norm_rows *rows, int tile) {
    size_t at = (size_t)tile * LANES * f->loops->element_bytes;
    rows->tiles = 1;
    rows->ahead = 0;
    rows->numbers += tile;
    rows->src = (const char *)rows->src + at;
    rows->residual = (const char *)rows->residual + at;
    rows->diff_dst = (const char *)rows->diff_dst + at;
    rows->dst = (char *)rows->dst + at;
    rows->diff_src = (char *)rows->diff_src + at;
    rows->diff_residual = (char *)rows->diff_residual + at;
}

static void assert_same_sums(const struct lane_sums *a, const struct lane_sums *b) {
    for (int lane = 0; lane < LANES; lane++) {
        assert_true(a->count[lane] == b->count[lane]);
        assert_near(a->first[lane], b->first[lane], 20);
        assert_near(a->second[lane], b->second[lane], 100);
    }
}

/* The same as each tile alone: elements and masks to the bit, sums but for their order. */
static void check_wide(struct fixture *wide, struct fixture *narrow) {
    static struct norm_lanes numbers[WIDE];
    uint16_t wide_mask[WIDE_ROWS * WIDE], narrow_mask[WIDE_ROWS * WIDE];
    struct lane_sums wide_sums[2][WIDE] = {0}, narrow_sums[2][WIDE] = {0};
    for (int tile = 0; tile < WIDE; tile++) {
        numbers[tile] = wide->numbers;
        numbers[tile].mean[3] += (float)tile;
        numbers[tile].shift[2] -= (float)tile;
    }
    widen_rows(wide, numbers);
    widen_rows(narrow, numbers);
    run_all(wide->loops, wide->rows, wide_mask, wide_sums[0], wide_sums[1]);
    for (int tile = 0; tile < WIDE; tile++) {
        struct norm_rows rows = narrow->rows;
        point_at_tile(narrow, &rows, tile);
        run_all(narrow->loops, rows, narrow_mask + tile, &narrow_sums[0][tile], &narrow_sums[1][tile]);
        assert_same_sums(&wide_sums[0][tile], &narrow_sums[0][tile]);
        assert_same_sums(&wide_sums[1][tile], &narrow_sums[1][tile]);
    }
    assert_memory_equal(wide_mask, narrow_mask, sizeof wide_mask);
    assert_memory_equal(wide->dst, narrow->dst, sizeof wide->dst);
    assert_memory_equal(wide->diff_src, narrow->diff_src, sizeof wide->diff_src);
    assert_memory_equal(wide->diff_residual, narrow->diff_residual, sizeof wide->diff_residual);
}

static void wide_rows_are_tiles_side_by_side(void **state) {
    struct fixture *wide = malloc(sizeof *wide), *narrow = malloc(sizeof *narrow);
    (void)state;
    assert_true(wide && narrow);
    for (int i = 0; loops_row(i); i++)
        for (size_t d = 0; d < sizeof dtypes / sizeof *dtypes; d++) {
            fixture_init(wide, loops_row(i), dtypes[d]);
            fixture_init(narrow, loops_row(i), dtypes[d]);
            check_wide(wide, narrow);
        }
    free(wide);
    free(narrow);
}

/* --- rounding to bf16 --- */

/* A number that is worth rounding: ties, what rounds up to infinity, infinities, NaNs, and any bits at all. */
static float awkward(uint32_t *state) {
    static const uint32_t ties[] = {0x3f808000, 0x3f818000, 0xbf808000, 0x3f808001, 0x3f817fff, 0x7f7f8000, 0x7f7f7fff,
                                    0x7f800000, 0xff800000, 0x7f800001, 0x7fffffff, 0xffc00000, 0x80000000, 0x00800000};
    enum { TIES = sizeof ties / sizeof *ties };
    float value;
    *state = *state * 1664525u + 1013904223u;
    uint32_t bits = *state >> 28 == 0 ? ties[(*state >> 8) % TIES] : *state ^ *state << 15;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* As element_store rounds; a subnormal number may become zero (AVX-512's instruction takes it for one). */
static void assert_rounded(uint16_t got, float value) {
    uint16_t expected = 0;
    element_store(&expected, DTYPE_BF16, 0, (double)value);
    if (isnan(value))
        assert_true(isnan(element_load(&got, DTYPE_BF16, 0)));
    else if (got != expected && !(fabsf(value) < 0x1p-126f && (got & 0x7fff) == 0))
        fail_msg("%a became %04x, should be %04x", (double)value, got, expected);
}

static void stores_round_to_nearest_even(void **state) {
    (void)state;
    for (int i = 0; loops_row(i); i++) {
        uint32_t random = 3;
        for (int k = 0; k < 20000; k++) {
            struct norm_lanes numbers = {.mean = {0}};
            uint16_t dst[LANES];
            struct norm_rows rows = {.rows = 1, .stride = LANES, .lanes = LANES, .tiles = 1, .numbers = &numbers, .dst = dst};
            for (int lane = 0; lane < LANES; lane++)
                numbers.shift[lane] = awkward(&random);
            loops_row(i)->bf16->fill(&rows);
            for (int lane = 0; lane < LANES; lane++)
                assert_rounded(dst[lane], numbers.shift[lane]);
        }
    }
}

/* --- elementwise --- */

enum { FEW = 19 };

static void put_all(void *tensor, enum dtype dtype, const float values[FEW]) {
    for (int i = 0; i < FEW; i++)
        element_store(tensor, dtype, i, (double)values[i]);
}

static void check_values(const void *tensor, enum dtype dtype, const float expected[FEW]) {
    for (int i = 0; i < FEW; i++) {
        double got = element_load(tensor, dtype, i), want = (double)expected[i];
        assert_true(got == want || (isnan(got) && isnan(want)));
    }
}

static void check_activations(const struct row_loops *loops, enum dtype dtype) {
    const float values[FEW] = {-1, NAN, 7, 3, [17] = -2, [18] = NAN}, clipped[FEW] = {0, NAN, 6, 3, [18] = NAN};
    const float doubled[FEW] = {-2, NAN, 14, 6, [17] = -4, [18] = NAN};
    float in[FEW], out[FEW];
    put_all(in, dtype, values);
    loops->activate(out, in, NULL, FEW, ACTIVATION_RELU6);
    check_values(out, dtype, clipped);
    loops->activate(out, in, in, FEW, ACTIVATION_NONE);
    check_values(out, dtype, doubled);
}

static void activations_keep_what_is_not_a_number(void **state) {
    (void)state;
    for (int i = 0; loops_row(i); i++)
        for (size_t d = 0; d < sizeof dtypes / sizeof *dtypes; d++)
            check_activations(loops_of(loops_row(i), dtypes[d]), dtypes[d]);
}

static void check_passing(const struct row_loops *loops, enum dtype dtype) {
    const float values[FEW] = {0, 6, 3, -1, [16] = 6, [17] = 2}, inside[FEW] = {[2] = 5, [17] = 5};
    const float above[FEW] = {[1] = 5, [2] = 5, [16] = 5, [17] = 5};
    float dst[FEW], gradient[FEW], out[FEW];
    put_all(dst, dtype, values);
    for (int i = 0; i < FEW; i++)
        element_store(gradient, dtype, i, 5);
    loops->activate_gradient(out, gradient, dst, FEW, ACTIVATION_RELU6);
    check_values(out, dtype, inside);
    loops->activate_gradient(out, gradient, dst, FEW, ACTIVATION_RELU);
    check_values(out, dtype, above);
}

static void gradients_pass_strictly_inside(void **state) {
    (void)state;
    for (int i = 0; loops_row(i); i++)
        for (size_t d = 0; d < sizeof dtypes / sizeof *dtypes; d++)
            check_passing(loops_of(loops_row(i), dtypes[d]), dtypes[d]);
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
        cmocka_unit_test(moments_of_a_step_keep_their_digits),
        cmocka_unit_test(absent_lanes_give_nothing),
        cmocka_unit_test(wide_rows_are_tiles_side_by_side),
        cmocka_unit_test(normalising_adds_activates_and_masks),
        cmocka_unit_test(streamed_rows_are_the_same_bits),
        cmocka_unit_test(gradient_sums_see_the_mask),
        cmocka_unit_test(gradients_follow_the_formula),
        cmocka_unit_test(sums_are_those_of_the_lane),
        cmocka_unit_test(stores_round_to_nearest_even),
        cmocka_unit_test(activations_keep_what_is_not_a_number),
        cmocka_unit_test(gradients_pass_strictly_inside),
        cmocka_unit_test(square_sums_leave_out_what_is_not_finite),
        cmocka_unit_test(steps_only_touch_their_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
