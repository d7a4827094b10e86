/* Which signals end a program, and how often they have to be sent. */
#include "common/base/signals.h"
#include "tests/unit/base/test.h"

static int setup(void **state) {
    (void)state;
    signals_stop = signals_regroup = signals_child = 0;
    return signals_install(NULL) ? 0 : -1;
}

static void each_sigterm_and_sigint_counts(void **state) {
    (void)state;
    raise(SIGTERM);
    assert_int_equal(signals_stop, 1);
    raise(SIGINT);
    assert_int_equal(signals_stop, 2);
    assert_int_equal(signals_regroup, 0);
}

/* As Slurm does it: SIGUSR1 some time before the limit, SIGTERM at the limit. */
static void sigusr1_and_the_sigterm_that_it_announces_count_once(void **state) {
    (void)state;
    raise(SIGUSR1);
    raise(SIGUSR1);
    assert_int_equal(signals_stop, 1);
    raise(SIGTERM);
    assert_int_equal(signals_stop, 1);
    raise(SIGTERM);
    assert_int_equal(signals_stop, 2);
}

static void sigusr1_after_a_sigterm_is_no_impatience(void **state) {
    (void)state;
    raise(SIGTERM);
    raise(SIGUSR1);
    assert_int_equal(signals_stop, 1);
    raise(SIGTERM);
    assert_int_equal(signals_stop, 2);
}

static void sigusr2_asks_to_regroup_and_stops_nothing(void **state) {
    (void)state;
    raise(SIGUSR2);
    assert_int_equal(signals_regroup, 1);
    assert_int_equal(signals_stop, 0);
}

static void a_closed_pipe_kills_nobody(void **state) {
    (void)state;
    raise(SIGPIPE);
    assert_int_equal(signals_stop, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(each_sigterm_and_sigint_counts, setup),
        cmocka_unit_test_setup(sigusr1_and_the_sigterm_that_it_announces_count_once, setup),
        cmocka_unit_test_setup(sigusr1_after_a_sigterm_is_no_impatience, setup),
        cmocka_unit_test_setup(sigusr2_asks_to_regroup_and_stops_nothing, setup),
        cmocka_unit_test_setup(a_closed_pipe_kills_nobody, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
