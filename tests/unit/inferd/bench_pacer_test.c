#include "inferd/inferctl/bench_pacer.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <cmocka.h>

enum { MANY = 200000 };
static const int64_t START_NS = INT64_C(77000000000);
static const double RATE = 250;

static struct bench_pacer open_pacer(int64_t requests, int outstanding, uint64_t seed) {
    struct bench_pacer pacer;
    struct bench_pacer_spec spec = {
        .rate = RATE, .outstanding = outstanding, .requests = requests, .seed = seed};
    bench_pacer_start(&pacer, &spec, START_NS);
    return pacer;
}

/** The intended times where the clock moves step_ns between looks; all are taken that are due. */
static void collect(struct bench_pacer *pacer, int64_t step_ns, int64_t *times) {
    int count = 0;
    for (int64_t now = START_NS; !bench_pacer_done(pacer, now); now += step_ns) {
        int64_t intended;
        while (bench_pacer_take(pacer, now, 0, &intended)) {
            assert_true(intended <= now);
            times[count++] = intended;
        }
    }
}

static void intended_times_do_not_depend_on_when_one_looks(void **state) {
    (void)state;
    enum { COUNT = 2000 };
    static int64_t often[COUNT], seldom[COUNT], other[COUNT];
    struct bench_pacer a = open_pacer(COUNT, 1, 5), b = open_pacer(COUNT, 1, 5), c = open_pacer(COUNT, 1, 6);
    int equal = 0;
    collect(&a, 10000, often);
    collect(&b, 700000000, seldom);
    collect(&c, 10000, other);
    for (int i = 0; i < COUNT; i++) {
        assert_int_equal(often[i], seldom[i]);
        equal += often[i] == other[i];
    }
    assert_int_equal(equal, 0); /* another seed, other times */
}

/** Intervals of a Poisson process are exponential: mean and standard deviation are both 1 / rate. The bounds
 * are five standard errors: of the mean, and of the variance (whose kurtosis is 9). */
static void intervals_are_exponential(void **state) {
    (void)state;
    static int64_t times[MANY];
    struct bench_pacer pacer = open_pacer(MANY, 1, 1);
    collect(&pacer, 1000000000, times);
    double expected = 1e9 / RATE, sum = 0, squares = 0, before = (double)START_NS;
    for (int i = 0; i < MANY; i++) {
        double interval = (double)times[i] - before;
        assert_true(interval >= 0);
        before = (double)times[i];
        sum += interval / expected;
        squares += interval / expected * (interval / expected);
    }
    double mean = sum / MANY, variance = squares / MANY - mean * mean;
    assert_true(fabs(mean - 1) < 5 / sqrt(MANY));
    assert_true(fabs(variance - 1) < 5 * sqrt(8.0 / MANY));
}

/** Of a Poisson process the numbers of arrivals in windows have a variance equal to their mean. */
static void counts_in_windows_are_as_dispersed_as_they_are_many(void **state) {
    (void)state;
    enum { WINDOWS = 10000 };
    static int64_t times[MANY];
    static int counts[WINDOWS];
    struct bench_pacer pacer = open_pacer(MANY, 1, 2);
    collect(&pacer, 1000000000, times);
    double window_ns = 5 / RATE * 1e9, sum = 0, squares = 0;
    for (int i = 0; i < MANY; i++) {
        double window = (double)(times[i] - START_NS) / window_ns;
        if (window < WINDOWS)
            counts[(int)window]++;
    }
    for (int i = 0; i < WINDOWS; i++) {
        sum += counts[i];
        squares += (double)counts[i] * counts[i];
    }
    double mean = sum / WINDOWS, variance = squares / WINDOWS - mean * mean;
    assert_true(fabs(mean - 5) < 5 * sqrt(5.0 / WINDOWS));
    assert_true(fabs(variance / mean - 1) < 5 * sqrt(2.0 / WINDOWS));
}

static void what_waits_at_the_limit_keeps_its_time_and_is_counted_once(void **state) {
    (void)state;
    struct bench_pacer free_run = open_pacer(3, 2, 9), limited = open_pacer(3, 2, 9);
    int64_t times[3], intended, late = START_NS + INT64_C(60000000000);
    collect(&free_run, 1000, times);
    assert_true(bench_pacer_take(&limited, late, 0, &intended));
    assert_true(bench_pacer_take(&limited, late, 1, &intended));
    for (int i = 0; i < 5; i++)
        assert_false(bench_pacer_take(&limited, late + i, 2, &intended));
    assert_int_equal(limited.held, 1);
    assert_int_equal(bench_pacer_due_ns(&limited), INT64_MAX); /* only a reply can change that */
    assert_true(bench_pacer_take(&limited, late + 9, 1, &intended));
    assert_int_equal(intended, times[2]);
    assert_int_equal(limited.held, 1);
    assert_int_equal(free_run.held, 0);
}

static void it_says_when_the_next_one_is_due(void **state) {
    (void)state;
    struct bench_pacer pacer = open_pacer(100, 1, 4);
    int64_t intended;
    for (int i = 0; i < 100; i++) {
        int64_t due = bench_pacer_due_ns(&pacer);
        assert_false(bench_pacer_take(&pacer, due - 1, 0, &intended));
        assert_true(bench_pacer_take(&pacer, due, 0, &intended));
        assert_int_equal(intended, due);
    }
    assert_true(bench_pacer_done(&pacer, START_NS));
    assert_int_equal(bench_pacer_due_ns(&pacer), INT64_MAX);
}

static void it_ends_by_the_intended_times(void **state) {
    (void)state;
    struct bench_pacer pacer;
    struct bench_pacer_spec spec = {.rate = RATE, .outstanding = 1, .duration_ns = 2000000000, .seed = 3};
    int64_t intended, late = START_NS + INT64_C(60000000000);
    bench_pacer_start(&pacer, &spec, START_NS);
    while (bench_pacer_take(&pacer, late, 0, &intended))
        assert_true(intended <
                    START_NS + spec.duration_ns); /* those of the two seconds come, however late it is */
    assert_true(bench_pacer_done(&pacer, late));
    assert_true(fabs((double)pacer.begun - 2 * RATE) < 5 * sqrt(2 * RATE));
}

static void a_closed_loop_keeps_each_client_busy_and_counts_from_now(void **state) {
    (void)state;
    struct bench_pacer pacer;
    struct bench_pacer_spec spec = {.outstanding = 3, .requests = 5};
    int64_t intended;
    bench_pacer_start(&pacer, &spec, START_NS);
    for (int outstanding = 0; outstanding < 3; outstanding++) {
        assert_true(bench_pacer_take(&pacer, START_NS + 7, outstanding, &intended));
        assert_int_equal(intended, START_NS + 7);
    }
    assert_false(bench_pacer_take(&pacer, START_NS + 8, 3, &intended));
    assert_int_equal(pacer.held, 0);
    assert_true(bench_pacer_take(&pacer, START_NS + 9, 2, &intended));
    assert_true(bench_pacer_take(&pacer, START_NS + 9, 2, &intended));
    assert_false(bench_pacer_take(&pacer, START_NS + 9, 0, &intended));
    assert_true(bench_pacer_done(&pacer, START_NS + 9));
}

static void stopping_ends_it_at_once(void **state) {
    (void)state;
    struct bench_pacer pacer = open_pacer(100, 1, 4);
    int64_t intended;
    bench_pacer_stop(&pacer);
    assert_true(bench_pacer_done(&pacer, START_NS));
    assert_false(bench_pacer_take(&pacer, INT64_MAX, 0, &intended));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(intended_times_do_not_depend_on_when_one_looks),
        cmocka_unit_test(intervals_are_exponential),
        cmocka_unit_test(counts_in_windows_are_as_dispersed_as_they_are_many),
        cmocka_unit_test(what_waits_at_the_limit_keeps_its_time_and_is_counted_once),
        cmocka_unit_test(it_says_when_the_next_one_is_due),
        cmocka_unit_test(it_ends_by_the_intended_times),
        cmocka_unit_test(a_closed_loop_keeps_each_client_busy_and_counts_from_now),
        cmocka_unit_test(stopping_ends_it_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
