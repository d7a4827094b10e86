#include "trainerd/publisher_members.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Whose turn it is, over a clock that the test turns. */

enum { SILENCE_MS = 300, TIMEOUT_MS = 5000 };

static const struct digest MODEL = {{1}}, OTHER = {{2}};

static int setup(void **state) {
    struct members *members = calloc(1, sizeof *members);
    members_init(members, &(struct members_spec){SILENCE_MS, TIMEOUT_MS, 0});
    *state = members;
    return 0;
}

static int teardown(void **state) {
    members_fini(*state);
    free(*state);
    return 0;
}

/** A report by route (its first letter), with an active digest or NULL. */
static struct member *hear(struct members *members, const char *name, const char *route,
                           Thorax__V1__MemberState member_state, const struct digest *active,
                           int64_t now_ms) {
    Thorax__V1__MemberReport report;
    thorax__v1__member_report__init(&report);
    report.member = (char *)name;
    report.state = member_state;
    if (active)
        report.active_digest = pool_digest_field(active);
    struct member *member = members_hear(members, &report, route, strlen(route), now_ms, NULL);
    assert_non_null(member);
    return member;
}

static struct member *asks(struct members *members, const char *name, int64_t now_ms) {
    struct member *member = hear(members, name, name, THORAX__V1__MEMBER_STATE__MEMBER_WAITING, NULL, now_ms);
    members_ask(members, member, &MODEL, now_ms);
    return member;
}

static bool is_for_all(void *context, const struct member *member, struct digest *target) {
    (void)member;
    *target = *(const struct digest *)context;
    return true;
}

static void the_one_that_asked_first_goes_first_and_alone(void **state) {
    struct members *members = *state;
    struct member *b = asks(members, "b", 1), *a = asks(members, "a", 2);
    asks(members, "b", 3); /* asking again does not lose the place */
    assert_ptr_equal(members_next(members, is_for_all, (void *)&MODEL, 4), b);
    assert_null(members_next(members, is_for_all, (void *)&MODEL, 5));
    members_give_back(members, a, members->turn); /* not a's to give */
    assert_null(members_next(members, is_for_all, (void *)&MODEL, 6));
    members_give_back(members, b, members->turn - 1); /* an old turn's outcome */
    assert_null(members_next(members, is_for_all, (void *)&MODEL, 7));
    members_give_back(members, b, members->turn);
    assert_ptr_equal(members_next(members, is_for_all, (void *)&MODEL, 8), a);
}

static void only_the_model_that_the_pool_is_to_run_gets_turns(void **state) {
    struct members *members = *state;
    asks(members, "a", 1);
    assert_null(members_next(members, is_for_all, (void *)&OTHER, 2));
    assert_non_null(members_next(members, is_for_all, (void *)&MODEL, 3));
}

static void a_member_that_died_in_its_turn_does_not_hold_the_others(void **state) {
    struct members *members = *state;
    asks(members, "a", 1);
    assert_non_null(members_next(members, is_for_all, (void *)&MODEL, 2));
    struct member *b = asks(members, "b", SILENCE_MS);
    assert_int_equal(members_expire(members, SILENCE_MS), 0);
    uint64_t turn = members->turn;
    assert_int_equal(members_expire(members, SILENCE_MS + 2), turn);
    assert_ptr_equal(members_next(members, is_for_all, (void *)&MODEL, SILENCE_MS + 2), b);
}

static void a_turn_does_not_last_for_ever(void **state) {
    struct members *members = *state;
    asks(members, "a", 1);
    assert_non_null(members_next(members, is_for_all, (void *)&MODEL, 2));
    hear(members, "a", "a", THORAX__V1__MEMBER_STATE__MEMBER_ACTIVATING, NULL, 3);
    hear(members, "a", "a", THORAX__V1__MEMBER_STATE__MEMBER_ACTIVATING, NULL, TIMEOUT_MS);
    struct member *b = asks(members, "b", TIMEOUT_MS);
    assert_int_equal(members_expire(members, TIMEOUT_MS + 2), 0);
    hear(members, "a", "a", THORAX__V1__MEMBER_STATE__MEMBER_ACTIVATING, NULL, TIMEOUT_MS + 4);
    assert_int_not_equal(members_expire(members, TIMEOUT_MS + 4), 0);
    assert_ptr_equal(members_next(members, is_for_all, (void *)&MODEL, TIMEOUT_MS + 4), b);
}

static void a_lost_outcome_shows_in_the_next_report(void **state) {
    struct members *members = *state;
    asks(members, "a", 1);
    struct member *b = asks(members, "b", 2);
    assert_non_null(members_next(members, is_for_all, (void *)&MODEL, 3));
    hear(members, "a", "a", THORAX__V1__MEMBER_STATE__MEMBER_IDLE, &MODEL, 4);
    assert_ptr_equal(members_next(members, is_for_all, (void *)&MODEL, 5), b);
    hear(members, "b", "b", THORAX__V1__MEMBER_STATE__MEMBER_FAILED, NULL, 6);
    assert_int_equal(members->turn, 0);
}

static void nobody_starts_while_a_member_says_that_it_is_activating(void **state) {
    struct members *members = *state; /* an earlier publisher gave it the turn */
    hear(members, "a", "a", THORAX__V1__MEMBER_STATE__MEMBER_ACTIVATING, NULL, 1);
    asks(members, "b", 2);
    assert_null(members_next(members, is_for_all, (void *)&MODEL, 3));
    hear(members, "a", "a", THORAX__V1__MEMBER_STATE__MEMBER_IDLE, &MODEL, 4);
    assert_non_null(members_next(members, is_for_all, (void *)&MODEL, 5));
}

static void after_a_restart_members_get_to_speak_first(void **state) {
    struct members *members = *state;
    members->spec.quiet_until_ms = 100;
    asks(members, "a", 1);
    assert_null(members_next(members, is_for_all, (void *)&MODEL, 99));
    assert_non_null(members_next(members, is_for_all, (void *)&MODEL, 100));
}

static void a_member_on_a_new_connection_lost_its_turn(void **state) {
    struct members *members = *state;
    asks(members, "a", 1);
    struct member *b = asks(members, "b", 2);
    assert_non_null(members_next(members, is_for_all, (void *)&MODEL, 3));
    hear(members, "a", "a2", THORAX__V1__MEMBER_STATE__MEMBER_FETCHING, NULL, 4);
    assert_ptr_equal(members_next(members, is_for_all, (void *)&MODEL, 5), b);
}

static void too_many_members_are_refused_and_dead_ones_make_room(void **state) {
    struct members *members = *state;
    char name[16];
    for (int i = 0; i < MEMBERS_MAX; i++) {
        snprintf(name, sizeof name, "m%d", i);
        hear(members, name, name, THORAX__V1__MEMBER_STATE__MEMBER_IDLE, NULL, i == 7 ? 1 : 2);
    }
    Thorax__V1__MemberReport report;
    thorax__v1__member_report__init(&report);
    report.member = "late";
    report.state = THORAX__V1__MEMBER_STATE__MEMBER_IDLE;
    struct error err = {0};
    assert_null(members_hear(members, &report, "x", 1, 3, &err));
    assert_int_equal(err.code, ERROR_BUSY);
    assert_non_null(members_hear(members, &report, "x", 1, SILENCE_MS + 2, &err));
    assert_int_equal(members->count, MEMBERS_MAX);
    char route[MEMBER_ROUTE_BYTES + 1] = {0};
    assert_null(members_hear(members, &report, route, sizeof route, SILENCE_MS + 2, &err));
}

/** A report with statistics of one model: so many answers, and as many counts in a bucket that exists and one that does not. */
static struct member *hear_stats(struct members *members, uint64_t answered, int64_t now_ms) {
    Thorax__V1__MemberReport report;
    Thorax__V1__ModelStats stats, *list[] = {&stats};
    uint32_t buckets[] = {40, 4000000000u};
    uint64_t counts[] = {answered, answered};
    ProtobufCBinaryData digests[] = {pool_digest_field(&OTHER), pool_digest_field(&MODEL)};
    thorax__v1__member_report__init(&report);
    thorax__v1__model_stats__init(&stats);
    stats.digest = pool_digest_field(&MODEL);
    stats.answered = answered;
    stats.n_latency_bucket = stats.n_latency_count = 2;
    stats.latency_bucket = buckets;
    stats.latency_count = counts;
    stats.compared = 7;
    stats.agreed = 5;
    stats.drift_sum = -0.5;
    report.member = "a";
    report.state = THORAX__V1__MEMBER_STATE__MEMBER_IDLE;
    report.incarnation = 77;
    report.n_stats = 1;
    report.stats = list;
    report.n_staged_digests = 2;
    report.staged_digests = digests;
    report.shadow_digest = digests[0];
    report.refused_digest = digests[0];
    report.refused_reason = "golden image 2";
    struct member *member = members_hear(members, &report, "a", 1, now_ms, NULL);
    assert_non_null(member);
    return member;
}

static void the_newest_report_says_how_models_fare(void **state) {
    struct members *members = *state;
    hear_stats(members, 3, 1);
    struct member *member = hear_stats(members, 9, 2);
    const struct member_stats *stats = members_stats(member, &MODEL);
    assert_non_null(stats);
    assert_int_equal(stats->answered, 9);
    assert_int_equal(stats->compared, 7);
    assert_int_equal(stats->agreed, 5);
    assert_true(stats->drift_sum == -0.5);
    assert_int_equal(stats->latency.counts[40], 9);
    assert_int_equal(stats->latency.total, 9); /* what no bucket is for is left out */
    assert_null(members_stats(member, &OTHER));
    assert_int_equal(member->incarnation, 77);
    assert_int_equal(member->staged.count, 2);
    assert_true(members_lists(&member->staged, &MODEL) && members_lists(&member->staged, &OTHER));
    assert_int_equal(member->residents.count, 0);
    assert_true(member->has_shadow && digest_equal(&member->shadow, &OTHER));
    assert_true(member->has_refused && digest_equal(&member->refused, &OTHER));
    assert_string_equal(member->refused_reason, "golden image 2");
    member = hear(members, "a", "a", THORAX__V1__MEMBER_STATE__MEMBER_IDLE, NULL, 3);
    assert_null(members_stats(member, &MODEL));
    assert_false(member->has_shadow || member->has_refused || member->staged.count);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(the_one_that_asked_first_goes_first_and_alone),
        TEST(only_the_model_that_the_pool_is_to_run_gets_turns),
        TEST(a_member_that_died_in_its_turn_does_not_hold_the_others),
        TEST(a_turn_does_not_last_for_ever),
        TEST(a_lost_outcome_shows_in_the_next_report),
        TEST(nobody_starts_while_a_member_says_that_it_is_activating),
        TEST(after_a_restart_members_get_to_speak_first),
        TEST(a_member_on_a_new_connection_lost_its_turn),
        TEST(the_newest_report_says_how_models_fare),
        TEST(too_many_members_are_refused_and_dead_ones_make_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
