#include "trainerd/loader.h"
#include "common/device/device.h"
#include "tests/unit/trainerd/pictures.h"

enum { BATCH = 6, STEPS = 13, VALUES = PICTURE_SIDE * PICTURE_SIDE };

/* A cached data set and all that a loader borrows. */
struct fixture {
    struct test_folder *folder;
    struct dataset dataset;
    struct recipe recipe;
    struct image_cache cache;
    int32_t indices[PICTURES], labels[PICTURES];
    int64_t count;
    struct sampler sampler;
    struct augment augment[2];
    const struct augment *by_class[2];
};

static int fixture_setup(void **state) {
    struct fixture *fixture = calloc(1, sizeof *fixture);
    if (folder_setup((void **)&fixture->folder) != 0)
        return -1;
    pictures_write(fixture->folder);
    fixture->dataset = pictures_open(fixture->folder);
    fixture->recipe = recipe_default(PICTURE_SIDE, PICTURE_SIDE, 1);
    fixture->cache = pictures_cache(fixture->folder, &fixture->dataset, &fixture->recipe);
    fixture->count = image_cache_part(&fixture->cache, &fixture->dataset, DATASET_TRAIN, fixture->indices);
    for (int64_t i = 0; i < fixture->count; i++)
        fixture->labels[i] = fixture->dataset.samples[fixture->indices[i]].label;
    fixture->augment[0] = fixture->augment[1] = augment_default();
    fixture->by_class[0] = &fixture->augment[0];
    fixture->by_class[1] = &fixture->augment[1];
    *state = fixture;
    return 0;
}

static int fixture_teardown(void **state) {
    struct fixture *fixture = *state;
    image_cache_close(&fixture->cache);
    dataset_close(&fixture->dataset);
    int result = folder_teardown((void **)&fixture->folder);
    free(fixture);
    return result;
}

static struct loader_spec training(struct fixture *fixture, int rank, int ranks, int threads) {
    struct sampler_spec sampler = {.labels = fixture->labels,
                                   .count = fixture->count,
                                   .classes = 2,
                                   .batch_size = BATCH,
                                   .ranks = ranks,
                                   .seed = 4};
    sampler_fini(&fixture->sampler);
    assert_true(sampler_init(&fixture->sampler, &sampler, NULL));
    return (struct loader_spec){.cache = &fixture->cache,
                                .recipe = &fixture->recipe,
                                .labels = fixture->labels,
                                .indices = fixture->indices,
                                .count = fixture->count,
                                .sampler = &fixture->sampler,
                                .augment_by_class = fixture->by_class,
                                .rank = rank,
                                .ranks = ranks,
                                .seed = 9,
                                .threads = threads,
                                .prefetch = 3};
}

static struct loader *start(const struct loader_spec *spec) {
    struct error err = {0};
    struct loader *loader = loader_create(spec, &err);
    if (!loader)
        fail_msg("%s", err.message);
    return loader;
}

/* Loads steps batches into images (steps, rows, VALUES) and samples (steps, rows). */
static void load(const struct loader_spec *spec, int steps, float *images, int32_t *samples) {
    struct loader *loader = start(spec);
    for (int i = 0; i < steps; i++) {
        struct batch batch;
        assert_true(loader_next(loader, &batch, NULL));
        assert_int_equal(batch.count, batch.rows);
        memcpy(images + (size_t)i * (size_t)batch.rows * VALUES, batch.images,
               (size_t)batch.rows * VALUES * sizeof *images);
        memcpy(samples + (size_t)i * (size_t)batch.rows, batch.samples, (size_t)batch.rows * sizeof *samples);
        loader_release(loader);
    }
    loader_destroy(loader);
}

struct loaded {
    float images[STEPS * BATCH * VALUES];
    int32_t samples[STEPS * BATCH];
};

static void batches_are_the_same_for_any_number_of_threads(void **state) {
    struct loaded *one = calloc(2, sizeof *one), *many = one + 1;
    struct loader_spec spec = training(*state, 0, 1, 1);
    load(&spec, STEPS, one->images, one->samples);
    spec = training(*state, 0, 1, 5);
    spec.prefetch = 2;
    load(&spec, STEPS, many->images, many->samples);
    assert_memory_equal(one, many, sizeof *one);
    free(one);
    sampler_fini(&((struct fixture *)*state)->sampler);
}

static void ranks_together_load_the_same_as_one(void **state) {
    struct loaded *one = calloc(2, sizeof *one), *half = one + 1;
    struct loader_spec spec = training(*state, 0, 1, 2);
    load(&spec, STEPS, one->images, one->samples);
    for (int rank = 0; rank < 2; rank++) {
        spec = training(*state, rank, 2, 2);
        load(&spec, STEPS, half->images, half->samples);
        for (int step = 0; step < STEPS; step++) {
            size_t whole = (size_t)(step * BATCH + rank * BATCH / 2), part = (size_t)(step * BATCH / 2);
            assert_memory_equal(one->images + whole * VALUES, half->images + part * VALUES,
                                BATCH / 2 * VALUES * sizeof(float));
            assert_memory_equal(one->samples + whole, half->samples + part, BATCH / 2 * sizeof(int32_t));
        }
    }
    free(one);
    sampler_fini(&((struct fixture *)*state)->sampler);
}

/* What all ranks of a stretch of steps load, put together as one rank would have it. */
static void load_stretch(struct fixture *fixture, int ranks, int done, int steps, struct loaded *out) {
    struct loaded *share = calloc(1, sizeof *share);
    size_t rows = (size_t)(BATCH / ranks);
    for (int rank = 0; rank < ranks; rank++) {
        struct loader_spec spec = training(fixture, rank, ranks, 2);
        spec.first_epoch = done / fixture->sampler.steps;
        spec.first_step = done % fixture->sampler.steps;
        load(&spec, steps, share->images, share->samples);
        for (int step = 0; step < steps; step++) {
            size_t to = (size_t)((done + step) * BATCH) + (size_t)rank * rows, from = (size_t)step * rows;
            memcpy(out->images + to * VALUES, share->images + from * VALUES, rows * VALUES * sizeof(float));
            memcpy(out->samples + to, share->samples + from, rows * sizeof(int32_t));
        }
    }
    free(share);
}

/* Samples and augmentation are an undisturbed run's, however many ranks go on after each restart. */
static void goes_on_with_another_number_of_ranks(void **state) {
    struct fixture *fixture = *state;
    static const struct {
        int ranks, steps;
    } stretches[] = {{6, 4}, {2, 3}, {1, 2}, {3, 4}};
    struct loaded *whole = calloc(2, sizeof *whole), *pieces = whole + 1;
    struct loader_spec spec = training(fixture, 0, 1, 2);
    assert_true(fixture->sampler.steps < STEPS); /* the stretches are of several epochs */
    load(&spec, STEPS, whole->images, whole->samples);
    for (int i = 0, done = 0; i < 4; done += stretches[i++].steps)
        load_stretch(fixture, stretches[i].ranks, done, stretches[i].steps, pieces);
    assert_memory_equal(whole, pieces, sizeof *whole);
    free(whole);
    sampler_fini(&fixture->sampler);
}

static void goes_on_from_any_step(void **state) {
    struct fixture *fixture = *state;
    struct loaded *whole = calloc(2, sizeof *whole), *rest = whole + 1;
    struct loader_spec spec = training(fixture, 0, 1, 2);
    load(&spec, STEPS, whole->images, whole->samples);
    spec = training(fixture, 0, 1, 2);
    int skipped = 8;
    spec.first_epoch = skipped / fixture->sampler.steps;
    spec.first_step = skipped % fixture->sampler.steps;
    load(&spec, STEPS - skipped, rest->images, rest->samples);
    assert_memory_equal(whole->samples + skipped * BATCH, rest->samples,
                        (size_t)(STEPS - skipped) * BATCH * sizeof(int32_t));
    assert_memory_equal(whole->images + skipped * BATCH * VALUES, rest->images,
                        (size_t)(STEPS - skipped) * BATCH * VALUES * sizeof(float));
    free(whole);
    sampler_fini(&fixture->sampler);
}

static void each_class_has_its_own_augmentation(void **state) {
    struct fixture *fixture = *state;
    fixture->augment[0] = augment_none();
    struct loader_spec spec = training(fixture, 0, 1, 2);
    struct loader *loader = start(&spec);
    struct batch batch;
    assert_true(loader_next(loader, &batch, NULL));
    int seen[2] = {0};
    for (int row = 0; row < batch.count; row++) {
        float plain[VALUES];
        preprocess_normalise(&fixture->recipe, image_cache_get(&fixture->cache, batch.samples[row]), plain);
        bool same = memcmp(plain, (const float *)batch.images + row * VALUES, sizeof plain) == 0;
        assert_int_equal(same, batch.labels[row] == 0);
        assert_int_equal(batch.labels[row], fixture->dataset.samples[batch.samples[row]].label);
        seen[batch.labels[row]]++;
    }
    assert_true(seen[0] > 0 && seen[1] > 0);
    loader_destroy(loader);
    sampler_fini(&fixture->sampler);
}

/* One batch of rows -> images, by a device. */
static void vary(const struct recipe *recipe, const void *rows, float *out) {
    struct device *device = device_open(&(struct device_spec){.name = "reference"}, NULL);
    struct shape shape = shape_of(2, (int64_t)BATCH, (int64_t)variation_bytes(recipe->height, recipe->width));
    struct kernel_request request = {.op = {OP_VARY, .vary = {recipe->channels, recipe->height, recipe->width,
                                                              {recipe->mean[0]}, {recipe->stddev[0]}}},
                                     .pass = PASS_FORWARD};
    assert_true(device && op_arguments(&request.op, request.pass, &shape, &request.args, NULL));
    struct kernel *kernel = kernel_prepare(device, &request, NULL);
    assert_non_null(kernel);
    void *scratch = malloc(kernel->args.desc[ARG_SCRATCH].bytes), *copy = malloc(kernel->args.desc[ARG_SRC].bytes);
    memcpy(copy, rows, kernel->args.desc[ARG_SRC].bytes);
    void *buffers[ARG_COUNT] = {[ARG_SRC] = copy, [ARG_DST] = out, [ARG_SCRATCH] = scratch};
    assert_true(kernel_run(kernel, buffers, NULL, NULL));
    free(copy);
    free(scratch);
    kernel_release(kernel);
    device_close(device);
}

static void a_device_makes_the_same_images(void **state) {
    struct fixture *fixture = *state;
    struct loaded *wanted = calloc(1, sizeof *wanted);
    float images[BATCH * VALUES];
    struct loader_spec spec = training(fixture, 0, 1, 2);
    load(&spec, STEPS, wanted->images, wanted->samples);
    spec = training(fixture, 0, 1, 3);
    spec.varied = true;
    struct loader *loader = start(&spec);
    for (int step = 0; step < STEPS; step++) {
        struct batch batch;
        assert_true(loader_next(loader, &batch, NULL));
        vary(&fixture->recipe, batch.images, images);
        assert_memory_equal(images, wanted->images + step * BATCH * VALUES, sizeof images);
        assert_memory_equal(batch.samples, wanted->samples + step * BATCH, BATCH * sizeof(int32_t));
        loader_release(loader);
    }
    loader_destroy(loader);
    free(wanted);
    sampler_fini(&fixture->sampler);
}

static struct loader_spec evaluation(struct fixture *fixture, int rank, int ranks) {
    return (struct loader_spec){.cache = &fixture->cache,
                                .recipe = &fixture->recipe,
                                .labels = fixture->labels,
                                .indices = fixture->indices,
                                .count = fixture->count,
                                .rank = rank,
                                .ranks = ranks,
                                .batch_size = 4,
                                .threads = 2,
                                .prefetch = 2};
}

static void evaluation_sees_each_sample_once_unaugmented(void **state) {
    struct fixture *fixture = *state;
    int seen[PICTURES] = {0};
    for (int rank = 0; rank < 3; rank++) {
        struct loader_spec spec = evaluation(fixture, rank, 3);
        struct loader *loader = start(&spec);
        struct batch batch;
        while (loader_next(loader, &batch, NULL) && batch.count > 0) {
            for (int row = 0; row < batch.count; row++) {
                float plain[VALUES];
                preprocess_normalise(&fixture->recipe, image_cache_get(&fixture->cache, batch.samples[row]),
                                     plain);
                assert_memory_equal((const float *)batch.images + row * VALUES, plain, sizeof plain);
                seen[batch.samples[row]]++;
            }
            loader_release(loader);
        }
        assert_true(loader_next(loader, &batch, NULL) && batch.count == 0);
        loader_destroy(loader);
    }
    for (int64_t i = 0; i < fixture->dataset.count; i++)
        assert_int_equal(seen[i], fixture->dataset.samples[i].part == DATASET_TRAIN);
}

static void short_batch_ends_in_empty_rows(void **state) {
    struct fixture *fixture = *state;
    struct loader_spec spec = evaluation(fixture, 0, 1);
    spec.count = 9;
    struct loader *loader = start(&spec);
    struct batch batch;
    for (int i = 0; i < 2; i++) {
        assert_true(loader_next(loader, &batch, NULL) && batch.count == 4);
        loader_release(loader);
    }
    assert_true(loader_next(loader, &batch, NULL));
    assert_int_equal(batch.count, 1);
    for (int row = 1; row < 4; row++) {
        assert_int_equal(batch.labels[row], -1);
        assert_int_equal(batch.samples[row], -1);
        for (int i = 0; i < VALUES; i++)
            assert_true(((const float *)batch.images)[row * VALUES + i] == 0.0f);
    }
    loader_destroy(loader);
}

static void holding_more_than_the_ring_is_an_error(void **state) {
    struct loader_spec spec = training(*state, 0, 1, 2);
    struct loader *loader = start(&spec);
    struct batch batch;
    struct error err = {0};
    for (int i = 0; i < spec.prefetch; i++)
        assert_true(loader_next(loader, &batch, NULL));
    assert_false(loader_next(loader, &batch, &err));
    assert_int_equal(err.code, ERROR_STATE);
    loader_release(loader);
    assert_true(loader_next(loader, &batch, NULL));
    loader_destroy(loader);
    sampler_fini(&((struct fixture *)*state)->sampler);
}

static void ends_at_any_moment(void **state) {
    for (int i = 0; i < 40; i++) {
        struct loader_spec spec = training(*state, 0, 1, 3);
        struct loader *loader = start(&spec);
        struct batch batch;
        for (int next = 0; next < i % 4; next++)
            assert_true(loader_next(loader, &batch, NULL));
        loader_destroy(loader);
    }
    sampler_fini(&((struct fixture *)*state)->sampler);
}

static void mismatches_are_refused(void **state) {
    struct fixture *fixture = *state;
    struct error err = {0};
    struct loader_spec spec = training(fixture, 0, 1, 0);
    assert_null(loader_create(&spec, &err));
    spec = training(fixture, 0, 1, 1);
    spec.ranks = 2;
    assert_null(loader_create(&spec, &err));
    struct recipe larger = recipe_default(64, 64, 1);
    spec = training(fixture, 0, 1, 1);
    spec.recipe = &larger;
    assert_null(loader_create(&spec, &err));
    assert_int_equal(err.code, ERROR_SHAPE);
    spec = evaluation(fixture, 0, 1);
    spec.varied = true;
    assert_null(loader_create(&spec, &err));
    assert_int_equal(err.code, ERROR_INVALID);
    sampler_fini(&fixture->sampler);
}

/** Memory that counts, and runs out after a while. */
struct purse {
    int left, held, given;
};

static void *purse_alloc(void *context, size_t bytes, struct error *err) {
    struct purse *purse = context;
    if (purse->left-- <= 0) {
        error_set(err, ERROR_MEMORY, "the purse is empty");
        return NULL;
    }
    purse->held++;
    purse->given++;
    return calloc(1, bytes);
}

static void purse_free(void *context, void *memory) {
    struct purse *purse = context;
    purse->held -= memory != NULL;
    free(memory);
}

static void batches_lie_in_the_memory_that_was_named(void **state) {
    struct loader_spec spec = training(*state, 0, 1, 1);
    int needed = 2 * spec.prefetch; /* images and labels */
    for (int enough = 0; enough <= needed; enough++) {
        struct purse purse = {enough, 0, 0};
        struct error err = {0};
        spec.memory = (struct loader_memory){&purse, purse_alloc, purse_free};
        struct loader *loader = loader_create(&spec, &err);
        assert_int_equal(purse.held, loader ? needed : 0);
        assert_true((loader != NULL) == (enough == needed));
        assert_true(loader || strstr(err.message, "the purse is empty"));
        loader_destroy(loader);
        assert_int_equal(purse.held, 0);
        assert_int_equal(purse.given, enough);
    }
    sampler_fini(&((struct fixture *)*state)->sampler);
}

#define LOADER_TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        LOADER_TEST(batches_are_the_same_for_any_number_of_threads),
        LOADER_TEST(ranks_together_load_the_same_as_one),
        LOADER_TEST(goes_on_from_any_step),
        LOADER_TEST(goes_on_with_another_number_of_ranks),
        LOADER_TEST(each_class_has_its_own_augmentation),
        LOADER_TEST(a_device_makes_the_same_images),
        LOADER_TEST(evaluation_sees_each_sample_once_unaugmented),
        LOADER_TEST(short_batch_ends_in_empty_rows),
        LOADER_TEST(holding_more_than_the_ring_is_an_error),
        LOADER_TEST(ends_at_any_moment),
        LOADER_TEST(batches_lie_in_the_memory_that_was_named),
        LOADER_TEST(mismatches_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
