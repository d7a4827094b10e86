#include "inferd/loaded_model.h"
#include "common/base/file.h"
#include "inferd/decide.h"
#include "tests/unit/inferd/tiny_model.h"
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

enum { PATH_SIZE = 96, SIDE = 28 };

static const struct tiny_model_spec GOOD = {.name = "tiny", .seed = 3, .temperature = 1.5, .golden = true};

static int make_path(void **state) {
    char *path = malloc(PATH_SIZE);
    snprintf(path, PATH_SIZE, "/tmp/thorax-tiny-%d.safetensors", (int)getpid());
    *state = path;
    return digest_start(NULL) ? 0 : -1;
}

static int remove_path(void **state) {
    unlink(*state);
    free(*state);
    return 0;
}

static void write_model(const char *path, const struct tiny_model_spec *spec) {
    struct error err = {0};
    if (!tiny_model_write(path, spec, &err)) {
        fail_msg("%s", err.message);
    }
}

static struct model *open_model(const char *path, int max_batch, int *golden, struct error *err) {
    struct loaded_model_spec spec = {.device = {.name = tiny_model_device()}, .max_batch = max_batch};
    return loaded_model_open(path, &spec, golden, err);
}

static void a_model_says_what_its_file_says(void **state) {
    struct error err = {0};
    struct digest digest;
    int golden = -1;
    struct tiny_model_spec spec = GOOD;
    spec.golden_device = "reference"; /* so that the answers compared come from two devices */
    write_model(*state, &spec);
    struct model *model = open_model(*state, 3, &golden, &err);
    if (!model) {
        fail_msg("%s", err.message);
    }
    assert_int_equal(golden, 2);
    assert_string_equal(model->info.name, "tiny");
    assert_string_equal(model->info.classes[2], "INVALID");
    assert_int_equal(model->info.invalid_class, 2);
    assert_true(model->info.temperature == 1.5);
    assert_true(digest_file(*state, &digest, NULL) && digest_equal(&digest, &model->info.digest));
    assert_true(model->info.views == (1u << THORAX__V1__VIEW__VIEW_AP | 1u << THORAX__V1__VIEW__VIEW_PA));
    model_release(model);
}

static void rule_in_and_rule_out_make_up_triage(void **state) {
    struct error err = {0};
    write_model(*state, &GOOD);
    struct model *model = open_model(*state, 1, NULL, &err);
    assert_non_null(model);
    assert_string_equal(model_point(model, "", NULL)->name, "rule_in");
    const struct decision_point *triage = model_point(model, "triage", NULL);
    assert_true(triage && triage->rule_in == 0.6 && triage->rule_out == 0.2);
    assert_null(model_point(model, "other", &err));
    assert_int_equal(err.code, ERROR_INVALID);
    model_release(model);
}

static void the_answer_does_not_depend_on_the_batch(void **state) {
    float images[5 * SIDE * SIDE], together[5 * 3], alone[3];
    write_model(*state, &GOOD);
    struct model *model = open_model(*state, 5, NULL, NULL);
    assert_non_null(model);
    for (int i = 0; i < 5 * SIDE * SIDE; i++) {
        images[i] = sinf((float)i * 0.37f);
    }
    assert_true(model->ops->compute(model, 0, images, 5, together, NULL));
    for (int i = 0; i < 5; i++) {
        float one[5 * SIDE * SIDE] = {0};
        memcpy(one, images + i * SIDE * SIDE, SIDE * SIDE * sizeof *one);
        assert_true(model->ops->compute(model, 0, one, 1, alone, NULL));
        for (int k = 0; k < 3; k++) {
            assert_true(fabsf(alone[k] - together[3 * i + k]) <= 1e-4f * fmaxf(1, fabsf(alone[k])));
        }
    }
    model_release(model);
}

/** One instance's thread: the same picture again and again. */
struct computing {
    struct model *model;
    int instance, differing;
    const float *images, *expected;
    pthread_t thread;
};

static void *compute_often(void *context) {
    struct computing *computing = context;
    struct model *model = computing->model;
    for (int i = 0; i < 20; i++) {
        float logits[3] = {0};
        bool ok = model->ops->compute(model, computing->instance, computing->images, 1, logits, NULL);
        computing->differing += !ok || memcmp(logits, computing->expected, sizeof logits) != 0;
    }
    return NULL;
}

static void instances_answer_alike_and_at_the_same_time(void **state) {
    struct instances two = {.count = 2, .threads = 1};
    struct loaded_model_spec spec = {.device = {.name = tiny_model_device()}, .max_batch = 3, .instances = &two};
    struct computing threads[2];
    struct error err = {0};
    float images[3 * SIDE * SIDE] = {0.5f, -1, 2}, expected[3];
    write_model(*state, &GOOD);
    struct model *model = loaded_model_open(*state, &spec, NULL, &err);
    if (!model) {
        fail_msg("%s", err.message);
    }
    assert_true(model->ladder.count == 3 && model->ladder.cost_us[0] > 0 && model->ladder.cost_us[2] > 0);
    assert_true(model->ops->compute(model, 0, images, 1, expected, NULL));
    for (int i = 0; i < 2; i++) {
        threads[i] = (struct computing){.model = model, .instance = i, .images = images, .expected = expected};
        assert_int_equal(pthread_create(&threads[i].thread, NULL, compute_often, &threads[i]), 0);
    }
    for (int i = 0; i < 2; i++) {
        pthread_join(threads[i].thread, NULL);
        assert_int_equal(threads[i].differing, 0);
    }
    assert_false(model->ops->compute(model, 2, images, 1, expected, &err));
    assert_int_equal(err.code, ERROR_INTERNAL);
    model_release(model);
}

static void a_model_that_answers_otherwise_than_where_it_was_made_is_refused(void **state) {
    struct error err = {0};
    struct tiny_model_spec spec = GOOD;
    spec.golden_shift = 0.01f;
    write_model(*state, &spec);
    assert_null(open_model(*state, 2, NULL, &err));
    assert_non_null(strstr(err.message, "self-test"));
}

static void a_file_without_golden_images_is_let_pass_and_counted(void **state) {
    int golden = -1;
    struct tiny_model_spec spec = GOOD;
    spec.golden = false;
    write_model(*state, &spec);
    struct model *model = open_model(*state, 2, &golden, NULL);
    assert_non_null(model);
    assert_int_equal(golden, 0);
    model_release(model);
}

static void a_recipe_that_does_not_fit_the_network_is_refused(void **state) {
    struct error err = {0};
    struct tiny_model_spec spec = GOOD;
    spec.recipe_size = 32;
    spec.golden = false;
    write_model(*state, &spec);
    assert_null(open_model(*state, 2, NULL, &err));
    assert_non_null(strstr(err.message, "recipe"));
}

static void a_damaged_or_missing_file_is_refused(void **state) {
    struct error err = {0};
    struct bytes bytes;
    assert_null(open_model(*state, 2, NULL, &err));
    assert_int_equal(err.code, ERROR_NOT_FOUND);
    write_model(*state, &GOOD);
    assert_true(file_read(*state, 1 << 28, &bytes, NULL));
    bytes.data[bytes.size / 2] ^= 1;
    assert_true(file_write_atomic(*state, bytes.data, bytes.size, NULL));
    assert_null(open_model(*state, 2, NULL, &err));
    assert_true(file_write_atomic(*state, bytes.data, bytes.size / 2, NULL));
    assert_null(open_model(*state, 2, NULL, &err));
    free(bytes.data);
}

int main(void) {
#define FILE_TEST(name) cmocka_unit_test_setup_teardown(name, make_path, remove_path)
    const struct CMUnitTest tests[] = {
        FILE_TEST(a_model_says_what_its_file_says),
        FILE_TEST(rule_in_and_rule_out_make_up_triage),
        FILE_TEST(the_answer_does_not_depend_on_the_batch),
        FILE_TEST(instances_answer_alike_and_at_the_same_time),
        FILE_TEST(a_model_that_answers_otherwise_than_where_it_was_made_is_refused),
        FILE_TEST(a_file_without_golden_images_is_let_pass_and_counted),
        FILE_TEST(a_recipe_that_does_not_fit_the_network_is_refused),
        FILE_TEST(a_damaged_or_missing_file_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
