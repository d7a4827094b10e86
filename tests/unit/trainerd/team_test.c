/* How the ranks of a machine share it: cores, threads, and how they wait. */
#include "trainerd/team.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct cpu_set six = {.count = 6, .ids = {0, 1, 4, 5, 8, 9}}, one = {.count = 1, .ids = {7}};

static const char *value_of(const struct team *team, const char *name) {
    for (int i = 0; i < TEAM_VARIABLES; i++) {
        if (strcmp(team->variables[i][0], name) == 0)
            return team->variables[i][1];
    }
    fail_msg("%s is not said", name);
    return NULL;
}

static void ranks_have_even_shares(void **state) {
    (void)state;
    struct team team;
    struct team_spec spec = {.ranks = 3};
    for (int rank = 0; rank < 3; rank++) {
        team_of_rank(&six, &spec, rank, &team);
        assert_int_equal(team.cores.count, 2);
        assert_int_equal(team.cores.ids[0], six.ids[2 * rank]);
        assert_int_equal(team.cores.ids[1], six.ids[2 * rank + 1]);
        assert_string_equal(value_of(&team, "OMP_NUM_THREADS"), "2");
        assert_string_equal(value_of(&team, "OMP_DYNAMIC"), "false");
    }
}

static void threads_that_are_asked_for_are_had(void **state) {
    (void)state;
    struct team team;
    team_of_rank(&six, &(struct team_spec){.ranks = 3, .threads = 5}, 0, &team);
    assert_int_equal(team.cores.count, 2);
    assert_string_equal(value_of(&team, "OMP_NUM_THREADS"), "5");
}

static void who_shares_a_core_does_not_spin(void **state) {
    (void)state;
    struct team team;
    struct team_spec spin = {.ranks = 2, .active_wait = true}, wait = {.ranks = 2};
    team_of_rank(&six, &spin, 0, &team);
    assert_string_equal(value_of(&team, "OMP_WAIT_POLICY"), "active");
    assert_string_not_equal(value_of(&team, "GOMP_SPINCOUNT"), "0");
    team_of_rank(&one, &spin, 1, &team);
    assert_int_equal(team.cores.ids[0], 7);
    assert_string_equal(value_of(&team, "OMP_WAIT_POLICY"), "passive");
    assert_string_equal(value_of(&team, "GOMP_SPINCOUNT"), "0");
    team_of_rank(&six, &wait, 0, &team);
    assert_string_equal(value_of(&team, "OMP_WAIT_POLICY"), "passive");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranks_have_even_shares),
        cmocka_unit_test(threads_that_are_asked_for_are_had),
        cmocka_unit_test(who_shares_a_core_does_not_spin),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
