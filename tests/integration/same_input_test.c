/*
 * The same file becomes the same input, bit for bit, in training (cache, loader) and in the daemon (decoding
 * for a request), whatever its format, depth and colour. The daemon knows the recipe from the model's JSON.
 */
#include "common/base/rng.h"
#include "common/image/preprocess.h"
#include "inferd/decode.h"
#include "tests/unit/trainerd/folder.h"
#include "trainerd/loader.h"

#include <stdint.h>
#include <turbojpeg.h>

/* A kind of file; jpeg is the subsampling, or PNG. */
enum { PNG = -1 };
static const struct kind {
    const char *name;
    int jpeg, channels, bits;
} kinds[] = {
    {"grey.jpg", TJSAMP_GRAY, 1, 8}, {"colour420.jpg", TJSAMP_420, 3, 8}, {"colour444.jpg", TJSAMP_444, 3, 8},
    {"grey8.png", PNG, 1, 8},        {"colour8.png", PNG, 3, 8},          {"grey16.png", PNG, 1, 16},
    {"colour16.png", PNG, 3, 16},
};
enum { KINDS = sizeof kinds / sizeof *kinds, SIZES = 3, FILES = KINDS * SIZES };
static const int sizes[SIZES][2] = {{131, 97}, {61, 200}, {24, 19}}; /* shrunk, uneven, and enlarged */

/* Smooth with noise: every step of decoding and resizing leaves its trace. */
static struct image draw(const struct kind *kind, const int size[2], int number) {
    struct image image;
    struct rng rng;
    rng_init(&rng, 11, RNG_TEST, (uint64_t)number, 0);
    assert_true(image_init(&image, size[0], size[1], kind->channels, kind->bits, NULL));
    int row = image.width * image.channels;
    for (int i = 0; i < row * image.height; i++) {
        uint32_t value = (uint32_t)((i % row) * 130 + (i / row) * 257) + rng_below(&rng, 9000);
        if (kind->bits == 16)
            ((uint16_t *)image.pixels)[i] = (uint16_t)value;
        else
            ((uint8_t *)image.pixels)[i] = (uint8_t)(value >> 8);
    }
    return image;
}

static void write_jpeg(const struct test_folder *folder, const char *name, const struct kind *kind, const struct image *image) {
    tjhandle handle = tjInitCompress();
    unsigned char *jpeg = NULL;
    unsigned long size = 0;
    int format = kind->channels == 1 ? TJPF_GRAY : TJPF_RGB;
    int failed = tjCompress2(handle, image->pixels, image->width, 0, image->height, format, &jpeg, &size, kind->jpeg, 88, 0);
    assert_int_equal(failed, 0);
    folder_write(folder, name, jpeg, size);
    tjFree(jpeg);
    tjDestroy(handle);
}

static void write_png(const struct test_folder *folder, const char *name, const struct image *image) {
    struct bytes png;
    assert_true(image_encode_png(image, NULL, 0, &png, NULL));
    folder_write(folder, name, png.data, png.size);
    free(png.data);
}

static void write_files(const struct test_folder *folder) {
    for (int i = 0; i < FILES; i++) {
        const struct kind *kind = &kinds[i % KINDS];
        char name[128];
        snprintf(name, sizeof name, "d/train/%s/phantom%d-%s", i % 2 ? "PNEUMONIA" : "NORMAL", i, kind->name);
        struct image image = draw(kind, sizes[i / KINDS], i);
        if (kind->jpeg == PNG)
            write_png(folder, name, &image);
        else
            write_jpeg(folder, name, kind, &image);
        image_fini(&image);
    }
}

/* What inferd's decoding stage and its batcher make of a file's bytes. */
static void daemon_input(const struct recipe *recipe, const struct bytes *file, float *out) {
    struct model model = {0};
    char json[RECIPE_JSON_SIZE];
    assert_true(recipe_print(recipe, json, sizeof json, NULL));
    assert_true(recipe_parse(json, strlen(json), &model.info.recipe, NULL));
    Thorax__V1__DiagnosisRequest ask = THORAX__V1__DIAGNOSIS_REQUEST__INIT;
    ask.image_case = THORAX__V1__DIAGNOSIS_REQUEST__IMAGE_ENCODED;
    ask.encoded = (ProtobufCBinaryData){file->size, file->data};
    struct job job = {.ask = &ask, .deadline_ns = INT64_MAX, .model = &model};
    struct image_limits limits = image_limits_default();
    if (!decode_job(&job, &limits))
        fail_msg("%s", job.error.message);
    preprocess_normalise(&model.info.recipe, job.grey, out);
    free(job.grey);
}

/* What the trainer feeds its network: every sample of the data set, through cache and loader. */
static struct loader *trainer_open(struct image_cache *cache, const struct dataset *dataset, const struct recipe *recipe,
                                   const int32_t *numbers) {
    struct error err = {0};
    struct loader_spec spec = {.cache = cache, .recipe = recipe, .labels = numbers, .indices = numbers, .count = dataset->count,
                               .ranks = 1, .batch_size = 4, .threads = 2, .prefetch = 2};
    struct loader *loader = loader_create(&spec, &err);
    if (!loader)
        fail_msg("%s", err.message);
    return loader;
}

static int compare_all(struct loader *loader, const struct dataset *dataset, const struct recipe *recipe) {
    size_t values = recipe_values(recipe);
    float *expected = malloc(values * sizeof *expected);
    struct batch batch;
    int compared = 0;
    while (loader_next(loader, &batch, NULL) && batch.count > 0) {
        for (int row = 0; row < batch.count; row++, compared++) {
            struct bytes file;
            const struct dataset_sample *sample = &dataset->samples[batch.samples[row]];
            assert_true(file_read(sample->path, 1 << 20, &file, NULL));
            daemon_input(recipe, &file, expected);
            if (memcmp(expected, (const float *)batch.images + (size_t)row * values, values * sizeof *expected) != 0)
                fail_msg("%s differs", sample->name);
            free(file.data);
        }
        loader_release(loader);
    }
    free(expected);
    return compared;
}

static void compare_with_recipe(struct test_folder *folder, const struct recipe *recipe) {
    int32_t numbers[FILES];
    struct error err = {0};
    write_files(folder);
    struct dataset dataset =
        open_dataset(&(struct dataset_spec){.directory = folder_path(folder, "d"), .validation_fraction = 0.25, .seed = 2});
    struct image_cache cache;
    struct image_cache_spec spec = {.folder = folder_path(folder, "cache"), .recipe = recipe, .threads = 2};
    if (!image_cache_open(&cache, &dataset, &spec, &err))
        fail_msg("%s", err.message);
    assert_int_equal(dataset.count, FILES);
    assert_int_equal(cache.broken, 0);
    for (int i = 0; i < FILES; i++)
        numbers[i] = i;
    struct loader *loader = trainer_open(&cache, &dataset, recipe, numbers);
    assert_int_equal(compare_all(loader, &dataset, recipe), FILES);
    loader_destroy(loader);
    image_cache_close(&cache);
    dataset_close(&dataset);
}

static void grey_inputs_are_the_same(void **state) {
    struct recipe recipe = recipe_default(64, 64, 1);
    compare_with_recipe(*state, &recipe);
}

static void three_channel_inputs_with_uneven_statistics_are_the_same(void **state) {
    struct recipe recipe = recipe_default(45, 45, 3);
    for (int i = 0; i < 3; i++) {
        recipe.mean[i] = 0.1f + 0.123456789f * (float)i; /* no short decimals: JSON must carry every bit */
        recipe.stddev[i] = 1.0f / (3.0f + (float)i);
    }
    compare_with_recipe(*state, &recipe);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(grey_inputs_are_the_same, folder_setup, folder_teardown),
        cmocka_unit_test_setup_teardown(three_channel_inputs_with_uneven_statistics_are_the_same, folder_setup, folder_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
