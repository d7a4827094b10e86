#include "trainerd/trainctl/phantom.h"

#include "common/image/image.h"
#include "tests/unit/image/support.h"

#include <dirent.h>
#include <stdlib.h>

static int make_folder(void **state) {
    *state = mkdtemp(strdup("/tmp/thorax-phantom-XXXXXX"));
    return *state == NULL;
}

static int remove_folder(void **state) {
    bool ok = file_remove_tree(*state, NULL);
    free(*state);
    return !ok;
}

/* Runs `trainctl phantom --out FOLDER EXTRA...`; words ends with NULL. */
static int run(const char *folder, const char *const words[]) {
    char *argv[16] = {(char *)"phantom", (char *)"--out", (char *)(uintptr_t)folder};
    int argc = 3;
    for (; words[argc - 3]; argc++)
        argv[argc] = (char *)(uintptr_t)words[argc - 3];
    return command_phantom(argc, argv);
}

/* How many pictures lie in folder/part/class, and which patients: marks seen[N] += 1. */
static int count_films(const char *folder, const char *part, const char *name, int seen[1000]) {
    char path[512];
    int count = 0;
    snprintf(path, sizeof path, "%s/%s/%s", folder, part, name);
    DIR *opened = opendir(path);
    if (!opened)
        return 0;
    for (struct dirent *entry; (entry = readdir(opened)) != NULL;) {
        int patient = 0, film = 0;
        if (sscanf(entry->d_name, "phantom%d-%d.png", &patient, &film) != 2)
            continue;
        assert_in_range(patient, 1, 999);
        seen[patient]++;
        count++;
    }
    closedir(opened);
    return count;
}

static void test_layout(void **state) {
    static const char *const classes[] = {"NORMAL", "PNEUMONIA", "INVALID"};
    static const char *const parts[] = {"train", "val", "test"};
    static const int wanted[] = {7, 4, 0};
    const char *const words[] = {"--layout", "7,4,0", "--size", "64", NULL};
    assert_int_equal(run(*state, words), 0);
    int owner[1000] = {0}, films = 0;
    for (int part = 0; part < 3; part++)
        for (int c = 0; c < 3; c++) {
            int seen[1000] = {0};
            assert_int_equal(count_films(*state, parts[part], classes[c], seen), wanted[part]);
            for (int patient = 0; patient < 1000; patient++) {
                if (!seen[patient])
                    continue;
                assert_int_equal(owner[patient], 0); /* no patient is in two parts or classes */
                owner[patient] = 1;
                films = seen[patient] > films ? seen[patient] : films;
            }
        }
    assert_true(films > 1); /* and some have several films, or splitting by patient is not exercised */
}

static void test_pictures_say_that_they_are_synthetic(void **state) {
    const char *const words[] = {"--layout", "1,0,0", "--size", "70", NULL};
    assert_int_equal(run(*state, words), 0);
    char path[512];
    struct bytes file;
    struct image image;
    snprintf(path, sizeof path, "%s/train/NORMAL/phantom1-1.png", (char *)*state);
    assert_true(file_read(path, 1 << 20, &file, NULL));
    assert_non_null(memmem(file.data, file.size, "tEXtSynthetic\0true", 18));
    assert_true(image_decode(file.data, file.size, NULL, &image, NULL));
    assert_int_equal(image.width, 70);
    assert_int_equal(image.height, 70);
    image_fini(&image);
    free(file.data);
}

static void test_count_is_shared(void **state) {
    const char *const words[] = {"--count", "20", "--size", "64", "--seed", "9", NULL};
    int seen[1000] = {0};
    assert_int_equal(run(*state, words), 0);
    assert_int_equal(count_films(*state, "train", "INVALID", seen), 14);
    assert_int_equal(count_films(*state, "val", "INVALID", seen), 3);
    assert_int_equal(count_films(*state, "test", "INVALID", seen), 3);
}

static void test_wrong_usage_is_two(void **state) {
    static const char *const cases[][3] = {
        {"--size", "63"},        {"--size", "4x"},      {"--count", "0"}, {"--layout", "1,2"},
        {"--layout", "1,2,3,4"}, {"--layout", "a,b,c"}, {"--seed", "-1"}, {"--what", NULL},
        {"extra", NULL},         {"--size", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(run(*state, cases[i]), 2);
    char *bare[] = {(char *)"phantom", NULL};
    assert_int_equal(command_phantom(1, bare), 2);
}

static void test_failure_is_one(void **state) {
    (void)state;
    const char *const words[] = {"--layout", "1,0,0", "--size", "64", NULL};
    assert_int_equal(run("/dev/null/nowhere", words), 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_layout, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_pictures_say_that_they_are_synthetic, make_folder,
                                        remove_folder),
        cmocka_unit_test_setup_teardown(test_count_is_shared, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_wrong_usage_is_two, make_folder, remove_folder),
        cmocka_unit_test(test_failure_is_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
