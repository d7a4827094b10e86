#include "tests/emulation/child.h"
#include "tests/emulation/emulation.h"
#include "tests/unit/graph/network.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/*
 * What the CUDA device makes of cuDNN and cuBLAS, over the emulation: layouts, fused calls, tensor cores, measured algorithms,
 * narrow training. Each test is a fork, so that findings are seen at its exit.
 */

enum { BATCH = 4 };

static struct error err;

static void require(bool condition) {
    child_require(condition, err.message[0] ? err.message : "without a message");
}

static void run_step(struct plan *plan, const float *images) {
    const float hyper[HYPER_COUNT] = {[HYPER_LEARNING_RATE] = 0.1f, [HYPER_GRADIENT_SCALE] = 1};
    const int32_t labels[BATCH] = {0, 1, 2, 0};
    const int64_t seed[3] = {1, 2, 3};
    require(plan_set_images(plan, images, &err) && plan_set_targets(plan, labels, seed, &err));
    require(plan_run(plan, &err) && plan_update(plan, hyper, &err));
}

/* --- tensor cores, fused calls --- */

/* Kernel by kernel, so that each call is seen once. */
static void run_once(const struct device_spec *spec, enum plan_mode mode, enum precision precision) {
    struct device_spec one_by_one = *spec;
    one_by_one.kernel_by_kernel = true;
    struct device *device = device_open(&one_by_one, &err);
    struct graph *graph = network_graph(0);
    struct parameters *parameters = network_parameters(graph, 5);
    struct plan_spec plan_spec = {.graph = graph, .parameters = parameters, .device = device, .mode = mode, .batch = BATCH,
                                  .precision = precision, .optimizer = OP_SGD};
    struct plan *plan = device ? plan_create(&plan_spec, &err) : NULL;
    float *images = network_images(BATCH), logits[BATCH * NETWORK_CLASSES];
    require(plan != NULL);
    if (mode == PLAN_TRAIN)
        run_step(plan, images);
    else
        require(plan_set_images(plan, images, &err) && plan_run(plan, &err));
    require(plan_read_logits(plan, logits, &err));
    free(images);
    plan_destroy(plan);
    parameters_destroy(parameters);
    graph_destroy(graph);
    device_close(device);
}

static void train_in_f32(void) {
    struct device_spec spec = {.name = "cuda"};
    run_once(&spec, PLAN_TRAIN, PRECISION_F32);
    require(emulation_calls(EMULATION_MATH) == 0);
    spec.tf32 = true;
    run_once(&spec, PLAN_TRAIN, PRECISION_F32);
    int64_t products = emulation_calls_named("cublasSgemm") / 2; /* of either run */
    require(emulation_calls_named("tf32") == 4 + 3 + 4 + products && products == 3);
}

/* Not rounded unless the configuration says so: all passes of four convolutions (the first has no data gradient) and the head. */
static void f32_goes_to_tensor_cores_only_as_tf32_that_was_asked_for(void **state) {
    (void)state;
    assert_clean(train_in_f32);
}

static void train_narrow(void) {
    struct device_spec spec = {.name = "cuda"};
    run_once(&spec, PLAN_TRAIN, PRECISION_BF16);
    require(emulation_calls_named("narrow") == 4 + 3 + 4 && emulation_calls_named("tf32") == 0);
    run_once(&spec, PLAN_TRAIN, PRECISION_F16);
    require(emulation_calls_named("narrow") == 2 * (4 + 3 + 4) && emulation_calls_named("tf32") == 0);
}

static void narrow_numbers_go_to_tensor_cores(void **state) {
    (void)state;
    assert_clean(train_narrow);
}

static void answer(void) {
    struct device_spec spec = {.name = "cuda"};
    run_once(&spec, PLAN_INFER, PRECISION_F32);
    require(emulation_calls_named("cudnnConvolutionBiasActivationForward") == 3);
    require(emulation_calls_named("cudnnConvolutionForward") == 1 && emulation_calls_named("epilogue_kernel") == 2);
    require(emulation_calls_named("normalise_kernel") == 0);
}

/* Batch norms are folded into biases, and those are cuDNN's to add; behind a ReLU6 and the linear layer they are ours. */
static void answers_come_from_fused_convolutions(void **state) {
    (void)state;
    assert_clean(answer);
}

/* --- what cuDNN does not have --- */

static struct device *open_cuda(void) {
    struct device_spec spec = {.name = "cuda"};
    struct device *device = device_open(&spec, &err);
    require(device != NULL);
    return device;
}

static struct kernel *prepare_biased(struct device *device, const struct layout *layout) {
    struct window window = {{3, 3}, {1, 1}, {1, 1}, {1, 1}};
    struct conv2d conv = {.channels_out = 8, .window = window, .groups = 1, .bias = true, .activation = ACTIVATION_RELU};
    struct kernel_request request = {.op = {OP_CONV2D, .conv2d = conv}, .pass = PASS_INFER};
    struct shape shape = shape_of(4, (int64_t)2, (int64_t)8, (int64_t)9, (int64_t)9);
    static const enum arg data[] = {ARG_SRC, ARG_WEIGHT, ARG_DST};
    require(op_arguments(&request.op, request.pass, &shape, &request.args, &err));
    for (int i = 0; i < 3; i++)
        request.args.desc[data[i]].layout = layout;
    struct kernel *kernel = kernel_prepare(device, &request, &err);
    require(kernel != NULL);
    return kernel;
}

/** Runs it on ones throughout, and reads the first result. */
static float run_on_ones(struct device *device, struct kernel *kernel) {
    void *buffers[ARG_COUNT] = {0};
    float ones[2 * 8 * 9 * 9], first;
    for (size_t i = 0; i < sizeof ones / sizeof *ones; i++)
        ones[i] = 1;
    for (int arg = 0; arg < ARG_COUNT; arg++) {
        const struct tensor_desc *desc = &kernel->args.desc[arg];
        if (kernel->args.direction[arg] == ARG_ABSENT)
            continue;
        require((buffers[arg] = device->ops->alloc(device, desc->bytes, &err)) != NULL);
        require(kernel->args.direction[arg] != ARG_IN ||
                device->ops->upload(device, buffers[arg], ones, desc->bytes, NULL, &err));
    }
    require(kernel_run(kernel, buffers, NULL, &err));
    require(device->ops->download(device, &first, buffers[ARG_DST], sizeof first, NULL, &err));
    require(device->ops->synchronise(device, NULL, &err));
    for (int arg = 0; arg < ARG_COUNT; arg++)
        if (buffers[arg])
            device->ops->free(device, buffers[arg]);
    return first;
}

enum { FOUR_TAPS_AND_BIAS = 4 * 8 + 1 }; /* what the corner of an image of ones sees */

static void go_without_nhwc(void) {
    struct device *device = open_cuda();
    struct kernel *liked = prepare_biased(device, LAYOUT_ANY);
    const struct layout *nhwc = liked->args.desc[ARG_DST].layout;
    require(nhwc && liked->args.desc[ARG_SRC].layout == nhwc && liked->args.desc[ARG_WEIGHT].layout == nhwc);
    emulation_fail(EMULATION_REFUSE_NHWC, 1);
    struct kernel *other = prepare_biased(device, nhwc);
    require(!other->args.desc[ARG_DST].layout && !other->args.desc[ARG_SRC].layout && !other->args.desc[ARG_WEIGHT].layout);
    require(run_on_ones(device, other) == FOUR_TAPS_AND_BIAS && run_on_ones(device, liked) == FOUR_TAPS_AND_BIAS);
    kernel_release(liked);
    kernel_release(other);
    device_close(device);
}

static void convolutions_that_have_no_nhwc_are_canonical(void **state) {
    (void)state;
    assert_clean(go_without_nhwc);
}

static void go_without_fusing(void) {
    struct device *device = open_cuda();
    struct kernel *kernel = prepare_biased(device, LAYOUT_ANY);
    emulation_fail(EMULATION_REFUSE_FUSED, 1);
    require(run_on_ones(device, kernel) == FOUR_TAPS_AND_BIAS);
    require(emulation_calls_named("cudnnConvolutionForward") == 1 && emulation_calls_named("epilogue_kernel") == 1);
    require(run_on_ones(device, kernel) == FOUR_TAPS_AND_BIAS);
    require(emulation_calls_named("cudnnConvolutionForward") == 1);
    kernel_release(kernel);
    device_close(device);
}

static void a_fused_call_that_is_refused_is_made_in_parts(void **state) {
    (void)state;
    assert_clean(go_without_fusing);
}

/* --- training in narrow numbers --- */

enum { TRAINED_STEPS = 6 };

static void train_on(const char *name, enum precision precision, float losses[TRAINED_STEPS]) {
    struct device_spec spec = {.name = name, .threads = 1, .deterministic = true};
    struct device *device = device_open(&spec, &err);
    struct graph *graph = network_graph(0);
    struct parameters *parameters = network_parameters(graph, 5);
    struct plan_spec plan_spec = {.graph = graph, .parameters = parameters, .device = device, .mode = PLAN_TRAIN,
                                  .batch = BATCH, .precision = precision, .optimizer = OP_SGD};
    struct plan *plan = device ? plan_create(&plan_spec, &err) : NULL;
    float *images = network_images(BATCH);
    require(plan != NULL);
    for (int i = 0; i < TRAINED_STEPS; i++) {
        run_step(plan, images);
        require(plan_read_loss(plan, &losses[i], &err));
    }
    free(images);
    plan_destroy(plan);
    parameters_destroy(parameters);
    graph_destroy(graph);
    device_close(device);
}

static void train_side_by_side(void) {
    static const struct {
        enum precision precision;
        float step; /* half of the last bit of a number from 1 to 2 */
    } narrow[] = {{PRECISION_BF16, 0x1p-8f}, {PRECISION_F16, 0x1p-11f}};
    for (int i = 0; i < 2; i++) {
        float ours[TRAINED_STEPS], again[TRAINED_STEPS], expected[TRAINED_STEPS];
        train_on("reference", narrow[i].precision, expected);
        train_on("cuda", narrow[i].precision, ours);
        train_on("cuda", narrow[i].precision, again);
        require(memcmp(ours, again, sizeof ours) == 0 && expected[TRAINED_STEPS - 1] < expected[0]);
        for (int s = 0; s < TRAINED_STEPS; s++)
            require(ours[s] > expected[s] - 4 * narrow[i].step && ours[s] < expected[s] + 4 * narrow[i].step);
    }
}

/* The same losses from run to run, and those of the reference device but for some roundings. */
static void narrow_training_follows_the_reference(void **state) {
    (void)state;
    assert_clean(train_side_by_side);
}

/* --- measured algorithms --- */

static char cache_path[64];

static int64_t measurements(void) {
    return emulation_calls_named("cudnnFindConvolutionForwardAlgorithmEx") +
           emulation_calls_named("cudnnFindConvolutionBackwardDataAlgorithmEx") +
           emulation_calls_named("cudnnFindConvolutionBackwardFilterAlgorithmEx");
}

static void write_cache(const char *text) {
    FILE *file = fopen(cache_path, "w");
    require(file && fputs(text, file) >= 0 && fclose(file) == 0);
}

/** How many convolutions a device with that file measures for a training step. */
static int64_t measured_with(bool deterministic) {
    struct device_spec spec = {.name = "cuda", .algorithm_cache = cache_path, .deterministic = deterministic};
    emulation_clear_calls();
    run_once(&spec, PLAN_TRAIN, PRECISION_F32);
    return measurements();
}

static void measure_once(void) {
    unlink(cache_path);
    int64_t first = measured_with(false);
    require(first > 0 && measured_with(false) == 0);
    /* What is deterministic is another question; here each pass has one or two such algorithms. */
    int64_t other = measured_with(true);
    require(measured_with(true) == 0 && measured_with(false) == 0 && other <= first);
    unlink(cache_path);
}

static void algorithms_are_measured_once_for_all_processes(void **state) {
    (void)state;
    snprintf(cache_path, sizeof cache_path, "/tmp/thorax-algorithms-%d", (int)getpid());
    assert_clean(measure_once);
}

/* Every line that the file had, with another algorithm: one that no pass has. */
static void replace_algorithms(void) {
    char text[1 << 16], changed[1 << 16] = "";
    FILE *file = fopen(cache_path, "r");
    size_t size = file ? fread(text, 1, sizeof text - 1, file) : 0;
    require(size > 0 && size < sizeof text - 1 && fclose(file) == 0);
    text[size] = '\0';
    size_t used = 0;
    char *rest = NULL;
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        bool header = strncmp(line, "thorax", 6) == 0;
        const char *behind = header ? line : strchr(line, ' ');
        used += (size_t)snprintf(changed + used, sizeof changed - used, header ? "%s\n" : "999%s\n", behind);
        require(used < sizeof changed);
    }
    write_cache(changed);
}

static void distrust(void) {
    static const char *const contents[] = {
        "", "garbage", "thorax convolution algorithms 1\n1", "thorax convolution algorithms 1\n99999999999999999999 0 x\n\n  \n",
        "thorax convolution algorithms 2\n"};
    unlink(cache_path);
    int64_t all = measured_with(false);
    for (size_t i = 0; i < sizeof contents / sizeof *contents; i++) {
        write_cache(contents[i]);
        require(measured_with(false) == all && measured_with(false) == 0);
    }
    replace_algorithms();
    require(measured_with(false) == all && measured_with(false) == 0);
    unlink(cache_path);
    cache_path[0] = '\0';
    snprintf(cache_path, sizeof cache_path, "/proc/no/such/folder");
    require(measured_with(false) == all && measured_with(false) == all); /* it cannot be written: no error */
}

static void a_cache_that_is_no_good_is_measured_anew(void **state) {
    (void)state;
    snprintf(cache_path, sizeof cache_path, "/tmp/thorax-algorithms-%d", (int)getpid());
    assert_clean(distrust);
}

/* There is memory for the network, but not for what measuring takes: cuDNN's guess stands. */
static void measure_without_memory(void) {
    struct device_spec spec = {.name = "cuda", .algorithm_cache = cache_path};
    struct device *device = device_open(&spec, &err);
    struct window window = {{3, 3}, {1, 1}, {1, 1}, {1, 1}};
    struct kernel_request request = {.op = {OP_CONV2D, .conv2d = {.channels_out = 8, .window = window, .groups = 1}}};
    struct shape shape = shape_of(4, (int64_t)1, (int64_t)8, (int64_t)9, (int64_t)9);
    request.pass = PASS_FORWARD;
    require(device && op_arguments(&request.op, request.pass, &shape, &request.args, &err));
    for (int n = 1; n <= 3; n++) {
        emulation_fail(EMULATION_FAIL_ALLOCATION, n);
        struct kernel *kernel = kernel_prepare(device, &request, &err);
        require(kernel != NULL && measurements() == 0);
        kernel_release(kernel);
    }
    device_close(device);
}

static void measuring_without_memory_is_no_error(void **state) {
    (void)state;
    snprintf(cache_path, sizeof cache_path, "/tmp/thorax-algorithms-%d", (int)getpid());
    assert_clean(measure_without_memory);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(f32_goes_to_tensor_cores_only_as_tf32_that_was_asked_for),
        cmocka_unit_test(narrow_numbers_go_to_tensor_cores),
        cmocka_unit_test(answers_come_from_fused_convolutions),
        cmocka_unit_test(convolutions_that_have_no_nhwc_are_canonical),
        cmocka_unit_test(a_fused_call_that_is_refused_is_made_in_parts),
        cmocka_unit_test(narrow_training_follows_the_reference),
        cmocka_unit_test(algorithms_are_measured_once_for_all_processes),
        cmocka_unit_test(a_cache_that_is_no_good_is_measured_anew),
        cmocka_unit_test(measuring_without_memory_is_no_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
