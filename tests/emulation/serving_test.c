#include "common/base/log.h"
#include "inferd/loaded_model.h"
#include "tests/emulation/child.h"
#include "tests/emulation/emulation.h"
#include "tests/unit/inferd/tiny_model.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/*
 * Models on GPUs as inferd has them, over the emulation: what they answer, what a batch costs in calls, where the weights are,
 * and what becomes of failures. Each test is a fork, so that findings are seen at its exit.
 */

enum { SIDE = 28, PIXELS = SIDE * SIDE, CLASSES = 3, MAX_BATCH = 4, WEIGHTS_MIB = 13 };
enum { WORKSPACE_MIB = 32 /* cuBLAS', in each instance */ };

/* f32, other order of sums: logits of random weights are of order 1. */
static const float TOLERANCE = 1e-5f;

static struct error err;
static char path[64];

static void require(bool condition) {
    child_require(condition, err.message[0] ? err.message : "without a message");
}

static struct instances on_gpus(int each) {
    return (struct instances){.count = 2 * each, .threads = 1, .gpus = {.count = 2, .index = {0, 1}}};
}

static struct model *load(const char *device, const struct instances *instances, struct error *reason) {
    struct loaded_model_spec spec = {.device = {.name = device}, .max_batch = MAX_BATCH, .instances = instances};
    return loaded_model_open(path, &spec, NULL, reason);
}

static struct model *load_on_gpus(const struct instances *instances) {
    struct model *model = load("cuda", instances, &err);
    require(model != NULL);
    return model;
}

static void fill(float images[MAX_BATCH * PIXELS], int seed) {
    for (int i = 0; i < MAX_BATCH * PIXELS; i++)
        images[i] = sinf((float)(i * (2 * seed + 3)) * 0.37f);
}

static void assert_silent(void (*behave)(void)) {
    static const char *const two_devices[] = {"THORAX_EMULATION_DEVICES=2", NULL};
    assert_clean_in(behave, two_devices);
}

static size_t free_memory(void) {
    size_t free_bytes, total;
    require(cudaMemGetInfo(&free_bytes, &total) == cudaSuccess);
    return free_bytes;
}

/* --- answers --- */

static void compare_with_reference(void) {
    struct instances instances = on_gpus(2);
    struct model *reference = load("reference", NULL, &err), *model = load_on_gpus(&instances);
    float images[MAX_BATCH * PIXELS], expected[MAX_BATCH * CLASSES], logits[MAX_BATCH * CLASSES], spread = 0;
    require(reference != NULL);
    for (int count = 1; count <= MAX_BATCH; count++) {
        fill(images, count);
        require(reference->ops->compute(reference, 0, images, count, expected, &err));
        for (int i = 0; i < instances.count; i++) {
            require(model->ops->compute(model, i, images, count, logits, &err));
            for (int k = 0; k < count * CLASSES; k++) {
                float wanted = expected[k];
                snprintf(err.message, sizeof err.message, "instance %d: %g, not %g", i, (double)logits[k], (double)wanted);
                require(fabsf(logits[k] - wanted) <= TOLERANCE * fmaxf(1, fabsf(wanted)));
            }
        }
        spread = fmaxf(spread, fabsf(expected[0] - expected[count * CLASSES - 1]));
    }
    require(spread > 100 * TOLERANCE); /* answers that are all alike would say nothing */
    model_release(model);
    model_release(reference);
}

static void every_instance_answers_as_the_reference_device(void **state) {
    (void)state;
    assert_silent(compare_with_reference);
}

/* --- costs --- */

static void count_calls(void) {
    struct instances instances = on_gpus(1);
    struct model *model = load_on_gpus(&instances);
    float logits[MAX_BATCH * CLASSES];
    for (int i = 0; i < instances.count; i++) {
        float *images = model->ops->images(model, i);
        require(images != NULL);
        fill(images, i);
        emulation_clear_calls();
        require(model->ops->compute(model, i, images, 3, logits, &err));
        require(emulation_calls(EMULATION_ALLOCATION) == 0 && emulation_calls(EMULATION_HOST_ALLOCATION) == 0);
        require(emulation_calls(EMULATION_HANDLE) == 0);
        require(emulation_calls_named("cudaStreamSynchronize") == 1 && emulation_calls(EMULATION_SYNCHRONISATION) == 1);
        require(emulation_calls_named("cudaMemcpyAsync") == 2); /* the images, and the logits */
    }
    model_release(model);
}

static void a_batch_waits_once_and_allocates_nothing(void **state) {
    (void)state;
    assert_silent(count_calls);
}

static void measure_weights(void) {
    struct instances one = on_gpus(1), three = on_gpus(3);
    size_t before = free_memory();
    struct model *model = load_on_gpus(&one);
    size_t of_one = before - free_memory();
    model_release(model);
    require(free_memory() == before);
    model = load_on_gpus(&three);
    size_t of_three = before - free_memory();
    model_release(model);
    snprintf(err.message, sizeof err.message, "%zu bytes for one, %zu for three", of_one, of_three);
    require(of_one > (WEIGHTS_MIB + WORKSPACE_MIB) << 20);
    size_t of_two_more = of_three - of_one - ((size_t)2 * WORKSPACE_MIB << 20);
    require(of_two_more < (size_t)WEIGHTS_MIB << 19); /* buffers, and no weights */
}

static void a_gpu_has_the_weights_once(void **state) {
    (void)state;
    assert_silent(measure_weights);
}

/* --- failures --- */

/* Whichever launch faults, no batch is answered with what came of it, and the other GPU goes on. */
static void lose_one(int launch) {
    struct instances instances = on_gpus(1);
    struct model *model = load_on_gpus(&instances);
    float images[MAX_BATCH * PIXELS], expected[MAX_BATCH * CLASSES], logits[MAX_BATCH * CLASSES];
    struct error reason = {0};
    fill(images, 1);
    require(model->ops->compute(model, 0, images, 2, expected, &err));
    emulation_fail(EMULATION_FAIL_LAUNCH, launch);
    for (int i = 0; i < 3; i++) {
        require(!model->ops->compute(model, 0, images, 2, logits, &reason));
        child_require(reason.code == ERROR_LOST && strstr(reason.message, "GPU 0"), reason.message);
        require(model->ops->compute(model, 1, images, 2, logits, &err));
        require(memcmp(logits, expected, sizeof(float[2 * CLASSES])) == 0);
    }
    model_release(model);
}

static void lose_at_the_first_kernel(void) {
    lose_one(1);
}

static void lose_in_the_midst(void) {
    lose_one(20);
}

static void a_lost_gpu_answers_nothing_and_the_other_goes_on(void **state) {
    (void)state;
    assert_silent(lose_at_the_first_kernel);
    assert_silent(lose_in_the_midst);
}

/* While a model serves, another one is loaded: memory ends at every place, and nothing is left behind. */
static void run_out(enum emulation_failure failure, int step) {
    struct instances instances = on_gpus(1);
    struct model *serving = load_on_gpus(&instances), *next = NULL;
    float images[MAX_BATCH * PIXELS], expected[MAX_BATCH * CLASSES], logits[MAX_BATCH * CLASSES];
    size_t before = free_memory();
    int refused = 0;
    fill(images, 5);
    require(serving->ops->compute(serving, 0, images, MAX_BATCH, expected, &err));
    for (int n = 1; !next; n += step) {
        struct error reason = {0};
        emulation_fail(failure, n);
        next = load("cuda", &instances, &reason);
        emulation_fail(failure, 0);
        require(next || reason.code == ERROR_MEMORY);
        require(next || free_memory() == before);
        refused += next ? 0 : 1;
        require(serving->ops->compute(serving, 0, images, MAX_BATCH, logits, &err));
        require(memcmp(logits, expected, sizeof logits) == 0);
    }
    require(refused > 3);
    model_release(next);
    model_release(serving);
}

static void run_out_of_gpu_memory(void) {
    run_out(EMULATION_FAIL_ALLOCATION, 17);
}

static void run_out_of_page_locked_memory(void) {
    run_out(EMULATION_FAIL_HOST_ALLOCATION, 1);
}

static void a_model_that_does_not_fit_is_refused_and_the_other_serves(void **state) {
    (void)state;
    assert_silent(run_out_of_gpu_memory);
    assert_silent(run_out_of_page_locked_memory);
}

static void say_how_much(void) {
    struct instances instances = on_gpus(1);
    require(!load("cuda", &instances, &err) && err.code == ERROR_MEMORY);
    require(strstr(err.message, "does not fit on GPU 0, where 8 of 40 MiB were free") != NULL);
}

static void the_error_says_how_much_memory_there_was(void **state) {
    static const char *const small[] = {"THORAX_EMULATION_DEVICES=2", "THORAX_EMULATION_MEMORY_MIB=40", NULL};
    struct outcome outcome;
    (void)state;
    child_run(say_how_much, small, &outcome);
    assert_string_equal(outcome.stderr_text, "");
    assert_int_equal(outcome.status, 0);
}

static int write_model(void **state) {
    struct tiny_model_spec spec = {.name = "tiny",
                                   .seed = 3,
                                   .temperature = 0.5,
                                   .golden = true,
                                   .golden_device = "reference",
                                   .architecture = "efficientnet_lite0"};
    (void)state;
    snprintf(path, sizeof path, "/tmp/thorax-serving-%d.safetensors", (int)getpid());
    return digest_start(NULL) && tiny_model_write(path, &spec, NULL) ? 0 : -1;
}

static int remove_model(void **state) {
    (void)state;
    return unlink(path);
}

int main(void) {
    log_init("serving_test", LOG_ERROR + 1, LOG_TEXT);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_instance_answers_as_the_reference_device),
        cmocka_unit_test(a_batch_waits_once_and_allocates_nothing),
        cmocka_unit_test(a_gpu_has_the_weights_once),
        cmocka_unit_test(a_lost_gpu_answers_nothing_and_the_other_goes_on),
        cmocka_unit_test(a_model_that_does_not_fit_is_refused_and_the_other_serves),
        cmocka_unit_test(the_error_says_how_much_memory_there_was),
    };
    return cmocka_run_group_tests(tests, write_model, remove_model);
}
