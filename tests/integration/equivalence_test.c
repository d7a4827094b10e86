/*
 * Ranks with a share of a batch each train as one rank with the whole batch does, but for rounding: with frozen batch norms, and
 * with synchronised ones, whose statistics are of the whole batch. Where batch norms are neither, ranks that compute their share
 * in parts train as so many more ranks do. How much rounding alone may change is measured in the same run, by one-rank runs whose
 * batches hold the same images in another order.
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

/*
 * Batch norm makes more of each rounding with every step, the fewer the images the more: of 16, FEW_STEPS are enough to learn and
 * too few for that; of 4, whose last maps have one pixel, each step makes a rounding some 50 times as large.
 */
enum { STEPS = 50, FEW_STEPS = 18, FIRST_STEPS = 3 };
enum { BATCH = 16, SIDE = 28, PIXELS = SIDE * SIDE, CLASSES = 3, STATISTICS_STEPS = 25 };
_Static_assert((int)STEPS <= (int)VALUES, "the board holds a loss per step");

/* How the ranks train: set before they are forked. */
enum norms { NORMS_FROZEN, NORMS_SYNCHRONISED, NORMS_OF_A_PART };
static struct way {
    enum norms norms;
    int parts;  /* of a rank's share */
    int stride; /* odd: gives the order of the images in a batch */
    int steps;  /* up to STEPS */
} way;

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

static struct plan *make_plan(const struct trainee *trainee, const struct plan_spec *how, struct error *err) {
    struct plan_spec spec = *how;
    spec.graph = trainee->graph;
    spec.parameters = trainee->weights;
    spec.device = trainee->device;
    spec.mode = PLAN_TRAIN;
    spec.bucket_bytes = 4 << 20;
    spec.optimizer = OP_SGD;
    return plan_create(&spec, err);
}

/* Fresh weights whose running statistics are those of the data: without them a frozen network's activations explode. */
static bool settle_statistics(struct trainee *trainee, struct error *err) {
    struct plan *plan = make_plan(trainee, &(struct plan_spec){.batch = BATCH}, err);
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

static bool trainee_init(struct trainee *trainee, int ranks, struct error *err) {
    struct device_spec device = {.name = "onednn", .threads = 1, .deterministic = true};
    struct model_spec model = {.architecture = "resnet18", .stem = "7x7", .input_channels = 1, .size = SIDE, .classes = CLASSES};
    if (!(trainee->device = device_open(&device, err)) || !(trainee->graph = model_build(&model, err)) ||
        !(trainee->weights = parameters_create(trainee->graph, err)))
        return false;
    parameters_initialise(trainee->graph, trainee->weights, 1);
    struct plan_spec how = {.batch = BATCH / ranks / way.parts, .parts = way.parts,
                            .freeze_batch_norm = way.norms == NORMS_FROZEN,
                            .synchronise_batch_norm = way.norms == NORMS_SYNCHRONISED && ranks > 1};
    return (way.norms != NORMS_FROZEN || settle_statistics(trainee, err)) && (trainee->plan = make_plan(trainee, &how, err));
}

static void trainee_destroy(struct trainee *trainee) {
    plan_destroy(trainee->plan);
    parameters_destroy(trainee->weights);
    graph_destroy(trainee->graph);
    device_close(trainee->device);
    free(trainee);
}

static bool train(struct trainee *trainee, const struct job *job, struct collective *collective, struct error *err) {
    int share = BATCH / job->world_size;
    float hyper[HYPER_COUNT] = {[HYPER_LEARNING_RATE] = 0.0007f, [HYPER_MOMENTUM] = 0.9f, [HYPER_WEIGHT_DECAY] = 1e-4f,
                                [HYPER_GRADIENT_SCALE] = 1.0f / (float)(job->world_size * way.parts)};
    struct step_spec spec = {trainee->plan, trainee->device, collective, TIMEOUT_MS};
    struct step step;
    bool ok = step_init(&step, &spec, err);
    for (int i = 0; ok && i < way.steps; i++) {
        fill(trainee, i, job->rank * share, share, way.stride);
        struct step_input input = {trainee->images, trainee->labels, {1, i, job->rank * share}};
        ok = step_run(&step, &input, hyper, &job->board->values[job->rank][i], err);
    }
    step_fini(&step);
    return ok;
}

static void train_as_said(struct job *job, struct collective *collective) {
    struct error err = {0};
    struct trainee *trainee = calloc(1, sizeof *trainee);
    bool ok = trainee && trainee_init(trainee, job->world_size, &err) && train(trainee, job, collective, &err);
    if (!ok)
        fprintf(stderr, "rank %d: %s\n", job->rank, err.message);
    CHECK(ok);
    trainee_destroy(trainee);
}

/* Trains in world_size processes; losses (how.steps) are the means over the global batch. */
static void losses_of(int world_size, struct way how, double *losses) {
    way = how;
    struct board *board = run_well(world_size, train_as_said);
    for (int i = 0; i < how.steps; i++) {
        losses[i] = 0;
        for (int rank = 0; rank < world_size; rank++)
            losses[i] += (double)board->values[rank][i] / world_size;
    }
    board_destroy(board);
}

static double largest_difference(const double *a, const double *b, int steps) {
    double largest = 0;
    for (int i = 0; i < steps; i++)
        largest = fmax(largest, fabs(a[i] - b[i]));
    return largest;
}

/* Single batches are too small to tell how far a loss has come. */
static double mean_of_five(const double *losses) {
    return (losses[0] + losses[1] + losses[2] + losses[3] + losses[4]) / 5;
}

/* What the order of additions alone changes: the most of some orders of the images, as one may change little by chance. */
static double rounding_of(enum norms norms, int steps, const double *one) {
    static const int strides[] = {3, 7, 11};
    double most = 0, permuted[STEPS];
    for (size_t i = 0; i < sizeof strides / sizeof *strides; i++) {
        losses_of(1, (struct way){norms, 1, strides[i], steps}, permuted);
        most = fmax(most, largest_difference(one, permuted, steps));
    }
    return most;
}

/* Two and four ranks against one, in units of that. */
static void check_ranks(enum norms norms, int steps, const char *name) {
    double one[STEPS], many[STEPS];
    losses_of(1, (struct way){norms, 1, 1, steps}, one);
    double begin = mean_of_five(one), end = mean_of_five(one + steps - 5), rounding = rounding_of(norms, steps, one);
    print_message("%s: loss %.3f -> %.3f in %d steps; permuted batches differ by %.2e\n", name, begin, end, steps, rounding);
    assert_true(end <= begin * 2 / 3);
    assert_true(rounding > 0); /* else the permutation did nothing and there is nothing to compare with */
    for (int ranks = 2; ranks <= 4; ranks += 2) {
        losses_of(ranks, (struct way){norms, 1, 1, steps}, many);
        double apart = largest_difference(one, many, steps);
        print_message("%s: %d ranks differ by %.2e (%.2f times)\n", name, ranks, apart, apart / rounding);
        assert_true(apart <= 10 * rounding);
    }
}

static void ranks_with_frozen_norms_follow_one(void **state) {
    (void)state;
    check_ranks(NORMS_FROZEN, STEPS, "frozen norms");
}

static void ranks_with_synchronised_norms_follow_one(void **state) {
    (void)state;
    check_ranks(NORMS_SYNCHRONISED, FEW_STEPS, "synchronised norms");
}

/* Part p of rank r holds the images of rank 2r + p of four: each batch norm sees the same ones. */
static void two_ranks_of_two_parts_follow_four(void **state) {
    (void)state;
    double four[STEPS], parts[STEPS], one[STEPS];
    losses_of(4, (struct way){NORMS_OF_A_PART, 1, 1, FIRST_STEPS}, four);
    losses_of(2, (struct way){NORMS_OF_A_PART, 2, 1, FIRST_STEPS}, parts);
    losses_of(1, (struct way){NORMS_OF_A_PART, 1, 1, FIRST_STEPS}, one);
    double apart = largest_difference(four, parts, FIRST_STEPS), others = largest_difference(four, one, FIRST_STEPS);
    print_message("2 ranks of 2 parts differ from 4 ranks by %.2e, one rank by %.2e\n", apart, others);
    assert_true(apart < others / 100); /* one rank's norms see other images together */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranks_with_frozen_norms_follow_one),
        cmocka_unit_test(ranks_with_synchronised_norms_follow_one),
        cmocka_unit_test(two_ranks_of_two_parts_follow_four),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
