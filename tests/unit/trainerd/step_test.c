/* The engine's seam: one convolution, batch norm and ReLU, planned, cut into segments, summed by two Gloo ranks. */
#include "trainerd/step.h"

#include "common/base/digest.h"
#include "common/base/rng.h"
#include "common/graph/passes.h"
#include "common/models/layers.h"
#include "common/tensor/element.h"
#include "ranks.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { BATCH = 4, CHANNELS = 2, SIDE = 9, IMAGE = CHANNELS * SIDE * SIDE, CLASSES = 3, STEPS = 3, FEATURES = 8 };

/* A board's values: losses, running means and variances, then the first weights of the convolution. */
enum { MEANS_AT = STEPS, VARIANCES_AT = MEANS_AT + FEATURES, WEIGHTS_AT = VARIANCES_AT + FEATURES };

/* How a block is trained. */
struct manner {
    enum norm_statistics statistics;
    enum precision precision;
    int parts;
    bool bf16_sums;   /* gradients travel in bf16 */
    bool interleaved; /* rank r has the images whose place in the batch is r past a multiple of the ranks */
};

/* A block and its head, bound to a device. */
struct block {
    struct device *device;
    struct graph *graph;
    struct parameters *weights;
    struct plan *plan;
};

static struct graph *build(struct error *err) {
    struct graph *graph = graph_create();
    struct layers layers = {graph, err, 1e-5f};
    struct convolution convolution = {.channels = FEATURES, .size = 3, .stride = 2, .groups = 1};
    int x = graph_add_input(graph, CHANNELS, SIDE, SIDE, err);
    x = layer_convolution(&layers, "conv1", x, &convolution);
    x = layer_batch_norm(&layers, "bn1", x);
    x = layer_activation(&layers, "relu", x, ACTIVATION_RELU);
    x = layer_head(&layers, "fc", x, CLASSES, 0);
    if (x >= 0)
        return graph;
    graph_destroy(graph);
    return NULL;
}

static const char *device_name = "onednn";

/* batch: of this rank. bucket_bytes 1: every parameter is a bucket of its own, as many reductions as can be. */
static bool block_init(struct block *block, int rank, int batch, const struct manner *manner, struct error *err) {
    bool on_gpus = strcmp(device_name, "cuda") == 0;
    struct device_spec device = {
        .name = device_name, .index = on_gpus ? rank : 0, .threads = 1, .deterministic = true};
    if (!(block->device = device_open(&device, err)) || !(block->graph = build(err)) ||
        !(block->weights = parameters_create(block->graph, err)))
        return false;
    parameters_initialise(block->graph, block->weights, 1);
    struct plan_spec spec = {.graph = block->graph, .parameters = block->weights, .device = block->device, .mode = PLAN_TRAIN,
                             .precision = manner->precision, .batch = batch / manner->parts, .parts = manner->parts,
                             .bucket_bytes = 1, .bf16_reductions = manner->bf16_sums,
                             .freeze_batch_norm = manner->statistics == NORM_STATISTICS_RUNNING,
                             .synchronise_batch_norm = manner->statistics == NORM_STATISTICS_ALL_RANKS, .optimizer = OP_SGD};
    return (block->plan = plan_create(&spec, err));
}

static void block_fini(struct block *block) {
    plan_destroy(block->plan);
    parameters_destroy(block->weights);
    graph_destroy(block->graph);
    device_close(block->device);
}

/* A rank's share of the step's batch: what an image is follows from its place in the global order. */
static void draw(int step, const struct job *job, bool interleaved, float *images, int32_t *labels) {
    int share = BATCH / job->world_size;
    for (int row = 0; row < share; row++) {
        int place = interleaved ? row * job->world_size + job->rank : job->rank * share + row;
        struct rng rng;
        rng_init(&rng, 3, RNG_TEST, (uint64_t)(step * BATCH + place), 0);
        labels[row] = (int32_t)rng_below(&rng, CLASSES);
        for (int i = 0; i < IMAGE; i++)
            images[row * IMAGE + i] = rng_normal(&rng) + (float)labels[row];
    }
}

static bool train(struct block *block, const struct manner *manner, struct job *job, struct collective *collective,
                  struct error *err) {
    float images[BATCH * IMAGE];
    int32_t labels[BATCH];
    float hyper[HYPER_COUNT] = {[HYPER_LEARNING_RATE] = 0.1f, [HYPER_MOMENTUM] = 0.9f,
                                [HYPER_GRADIENT_SCALE] = 1.0f / (float)(job->world_size * manner->parts)};
    struct step_spec spec = {block->plan, block->device, collective, TIMEOUT_MS};
    struct step step;
    bool ok = step_init(&step, &spec, err);
    for (int i = 0; ok && i < STEPS; i++) {
        draw(i, job, manner->interleaved, images, labels);
        struct step_input input = {images, labels, {1, i, job->rank * (BATCH / job->world_size)}};
        ok = step_run(&step, &input, hyper, &job->board->values[job->rank][i], err);
    }
    step_fini(&step);
    return ok && plan_export(block->plan, PLAN_VALUES, block->weights, err);
}

static void copy_values(const struct block *block, const char *name, float *to, int count) {
    memcpy(to, block->weights->tensors[graph_find_parameter(block->graph, name)].data, (size_t)count * sizeof *to);
}

/* Leaves the learnt weights' digests, the running statistics and some weights on the board. */
static void tell(const struct block *block, struct job *job) {
    float *values = job->board->values[job->rank];
    int slot = 0;
    for (int i = 0; i < block->graph->parameter_count; i++) {
        const struct tensor *tensor = &block->weights->tensors[i];
        if (block->graph->parameters[i].role.diff == ARG_NONE)
            continue;
        struct digest digest = digest_of(tensor->data, tensor_bytes(tensor));
        memcpy(&job->board->hash[job->rank][slot++], &digest, sizeof(uint64_t));
    }
    copy_values(block, "bn1.running_mean", values + MEANS_AT, FEATURES);
    copy_values(block, "bn1.running_var", values + VARIANCES_AT, FEATURES);
    copy_values(block, "conv1.weight", values + WEIGHTS_AT, VALUES - WEIGHTS_AT);
}

static void run_block(struct job *job, struct collective *collective, const struct manner *manner) {
    struct error err = {0};
    struct block block = {0};
    int batch = BATCH / job->world_size;
    bool ok = block_init(&block, job->rank, batch, manner, &err) && train(&block, manner, job, collective, &err);
    if (!ok)
        fprintf(stderr, "rank %d: %s\n", job->rank, err.message);
    CHECK(ok);
    tell(&block, job);
    block_fini(&block);
}

/* A job's body for each manner: ranks are other processes, and a body takes nothing else. */
#define BODY(NAME, ...)                                                                                      \
    static void NAME(struct job *job, struct collective *collective) {                                       \
        run_block(job, collective, &(struct manner){__VA_ARGS__});                                           \
    }
BODY(run_frozen, NORM_STATISTICS_RUNNING, .parts = 1)
BODY(run_frozen_in_parts, NORM_STATISTICS_RUNNING, .parts = 2)
BODY(run_with_batch_statistics, NORM_STATISTICS_BATCH, .parts = 1)
BODY(run_synchronised, NORM_STATISTICS_ALL_RANKS, .parts = 1)
/* Part p of both ranks together has the images 2p and 2p + 1: those of a single rank's part p. */
BODY(run_synchronised_in_parts, NORM_STATISTICS_ALL_RANKS, .parts = 2, .interleaved = true)
BODY(run_with_batch_statistics_in_parts, NORM_STATISTICS_BATCH, .parts = 2)
BODY(run_bf16, NORM_STATISTICS_BATCH, PRECISION_BF16, .parts = 1)
BODY(run_with_bf16_sums, NORM_STATISTICS_BATCH, .parts = 1, .bf16_sums = true)
BODY(run_synchronised_bf16, NORM_STATISTICS_ALL_RANKS, PRECISION_BF16, .parts = 1)

static void both_ranks_end_with_the_same_weights(void **state) {
    (void)state;
    struct board *board = run_well(2, run_with_batch_statistics);
    assert_memory_equal(board->hash[0], board->hash[1], sizeof board->hash[0]);
    assert_memory_equal(board->values[0] + WEIGHTS_AT, board->values[1] + WEIGHTS_AT, (VALUES - WEIGHTS_AT) * sizeof(float));
    assert_true(board->values[0][0] != board->values[1][0]); /* each saw images of its own */
    assert_true(board->values[0][MEANS_AT] != board->values[1][MEANS_AT]);
    board_destroy(board);
}

/* Two runs of the same steps by other numbers of ranks. */
struct comparison {
    void (*one)(struct job *, struct collective *), (*others)(struct job *, struct collective *);
    int ranks;
    double tolerance;
};

static float mean_over_ranks(const struct board *board, int ranks, int value) {
    float sum = 0;
    for (int rank = 0; rank < ranks; rank++)
        sum += board->values[rank][value];
    return sum / (float)ranks;
}

static void take_the_steps_of_one(const struct comparison *c) {
    struct board *one = run_well(1, c->one), *board = run_well(c->ranks, c->others);
    for (int i = 0; i < STEPS; i++)
        assert_float_equal(one->values[0][i], mean_over_ranks(board, c->ranks, i), c->tolerance);
    for (int i = STEPS; i < VALUES; i++)
        assert_float_equal(one->values[0][i], board->values[0][i], c->tolerance);
    board_destroy(one);
    board_destroy(board);
}

static void two_ranks_take_the_steps_of_one(void **state) {
    (void)state;
    take_the_steps_of_one(&(struct comparison){run_frozen, run_frozen, 2, 1e-5});
}

static void parts_take_the_steps_of_the_whole(void **state) {
    (void)state;
    take_the_steps_of_one(&(struct comparison){run_frozen, run_frozen_in_parts, 1, 1e-5});
    take_the_steps_of_one(&(struct comparison){run_frozen, run_frozen_in_parts, 2, 1e-5});
}

static void synchronised_ranks_take_the_steps_of_one(void **state) {
    (void)state;
    take_the_steps_of_one(&(struct comparison){run_with_batch_statistics, run_synchronised, 2, 1e-5});
}

static void four_synchronised_ranks_take_the_steps_of_one(void **state) {
    (void)state;
    take_the_steps_of_one(&(struct comparison){run_with_batch_statistics, run_synchronised, 4, 1e-5});
}

static void each_part_is_synchronised(void **state) {
    (void)state;
    take_the_steps_of_one(&(struct comparison){run_with_batch_statistics_in_parts, run_synchronised_in_parts, 2, 1e-5});
}

static bool device_has(enum precision precision) {
    struct device_spec spec = {.name = "onednn", .threads = 1};
    struct device *device = device_open(&spec, NULL);
    bool has = device && plan_precision_supported(device, precision, PLAN_TRAIN, NULL);
    device_close(device);
    return has;
}

/* What differs in f32's last bit may be rounded to the next bf16, 2^-8 away: values of order 1, in each step. */
static void synchronised_ranks_in_bf16(void **state) {
    (void)state;
    if (!device_has(PRECISION_BF16))
        skip();
    take_the_steps_of_one(&(struct comparison){run_bf16, run_synchronised_bf16, 2, 0x1p-7});
}

static void synchronised_ranks_keep_the_same_running_statistics(void **state) {
    (void)state;
    struct board *board = run_well(2, run_synchronised);
    assert_memory_equal(board->hash[0], board->hash[1], sizeof board->hash[0]);
    assert_memory_equal(board->values[0] + STEPS, board->values[1] + STEPS, (VALUES - STEPS) * sizeof(float));
    assert_true(board->values[0][0] != board->values[1][0]); /* each saw images of its own */
    board_destroy(board);
}

/* --- gradients that travel in bf16 --- */

/* Losses and weights are of order 1 or below, and what three steps move them is less: a part in 2^7 of that is below 2^-8. */
static void bf16_sums_follow_f32_sums(void **state) {
    (void)state;
    struct board *wide = run_well(2, run_with_batch_statistics), *narrow = run_well(2, run_with_bf16_sums);
    assert_memory_equal(narrow->hash[0], narrow->hash[1], sizeof narrow->hash[0]);
    assert_memory_not_equal(narrow->hash[0], wide->hash[0], sizeof wide->hash[0]);
    for (int rank = 0; rank < 2; rank++) {
        assert_true(narrow->values[rank][0] == wide->values[rank][0]); /* the first loss is of weights that nothing has moved */
        for (int i = 0; i < VALUES; i++)
            assert_float_equal(narrow->values[rank][i], wide->values[rank][i], 0x1p-8);
    }
    board_destroy(wide);
    board_destroy(narrow);
}

enum { GRADIENTS_MAX = 256 };

/* What the learnt parameters' gradients are now. Returns how many. */
static int copy_gradients(struct block *block, float *out) {
    struct parameters *gradients = parameters_create(block->graph, NULL);
    int count = 0;
    if (!gradients || !plan_export(block->plan, PLAN_GRADIENTS, gradients, NULL))
        return 0;
    for (int i = 0; i < block->graph->parameter_count; i++) {
        const struct tensor *tensor = &gradients->tensors[i];
        int elements = (int)shape_count(&tensor->shape);
        if (block->graph->parameters[i].role.diff == ARG_NONE || count + elements > GRADIENTS_MAX)
            continue;
        memcpy(out + count, tensor->data, (size_t)elements * sizeof *out);
        count += elements;
    }
    parameters_destroy(gradients);
    return count;
}

/* This rank's own gradients of the first step's images: the sum over the parts, in f32. */
static bool run_alone(struct block *block, const struct manner *manner, const float *images, const int32_t *labels) {
    int share = BATCH / 2 / manner->parts;
    bool ok = true;
    for (int part = 0; ok && part < manner->parts; part++) {
        plan_set_part(block->plan, part);
        ok = plan_set_images(block->plan, images + part * share * IMAGE, NULL) &&
             plan_set_targets(block->plan, labels + part * share, (int64_t[3]){1, 0, 0}, NULL) && plan_run(block->plan, NULL);
    }
    return ok;
}

/* Between the step and the collective: sees what is to be summed. */
static struct {
    struct collective_ops ops;
    const struct collective_ops *real;
    int64_t bytes[DTYPE_COUNT];
} spy;

static bool start_and_count(struct collective *collective, const struct collective_piece *piece, int *ticket,
                            struct error *err) {
    spy.bytes[piece->dtype] += piece->count * (int64_t)dtype_size(piece->dtype);
    return spy.real->start(collective, piece, ticket, err);
}

static void spy_begin(struct collective *collective) {
    spy.real = collective->ops;
    spy.ops = *collective->ops;
    spy.ops.start = start_and_count;
    collective->ops = &spy.ops;
}

static bool one_step(struct block *block, struct collective *collective, const float *images, const int32_t *labels) {
    const float hyper[HYPER_COUNT] = {[HYPER_LEARNING_RATE] = 0.1f, [HYPER_GRADIENT_SCALE] = 0.5f};
    struct step_spec spec = {block->plan, block->device, collective, TIMEOUT_MS};
    struct step_input input = {images, labels, {1, 0, 0}};
    struct step step;
    float loss;
    spy_begin(collective);
    bool ok = step_init(&step, &spec, NULL) && step_run(&step, &input, hyper, &loss, NULL);
    collective->ops = spy.real;
    step_fini(&step);
    return ok;
}

static double round_to_bf16(double value) {
    uint16_t bits;
    element_store(&bits, DTYPE_BF16, 0, value);
    return element_load(&bits, DTYPE_BF16, 0);
}

/*
 * Two ranks' gradients are rounded once each and their sum once: each time by at most u / (1 + u) of it, u = 2^-8, as bf16 has
 * eight significant bits. Together that is less than 2^-7 of the two magnitudes.
 */
static void check_sums(struct job *job, const struct manner *manner, struct collective *collective) {
    float images[BATCH * IMAGE], mine[GRADIENTS_MAX] = {0}, all[2][GRADIENTS_MAX], summed[GRADIENTS_MAX] = {0};
    int32_t labels[BATCH];
    struct block block = {0};
    CHECK(block_init(&block, job->rank, BATCH / 2, manner, NULL));
    draw(0, job, false, images, labels);
    CHECK(run_alone(&block, manner, images, labels));
    int count = copy_gradients(&block, mine), rounded = 0;
    CHECK(count > CLASSES * FEATURES && collective_allgather(collective, mine, sizeof mine, all, NULL));
    CHECK(one_step(&block, collective, images, labels) && copy_gradients(&block, summed) == count);
    for (int i = 0; i < count; i++) {
        double one = all[0][i], other = all[1][i];
        CHECK(summed[i] == round_to_bf16(round_to_bf16(one) + round_to_bf16(other)));
        CHECK(fabs(summed[i] - (one + other)) <= 0x1p-7 * (fabs(one) + fabs(other)));
        rounded += summed[i] != one + other;
    }
    CHECK(rounded > count / 2);
    int64_t elements = 0;
    for (int segment = 0; segment < plan_segment_count(block.plan); segment++) {
        const struct plan_reduction *sums;
        for (int i = plan_reductions(block.plan, segment, &sums) - 1; i >= 0; i--)
            elements += sums[i].count;
    }
    CHECK(elements >= count && spy.bytes[DTYPE_BF16] == 2 * elements && spy.bytes[DTYPE_F32] == 0);
    block_fini(&block);
}

static void body_sums(struct job *job, struct collective *collective) {
    check_sums(job, &(struct manner){NORM_STATISTICS_BATCH, .parts = 1, .bf16_sums = true}, collective);
}

static void body_sums_of_parts(struct job *job, struct collective *collective) {
    check_sums(job, &(struct manner){NORM_STATISTICS_BATCH, .parts = 2, .bf16_sums = true}, collective);
}

static void gradients_and_their_sums_are_rounded_once_each(void **state) {
    (void)state;
    board_destroy(run_well(2, body_sums));
    board_destroy(run_well(2, body_sums_of_parts));
}

/* Rank 1's loss is scaled beyond all bounds. */
static void body_not_finite(struct job *job, struct collective *collective) {
    const struct manner manner = {NORM_STATISTICS_BATCH, .parts = 1, .bf16_sums = true};
    float images[BATCH * IMAGE], gradients[GRADIENTS_MAX] = {0};
    int32_t labels[BATCH];
    double norm[2];
    struct block block = {0};
    CHECK(block_init(&block, job->rank, BATCH / 2, &manner, NULL));
    draw(0, job, false, images, labels);
    CHECK(job->rank == 0 || plan_set_loss_scale(block.plan, INFINITY, NULL));
    CHECK(one_step(&block, collective, images, labels));
    int count = copy_gradients(&block, gradients), wild = 0;
    for (int i = 0; i < count; i++)
        wild += !isfinite(gradients[i]);
    CHECK(wild > 0 && plan_read_gradient_norm(block.plan, 1, norm, NULL) && norm[1] >= wild);
    CHECK(plan_export(block.plan, PLAN_VALUES, block.weights, NULL));
    struct parameters *start = parameters_create(block.graph, NULL);
    parameters_initialise(block.graph, start, 1);
    for (int i = 0; i < block.graph->parameter_count; i++) {
        const struct tensor *now = &block.weights->tensors[i], *then = &start->tensors[i];
        CHECK(block.graph->parameters[i].role.diff == ARG_NONE || memcmp(now->data, then->data, tensor_bytes(now)) == 0);
    }
    parameters_destroy(start);
    block_fini(&block);
}

static void a_gradient_that_is_not_finite_is_seen_by_all(void **state) {
    (void)state;
    board_destroy(run_well(2, body_not_finite));
}

/* Where a GPU is asked for, without what it cannot do, each rank has one of its own and NCCL adds; else it is oneDNN and Gloo. */
int main(int argc, char **argv) {
    bool on_gpus = argc > 1 && strcmp(argv[1], "cuda") == 0;
    if (on_gpus)
        ranks_use("nccl");
    device_name = on_gpus ? "cuda" : device_name;
    const struct CMUnitTest everywhere[] = {
        cmocka_unit_test(both_ranks_end_with_the_same_weights),
        cmocka_unit_test(two_ranks_take_the_steps_of_one),
        cmocka_unit_test(parts_take_the_steps_of_the_whole),
        cmocka_unit_test(synchronised_ranks_take_the_steps_of_one),
        cmocka_unit_test(four_synchronised_ranks_take_the_steps_of_one),
        cmocka_unit_test(each_part_is_synchronised),
        cmocka_unit_test(synchronised_ranks_keep_the_same_running_statistics),
        cmocka_unit_test(bf16_sums_follow_f32_sums),
        cmocka_unit_test(gradients_and_their_sums_are_rounded_once_each),
        cmocka_unit_test(a_gradient_that_is_not_finite_is_seen_by_all),
    };
    const struct CMUnitTest on_cpus[] = {cmocka_unit_test(synchronised_ranks_in_bf16)};
    int failures = cmocka_run_group_tests(everywhere, NULL, NULL);
    return failures + (on_gpus ? 0 : cmocka_run_group_tests(on_cpus, NULL, NULL));
}
