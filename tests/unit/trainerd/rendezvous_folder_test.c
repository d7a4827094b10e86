#include "common/base/file.h"
#include "trainerd/rendezvous_folder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

enum { PATH_SIZE = 160 };

/* Each test has a folder of its own, which TMPDIR names. */
static char base[] = "/tmp/thorax-folders-XXXXXX";

static int setup(void **state) {
    (void)state;
    memset(base + strlen(base) - 6, 'X', 6);
    unsetenv("XDG_RUNTIME_DIR");
    return mkdtemp(base) && setenv("TMPDIR", base, 1) == 0 ? 0 : -1;
}

static int teardown(void **state) {
    (void)state;
    return file_remove_tree(base, NULL) ? 0 : -1;
}

static void put(const char *folder, const char *name) {
    char path[PATH_SIZE];
    assert_true(file_join(path, sizeof path, folder, name, NULL));
    assert_true(file_write_atomic(path, "x", 1, NULL));
}

/* What a run leaves that was killed. */
static const char *leave(char path[PATH_SIZE], const char *name, mode_t mode) {
    assert_true(file_join(path, PATH_SIZE, base, name, NULL));
    assert_int_equal(mkdir(path, mode), 0);
    assert_int_equal(chmod(path, mode), 0);
    put(path, "rendezvous");
    return path;
}

static struct rendezvous_folder make(void) {
    struct rendezvous_folder folder = {0};
    struct error err = {0};
    bool made = rendezvous_folder_make(&folder, &err);
    assert_string_equal(err.message, "");
    assert_true(made);
    return folder;
}

static void only_its_user_enters_and_it_goes_with_its_socket(void **state) {
    (void)state;
    struct stat status;
    struct rendezvous_folder folder = make();
    char path[PATH_SIZE];
    snprintf(path, sizeof path, "%s", folder.path);
    assert_memory_equal(path, base, strlen(base));
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0700);
    put(path, "rendezvous");
    rendezvous_folder_remove(&folder);
    assert_false(file_exists(path));
    assert_string_equal(folder.path, "");
    rendezvous_folder_remove(&folder); /* a zeroed one is taken */
}

static void what_the_dead_have_left_is_removed(void **state) {
    (void)state;
    char dead[PATH_SIZE];
    leave(dead, "thorax-run-abcdef", 0700);
    struct rendezvous_folder folder = make();
    assert_false(file_exists(dead));
    rendezvous_folder_remove(&folder);
}

static void what_the_living_use_stays(void **state) {
    (void)state;
    struct rendezvous_folder folder = make();
    put(folder.path, "rendezvous");
    struct rendezvous_folder other = make();
    assert_string_not_equal(other.path, folder.path);
    rendezvous_folder_remove(&other);
    char path[PATH_SIZE];
    snprintf(path, sizeof path, "%s/rendezvous", folder.path);
    assert_true(file_exists(path));
    rendezvous_folder_remove(&folder);
}

static void what_is_somebody_elses_stays(void **state) {
    (void)state;
    char open_to_all[PATH_SIZE], full[PATH_SIZE], named_otherwise[PATH_SIZE], link[PATH_SIZE];
    leave(open_to_all, "thorax-run-aaaaaa", 0755);
    put(leave(full, "thorax-run-bbbbbb", 0700), "notes");
    leave(named_otherwise, "thorax-other", 0700);
    snprintf(link, sizeof link, "%s/thorax-run-cccccc", base);
    assert_int_equal(symlink(named_otherwise, link), 0);
    struct rendezvous_folder folder = make();
    rendezvous_folder_remove(&folder);
    assert_true(file_exists(open_to_all));
    assert_true(file_exists(full));
    put(named_otherwise, "rendezvous"); /* its folder is there */
    assert_int_equal(unlink(link), 0);
}

static void a_place_that_is_not_there_is_passed_over(void **state) {
    (void)state;
    setenv("XDG_RUNTIME_DIR", "/nonexistent", 1);
    struct rendezvous_folder folder = make();
    assert_memory_equal(folder.path, base, strlen(base));
    rendezvous_folder_remove(&folder);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(only_its_user_enters_and_it_goes_with_its_socket),
        TEST(what_the_dead_have_left_is_removed),
        TEST(what_the_living_use_stays),
        TEST(what_is_somebody_elses_stays),
        TEST(a_place_that_is_not_there_is_passed_over),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
