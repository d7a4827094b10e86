#include "inferd/client/dispatch.h"
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

enum { BEAT_MS = 100, DEADLINE_MS = 10000 };

static struct dispatch *open_with(int members, int questions) {
    struct dispatch_spec spec = {
        .members = members, .max_questions = questions, .heartbeat_ms = BEAT_MS, .first_ticket = 77};
    struct dispatch *dispatch = dispatch_create(&spec, NULL);
    assert_non_null(dispatch);
    return dispatch;
}

static void say_ready(struct dispatch *dispatch, int member) {
    struct dispatch_status status = {.ready = true, .limit = 8};
    dispatch_status(dispatch, member, &status);
}

/** All members are there and ready at time 0, the first heartbeats sent. */
static struct dispatch *open_ready(int members) {
    struct dispatch *dispatch = open_with(members, 32);
    struct dispatch_action action;
    for (int i = 0; i < members; i++) {
        assert_true(dispatch_next(dispatch, 0, &action));
        assert_int_equal(action.kind, DISPATCH_PING);
        say_ready(dispatch, i);
    }
    return dispatch;
}

static uint64_t add(struct dispatch *dispatch, int64_t now_ms) {
    struct dispatch_question question = {.deadline_ms = now_ms + DEADLINE_MS};
    uint64_t ticket = dispatch_add(dispatch, &question, now_ms, NULL);
    assert_true(ticket != 0);
    return ticket;
}

/** The next action that is no heartbeat; its member, or -1 where there is none. Heartbeats are answered. */
static int next_kind(struct dispatch *dispatch, int64_t now_ms, enum dispatch_action_kind kind,
                     uint64_t *ticket) {
    struct dispatch_action action;
    while (dispatch_next(dispatch, now_ms, &action)) {
        if (action.kind == DISPATCH_PING) {
            dispatch_heard(dispatch, action.member);
            continue;
        }
        assert_int_equal(action.kind, kind);
        *ticket = action.ticket;
        return action.member;
    }
    return -1;
}

static int asked(struct dispatch *dispatch, int64_t now_ms) {
    uint64_t ticket;
    return next_kind(dispatch, now_ms, DISPATCH_ASK, &ticket);
}

static void the_least_outstanding_is_asked_and_ties_go_round(void **state) {
    (void)state;
    struct dispatch *dispatch = open_ready(3);
    int counts[3] = {0};
    uint64_t tickets[6], ticket;
    for (int i = 0; i < 6; i++) {
        tickets[i] = add(dispatch, 0);
        counts[next_kind(dispatch, 0, DISPATCH_ASK, &ticket)]++;
    }
    assert_true(counts[0] == 2 && counts[1] == 2 && counts[2] == 2);
    assert_int_equal(dispatch_reply(dispatch, 1, tickets[1], DISPATCH_FINAL, 0, 0), DISPATCH_DELIVER);
    add(dispatch, 0);
    assert_int_equal(asked(dispatch, 0), 1);
    /* one after the other, with nothing outstanding in between: all the same each member has its turn */
    struct dispatch *idle = open_ready(3);
    bool seen[3] = {false};
    for (int i = 0; i < 3; i++) {
        uint64_t only = add(idle, 0);
        int member = asked(idle, 0);
        seen[member] = true;
        assert_int_equal(dispatch_reply(idle, member, only, DISPATCH_FINAL, 0, 0), DISPATCH_DELIVER);
    }
    assert_true(seen[0] && seen[1] && seen[2]);
    dispatch_destroy(idle);
    dispatch_destroy(dispatch);
}

static void nobody_is_asked_before_a_member_says_that_it_is_ready(void **state) {
    (void)state;
    struct dispatch *dispatch = open_with(2, 4);
    struct dispatch_status no_model = {.ready = false};
    add(dispatch, 0);
    assert_int_equal(asked(dispatch, 0), -1);
    dispatch_status(dispatch, 0, &no_model);
    assert_int_equal(asked(dispatch, 1), -1);
    say_ready(dispatch, 1);
    assert_int_equal(asked(dispatch, 2), 1);
    dispatch_destroy(dispatch);
}

static void more_than_a_member_takes_wait(void **state) {
    (void)state;
    struct dispatch *dispatch = open_ready(1);
    uint64_t first = 0;
    for (int i = 0; i < 9; i++) {
        uint64_t ticket = add(dispatch, 0);
        first = first ? first : ticket;
    }
    for (int i = 0; i < 8; i++) {
        assert_int_equal(asked(dispatch, 0), 0);
    }
    assert_int_equal(asked(dispatch, 0), -1);
    dispatch_reply(dispatch, 0, first, DISPATCH_FINAL, 0, 0);
    assert_int_equal(asked(dispatch, 0), 0);
    dispatch_destroy(dispatch);
}

static void a_busy_member_rests_and_another_is_asked(void **state) {
    (void)state;
    struct dispatch *dispatch = open_ready(2);
    uint64_t ticket = add(dispatch, 0);
    int busy = asked(dispatch, 0), other;
    assert_int_equal(dispatch_reply(dispatch, busy, ticket, DISPATCH_BUSY, 500, 0), DISPATCH_AGAIN);
    other = asked(dispatch, 0);
    assert_int_equal(other, 1 - busy);
    for (int i = 0; i < 3; i++) { /* although the busy one has less outstanding */
        add(dispatch, 499);
        assert_int_equal(asked(dispatch, 499), other);
    }
    add(dispatch, 500);
    assert_int_equal(asked(dispatch, 500), busy);
    dispatch_destroy(dispatch);
}

static void where_all_are_busy_the_first_to_be_free_is_asked(void **state) {
    (void)state;
    struct dispatch *dispatch = open_ready(2);
    uint64_t ticket = add(dispatch, 0);
    int first = asked(dispatch, 0);
    dispatch_reply(dispatch, first, ticket, DISPATCH_BUSY, 80, 0);
    int second = asked(dispatch, 0);
    dispatch_reply(dispatch, second, ticket, DISPATCH_BUSY, 40, 0);
    assert_int_equal(asked(dispatch, 39), -1);
    assert_int_equal(dispatch_wait_ms(dispatch, 30), 10);
    assert_int_equal(asked(dispatch, 40), second);
    dispatch_destroy(dispatch);
}

static void not_ready_goes_elsewhere_and_asks_for_the_status(void **state) {
    (void)state;
    struct dispatch *dispatch = open_ready(2);
    uint64_t ticket = add(dispatch, 0);
    struct dispatch_action action;
    int drains = asked(dispatch, 0);
    assert_int_equal(dispatch_reply(dispatch, drains, ticket, DISPATCH_NOT_READY, 0, 1), DISPATCH_AGAIN);
    assert_true(dispatch_next(dispatch, 1, &action));
    assert_true(action.kind == DISPATCH_PING && action.member == drains);
    assert_int_equal(asked(dispatch, 1), 1 - drains);
    assert_false(dispatch_view(dispatch, drains).ready);
    dispatch_destroy(dispatch);
}

static void a_model_that_nobody_has_is_said_at_once(void **state) {
    (void)state;
    struct dispatch *dispatch = open_ready(2);
    struct dispatch_question question = {.deadline_ms = DEADLINE_MS, .particular = true};
    uint64_t ticket = dispatch_add(dispatch, &question, 0, NULL);
    int first = asked(dispatch, 0);
    assert_int_equal(dispatch_reply(dispatch, first, ticket, DISPATCH_NOT_READY, 0, 1), DISPATCH_AGAIN);
    assert_true(dispatch_view(dispatch, first).ready); /* it is the model's fault, not the member's */
    assert_int_equal(asked(dispatch, 1), 1 - first);
    assert_int_equal(dispatch_reply(dispatch, 1 - first, ticket, DISPATCH_NOT_READY, 0, 2), DISPATCH_DELIVER);
    assert_int_equal(dispatch_count(dispatch), 0);
    dispatch_destroy(dispatch);
}

static void not_ready_everywhere_waits_for_somebody(void **state) {
    (void)state;
    struct dispatch *dispatch = open_ready(1);
    uint64_t ticket = add(dispatch, 0);
    assert_int_equal(asked(dispatch, 0), 0);
    assert_int_equal(dispatch_reply(dispatch, 0, ticket, DISPATCH_NOT_READY, 0, 0), DISPATCH_AGAIN);
    assert_int_equal(asked(dispatch, 1000), -1);
    say_ready(dispatch, 0);
    assert_int_equal(asked(dispatch, 2000), 0);
    dispatch_destroy(dispatch);
}

static void a_fault_is_tried_elsewhere_and_passed_on_where_all_have_it(void **state) {
    (void)state;
    struct dispatch *dispatch = open_ready(2);
    uint64_t ticket = add(dispatch, 0);
    int first = asked(dispatch, 0);
    assert_int_equal(dispatch_reply(dispatch, first, ticket, DISPATCH_FAULT, 0, 0), DISPATCH_AGAIN);
    assert_int_equal(asked(dispatch, 0), 1 - first);
    assert_int_equal(dispatch_reply(dispatch, 1 - first, ticket, DISPATCH_FAULT, 0, 0), DISPATCH_DELIVER);
    dispatch_destroy(dispatch);
}

static void a_fault_is_not_carried_through_a_whole_pool(void **state) {
    (void)state;
    struct dispatch *dispatch = open_ready(8);
    uint64_t ticket = add(dispatch, 0);
    for (int i = 0; i < DISPATCH_MAX_FAULTS; i++) {
        assert_int_equal(dispatch_reply(dispatch, asked(dispatch, 0), ticket, DISPATCH_FAULT, 0, 0),
                         DISPATCH_AGAIN);
    }
    assert_int_equal(dispatch_reply(dispatch, asked(dispatch, 0), ticket, DISPATCH_FAULT, 0, 0),
                     DISPATCH_DELIVER);
    dispatch_destroy(dispatch);
}

static void who_sends_garbage_is_let_alone_longer_and_longer(void **state) {
    (void)state;
    struct dispatch *dispatch = open_ready(1);
    uint64_t ticket = add(dispatch, 0);
    int64_t now_ms = 0, pauses[3];
    for (int i = 0; i < 3; i++) {
        assert_int_equal(asked(dispatch, now_ms), 0);
        assert_int_equal(dispatch_reply(dispatch, 0, ticket, DISPATCH_GARBAGE, 0, now_ms), DISPATCH_AGAIN);
        int64_t start_ms = now_ms;
        while (asked(dispatch, now_ms) < 0) {
            now_ms += 10;
        }
        pauses[i] = now_ms - start_ms;
        uint64_t next;
        dispatch_cancel(dispatch, ticket);
        ticket = next = add(dispatch, now_ms);
        assert_true(next != 0);
    }
    assert_true(pauses[0] >= 100 && pauses[1] >= 2 * pauses[0] - 20 && pauses[2] >= 2 * pauses[1] - 20);
    dispatch_destroy(dispatch);
}

static void when_the_connection_breaks_all_is_asked_elsewhere_at_once(void **state) {
    (void)state;
    struct dispatch *dispatch = open_ready(2);
    for (int i = 0; i < 6; i++) {
        add(dispatch, 0);
        asked(dispatch, 0);
    }
    dispatch_lost(dispatch, 0, 5);
    assert_int_equal(dispatch_view(dispatch, 0).outstanding, 0);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(asked(dispatch, 5), 1);
    }
    assert_int_equal(asked(dispatch, 5), -1);
    assert_int_equal(dispatch_view(dispatch, 1).outstanding, 6);
    dispatch_destroy(dispatch);
}

/** Heartbeats of member 0 are answered, those of member 1 are not, from now_ms on; until something else is
 * due. */
static enum dispatch_action_kind beat_until(struct dispatch *dispatch, int64_t *now_ms,
                                            struct dispatch_action *out) {
    for (;; (*now_ms)++) {
        while (dispatch_next(dispatch, *now_ms, out)) {
            if (out->kind != DISPATCH_PING) {
                return out->kind;
            }
            if (out->member == 0) {
                dispatch_heard(dispatch, 0);
            }
        }
    }
}

static void three_heartbeats_without_an_answer_are_a_death(void **state) {
    (void)state;
    struct dispatch *dispatch = open_ready(2);
    struct dispatch_action action;
    int64_t now_ms = 0;
    uint64_t ticket;
    add(dispatch, 0);
    add(dispatch, 0);
    assert_int_equal(asked(dispatch, 0) + asked(dispatch, 0), 1); /* one each */
    assert_int_equal(beat_until(dispatch, &now_ms, &action), DISPATCH_DIED);
    assert_int_equal(action.member, 1);
    assert_in_range(now_ms, 3 * BEAT_MS, 5 * BEAT_MS);
    assert_false(dispatch_view(dispatch, 1).reachable);
    assert_int_equal(next_kind(dispatch, now_ms, DISPATCH_ASK, &ticket), 0);
    dispatch_destroy(dispatch);
}

static void any_traffic_counts_as_a_heartbeat(void **state) {
    (void)state;
    struct dispatch *dispatch = open_ready(1);
    struct dispatch_action action;
    for (int64_t now_ms = 0; now_ms < 20 * BEAT_MS; now_ms += BEAT_MS / 2) {
        dispatch_heard(dispatch, 0);
        while (dispatch_next(dispatch, now_ms, &action)) {
            assert_int_equal(action.kind, DISPATCH_PING);
        }
    }
    assert_true(dispatch_view(dispatch, 0).reachable);
    dispatch_destroy(dispatch);
}

static void a_long_sleep_of_the_asker_kills_nobody(void **state) {
    (void)state;
    struct dispatch *dispatch = open_ready(1);
    struct dispatch_action action;
    assert_true(dispatch_next(dispatch, BEAT_MS, &action));
    assert_true(dispatch_next(dispatch, 100 * BEAT_MS, &action));
    assert_int_equal(action.kind, DISPATCH_PING);
    assert_false(dispatch_next(dispatch, 100 * BEAT_MS, &action));
    assert_true(dispatch_view(dispatch, 0).reachable);
    dispatch_destroy(dispatch);
}

static void heartbeats_towards_the_dead_become_rare_and_a_new_connection_is_tried_at_once(void **state) {
    (void)state;
    struct dispatch *dispatch = open_with(1, 1);
    struct dispatch_action action;
    int pings = 0;
    for (int64_t now_ms = 0; now_ms < 100 * BEAT_MS; now_ms++) {
        while (dispatch_next(dispatch, now_ms, &action)) {
            pings++;
        }
    }
    assert_in_range(pings, 5, 15);
    dispatch_reached(dispatch, 0, 100 * BEAT_MS);
    assert_true(dispatch_next(dispatch, 100 * BEAT_MS, &action));
    assert_int_equal(action.kind, DISPATCH_PING);
    dispatch_destroy(dispatch);
}

static void unanswered_questions_end_at_their_deadline_and_not_before(void **state) {
    (void)state;
    struct dispatch *dispatch = open_ready(1);
    uint64_t ticket = add(dispatch, 0), expired;
    assert_int_equal(asked(dispatch, 0), 0);
    assert_int_equal(next_kind(dispatch, DEADLINE_MS - 1, DISPATCH_EXPIRE, &expired), -1);
    next_kind(dispatch, DEADLINE_MS, DISPATCH_EXPIRE, &expired);
    assert_true(expired == ticket);
    assert_int_equal(dispatch_view(dispatch, 0).outstanding, 0);
    assert_int_equal(dispatch_reply(dispatch, 0, ticket, DISPATCH_FINAL, 0, DEADLINE_MS), DISPATCH_STALE);
    dispatch_destroy(dispatch);
}

static void each_asking_says_the_time_that_is_left(void **state) {
    (void)state;
    struct dispatch *dispatch = open_ready(2);
    struct dispatch_action action;
    uint64_t ticket = add(dispatch, 0);
    while (dispatch_next(dispatch, 0, &action) && action.kind != DISPATCH_ASK) {
    }
    assert_int_equal(action.timeout_ms, DEADLINE_MS);
    dispatch_reply(dispatch, action.member, ticket, DISPATCH_FAULT, 0, 40);
    while (dispatch_next(dispatch, 40, &action) && action.kind != DISPATCH_ASK) {
    }
    assert_int_equal(action.timeout_ms, DEADLINE_MS - 40);
    dispatch_destroy(dispatch);
}

static void after_half_of_its_time_a_second_member_is_asked_and_the_first_answer_wins(void **state) {
    (void)state;
    struct dispatch *dispatch = open_ready(3);
    uint64_t ticket = add(dispatch, 0);
    int slow = asked(dispatch, 0);
    assert_int_equal(asked(dispatch, DEADLINE_MS / 2 - 1), -1);
    int second = asked(dispatch, DEADLINE_MS / 2);
    assert_true(second >= 0 && second != slow);
    assert_int_equal(asked(dispatch, DEADLINE_MS - 1), -1); /* no third one */
    assert_int_equal(dispatch_reply(dispatch, slow, ticket, DISPATCH_FINAL, 0, 9000), DISPATCH_DELIVER);
    assert_int_equal(dispatch_reply(dispatch, second, ticket, DISPATCH_FINAL, 0, 9000), DISPATCH_STALE);
    assert_int_equal(dispatch_view(dispatch, second).outstanding, 0);
    dispatch_destroy(dispatch);
}

static void urgent_questions_go_first_each_in_its_turn(void **state) {
    (void)state;
    struct dispatch *dispatch = open_with(1, 8);
    uint64_t order[4], tickets[4];
    for (int i = 0; i < 4; i++) {
        struct dispatch_question question = {.deadline_ms = DEADLINE_MS, .urgent = i >= 2};
        tickets[i] = dispatch_add(dispatch, &question, 0, NULL);
    }
    say_ready(dispatch, 0);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(next_kind(dispatch, 0, DISPATCH_ASK, &order[i]), 0);
    }
    assert_true(order[0] == tickets[2] && order[1] == tickets[3]);
    assert_true(order[2] == tickets[0] && order[3] == tickets[1]);
    dispatch_destroy(dispatch);
}

static void over_the_limit_is_busy(void **state) {
    (void)state;
    struct error err = {0};
    struct dispatch *dispatch = open_with(1, 2);
    struct dispatch_question question = {.deadline_ms = DEADLINE_MS};
    add(dispatch, 0);
    uint64_t second = add(dispatch, 0);
    assert_true(dispatch_add(dispatch, &question, 0, &err) == 0);
    assert_int_equal(err.code, ERROR_BUSY);
    assert_true(dispatch_cancel(dispatch, second));
    assert_false(dispatch_cancel(dispatch, second));
    uint64_t third = add(dispatch, 0);
    assert_true(third != second); /* a late reply to the old one does not fit */
    dispatch_destroy(dispatch);
}

static struct digest model(uint8_t which) {
    return (struct digest){{which}};
}

static void say_models(struct dispatch *dispatch, int member, uint8_t first, uint8_t second) {
    struct dispatch_status status = {
        .ready = true, .limit = 8, .resident_count = 2, .resident = {model(first), model(second)}};
    dispatch_status(dispatch, member, &status);
}

static uint64_t add_pinned(struct dispatch *dispatch, uint8_t which, int64_t now_ms) {
    struct digest pin = model(which);
    struct dispatch_question question = {.deadline_ms = now_ms + DEADLINE_MS, .pinned = &pin};
    return dispatch_add(dispatch, &question, now_ms, NULL);
}

static void a_pinned_question_goes_where_its_model_is(void **state) {
    (void)state;
    struct dispatch *dispatch = open_ready(3);
    say_models(dispatch, 0, 2, 3);
    say_models(dispatch, 1, 2, 1);
    say_models(dispatch, 2, 2, 3);
    for (int i = 0; i < 4; i++) {
        add_pinned(dispatch, 1, 0);
        assert_int_equal(asked(dispatch, 0), 1);
    }
    add_pinned(dispatch, 9, 0); /* which nobody has */
    assert_int_not_equal(asked(dispatch, 0), 1);
    dispatch_destroy(dispatch);
}

static void a_pinned_question_waits_for_its_model_for_half_of_its_time(void **state) {
    (void)state;
    struct dispatch *dispatch = open_ready(2);
    say_models(dispatch, 0, 2, 3);
    say_models(dispatch, 1, 2, 1);
    uint64_t ticket = add_pinned(dispatch, 1, 0);
    assert_int_equal(asked(dispatch, 0), 1);
    dispatch_reply(dispatch, 1, ticket, DISPATCH_BUSY, 9000, 0);
    assert_int_equal(asked(dispatch, DEADLINE_MS / 2 - 1), -1);
    assert_int_equal(asked(dispatch, DEADLINE_MS / 2), 0);
    dispatch_destroy(dispatch);
}

static void an_answer_by_another_model_is_passed_on_only_where_nobody_has_the_pinned_one(void **state) {
    (void)state;
    struct dispatch *dispatch = open_ready(2);
    say_models(dispatch, 0, 1, 2);
    say_models(dispatch, 1, 1, 2);
    uint64_t ticket = add_pinned(dispatch, 1, 0);
    int first = asked(dispatch, 0);
    assert_int_equal(dispatch_reply(dispatch, first, ticket, DISPATCH_CHANGED, 0, 0), DISPATCH_AGAIN);
    assert_int_equal(asked(dispatch, 0), 1 - first);
    assert_int_equal(dispatch_reply(dispatch, 1 - first, ticket, DISPATCH_CHANGED, 0, 0), DISPATCH_DELIVER);
    dispatch_destroy(dispatch);
}

static void where_the_only_member_left_refused_before_it_is_asked_again(void **state) {
    (void)state;
    struct dispatch *dispatch = open_ready(2);
    uint64_t ticket = add(dispatch, 0);
    int first = asked(dispatch, 0);
    dispatch_reply(dispatch, first, ticket, DISPATCH_FAULT, 0, 0);
    assert_int_equal(asked(dispatch, 0), 1 - first);
    dispatch_lost(dispatch, 1 - first, 1);
    assert_int_equal(asked(dispatch, 1), -1); /* after a pause */
    assert_int_equal(asked(dispatch, 1000), first);
    dispatch_destroy(dispatch);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_least_outstanding_is_asked_and_ties_go_round),
        cmocka_unit_test(nobody_is_asked_before_a_member_says_that_it_is_ready),
        cmocka_unit_test(more_than_a_member_takes_wait),
        cmocka_unit_test(a_busy_member_rests_and_another_is_asked),
        cmocka_unit_test(where_all_are_busy_the_first_to_be_free_is_asked),
        cmocka_unit_test(not_ready_goes_elsewhere_and_asks_for_the_status),
        cmocka_unit_test(a_model_that_nobody_has_is_said_at_once),
        cmocka_unit_test(not_ready_everywhere_waits_for_somebody),
        cmocka_unit_test(a_fault_is_tried_elsewhere_and_passed_on_where_all_have_it),
        cmocka_unit_test(a_fault_is_not_carried_through_a_whole_pool),
        cmocka_unit_test(who_sends_garbage_is_let_alone_longer_and_longer),
        cmocka_unit_test(when_the_connection_breaks_all_is_asked_elsewhere_at_once),
        cmocka_unit_test(three_heartbeats_without_an_answer_are_a_death),
        cmocka_unit_test(any_traffic_counts_as_a_heartbeat),
        cmocka_unit_test(a_long_sleep_of_the_asker_kills_nobody),
        cmocka_unit_test(heartbeats_towards_the_dead_become_rare_and_a_new_connection_is_tried_at_once),
        cmocka_unit_test(unanswered_questions_end_at_their_deadline_and_not_before),
        cmocka_unit_test(each_asking_says_the_time_that_is_left),
        cmocka_unit_test(after_half_of_its_time_a_second_member_is_asked_and_the_first_answer_wins),
        cmocka_unit_test(urgent_questions_go_first_each_in_its_turn),
        cmocka_unit_test(over_the_limit_is_busy),
        cmocka_unit_test(a_pinned_question_goes_where_its_model_is),
        cmocka_unit_test(a_pinned_question_waits_for_its_model_for_half_of_its_time),
        cmocka_unit_test(an_answer_by_another_model_is_passed_on_only_where_nobody_has_the_pinned_one),
        cmocka_unit_test(where_the_only_member_left_refused_before_it_is_asked_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
