#include "tests/emulation/child.h"
#include "tests/emulation/emulation.h"
#include "tests/unit/graph/network.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/*
 * Plans on the CUDA device over the emulation: launched as graphs they compute bit for bit what they compute kernel by kernel, a
 * step costs few calls and never waits, and the next images arrive while a step computes. Each test is a fork.
 */

enum { BATCH = 4, STEPS = 4, MOST_PARTS = 3, LADDER = 3 };

static _Thread_local struct error err;

static void require(bool condition) {
    child_require(condition, err.message[0] ? err.message : "without a message");
}

/* --- a plan and what it needs --- */

struct bench {
    struct device *device;
    struct graph *graph;
    struct parameters *parameters;
    struct plan *plan;
    float *images; /* (MOST_PARTS * BATCH, C, H, W), page-locked */
};

/** spec: without graph, parameters and device. */
static struct bench open_bench(const struct plan_spec *wanted, bool kernel_by_kernel) {
    struct bench bench = {.graph = network_graph(0.3)};
    struct device_spec device = {.name = "cuda", .kernel_by_kernel = kernel_by_kernel};
    struct plan_spec spec = *wanted;
    spec.graph = bench.graph;
    spec.parameters = bench.parameters = network_parameters(bench.graph, 5);
    spec.device = bench.device = device_open(&device, &err);
    require(bench.device != NULL);
    require((bench.plan = plan_create(&spec, &err)) != NULL);
    size_t bytes = sizeof(float[MOST_PARTS * BATCH * NETWORK_PIXELS]);
    require((bench.images = bench.device->ops->host_alloc(bench.device, bytes, &err)) != NULL);
    float *images = network_images(MOST_PARTS * BATCH);
    memcpy(bench.images, images, bytes);
    free(images);
    return bench;
}

static void close_bench(struct bench *bench) {
    bench->device->ops->host_free(bench->device, bench->images);
    plan_destroy(bench->plan);
    parameters_destroy(bench->parameters);
    graph_destroy(bench->graph);
    device_close(bench->device);
}

/** losses: (parts), or NULL: nobody waits. */
static void queue_step(struct bench *bench, int step, float *losses) {
    const float hyper[HYPER_COUNT] = {[HYPER_LEARNING_RATE] = 0.1f / (float)(step + 1), [HYPER_MOMENTUM] = 0.9f,
                                      [HYPER_GRADIENT_SCALE] = 1,                       [HYPER_BETA1] = 0.9f,
                                      [HYPER_BETA2] = 0.99f,                            [HYPER_EPSILON] = 1e-6f,
                                      [HYPER_BIAS1] = 0.1f,                             [HYPER_BIAS2] = 0.01f,
                                      [HYPER_EMA_DECAY] = 0.5f};
    struct plan_shape shape;
    plan_shape(bench->plan, &shape);
    for (int part = 0; part < shape.parts; part++) {
        const int32_t labels[BATCH] = {part % NETWORK_CLASSES, step % NETWORK_CLASSES, 2, 0};
        const int64_t seed[3] = {1, step, part * BATCH};
        plan_set_part(bench->plan, part);
        require(plan_set_images(bench->plan, bench->images + part * BATCH * NETWORK_PIXELS, &err));
        require(plan_set_targets(bench->plan, labels, seed, &err) && plan_run(bench->plan, &err));
        require(!losses || plan_read_loss(bench->plan, &losses[part], &err));
    }
    require(plan_update(bench->plan, hyper, &err));
}

/* --- the same results --- */

struct outcome_of_training {
    float losses[STEPS][MOST_PARTS];
    struct parameters *buffers[PLAN_BUFFER_COUNT];
};

static void train(const struct plan_spec *spec, bool kernel_by_kernel, struct outcome_of_training *out) {
    struct bench bench = open_bench(spec, kernel_by_kernel);
    int parts = spec->parts ? spec->parts : 1;
    require(plan_unrecorded(bench.plan) == NULL);
    emulation_clear_calls();
    for (int step = 0; step < STEPS; step++)
        queue_step(&bench, step, out->losses[step]);
    int64_t graphs = STEPS * ((int64_t)parts * plan_segment_count(bench.plan) + 1);
    require(emulation_calls(EMULATION_GRAPH) == (kernel_by_kernel ? 0 : graphs));
    for (int i = 0; i < PLAN_BUFFER_COUNT; i++) {
        if (plan_has_buffer(bench.plan, i)) {
            require((out->buffers[i] = parameters_create(bench.graph, &err)) != NULL);
            require(plan_export(bench.plan, i, out->buffers[i], &err));
        }
    }
    close_bench(&bench);
}

static void require_same(const struct parameters *a, const struct parameters *b) {
    for (int i = 0; i < a->count; i++) {
        size_t bytes = (size_t)shape_count(&a->tensors[i].shape) * sizeof(float);
        child_require(memcmp(a->tensors[i].data, b->tensors[i].data, bytes) == 0, "the same bits");
    }
}

static void train_both_ways(const struct plan_spec *spec) {
    struct outcome_of_training one = {0}, other = {0};
    train(spec, false, &one);
    train(spec, true, &other);
    child_require(memcmp(one.losses, other.losses, sizeof one.losses) == 0, "the same losses");
    for (int step = 1; step < STEPS; step++) /* and no NaN */
        child_require(one.losses[step][0] > 0 && one.losses[step][0] != one.losses[step - 1][0], "losses that change");
    for (int i = 0; i < PLAN_BUFFER_COUNT; i++) {
        if (one.buffers[i])
            require_same(one.buffers[i], other.buffers[i]);
        parameters_destroy(one.buffers[i]);
        parameters_destroy(other.buffers[i]);
    }
}

static void train_in_segments(void) {
    train_both_ways(&(struct plan_spec){.mode = PLAN_TRAIN, .batch = BATCH, .optimizer = OP_SGD, .bucket_bytes = 256});
}

static void train_in_parts(void) {
    train_both_ways(&(struct plan_spec){
        .mode = PLAN_TRAIN, .batch = BATCH, .optimizer = OP_ADAMW, .ema = true, .parts = MOST_PARTS, .bucket_bytes = 256});
}

static void train_synchronised(void) {
    train_both_ways(&(struct plan_spec){
        .mode = PLAN_TRAIN, .batch = BATCH, .optimizer = OP_SGD, .synchronise_batch_norm = true, .parts = 2});
}

static void train_recomputing(void) {
    train_both_ways(&(struct plan_spec){.mode = PLAN_TRAIN, .batch = BATCH, .optimizer = OP_ADAMW, .recompute = true});
}

static void train_in_bf16(void) {
    train_both_ways(&(struct plan_spec){.mode = PLAN_TRAIN, .batch = BATCH, .optimizer = OP_SGD, .precision = PRECISION_BF16});
}

static void train_with_bf16_reductions(void) {
    train_both_ways(&(struct plan_spec){
        .mode = PLAN_TRAIN, .batch = BATCH, .optimizer = OP_SGD, .bf16_reductions = true, .bucket_bytes = 256});
}

static void train_in_parts_with_bf16_reductions(void) {
    train_both_ways(&(struct plan_spec){
        .mode = PLAN_TRAIN, .batch = BATCH, .optimizer = OP_SGD, .bf16_reductions = true, .parts = 2, .bucket_bytes = 256});
}

static void train_in_f16(void) {
    train_both_ways(&(struct plan_spec){.mode = PLAN_TRAIN, .batch = BATCH, .optimizer = OP_SGD, .precision = PRECISION_F16});
}

static void training_gives_the_same_bits_as_graphs(void **state) {
    (void)state;
    assert_clean(train_in_segments);
    assert_clean(train_in_parts);
    assert_clean(train_synchronised);
    assert_clean(train_recomputing);
    assert_clean(train_in_bf16);
    assert_clean(train_in_f16);
    assert_clean(train_with_bf16_reductions);
    assert_clean(train_in_parts_with_bf16_reductions);
}

/** Plans of 1, 2 and 4 images that share weights; each answers twice. */
static void answer(bool kernel_by_kernel, float logits[LADDER][BATCH * NETWORK_CLASSES]) {
    struct plan_spec spec = {.mode = PLAN_INFER, .batch = 1};
    struct bench bench = open_bench(&spec, kernel_by_kernel);
    struct plan *ladder[LADDER] = {bench.plan};
    spec.graph = bench.graph;
    spec.parameters = bench.parameters;
    spec.device = bench.device;
    spec.share = bench.plan;
    for (int i = 1; i < LADDER; i++) {
        spec.batch = (int64_t)1 << i;
        require((ladder[i] = plan_create(&spec, &err)) != NULL);
    }
    for (int i = 0; i < 2 * LADDER; i++)
        require(plan_set_images(ladder[i / 2], bench.images + i * NETWORK_PIXELS, &err) && plan_run(ladder[i / 2], &err) &&
                plan_read_logits(ladder[i / 2], logits[i / 2], &err));
    for (int i = 1; i < LADDER; i++)
        plan_destroy(ladder[i]);
    close_bench(&bench);
}

static void answer_both_ways(void) {
    float one[LADDER][BATCH * NETWORK_CLASSES] = {0}, other[LADDER][BATCH * NETWORK_CLASSES] = {0};
    answer(true, other);
    require(emulation_calls(EMULATION_GRAPH) == 0);
    answer(false, one);
    require(emulation_calls(EMULATION_GRAPH) == 2 * LADDER);
    child_require(memcmp(one, other, sizeof one) == 0, "the same bits");
    child_require(one[LADDER - 1][0] != one[LADDER - 1][NETWORK_CLASSES], "of different images");
}

static void answers_are_the_same_bits_as_graphs(void **state) {
    (void)state;
    assert_clean(answer_both_ways);
}

/* --- beside other threads --- */

static void *answer_by_itself(void *argument) {
    answer(false, argument);
    return NULL;
}

/* While one thread records, another makes plans on the same GPU, records, computes and gives all back. */
static void record_beside_others(void) {
    static float one[LADDER][BATCH * NETWORK_CLASSES], other[LADDER][BATCH * NETWORK_CLASSES];
    struct device_spec spec = {.name = "cuda"};
    struct device *device = device_open(&spec, &err);
    struct recording *recording;
    pthread_t thread;
    require(device && device->ops->record_begin(device, NULL, &err));
    require(pthread_create(&thread, NULL, answer_by_itself, one) == 0);
    pthread_join(thread, NULL);
    require((recording = device->ops->record_end(device, NULL, &err)) != NULL);
    device->ops->recording_destroy(device, recording);
    device_close(device);
    answer(false, other);
    child_require(memcmp(one, other, sizeof one) == 0, "the same bits");
}

static void threads_capture_side_by_side(void **state) {
    (void)state;
    assert_clean(record_beside_others);
}

/* --- what cannot be captured --- */

/* The second segment's capture fails: the plan computes as before, kernel by kernel, and says why. */
static void train_without_capture(void) {
    const struct plan_spec spec = {.mode = PLAN_TRAIN, .batch = BATCH, .optimizer = OP_SGD, .bucket_bytes = 256};
    struct outcome_of_training wanted = {0};
    float loss;
    train(&spec, true, &wanted);
    emulation_fail(EMULATION_FAIL_CAPTURE, 2);
    struct bench bench = open_bench(&spec, false);
    const char *why = plan_unrecorded(bench.plan);
    child_require(why && strstr(why, "segment 1") && strstr(why, "cudaErrorStreamCaptureInvalidated"), why ? why : "no reason");
    emulation_clear_calls();
    for (int step = 0; step < STEPS; step++) {
        queue_step(&bench, step, NULL);
        require(plan_read_loss(bench.plan, &loss, &err));
        child_require(loss == wanted.losses[step][0], "the same loss");
    }
    require(emulation_calls(EMULATION_GRAPH) == 0 && emulation_calls_named("sgd_kernel") == STEPS);
    close_bench(&bench);
    for (int i = 0; i < PLAN_BUFFER_COUNT; i++)
        parameters_destroy(wanted.buffers[i]);
}

static void a_plan_that_cannot_be_captured_still_computes(void **state) {
    (void)state;
    assert_clean(train_without_capture);
}

/* --- what a step costs --- */

static void count_step(bool kernel_by_kernel) {
    const struct plan_spec spec = {.mode = PLAN_TRAIN, .batch = BATCH, .optimizer = OP_SGD, .bucket_bytes = 256};
    enum { IMAGES = 2 /* to the device, and within it */, LABELS = 1, SEED = 1, HYPER = 1 };
    struct bench bench = open_bench(&spec, kernel_by_kernel);
    int segments = plan_segment_count(bench.plan);
    float loss;
    require(segments > 2);
    emulation_clear_calls();
    queue_step(&bench, 0, NULL);
    require(emulation_calls(EMULATION_ALLOCATION) == 0 && emulation_calls(EMULATION_HOST_ALLOCATION) == 0);
    require(emulation_calls(EMULATION_SYNCHRONISATION) == 0 && emulation_calls(EMULATION_HANDLE) == 0);
    require(emulation_calls(EMULATION_COPY) == IMAGES + LABELS + SEED + HYPER);
    require(emulation_calls(EMULATION_GRAPH) == (kernel_by_kernel ? 0 : segments + 1));
    require((emulation_calls(EMULATION_LAUNCH) == 0) == !kernel_by_kernel);
    require(emulation_calls_named("sgd_kernel") == kernel_by_kernel);
    require(emulation_calls_named("cudnnConvolutionForward") == (kernel_by_kernel ? 4 : 0));
    require(plan_read_loss(bench.plan, &loss, &err) && emulation_calls(EMULATION_SYNCHRONISATION) == 1);
    close_bench(&bench);
}

static void count_step_of_graphs(void) {
    count_step(false);
}

static void count_step_of_kernels(void) {
    count_step(true);
}

static void a_training_step_neither_waits_nor_allocates(void **state) {
    (void)state;
    assert_clean(count_step_of_graphs);
    assert_clean(count_step_of_kernels);
}

/* --- images on their way --- */

static void meet(void *argument) {
    pthread_barrier_wait(*(pthread_barrier_t **)argument);
}

/** Nothing that is queued on the device's default stream from now on begins before the barrier is passed. */
static void hold(struct device *device, struct stream *stream, struct event *event, pthread_barrier_t *barrier) {
    pthread_barrier_init(barrier, NULL, 2);
    require(emulation_enqueue((cudaStream_t)stream, "meet", NULL, 0, meet, &barrier, sizeof barrier) == cudaSuccess);
    require(device->ops->event_record(device, event, stream, &err) && device->ops->stream_wait(device, NULL, event, &err));
}

/* While a step cannot go on, the next images arrive all the same. */
static void stage_meanwhile(void) {
    const struct plan_spec spec = {.mode = PLAN_TRAIN, .batch = BATCH, .optimizer = OP_SGD};
    struct bench bench = open_bench(&spec, false);
    struct device *device = bench.device;
    pthread_barrier_t barrier;
    struct stream *stream;
    struct event *event;
    require(device->ops->stream_create(device, &stream, &err));
    require(device->ops->event_create(device, &event, &err));
    require(plan_stages(bench.plan) && plan_set_images(bench.plan, bench.images, &err));
    hold(device, stream, event, &barrier);
    require(plan_run(bench.plan, &err) && plan_stage_images(bench.plan, bench.images + NETWORK_PIXELS, &err));
    require(!plan_stage_images(bench.plan, bench.images, &err) && err.code == ERROR_STATE);
    require(!plan_set_images(bench.plan, bench.images, &err) && err.code == ERROR_STATE);
    require(plan_drop_staged(bench.plan, &err)); /* waits for the upload, but not for the step */
    pthread_barrier_wait(&barrier);
    require(device->ops->synchronise(device, NULL, &err));
    device->ops->event_destroy(device, event);
    device->ops->stream_destroy(device, stream);
    close_bench(&bench);
}

/** Each step has other images. */
static void train_on_stream_of_images(bool stages, float losses[STEPS]) {
    const struct plan_spec spec = {.mode = PLAN_TRAIN, .batch = BATCH, .optimizer = OP_SGD};
    struct bench bench = open_bench(&spec, false);
    float *first = bench.images;
    for (int step = 0; step < STEPS; step++, bench.images += NETWORK_PIXELS) {
        queue_step(&bench, step, NULL);
        require(!stages || plan_stage_images(bench.plan, bench.images + NETWORK_PIXELS, &err));
        require(plan_read_loss(bench.plan, &losses[step], &err));
    }
    require(plan_drop_staged(bench.plan, &err));
    bench.images = first;
    close_bench(&bench);
}

static void stage_or_not(void) {
    float one[STEPS], other[STEPS];
    train_on_stream_of_images(false, one);
    train_on_stream_of_images(true, other);
    child_require(memcmp(one, other, sizeof one) == 0 && one[0] > 0, "the same losses");
}

static void images_arrive_while_a_step_computes(void **state) {
    (void)state;
    assert_clean(stage_meanwhile);
    assert_clean(stage_or_not);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(training_gives_the_same_bits_as_graphs),
        cmocka_unit_test(answers_are_the_same_bits_as_graphs),
        cmocka_unit_test(threads_capture_side_by_side),
        cmocka_unit_test(a_plan_that_cannot_be_captured_still_computes),
        cmocka_unit_test(a_training_step_neither_waits_nor_allocates),
        cmocka_unit_test(images_arrive_while_a_step_computes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
