#include "common/base/clock.h"
#include "common/models/registry.h"
#include "ranks.h"
#include "tests/emulation/emulation.h"
#include "trainerd/step.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include <cmocka.h>

/* trainerd/step.c over the emulation: what a step of two ranks costs in calls, and what becomes of it when a rank is lost. */

enum { BATCH = 2, SIDE = 28, PIXELS = SIDE * SIDE, CLASSES = 3, NORMS = 20 /* of a ResNet-18 */ };

/** A rank, and what it trains. */
struct trainee {
    struct device *device;
    struct graph *graph;
    struct parameters *weights;
    struct plan *plan;
    struct step step;
    float *images; /* page-locked */
};

static bool trainee_init(struct trainee *trainee, const struct job *job, bool bf16, struct collective *collective,
                         struct error *err) {
    struct device_spec device = {.name = "cuda", .index = job->rank, .deterministic = true};
    struct model_spec model = {.architecture = "resnet18", .stem = "7x7", .input_channels = 1, .size = SIDE, .classes = CLASSES};
    if (!(trainee->device = device_open(&device, err)) || !(trainee->graph = model_build(&model, err)) ||
        !(trainee->weights = parameters_create(trainee->graph, err)))
        return false;
    parameters_initialise(trainee->graph, trainee->weights, 1);
    struct plan_spec plan = {.graph = trainee->graph, .parameters = trainee->weights, .device = trainee->device,
                             .mode = PLAN_TRAIN, .batch = BATCH, .bucket_bytes = 4 << 20, .bf16_reductions = bf16,
                             .synchronise_batch_norm = true, .optimizer = OP_SGD};
    if (!(trainee->plan = plan_create(&plan, err)))
        return false;
    struct step_spec step = {trainee->plan, trainee->device, collective, job->timeout_ms};
    trainee->images = trainee->device->ops->host_alloc(trainee->device, sizeof(float[BATCH * PIXELS]), err);
    for (int i = 0; trainee->images && i < BATCH * PIXELS; i++)
        trainee->images[i] = (float)((i * 7 + job->rank) % 11) / 11;
    return trainee->images && step_init(&trainee->step, &step, err);
}

/** The collective is closed already where it may be in the way. */
static void trainee_fini(struct trainee *trainee) {
    step_fini(&trainee->step);
    trainee->device->ops->host_free(trainee->device, trainee->images);
    plan_destroy(trainee->plan);
    parameters_destroy(trainee->weights);
    graph_destroy(trainee->graph);
    device_close(trainee->device);
}

static bool run_step(struct trainee *trainee, int number, float *loss, struct error *err) {
    const int32_t labels[BATCH] = {0, 1};
    const float hyper[HYPER_COUNT] = {[HYPER_LEARNING_RATE] = 0.001f, [HYPER_GRADIENT_SCALE] = 0.5f};
    struct step_input input = {trainee->images, labels, {1, number, 0}};
    return step_run(&trainee->step, &input, hyper, loss, err);
}

static int reductions_of(const struct plan *plan) {
    const struct plan_reduction *reductions;
    int count = 0;
    for (int i = 0; i < plan_segment_count(plan); i++)
        count += plan_reductions(plan, i, &reductions);
    return count;
}

/** The first step may make what later ones use; from then on only work is queued, and the host asks. */
static void count_calls(struct job *job, bool bf16, struct collective *collective) {
    struct trainee trainee = {0};
    struct error err = {0};
    float loss, losses[2];
    bool ok = trainee_init(&trainee, job, bf16, collective, &err) && run_step(&trainee, 0, &loss, &err);
    if (!ok)
        fprintf(stderr, "rank %d: %s\n", job->rank, err.message);
    CHECK(ok);
    CHECK(collective_allgather(collective, &loss, sizeof loss, losses, NULL));
    emulation_clear_calls();
    CHECK(run_step(&trainee, 1, &loss, NULL));
    CHECK(collective_allgather(collective, &loss, sizeof loss, losses, NULL)); /* as training does behind each step */
    CHECK(emulation_calls(EMULATION_SYNCHRONISATION) == 0);
    CHECK(emulation_calls(EMULATION_ALLOCATION) == 0 && emulation_calls(EMULATION_HOST_ALLOCATION) == 0);
    CHECK(emulation_calls(EMULATION_HANDLE) == 0);
    CHECK(emulation_calls_named("ncclAllReduce") == reductions_of(trainee.plan));
    CHECK(reductions_of(trainee.plan) > 2 * NORMS && emulation_calls_named("ncclAllGather") == 1);
    CHECK(emulation_calls(EMULATION_LAUNCH) == 0 && emulation_calls(EMULATION_CUDNN) == 0); /* but in graphs */
    CHECK(emulation_calls(EMULATION_GRAPH) == plan_segment_count(trainee.plan) + 1);
    job->board->values[job->rank][0] = (float)emulation_calls(EMULATION_GRAPH);
    trainee_fini(&trainee);
}

static void body_f32(struct job *job, struct collective *collective) {
    count_calls(job, false, collective);
}

static void body_bf16(struct job *job, struct collective *collective) {
    count_calls(job, true, collective);
}

/** Rounding gradients to bf16 and back is in the graphs: a launch more would be found. */
static void a_step_neither_waits_nor_allocates(void **state) {
    (void)state;
    struct board *board = run_well(2, body_f32), *narrow = run_well(2, body_bf16);
    print_message("a step of a ResNet-18 with synchronised batch norm launches %d graphs\n", (int)board->values[0][0]);
    assert_true(narrow->values[0][0] == board->values[0][0]);
    board_destroy(board);
    board_destroy(narrow);
}

/** Rank 1 stops between two steps. Rank 0 does not queue the whole step behind what will never come. */
static void body_stopped(struct job *job, struct collective *unopened) {
    struct collective *collective = open_rank(job, NULL);
    struct trainee trainee = {0};
    struct error err = {0};
    float loss;
    CHECK(!unopened && collective);
    CHECK(trainee_init(&trainee, job, false, collective, NULL) && run_step(&trainee, 0, &loss, NULL));
    if (job->rank == 1) {
        job->board->ready[1] = getpid();
        raise(SIGSTOP);
    }
    emulation_clear_calls();
    int64_t start_ms = clock_now_ms();
    CHECK(!run_step(&trainee, 1, &loss, &err));
    kill(job->board->ready[1], SIGKILL);
    CHECK(err.code == ERROR_TIMEOUT && strstr(err.message, "rank 1 did not answer within 3.0 s"));
    CHECK(clock_now_ms() - start_ms < 3 * job->timeout_ms);
    CHECK(emulation_calls_named("cudnnConvolutionForward") <= NORMS / 2);
    collective_close(collective);
    trainee_fini(&trainee);
}

static void a_lost_rank_ends_the_step(void **state) {
    (void)state;
    struct job job = {
        .world_size = 2, .timeout_ms = 3000, .board = board_create(), .opens = true, .body = body_stopped};
    int statuses[RANKS_MAX];
    run_ranks(&job, statuses);
    assert_int_equal(statuses[0], 0);
    assert_true(WIFSIGNALED(statuses[1]));
    board_destroy(job.board);
}

int main(void) {
    ranks_use("nccl");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_step_neither_waits_nor_allocates),
        cmocka_unit_test(a_lost_rank_ends_the_step),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
