/* A synchronised batch norm of two ranks is the batch norm of both their images, on every device of this machine. */
#include "common/base/rng.h"
#include "tests/conformance/norm_ranks.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { IMAGES = 3, CHANNELS = 19, HEIGHT = 7, WIDTH = 5, PLANE = HEIGHT * WIDTH, VALUES = IMAGES * CHANNELS * PLANE };
static const char *const devices[] = {"reference", "onednn"};
static const struct op norm = {OP_BATCH_NORM,
                               .batch_norm = {.epsilon = 1e-5f, .momentum = 0.25f, .synchronised = true, .residual = true,
                                              .activation = ACTIVATION_RELU}};

static void expect(bool ok, const struct error *err) {
    if (!ok)
        fail_msg("%s", err->message);
}

static void open_ranks(struct norm_ranks *ranks, const char *device) {
    struct error err = {0};
    struct device_spec spec = {.name = device, .threads = 2};
    *ranks = (struct norm_ranks){.device = device_open(&spec, &err), .op = norm, .dtype = DTYPE_F32,
                                 .src = {4, {IMAGES, CHANNELS, HEIGHT, WIDTH}}};
    expect(ranks->device && norm_ranks_init(ranks, &err), &err);
}

static void close_ranks(struct norm_ranks *ranks) {
    struct device *device = ranks->device;
    norm_ranks_fini(ranks);
    device_close(device);
}

/* Parameters are the same on both ranks, images are not; rank 1's are brighter. */
static void fill(struct norm_ranks *ranks, double offset) {
    static const enum arg images[] = {ARG_SRC, ARG_SRC2, ARG_DIFF_DST};
    static const enum arg parameters[] = {ARG_SCALE, ARG_SHIFT, ARG_RUNNING_MEAN, ARG_RUNNING_VARIANCE};
    for (int r = 0; r < NORM_RANKS; r++) {
        struct rng rng;
        rng_init(&rng, 5, RNG_TEST, 0, 0);
        for (size_t k = 0; k < sizeof parameters / sizeof *parameters; k++)
            for (int64_t i = 0; i < CHANNELS; i++)
                host_set(&ranks->tensors[r][parameters[k]], i, (double)rng_uniform(&rng, 0.5f, 1.5f));
        rng_init(&rng, 5, RNG_TEST, 1, (uint32_t)r);
        for (size_t k = 0; k < sizeof images / sizeof *images; k++)
            for (int64_t i = 0; i < VALUES; i++)
                host_set(&ranks->tensors[r][images[k]], i,
                         (double)rng_normal(&rng) + (images[k] == ARG_SRC ? offset + 0.7 * r : 0));
    }
}

/* The batch norm of all images, by the reference, in one piece. */
struct whole {
    struct device *device;
    struct kernel_request forward, backward;
    struct tensor tensors[ARG_COUNT];
    struct workspace workspace;
};

static void request(struct kernel_request *out, enum pass pass) {
    struct shape all = {4, {NORM_RANKS * IMAGES, CHANNELS, HEIGHT, WIDTH}}, inputs[OP_MAX_INPUTS] = {all, all};
    struct error err = {0};
    *out = (struct kernel_request){.op = norm, .pass = pass};
    out->op.batch_norm.synchronised = false;
    expect(op_arguments(&out->op, pass, inputs, &out->args, &err), &err);
}

static void take_images(struct whole *whole, const struct norm_ranks *ranks) {
    for (int arg = 0; arg < ARG_COUNT; arg++)
        for (int r = 0; whole->tensors[arg].data && r < NORM_RANKS; r++) {
            const struct tensor *from = &ranks->tensors[r][arg];
            size_t at = whole->tensors[arg].shape.rank == 4 ? (size_t)r * tensor_bytes(from) : 0;
            memcpy((char *)whole->tensors[arg].data + at, from->data, tensor_bytes(from));
        }
}

static void run_whole(struct whole *whole, const struct norm_ranks *ranks) {
    struct error err = {0};
    struct device_spec spec = {.name = "reference"};
    struct op_args all;
    *whole = (struct whole){.device = device_open(&spec, &err)};
    expect(whole->device, &err);
    request(&whole->forward, PASS_FORWARD);
    request(&whole->backward, PASS_BACKWARD_DATA);
    all = whole->forward.args;
    for (int arg = 0; arg < ARG_COUNT; arg++)
        if (whole->backward.args.direction[arg] != ARG_ABSENT) {
            all.direction[arg] = ARG_INOUT;
            all.desc[arg] = whole->backward.args.desc[arg];
        }
    expect(host_tensors_init(whole->tensors, &all, &err), &err);
    take_images(whole, ranks);
    struct device_run forward = {.device = whole->device, .request = &whole->forward};
    struct device_run backward = {.device = whole->device, .request = &whole->backward};
    expect(device_run(&forward, whole->tensors, &whole->workspace, &err) &&
               device_run(&backward, whole->tensors, &whole->workspace, &err),
           &err);
}

static void whole_fini(struct whole *whole) {
    workspace_fini(&whole->workspace, whole->device);
    host_tensors_fini(whole->tensors);
    device_close(whole->device);
}

/* Largest difference over largest value. */
static double apart(const struct tensor *got, const struct tensor *want, int64_t want_first) {
    double worst = 0, most = 0;
    for (int64_t i = 0; i < shape_count(&got->shape); i++) {
        worst = fmax(worst, fabs(host_get(got, i) - host_get(want, want_first + i)));
        most = fmax(most, fabs(host_get(want, want_first + i)));
    }
    return worst / most;
}

static void check_as_whole(const struct norm_ranks *ranks, const struct whole *whole) {
    static const enum arg images[] = {ARG_DST, ARG_DIFF_SRC, ARG_DIFF_SRC2};
    static const enum arg statistics[] = {ARG_RUNNING_MEAN, ARG_RUNNING_VARIANCE, ARG_SAVED_MEAN, ARG_SAVED_VARIANCE};
    static const enum arg sums[] = {ARG_DIFF_SCALE, ARG_DIFF_SHIFT};
    for (int r = 0; r < NORM_RANKS; r++) {
        for (size_t i = 0; i < sizeof images / sizeof *images; i++)
            assert_true(apart(&ranks->tensors[r][images[i]], &whole->tensors[images[i]], r * VALUES) < 1e-5);
        for (size_t i = 0; i < sizeof statistics / sizeof *statistics; i++) {
            assert_true(apart(&ranks->tensors[r][statistics[i]], &whole->tensors[statistics[i]], 0) < 1e-6);
            assert_memory_equal(ranks->tensors[r][statistics[i]].data, ranks->tensors[0][statistics[i]].data,
                                CHANNELS * sizeof(float));
        }
    }
    for (size_t i = 0; i < sizeof sums / sizeof *sums; i++)
        for (int64_t c = 0; c < CHANNELS; c++)
            assert_float_equal(host_get(&ranks->tensors[0][sums[i]], c) + host_get(&ranks->tensors[1][sums[i]], c),
                               host_get(&whole->tensors[sums[i]], c), 1e-3);
}

static void two_ranks_are_as_one(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof devices / sizeof *devices; i++) {
        struct error err = {0};
        struct norm_ranks ranks;
        struct whole whole;
        open_ranks(&ranks, devices[i]);
        fill(&ranks, 0);
        run_whole(&whole, &ranks); /* before the ranks move their running statistics */
        expect(norm_ranks_run(&ranks, PASS_FORWARD, &err) && norm_ranks_run(&ranks, PASS_BACKWARD_DATA, &err), &err);
        check_as_whole(&ranks, &whole);
        whole_fini(&whole);
        close_ranks(&ranks);
    }
}

/* The mean over both ranks' values of a channel of x - about, or of its square. */
static double average(const struct norm_ranks *ranks, int64_t channel, double about, bool squares) {
    double sum = 0;
    for (int r = 0; r < NORM_RANKS; r++)
        for (int64_t i = 0; i < IMAGES * PLANE; i++) {
            double d = host_get(&ranks->tensors[r][ARG_SRC], (i / PLANE * CHANNELS + channel) * PLANE + i % PLANE) - about;
            sum += squares ? d * d : d;
        }
    return sum / (NORM_RANKS * IMAGES * PLANE);
}

/*
 * Squares of values about 1e4 are about 1e8: where a deviation is 1, sums about zero keep the variance to 1e8 2^-53 = 1e-8 in f64
 * (in f32 they would lose it altogether). What is left is f32's own: the gathering loops', and that of the result.
 */
static void a_large_mean_costs_no_digits(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof devices / sizeof *devices; i++) {
        struct error err = {0};
        struct norm_ranks ranks;
        open_ranks(&ranks, devices[i]);
        fill(&ranks, 1e4);
        expect(norm_ranks_run(&ranks, PASS_FORWARD, &err), &err);
        for (int64_t c = 0; c < CHANNELS; c++) {
            double mean = average(&ranks, c, 0, false), variance = average(&ranks, c, mean, true);
            assert_true(fabs(host_get(&ranks.tensors[1][ARG_SAVED_MEAN], c) / mean - 1) < 1e-7);
            assert_true(fabs(host_get(&ranks.tensors[1][ARG_SAVED_VARIANCE], c) / variance - 1) < 2e-6);
        }
        close_ranks(&ranks);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_ranks_are_as_one),
        cmocka_unit_test(a_large_mean_costs_no_digits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
