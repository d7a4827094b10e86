/* The engine's seam: one convolution, batch norm and ReLU, planned, cut into segments, summed by two Gloo ranks. */
#include "trainerd/step.h"

#include "common/base/digest.h"
#include "common/base/rng.h"
#include "common/graph/passes.h"
#include "common/models/layers.h"
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
                             .bucket_bytes = 1, .freeze_batch_norm = manner->statistics == NORM_STATISTICS_RUNNING,
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
    };
    const struct CMUnitTest on_cpus[] = {cmocka_unit_test(synchronised_ranks_in_bf16)};
    int failures = cmocka_run_group_tests(everywhere, NULL, NULL);
    return failures + (on_gpus ? 0 : cmocka_run_group_tests(on_cpus, NULL, NULL));
}
