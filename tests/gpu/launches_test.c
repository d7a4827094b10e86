/*
 * What counts launches, over a double of CUPTI: a child loads it as CUDA's driver would, and ends; the file
 * then has the counts.
 */
#include "common/base/file.h"

#include <dlfcn.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static void run_injected(const char *path) {
    void *object = dlopen(LAUNCHES_OBJECT, RTLD_NOW | RTLD_LOCAL);
    int (*initialise)(void);
    if (!object)
        _exit(2);
    *(void **)&initialise = dlsym(object, "InitializeInjection");
    setenv("THORAX_LAUNCHES", path, 1);
    exit(initialise && initialise() == 1 ? 0 : 3);
}

static void kernels_and_graphs_are_counted_once_each(void **state) {
    char path[] = "/tmp/thorax-launches-XXXXXX";
    struct error err = {0};
    struct bytes counts;
    int status;
    (void)state;
    assert_true(mkstemp(path) >= 0);
    pid_t child = fork();
    if (child == 0)
        run_injected(path);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_true(file_read(path, 100, &counts, &err));
    assert_string_equal((char *)counts.data, "3 1\n");
    free(counts.data);
    unlink(path);
}

int main(void) {
    static const struct CMUnitTest tests[] = {cmocka_unit_test(kernels_and_graphs_are_counted_once_each)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
