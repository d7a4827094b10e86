/* The engine's seam: one convolution, batch norm and ReLU, planned, cut into segments, summed by two Gloo ranks. */
#include "trainerd/step.h"

#include "common/base/digest.h"
#include "common/base/rng.h"
#include "common/models/layers.h"
#include "ranks.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { BATCH = 4, CHANNELS = 2, SIDE = 9, IMAGE = CHANNELS * SIDE * SIDE, CLASSES = 3, STEPS = 3 };

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
    struct convolution convolution = {.channels = 8, .size = 3, .stride = 2, .groups = 1};
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

/* bucket_bytes 1: every parameter is a bucket of its own, as many reductions as can be. */
static bool block_init(struct block *block, int batch, int parts, bool frozen, struct error *err) {
    struct device_spec device = {.name = "onednn", .threads = 1, .deterministic = true};
    if (!(block->device = device_open(&device, err)) || !(block->graph = build(err)) ||
        !(block->weights = parameters_create(block->graph, err)))
        return false;
    parameters_initialise(block->graph, block->weights, 1);
    struct plan_spec spec = {.graph = block->graph, .parameters = block->weights, .device = block->device, .mode = PLAN_TRAIN,
                             .batch = batch / parts, .parts = parts, .bucket_bytes = 1, .freeze_batch_norm = frozen,
                             .optimizer = OP_SGD};
    return (block->plan = plan_create(&spec, err));
}

static void block_fini(struct block *block) {
    plan_destroy(block->plan);
    parameters_destroy(block->weights);
    graph_destroy(block->graph);
    device_close(block->device);
}

/* A rank's share of the step's batch: what an image is follows from its place in the global order. */
static void draw(int step, int first, int count, float *images, int32_t *labels) {
    for (int row = 0; row < count; row++) {
        struct rng rng;
        rng_init(&rng, 3, RNG_TEST, (uint64_t)(step * BATCH + first + row), 0);
        labels[row] = (int32_t)rng_below(&rng, CLASSES);
        for (int i = 0; i < IMAGE; i++)
            images[row * IMAGE + i] = rng_normal(&rng) + (float)labels[row];
    }
}

static bool train(struct block *block, int parts, struct job *job, struct collective *collective, struct error *err) {
    float images[BATCH * IMAGE];
    int32_t labels[BATCH];
    int share = BATCH / job->world_size;
    float hyper[HYPER_COUNT] = {[HYPER_LEARNING_RATE] = 0.1f, [HYPER_MOMENTUM] = 0.9f,
                                [HYPER_GRADIENT_SCALE] = 1.0f / (float)(job->world_size * parts)};
    struct step step = {block->plan, collective, TIMEOUT_MS};
    for (int i = 0; i < STEPS; i++) {
        draw(i, job->rank * share, share, images, labels);
        struct step_input input = {images, labels, {1, i, job->rank * share}};
        if (!step_run(&step, &input, hyper, &job->board->values[job->rank][i], err))
            return false;
    }
    return plan_export(block->plan, PLAN_VALUES, block->weights, err);
}

/* Leaves the learnt weights' digests, and the first weights of the convolution, on the board. */
static void tell(const struct block *block, struct job *job) {
    int slot = 0;
    for (int i = 0; i < block->graph->parameter_count; i++) {
        const struct tensor *tensor = &block->weights->tensors[i];
        if (block->graph->parameters[i].role.diff == ARG_NONE)
            continue;
        struct digest digest = digest_of(tensor->data, tensor_bytes(tensor));
        memcpy(&job->board->hash[job->rank][slot++], &digest, sizeof(uint64_t));
    }
    int first = graph_find_parameter(block->graph, "conv1.weight");
    memcpy(job->board->values[job->rank] + STEPS, block->weights->tensors[first].data, (VALUES - STEPS) * sizeof(float));
}

static void run_block(struct job *job, struct collective *collective, int parts, bool frozen) {
    struct error err = {0};
    struct block block = {0};
    bool ok = block_init(&block, BATCH / job->world_size, parts, frozen, &err) && train(&block, parts, job, collective, &err);
    if (!ok)
        fprintf(stderr, "rank %d: %s\n", job->rank, err.message);
    CHECK(ok);
    tell(&block, job);
    block_fini(&block);
}

static void run_frozen(struct job *job, struct collective *collective) {
    run_block(job, collective, 1, true);
}

static void run_frozen_in_parts(struct job *job, struct collective *collective) {
    run_block(job, collective, 2, true);
}

static void run_with_batch_statistics(struct job *job, struct collective *collective) {
    run_block(job, collective, 1, false);
}

static void both_ranks_end_with_the_same_weights(void **state) {
    (void)state;
    struct board *board = run_well(2, run_with_batch_statistics);
    assert_memory_equal(board->hash[0], board->hash[1], sizeof board->hash[0]);
    assert_memory_equal(board->values[0] + STEPS, board->values[1] + STEPS, (VALUES - STEPS) * sizeof(float));
    assert_true(board->values[0][0] != board->values[1][0]); /* each saw images of its own */
    board_destroy(board);
}

static void take_the_steps_of_one(int ranks, void (*run)(struct job *, struct collective *)) {
    struct board *one = run_well(1, run_frozen), *board = run_well(ranks, run);
    for (int i = 0; i < STEPS; i++)
        assert_float_equal(one->values[0][i], (board->values[0][i] + board->values[ranks - 1][i]) / 2, 1e-5);
    for (int i = STEPS; i < VALUES; i++)
        assert_float_equal(one->values[0][i], board->values[0][i], 1e-5);
    board_destroy(one);
    board_destroy(board);
}

static void two_ranks_take_the_steps_of_one(void **state) {
    (void)state;
    take_the_steps_of_one(2, run_frozen);
}

static void parts_take_the_steps_of_the_whole(void **state) {
    (void)state;
    take_the_steps_of_one(1, run_frozen_in_parts);
    take_the_steps_of_one(2, run_frozen_in_parts);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_ranks_end_with_the_same_weights),
        cmocka_unit_test(two_ranks_take_the_steps_of_one),
        cmocka_unit_test(parts_take_the_steps_of_the_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
