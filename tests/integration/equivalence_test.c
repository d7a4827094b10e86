/*
 * Two ranks with half a batch each train as one rank with the whole batch does, but for rounding. How much rounding alone may
 * change is measured in the same run: by one-rank runs whose batches hold the same images in another order.
 */
#include "common/base/rng.h"
#include "common/models/registry.h"
#include "ranks.h"
#include "trainerd/step.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { STEPS = 50, BATCH = 16, SIDE = 28, PIXELS = SIDE * SIDE, CLASSES = 3, STATISTICS_STEPS = 25 };
_Static_assert((int)STEPS <= (int)VALUES, "the board holds a loss per step");

/* A rank and all that it trains with. */
struct trainee {
    struct device *device;
    struct graph *graph;
    struct parameters *weights;
    struct plan *plan;
    float images[BATCH * PIXELS];
    int32_t labels[BATCH];
};

/* The image at a position of the global order: noise, and a bright spot whose place tells the class. */
static void draw(int64_t position, float *image, int32_t *label) {
    struct rng rng;
    rng_init(&rng, 5, RNG_TEST, (uint64_t)position, 0);
    *label = (int32_t)rng_below(&rng, CLASSES);
    float x = 6 + 8 * (float)*label + rng_uniform(&rng, -2, 2), y = rng_uniform(&rng, 8, 20);
    for (int i = 0; i < PIXELS; i++) {
        float dx = (float)(i % SIDE) - x, dy = (float)(i / SIDE) - y;
        image[i] = 2 * expf(-(dx * dx + dy * dy) / 18) + 0.4f * rng_normal(&rng);
    }
}

/* Rows first .. first + count - 1 of a step's batch, in the order that `stride`, odd, gives it. */
static void fill(struct trainee *trainee, int step, int first, int count, int stride) {
    for (int row = 0; row < count; row++) {
        int place = (first + row) * stride % BATCH;
        draw((int64_t)step * BATCH + place, trainee->images + row * PIXELS, &trainee->labels[row]);
    }
}

static struct plan *make_plan(const struct trainee *trainee, int batch, bool frozen, struct error *err) {
    struct plan_spec spec = {.graph = trainee->graph, .parameters = trainee->weights, .device = trainee->device,
                             .mode = PLAN_TRAIN, .batch = batch, .bucket_bytes = 4 << 20, .freeze_batch_norm = frozen,
                             .optimizer = OP_SGD};
    return plan_create(&spec, err);
}

/* Fresh weights whose running statistics are those of the data: without them a frozen network's activations explode. */
static bool settle_statistics(struct trainee *trainee, struct error *err) {
    struct plan *plan = make_plan(trainee, BATCH, false, err);
    bool ok = plan;
    for (int step = 0; ok && step < STATISTICS_STEPS; step++) {
        fill(trainee, 1000 + step, 0, BATCH, 1);
        ok = plan_set_images(plan, trainee->images, err) &&
             plan_set_targets(plan, trainee->labels, (const int64_t[3]){0, step, 0}, err) && plan_run(plan, err);
    }
    ok = ok && plan_export(plan, PLAN_VALUES, trainee->weights, err);
    plan_destroy(plan);
    return ok;
}

static bool trainee_init(struct trainee *trainee, int batch, struct error *err) {
    struct device_spec device = {.name = "onednn", .threads = 1, .deterministic = true};
    struct model_spec model = {.architecture = "resnet18", .stem = "7x7", .input_channels = 1, .size = SIDE, .classes = CLASSES};
    if (!(trainee->device = device_open(&device, err)) || !(trainee->graph = model_build(&model, err)) ||
        !(trainee->weights = parameters_create(trainee->graph, err)))
        return false;
    parameters_initialise(trainee->graph, trainee->weights, 1);
    return settle_statistics(trainee, err) && (trainee->plan = make_plan(trainee, batch, true, err));
}

static void trainee_destroy(struct trainee *trainee) {
    plan_destroy(trainee->plan);
    parameters_destroy(trainee->weights);
    graph_destroy(trainee->graph);
    device_close(trainee->device);
    free(trainee);
}

static bool train(struct trainee *trainee, const struct job *job, struct collective *collective, int stride, struct error *err) {
    int share = BATCH / job->world_size;
    float hyper[HYPER_COUNT] = {[HYPER_LEARNING_RATE] = 0.0007f, [HYPER_MOMENTUM] = 0.9f, [HYPER_WEIGHT_DECAY] = 1e-4f,
                                [HYPER_GRADIENT_SCALE] = 1.0f / (float)job->world_size};
    struct step_spec spec = {trainee->plan, trainee->device, collective, TIMEOUT_MS};
    struct step step;
    bool ok = step_init(&step, &spec, err);
    for (int i = 0; ok && i < STEPS; i++) {
        fill(trainee, i, job->rank * share, share, stride);
        struct step_input input = {trainee->images, trainee->labels, {1, i, job->rank * share}};
        ok = step_run(&step, &input, hyper, &job->board->values[job->rank][i], err);
    }
    step_fini(&step);
    return ok;
}

static void train_in_order_of(struct job *job, struct collective *collective, int stride) {
    struct error err = {0};
    struct trainee *trainee = calloc(1, sizeof *trainee);
    bool ok = trainee && trainee_init(trainee, BATCH / job->world_size, &err) && train(trainee, job, collective, stride, &err);
    if (!ok)
        fprintf(stderr, "rank %d: %s\n", job->rank, err.message);
    CHECK(ok);
    trainee_destroy(trainee);
}

static void train_in_order(struct job *job, struct collective *collective) {
    train_in_order_of(job, collective, 1);
}

static void train_permuted(struct job *job, struct collective *collective) {
    train_in_order_of(job, collective, 7);
}

/* Trains in world_size processes; losses (STEPS) are the means over the global batch. */
static void losses_of(int world_size, void (*body)(struct job *job, struct collective *collective), double *losses) {
    struct board *board = run_well(world_size, body);
    for (int i = 0; i < STEPS; i++) {
        losses[i] = 0;
        for (int rank = 0; rank < world_size; rank++)
            losses[i] += (double)board->values[rank][i] / world_size;
    }
    board_destroy(board);
}

static double largest_difference(const double *a, const double *b) {
    double largest = 0;
    for (int i = 0; i < STEPS; i++)
        largest = fmax(largest, fabs(a[i] - b[i]));
    return largest;
}

/* Single batches are too small to tell how far a loss has come. */
static double mean_of_five(const double *losses) {
    return (losses[0] + losses[1] + losses[2] + losses[3] + losses[4]) / 5;
}

static void two_ranks_follow_one(void **state) {
    (void)state;
    double one[STEPS], permuted[STEPS], two[STEPS];
    losses_of(1, train_in_order, one);
    losses_of(1, train_permuted, permuted);
    losses_of(2, train_in_order, two);
    double begin = mean_of_five(one), end = mean_of_five(one + STEPS - 5);
    double rounding = largest_difference(one, permuted), apart = largest_difference(one, two);
    print_message("loss %.3f -> %.3f in %d steps; permuted batches differ by %.2e, two ranks by %.2e (%.2f times)\n", begin, end,
                  STEPS, rounding, apart, apart / rounding);
    assert_true(end <= begin * 2 / 3);
    assert_true(rounding > 0); /* else the permutation did nothing and there is nothing to compare with */
    assert_true(apart <= 10 * rounding);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(two_ranks_follow_one)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
