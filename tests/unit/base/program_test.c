/*
 * How a program starts itself once more. The test runs itself, as the system does and by the dynamic loader
 * as a bundle does, and reads what it says there.
 */
#include "common/base/program.h"

#include <dlfcn.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

#include <cmocka.h>

static char self[PATH_MAX];

/** The path of the loader that mapped this program; "" in a static one. */
static const char *loader_path(void) {
    Dl_info info;
    void *base = (void *)getauxval(AT_BASE); /* NOLINT: the kernel hands an address over as a number */
    return base && dladdr(base, &info) ? info.dli_fname : "";
}

/** What the program, started by that command prefix, says that it would execute. */
static void ask(const char *prefix, char out[PATH_MAX]) {
    char command[2 * PATH_MAX + 32];
    snprintf(command, sizeof command, "%s '%s' say", prefix, self);
    FILE *answer = popen(command, "r");
    assert_non_null(answer);
    assert_non_null(fgets(out, PATH_MAX, answer));
    assert_int_equal(pclose(answer), 0);
}

static void started_by_the_system_it_is_the_running_file(void **state) {
    char answer[PATH_MAX];
    (void)state;
    unsetenv("THORAX_PROGRAM");
    ask("", answer);
    assert_string_equal(answer, "/proc/self/exe");
}

static void a_variable_that_was_left_behind_means_nothing_there(void **state) {
    char answer[PATH_MAX];
    (void)state;
    setenv("THORAX_PROGRAM", "/bundle/bin/another", 1);
    ask("", answer);
    assert_string_equal(answer, "/proc/self/exe");
}

static void started_by_a_loader_it_is_what_the_variable_says(void **state) {
    char answer[PATH_MAX];
    (void)state;
    if (access(loader_path(), X_OK) != 0)
        skip();
    setenv("THORAX_PROGRAM", "/bundle/bin/program", 1);
    ask(loader_path(), answer);
    assert_string_equal(answer, "/bundle/bin/program");
}

static void a_relative_path_would_be_another_file_elsewhere_and_is_refused(void **state) {
    char answer[PATH_MAX];
    (void)state;
    if (access(loader_path(), X_OK) != 0)
        skip();
    setenv("THORAX_PROGRAM", "bin/program", 1);
    ask(loader_path(), answer);
    assert_string_equal(answer, "/proc/self/exe");
}

static void the_folder_is_that_of_the_file_behind_all_links(void **state) {
    char folder[PATH_MAX], expected[PATH_MAX];
    struct error err = {0};
    (void)state;
    assert_true(program_folder(folder, &err));
    snprintf(expected, sizeof expected, "%s", self);
    *strrchr(expected, '/') = '\0';
    assert_string_equal(folder, expected);
}

int main(int argc, char **argv) {
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(started_by_the_system_it_is_the_running_file),
        cmocka_unit_test(a_variable_that_was_left_behind_means_nothing_there),
        cmocka_unit_test(started_by_a_loader_it_is_what_the_variable_says),
        cmocka_unit_test(a_relative_path_would_be_another_file_elsewhere_and_is_refused),
        cmocka_unit_test(the_folder_is_that_of_the_file_behind_all_links),
    };
    if (argc > 1 && strcmp(argv[1], "say") == 0)
        return fputs(program_path(), stdout) < 0;
    return !realpath(argv[0], self) || cmocka_run_group_tests(tests, NULL, NULL);
}
