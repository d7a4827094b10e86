#include "trainerd/image_cache.h"
#include "tests/unit/trainerd/pictures.h"

#include <sys/stat.h>
#include <sys/wait.h>

static void holds_what_preprocessing_gives(void **state) {
    pictures_write(*state);
    struct dataset dataset = pictures_open(*state);
    struct recipe recipe = recipe_default(PICTURE_SIDE, PICTURE_SIDE + 2, 1);
    struct image_cache cache = pictures_cache(*state, &dataset, &recipe);
    assert_int_equal(cache.count, PICTURES);
    assert_int_equal(cache.broken, 0);
    assert_string_equal(cache.quarantine, "");
    for (int64_t i = 0; i < dataset.count; i++) {
        int number = 0;
        assert_int_equal(sscanf(strrchr(dataset.samples[i].name, '/'), "/phantom%d-", &number), 1);
        struct image image = picture_draw(number);
        uint8_t expected[PICTURE_SIDE * (PICTURE_SIDE + 2)];
        assert_true(preprocess_pixels(&recipe, &image, expected, NULL));
        assert_memory_equal(image_cache_get(&cache, i), expected, sizeof expected);
        image_fini(&image);
    }
    image_cache_close(&cache);
    dataset_close(&dataset);
}

static void is_made_once(void **state) {
    pictures_write(*state);
    struct dataset dataset = pictures_open(*state);
    struct recipe recipe = recipe_default(PICTURE_SIDE, PICTURE_SIDE, 1), larger = recipe_default(64, 64, 1);
    struct image_cache first = pictures_cache(*state, &dataset, &recipe),
                       again = pictures_cache(*state, &dataset, &recipe);
    struct image_cache other = pictures_cache(*state, &dataset, &larger);
    assert_true(first.built);
    assert_false(again.built);
    assert_true(other.built);
    assert_string_not_equal(first.path, other.path);
    struct stat status;
    assert_int_equal(stat(first.path, &status), 0);
    assert_int_equal(status.st_mode & 077, 0); /* pictures of patients: for the owner alone */
    image_cache_close(&first);
    image_cache_close(&again);
    image_cache_close(&other);
    dataset_close(&dataset);
}

static void damage(const char *path, long where) {
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, where, where < 0 ? SEEK_END : SEEK_SET), 0);
    int byte = fgetc(file);
    assert_int_equal(fseek(file, -1, SEEK_CUR), 0);
    fputc(byte ^ 1, file);
    assert_int_equal(fclose(file), 0);
}

static void damaged_file_is_made_anew(void **state) {
    pictures_write(*state);
    struct dataset dataset = pictures_open(*state);
    struct recipe recipe = recipe_default(PICTURE_SIDE, PICTURE_SIDE, 1);
    struct image_cache cache = pictures_cache(*state, &dataset, &recipe);
    char path[4096];
    snprintf(path, sizeof path, "%s", cache.path);
    image_cache_close(&cache);
    static const long places[] = {0, 8, 40, 130, -1, -5000}; /* header, tables, pixels */
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        damage(path, places[i]);
        cache = pictures_cache(*state, &dataset, &recipe);
        assert_true(cache.built);
        image_cache_close(&cache);
    }
    assert_int_equal(truncate(path, 100), 0);
    cache = pictures_cache(*state, &dataset, &recipe);
    assert_true(cache.built);
    image_cache_close(&cache);
    dataset_close(&dataset);
}

static void broken_images_are_listed_and_left_out(void **state) {
    pictures_write(*state);
    char name[128];
    picture_name(name, sizeof name, 4);
    folder_text(*state, name, "not a picture");
    picture_name(name, sizeof name, 9);
    folder_text(*state, name, "");
    struct dataset dataset = pictures_open(*state);
    struct recipe recipe = recipe_default(PICTURE_SIDE, PICTURE_SIDE, 1);
    struct image_cache cache = pictures_cache(*state, &dataset, &recipe);
    assert_int_equal(cache.broken, 2);
    int32_t indices[PICTURES];
    int64_t usable = 0;
    for (int part = 0; part < DATASET_PARTS; part++)
        usable += image_cache_part(&cache, &dataset, (enum dataset_part)part, indices);
    assert_int_equal(usable, PICTURES - 2);
    struct bytes list;
    assert_true(file_read(cache.quarantine, 1 << 16, &list, NULL));
    assert_non_null(strstr((char *)list.data, "train/PNEUMONIA/phantom4-0.png\n"));
    assert_non_null(strstr((char *)list.data, "train/NORMAL/phantom9-1.png\n"));
    assert_null(strstr((char *)list.data, "phantom5-1.png"));
    free(list.data);
    struct stat status;
    assert_int_equal(stat(cache.quarantine, &status), 0);
    assert_int_equal(status.st_mode & 077, 0);
    image_cache_close(&cache);
    dataset_close(&dataset);
}

static void class_of_broken_images_is_an_error(void **state) {
    pictures_write(*state);
    for (int i = 0; i < PICTURES; i += 3) {
        char name[128];
        picture_name(name, sizeof name, i);
        folder_text(*state, name, "no picture");
    }
    struct dataset dataset = pictures_open(*state);
    struct recipe recipe = recipe_default(PICTURE_SIDE, PICTURE_SIDE, 1);
    struct image_cache cache;
    struct error err = {0};
    struct image_cache_spec spec = {.folder = folder_path(*state, "cache"), .recipe = &recipe, .threads = 1};
    assert_false(image_cache_open(&cache, &dataset, &spec, &err));
    assert_non_null(strstr(err.message, "class NORMAL: all of its training images are broken"));
    assert_null(strstr(err.message, "phantom"));
    dataset_close(&dataset);
}

/* Four processes ask at once: one makes the file, all see the same pictures. */
static void one_process_builds_while_others_wait(void **state) {
    pictures_write(*state);
    struct dataset dataset = pictures_open(*state);
    struct recipe recipe = recipe_default(PICTURE_SIDE, PICTURE_SIDE, 1);
    struct image_cache_spec spec = {.folder = folder_path(*state, "cache"), .recipe = &recipe, .threads = 1};
    pid_t children[4];
    for (int i = 0; i < 4; i++) {
        children[i] = fork();
        if (children[i] == 0) {
            struct image_cache cache;
            bool ok = image_cache_open(&cache, &dataset, &spec, NULL) && cache.count == PICTURES;
            _exit(!ok ? 2 : cache.built ? 1 : 0);
        }
    }
    int builders = 0;
    for (int i = 0; i < 4; i++) {
        int status;
        assert_int_equal(waitpid(children[i], &status, 0), children[i]);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) < 2);
        builders += WEXITSTATUS(status);
    }
    assert_int_equal(builders, 1);
    dataset_close(&dataset);
}

static void stop_ends_the_making(void **state) {
    pictures_write(*state);
    struct dataset dataset = pictures_open(*state);
    struct recipe recipe = recipe_default(PICTURE_SIDE, PICTURE_SIDE, 1);
    volatile int stop = 1;
    struct image_cache_spec spec = {
        .folder = folder_path(*state, "cache"), .recipe = &recipe, .threads = 1, .stop = &stop};
    struct image_cache cache;
    struct error err = {0};
    assert_false(image_cache_open(&cache, &dataset, &spec, &err));
    assert_int_equal(err.code, ERROR_STATE);
    dataset_close(&dataset);
}

static void folder_takes_environment_variables(void **state) {
    (void)state;
    char out[64];
    struct error err = {0};
    assert_int_equal(setenv("THORAX_TEST_A", "/a b", 1), 0);
    assert_true(image_cache_expand("$THORAX_TEST_A/x/${THORAX_TEST_A}y", out, sizeof out, &err));
    assert_string_equal(out, "/a b/x//a by");
    assert_true(image_cache_expand("plain", out, sizeof out, &err));
    assert_string_equal(out, "plain");
    assert_false(image_cache_expand("$THORAX_TEST_UNSET/x", out, sizeof out, &err));
    assert_non_null(strstr(err.message, "THORAX_TEST_UNSET is not set"));
    assert_false(image_cache_expand("${THORAX_TEST_A", out, sizeof out, &err));
    assert_false(image_cache_expand("a$", out, sizeof out, &err));
    assert_false(image_cache_expand("$THORAX_TEST_A$THORAX_TEST_A", out, 8, &err));
}

#define FOLDER_TEST(name) cmocka_unit_test_setup_teardown(name, folder_setup, folder_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        FOLDER_TEST(holds_what_preprocessing_gives),
        FOLDER_TEST(is_made_once),
        FOLDER_TEST(damaged_file_is_made_anew),
        FOLDER_TEST(broken_images_are_listed_and_left_out),
        FOLDER_TEST(class_of_broken_images_is_an_error),
        FOLDER_TEST(one_process_builds_while_others_wait),
        FOLDER_TEST(stop_ends_the_making),
        cmocka_unit_test(folder_takes_environment_variables),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
