#include "inferd/acceptance.h"
#include "common/base/file.h"
#include "inferd/acceptance_set.h"
#include "tests/unit/inferd/fake_model.h"
#include "tests/unit/inferd/fixture.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { PATH_SIZE = 200 };

static int make_folder(void **state) {
    char *folder = strdup("/tmp/thorax-acceptance-XXXXXX");
    *state = folder;
    return mkdtemp(folder) && digest_start(NULL) ? 0 : -1;
}

static int remove_folder(void **state) {
    bool ok = file_remove_tree(*state, NULL);
    free(*state);
    return ok ? 0 : -1;
}

static void add_file(const char *root, const char *class_name, int number, const void *data, size_t size) {
    char path[PATH_SIZE];
    snprintf(path, sizeof path, "%s/%s", root, class_name);
    assert_true(file_make_folders(path, NULL));
    snprintf(path, sizeof path, "%s/%s/patient%d.png", root, class_name, number);
    assert_true(file_write_atomic(path, data, size, NULL));
}

static void add_pictures(const char *root, const char *class_name, int count) {
    for (int i = 0; i < count; i++) {
        struct bytes picture = fixture_image((uint64_t)i);
        add_file(root, class_name, i, picture.data, picture.size);
        free(picture.data);
    }
}

static struct acceptance_spec spec_of(const char *folder, double limit) {
    return (struct acceptance_spec){.folder = folder,
                                    .min_balanced_accuracy = limit,
                                    .max_images = 100,
                                    .limits = image_limits_default()};
}

/** It calls every picture PNEUMONIA: right for all of one class and for none of the other, whatever their
 * numbers. */
static const struct fake_model_spec ALARMIST = {.name = "alarmist", .logits = {0, 5, 0}};

static void a_model_below_the_limit_is_refused_with_both_figures(void **state) {
    struct model *model = fake_model(&ALARMIST);
    struct acceptance_result result;
    struct error err = {0};
    add_pictures(*state, "NORMAL", 2);
    add_pictures(*state, "PNEUMONIA", 6);
    struct acceptance_spec spec = spec_of(*state, 0.5);
    assert_true(acceptance_run(&spec, model, &result, &err));
    assert_int_equal(result.images, 8);
    assert_true(result.balanced_accuracy == 0.5);
    spec.min_balanced_accuracy = 0.75;
    assert_false(acceptance_run(&spec, model, &result, &err));
    assert_int_equal(err.code, ERROR_INVALID);
    assert_non_null(strstr(err.message, "0.5000"));
    assert_non_null(strstr(err.message, "0.7500"));
    assert_null(strstr(err.message, "patient"));
    model_release(model);
}

static void what_cannot_be_read_is_passed_over_and_counted(void **state) {
    struct model *model = fake_model(&ALARMIST);
    struct acceptance_result result;
    struct error err = {0};
    add_pictures(*state, "NORMAL", 1);
    add_pictures(*state, "PNEUMONIA", 1);
    add_file(*state, "PNEUMONIA", 7, "no picture", 10);
    struct acceptance_spec spec = spec_of(*state, 0.1);
    assert_true(acceptance_run(&spec, model, &result, &err));
    assert_int_equal(result.images, 2);
    assert_int_equal(result.unreadable, 1);
    spec.limits.max_bytes = 5; /* now every file is too large */
    assert_false(acceptance_run(&spec, model, &result, &err));
    assert_non_null(strstr(err.message, "0 classes"));
    assert_null(strstr(err.message, "patient"));
    model_release(model);
}

static void a_set_that_says_nothing_is_an_error(void **state) {
    struct model *model = fake_model(&ALARMIST);
    struct acceptance_result result;
    struct error err = {0};
    struct acceptance_spec spec = spec_of(*state, 0);
    assert_false(acceptance_run(&spec, model, &result, &err)); /* empty */
    add_pictures(*state, "PNEUMONIA", 2);
    assert_false(acceptance_run(&spec, model, &result, &err)); /* one class: any constant answer is right */
    add_pictures(*state, "NORMAL", 1);
    assert_true(acceptance_run(&spec, model, &result, &err));
    add_pictures(*state, "COVID", 1);
    assert_false(acceptance_run(&spec, model, &result, &err)); /* the model cannot know it */
    spec.folder = "/nonexistent";
    assert_false(acceptance_run(&spec, model, &result, &err));
    model_release(model);
}

static void of_too_many_pictures_each_class_gives_as_many(void **state) {
    struct model *model = fake_model(&ALARMIST);
    struct acceptance_set set;
    struct acceptance_spec spec = spec_of(*state, 0);
    spec.max_images = 6;
    add_pictures(*state, "NORMAL", 9);
    add_pictures(*state, "PNEUMONIA", 30);
    assert_true(acceptance_set_open(&spec, &model->info, &set, NULL));
    assert_int_equal(set.count, 6);
    for (int i = 0; i < 6; i++) {
        assert_int_equal(set.pictures[i].label, i / 3);
        assert_true(i % 3 == 0 || strcmp(set.pictures[i - 1].path, set.pictures[i].path) < 0);
    }
    acceptance_set_close(&set);
    model_release(model);
}

static void a_manifest_names_pictures_and_classes(void **state) {
    struct model *model = fake_model(&ALARMIST);
    struct acceptance_result result;
    struct error err = {0};
    char path[PATH_SIZE];
    add_pictures(*state, "a", 2);
    snprintf(path, sizeof path, "%s/labels.csv", (char *)*state);
    struct acceptance_spec spec = spec_of(NULL, 0.4);
    spec.manifest = path;
    const char good[] = "class,note,path\nNORMAL,x,a/patient0.png\nPNEUMONIA,,a/patient1.png\n";
    assert_true(file_write_atomic(path, good, sizeof good - 1, NULL));
    assert_true(acceptance_run(&spec, model, &result, &err));
    assert_int_equal(result.images, 2);
    assert_true(result.balanced_accuracy == 0.5);
    const char *const bad[] = {"", "path\na/patient0.png\n", "path,class\na/patient0.png,FLU\n",
                               "path,class\na/patient0.png\n", "path,class\n\"a/patient0.png\",NORMAL\n"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_true(file_write_atomic(path, bad[i], strlen(bad[i]), NULL));
        err = (struct error){0};
        assert_false(acceptance_run(&spec, model, &result, &err));
        assert_int_equal(err.code, ERROR_FORMAT);
        assert_null(strstr(err.message, "patient"));
    }
    model_release(model);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, make_folder, remove_folder)
    const struct CMUnitTest tests[] = {
        TEST(a_model_below_the_limit_is_refused_with_both_figures),
        TEST(what_cannot_be_read_is_passed_over_and_counted),
        TEST(a_set_that_says_nothing_is_an_error),
        TEST(of_too_many_pictures_each_class_gives_as_many),
        TEST(a_manifest_names_pictures_and_classes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
