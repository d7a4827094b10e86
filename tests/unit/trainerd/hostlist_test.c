#include "trainerd/hostlist.h"

#include "tests/unit/base/test.h"

#include <string.h>

static void the_first_host_keeps_its_zeros(void **state) {
    (void)state;
    static const struct {
        const char *list, *host;
    } cases[] = {
        {"gpu[003-010,12],login1", "gpu003"}, {"r[1-2]n[01-04]", "r1n01"}, {"rack[0-2]-ib", "rack0-ib"}, {"login1", "login1"},
        {"login1,gpu[1-2]", "login1"},        {"[5,9-12]", "5"},
        {"a.b_c-d,x", "a.b_c-d"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char host[HOSTLIST_HOST_SIZE];
        assert_true(hostlist_first(cases[i].list, host, NULL));
        assert_string_equal(host, cases[i].host);
    }
}

static void what_is_no_list_of_hosts_is_refused(void **state) {
    (void)state;
    static const char *const wrong[] = {"",      ",a",    "a[",    "a[1", "a[]",        "a[-2]",
                                        "a[x]",  "a[1-2", "a[1]]", "a b", "a[123x456]", "a\n"};
    char host[HOSTLIST_HOST_SIZE], long_list[300];
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct error err = {0};
        if (hostlist_first(wrong[i], host, &err))
            fail_msg("\"%s\" was taken", wrong[i]);
        assert_int_equal(err.code, ERROR_FORMAT);
    }
    memset(long_list, '1', sizeof long_list - 1);
    long_list[sizeof long_list - 1] = '\0';
    assert_false(hostlist_first(long_list, host, NULL));
    memcpy(long_list, "a[", 2);
    long_list[sizeof long_list - 2] = ']';
    assert_false(hostlist_first(long_list, host, NULL));
    memset(long_list, 'a', 253);
    long_list[253] = '\0';
    assert_true(hostlist_first(long_list, host, NULL));
}

static void tasks_are_counted_by_node(void **state) {
    (void)state;
    static const int64_t here[] = {2, 2, 2, 1, 4};
    for (int node = 0; node < 5; node++) {
        struct hostlist_tasks tasks;
        assert_true(hostlist_tasks("2(x3),1,4", node, &tasks, NULL));
        assert_int_equal(tasks.here, here[node]);
        assert_int_equal(tasks.nodes, 5);
        assert_int_equal(tasks.tasks, 11);
        assert_int_equal(tasks.most, 4);
    }
}

static void what_counts_no_tasks_is_refused(void **state) {
    (void)state;
    static const char *const wrong[] = {"",      "0",     "2(x0)", "2(x3",  "2x3",       "2(3)",      "2,",
                                        ",2",    "2,,2",  "-1",    "2(x3)1", "2(x3),1 ", "12345678", "9999999(x9999999)"};
    struct hostlist_tasks tasks;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        if (hostlist_tasks(wrong[i], 0, &tasks, NULL))
            fail_msg("\"%s\" was taken", wrong[i]);
    }
    assert_false(hostlist_tasks("2(x3)", 3, &tasks, NULL));
    assert_false(hostlist_tasks("2(x3)", -1, &tasks, NULL));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_host_keeps_its_zeros),
        cmocka_unit_test(what_is_no_list_of_hosts_is_refused),
        cmocka_unit_test(tasks_are_counted_by_node),
        cmocka_unit_test(what_counts_no_tasks_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
