#include "common/base/core_dump.h"
#include "tests/unit/base/test.h"

#include <sys/prctl.h>
#include <sys/resource.h>

/* Neither a file nor a collector behind a pipe: the kernel asks the limit for one and dumpable for the other (core(5)). */
static void neither_file_nor_collector_gets_a_dump(void **state) {
    struct error err = {0};
    struct rlimit limit;
    (void)state;
    assert_true(core_dump_forbid(&err));
    assert_int_equal(getrlimit(RLIMIT_CORE, &limit), 0);
    assert_int_equal(limit.rlim_cur, 0);
    assert_int_equal(limit.rlim_max, 0);
    assert_int_equal(prctl(PR_GET_DUMPABLE), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(neither_file_nor_collector_gets_a_dump)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
