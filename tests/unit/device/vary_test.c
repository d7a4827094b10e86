/*
 * vary_test [DEVICE]: pictures with their variations, as a device makes images of them, bit for bit as the loader would.
 */
#include "common/device/device.h"
#include "common/image/augment.h"
#include "common/tensor/half.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char *device_name = "reference";

/* Some pictures of one size and what is to become of them. */
struct trial {
    struct recipe recipe;
    int pictures;
    uint64_t seed;
    uint8_t *rows; /* (pictures, variation_bytes) */
    float *wanted; /* (pictures, channels, height, width), of augment_apply */
};

/* All features on; each may be as strong as it can be. */
static struct augment any_augment(struct rng *rng) {
    struct augment augment = augment_none();
    augment.crop_area_min = rng_uniform(rng, 0.05f, 1);
    augment.crop_area_max = rng_uniform(rng, augment.crop_area_min, 1);
    augment.crop_aspect = rng_uniform(rng, 1, 2);
    augment.rotation_degrees = rng_uniform(rng, 0, 45);
    augment.translation = rng_uniform(rng, 0, 0.5f);
    augment.flip_probability = 0.5f;
    augment.brightness = rng_uniform(rng, 0, 0.5f);
    augment.contrast = rng_uniform(rng, 0, 2);
    augment.gamma = rng_uniform(rng, 0, 2);
    augment.blur_probability = 0.7f;
    augment.blur_sigma_max = 0.02f;
    augment.noise_sigma_max = rng_uniform(rng, 0, 0.2f);
    augment.erasing_probability = 0.7f;
    augment.erasing_area_max = rng_uniform(rng, 0, 0.5f);
    return augment;
}

/* Soft shapes with grain: where a map is off by a little, shades differ. */
static void draw_picture(struct rng *rng, int width, int height, uint8_t *out) {
    const float fx = rng_uniform(rng, 0.02f, 0.4f), fy = rng_uniform(rng, 0.02f, 0.4f);
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++)
            out[y * width + x] = (uint8_t)(128 + 90 * sinf(fx * (float)x) * cosf(fy * (float)y) + rng_uniform(rng, -30, 30));
}

static void make_picture(struct trial *trial, const struct augment *augment, int i) {
    const struct recipe *recipe = &trial->recipe;
    uint8_t *row = trial->rows + (size_t)i * variation_bytes(recipe->height, recipe->width);
    uint8_t *grey = row + sizeof(struct variation), *scratch = malloc(augment_scratch_bytes(recipe));
    struct rng picture, first, second;
    rng_init(&picture, trial->seed, RNG_PHANTOM, 0, (uint32_t)i);
    rng_init(&first, trial->seed, RNG_AUGMENT, 3, (uint32_t)i);
    second = first;
    draw_picture(&picture, recipe->width, recipe->height, grey);
    augment_draw(augment, &first, recipe, (struct variation *)(void *)row);
    augment_apply(augment, &second, recipe, grey, scratch, trial->wanted + (size_t)i * recipe_values(recipe));
    assert_int_equal(rng_u32(&first), rng_u32(&second));
    free(scratch);
}

static struct trial make_trial(int width, int height, int channels, int pictures, uint64_t seed, bool varied) {
    struct trial trial = {.recipe = recipe_default(width, height, channels), .pictures = pictures, .seed = seed};
    trial.rows = calloc((size_t)pictures, variation_bytes(height, width));
    trial.wanted = calloc((size_t)pictures, recipe_values(&trial.recipe) * sizeof(float));
    assert_true(trial.rows && trial.wanted);
    for (int i = 0; i < pictures; i++) {
        struct rng rng;
        rng_init(&rng, seed, RNG_TEST, 0, (uint32_t)i);
        const struct augment augment = varied ? any_augment(&rng) : augment_none();
        assert_true(augment_check(&augment, NULL));
        make_picture(&trial, &augment, i);
    }
    return trial;
}

static void fini_trial(struct trial *trial) {
    free(trial->rows);
    free(trial->wanted);
}

static struct kernel *prepare_vary(struct device *device, const struct trial *trial, enum dtype dtype) {
    const struct recipe *recipe = &trial->recipe;
    struct kernel_request request = {.op = {.kind = OP_VARY}, .pass = PASS_FORWARD};
    struct vary *vary = &request.op.vary;
    struct error err = {0};
    struct shape rows = shape_of(2, (int64_t)trial->pictures, (int64_t)variation_bytes(recipe->height, recipe->width));
    vary->channels = recipe->channels;
    vary->height = recipe->height;
    vary->width = recipe->width;
    memcpy(vary->mean, recipe->mean, sizeof vary->mean);
    memcpy(vary->stddev, recipe->stddev, sizeof vary->stddev);
    assert_true(op_arguments(&request.op, request.pass, &rows, &request.args, &err));
    request.args.desc[ARG_DST] = tensor_desc_dense(dtype, &request.args.desc[ARG_DST].shape);
    request.args.desc[ARG_DST].layout = LAYOUT_ANY;
    struct kernel *kernel = kernel_prepare(device, &request, &err);
    if (!kernel)
        fail_msg("%s", err.message);
    return kernel;
}

static void *alloc(struct device *device, size_t bytes) {
    void *memory = device->ops->alloc(device, bytes, NULL);
    assert_non_null(memory);
    return memory;
}

/* What the device makes of the rows, in the layout that it likes, and brought into the canonical one by its own reorder. */
static void run_vary(struct device *device, const struct trial *trial, enum dtype dtype, void *out) {
    struct kernel *kernel = prepare_vary(device, trial, dtype);
    const struct op_args *args = &kernel->args;
    struct tensor_desc dense = tensor_desc_dense(dtype, &args->desc[ARG_DST].shape);
    struct kernel *reorder = kernel_prepare_reorder(device, &args->desc[ARG_DST], &dense, NULL);
    void *buffers[ARG_COUNT] = {0};
    for (int arg = 0; arg < ARG_COUNT; arg++)
        if (args->direction[arg] != ARG_ABSENT)
            buffers[arg] = alloc(device, args->desc[arg].bytes);
    void *copy[ARG_COUNT] = {[ARG_SRC] = buffers[ARG_DST], [ARG_DST] = alloc(device, dense.bytes)};
    assert_non_null(reorder);
    assert_true(device->ops->upload(device, buffers[ARG_SRC], trial->rows, args->desc[ARG_SRC].bytes, NULL, NULL));
    assert_true(kernel_run(kernel, buffers, NULL, NULL) && kernel_run(reorder, copy, NULL, NULL));
    assert_true(device->ops->download(device, out, copy[ARG_DST], dense.bytes, NULL, NULL));
    assert_true(device->ops->synchronise(device, NULL, NULL));
    for (int arg = 0; arg < ARG_COUNT; arg++)
        if (buffers[arg])
            device->ops->free(device, buffers[arg]);
    device->ops->free(device, copy[ARG_DST]);
    kernel_release(reorder);
    kernel_release(kernel);
}

static void check_trial(struct device *device, const struct trial *trial) {
    const size_t count = (size_t)trial->pictures * recipe_values(&trial->recipe);
    float *got = calloc(count, sizeof *got);
    uint16_t *narrow = calloc(count, sizeof *narrow);
    assert_true(got && narrow);
    run_vary(device, trial, DTYPE_F32, got);
    for (size_t i = 0; i < count; i++)
        if (memcmp(got + i, trial->wanted + i, sizeof *got) != 0)
            fail_msg("%d x %d x %d: value %zu is %g, not %g", trial->recipe.channels, trial->recipe.height,
                     trial->recipe.width, i, (double)got[i], (double)trial->wanted[i]);
    run_vary(device, trial, DTYPE_BF16, narrow);
    for (size_t i = 0; i < count; i++)
        assert_int_equal(narrow[i], half_encode(DTYPE_BF16, trial->wanted[i]));
    free(narrow);
    free(got);
}

static int open_device(void **state) {
    struct device_spec spec = {.name = device_name, .threads = 1};
    struct error err = {0};
    *state = device_open(&spec, &err);
    if (!*state)
        print_error("%s\n", err.message);
    return *state ? 0 : -1;
}

static int close_device(void **state) {
    device_close(*state);
    return 0;
}

static void images_are_those_of_the_loader(void **state) {
    static const int sizes[][3] = {{28, 28, 1}, {28, 28, 3}, {45, 31, 1}, {45, 31, 3}, {29, 64, 3}, {224, 224, 1}, {224, 224, 3}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct trial trial = make_trial(sizes[i][0], sizes[i][1], sizes[i][2], sizes[i][0] < 100 ? 40 : 6, 11 + i, true);
        check_trial(*state, &trial);
        fini_trial(&trial);
    }
}

static void without_augmentation_pictures_stay_as_they_are(void **state) {
    struct trial trial = make_trial(45, 31, 3, 5, 7, false);
    check_trial(*state, &trial);
    fini_trial(&trial);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(images_are_those_of_the_loader, open_device, close_device),
        cmocka_unit_test_setup_teardown(without_augmentation_pictures_stay_as_they_are, open_device, close_device),
    };
    device_name = argc > 1 ? argv[1] : device_name;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
