#include "trainerd/cluster_members.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

static const char fingerprint[] = "build=aa\ndata=bb\ntrain:\n  batch_size: 16\noptimizer:\n  momentum: 0.9\n";
static const struct wire_frame here = {"connection", 10}, elsewhere = {"another", 7};

static int set_up(void **state) {
    static struct cluster_members members;
    *state = &members;
    return !cluster_members_init(&members, 3, 5000, fingerprint, NULL);
}

static int tear_down(void **state) {
    cluster_members_fini(*state);
    return 0;
}

static struct cluster_hello hello_of(int node, uint64_t instance) {
    return (struct cluster_hello){.node = node, .nodes = 3, .ranks = 2, .instance = instance, .name = "host/1",
                                  .fingerprint = fingerprint};
}

static void come(struct cluster_members *members, int node, uint64_t instance, int64_t now_ms) {
    struct cluster_hello hello = hello_of(node, instance);
    char reason[CLUSTER_REASON_SIZE];
    assert_int_equal(cluster_members_admit(members, &hello, here, now_ms, reason), CLUSTER_ADMITTED);
}

static void test_a_node_comes_and_is_known(void **state) {
    struct cluster_hello hello = hello_of(1, 7);
    char reason[CLUSTER_REASON_SIZE];
    int nodes;
    come(*state, 1, 7, 100);
    assert_int_equal(cluster_members_admit(*state, &hello, elsewhere, 200, reason), CLUSTER_KNOWN);
    assert_int_equal(cluster_members_hear(*state, 7, here, 300), 1);
    assert_int_equal(cluster_members_hear(*state, 8, here, 300), -1);
    assert_int_equal(cluster_members_ranks(*state, &nodes), 2);
    assert_int_equal(nodes, 1);
}

static void refuse(struct cluster_members *members, struct cluster_hello hello, const char *why) {
    char reason[CLUSTER_REASON_SIZE];
    assert_int_equal(cluster_members_admit(members, &hello, here, 0, reason), CLUSTER_REFUSED);
    assert_string_equal(reason, why);
}

static void test_differences_are_shown_with_both_sides(void **state) {
    struct cluster_hello hello = hello_of(1, 7);
    hello.nodes = 4;
    refuse(*state, hello, "it is one of 4 nodes, the coordinator's run is of 3 (cluster.nodes)");
    hello = hello_of(1, 7);
    hello.fingerprint = "build=aa\ndata=cc\ntrain:\n  batch_size: 16\noptimizer:\n  momentum: 0.9\n";
    refuse(*state, hello, "it has \"data=cc\", the coordinator has \"data=bb\"");
    hello.fingerprint = "build=aa\ndata=bb\ntrain:\n  batch_size: 32\noptimizer:\n  momentum: 0.9\n";
    refuse(*state, hello, "it has \"train.batch_size: 32\", the coordinator has \"train.batch_size: 16\"");
    hello.fingerprint = "build=aa\ndata=bb\ntrain:\n  batch_size: 16\noptimizer:\n";
    refuse(*state, hello, "it has \"optimizer.\", the coordinator has \"optimizer.momentum: 0.9\"");
    hello.fingerprint = "";
    refuse(*state, hello, "it has \"\", the coordinator has \"build=aa\"");
}

/** Its shadow is given up when it has been silent for long enough; then there is room. */
static void test_a_place_is_taken_once(void **state) {
    struct cluster_members *members = *state;
    struct cluster_hello again = hello_of(1, 8);
    char reason[CLUSTER_REASON_SIZE];
    come(members, 1, 7, 1000);
    assert_int_equal(cluster_members_admit(members, &again, elsewhere, 2500, reason), CLUSTER_LATER);
    assert_string_equal(reason, "there is a node 1 (cluster.node) already, host/1, heard of 1.5 s ago");
    assert_int_equal(cluster_members_silent(members, 6000), -1);
    assert_int_equal(cluster_members_silent(members, 6001), 1);
    members->list[1].here = false;
    assert_int_equal(cluster_members_admit(members, &again, elsewhere, 6002, reason), CLUSTER_ADMITTED);
}

static void test_ranks_are_given_in_the_order_of_nodes(void **state) {
    struct cluster_members *members = *state;
    struct cluster_share share = {.generation = 4, .ranks = 3, .parts = 2};
    char missing[64];
    come(members, 2, 9, 0);
    come(members, 0, 7, 0);
    assert_string_equal(cluster_members_missing(members, missing, sizeof missing), "node 1");
    cluster_members_assign(members, &share);
    const int first[] = {0, 2, 2}, count[] = {2, 0, 1};
    for (int node = 0; node < 3; node++) {
        assert_int_equal(members->list[node].share.first_rank, first[node]);
        assert_int_equal(members->list[node].share.count, count[node]);
        assert_int_equal(members->list[node].share.generation, 4);
    }
}

/** What is left out gets no rank, and the others keep their places; a node that comes anew has all of its own. */
static void test_a_place_is_left_out(void **state) {
    struct cluster_members *members = *state;
    struct cluster_share share = {.generation = 4, .ranks = 3, .parts = 2};
    struct cluster_hello wide = hello_of(0, 7);
    char reason[CLUSTER_REASON_SIZE];
    int nodes;
    wide.ranks = 4;
    assert_int_equal(cluster_members_admit(members, &wide, here, 0, reason), CLUSTER_ADMITTED);
    assert_true(cluster_members_leave_out(members, 0, 1));
    assert_false(cluster_members_leave_out(members, 0, 1));
    assert_false(cluster_members_leave_out(members, 0, 4));
    assert_false(cluster_members_leave_out(members, 1, 0));
    assert_int_equal(cluster_members_ranks(members, &nodes), 3);
    cluster_members_assign(members, &share);
    const struct cluster_share *mine = &members->list[0].share;
    assert_int_equal(mine->count, 3);
    assert_int_equal(cluster_share_place(mine, 0), 0);
    assert_int_equal(cluster_share_place(mine, 1), 2);
    assert_int_equal(cluster_share_place(mine, 2), 3);
    assert_true(cluster_members_leave_out(members, 0, 3));
    assert_int_equal(cluster_members_ranks(members, &nodes), 2);
    members->list[0].here = false;
    wide.instance = 8;
    assert_int_equal(cluster_members_admit(members, &wide, here, 100, reason), CLUSTER_ADMITTED);
    assert_int_equal(members->list[0].left_out, 0);
    assert_int_equal(cluster_members_ranks(members, &nodes), 4);
}

static void test_places_beyond_the_mask_stay(void **state) {
    struct cluster_members *members = *state;
    struct cluster_hello huge = hello_of(0, 7);
    char reason[CLUSTER_REASON_SIZE];
    huge.ranks = 100;
    assert_int_equal(cluster_members_admit(members, &huge, here, 0, reason), CLUSTER_ADMITTED);
    assert_false(cluster_members_leave_out(members, 0, 64));
    assert_true(cluster_members_leave_out(members, 0, 63));
    const struct cluster_share share = {.left_out = UINT64_C(1) << 63};
    assert_int_equal(cluster_share_place(&share, 62), 62);
    assert_int_equal(cluster_share_place(&share, 63), 64);
    assert_int_equal(cluster_share_place(&share, 98), 99);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_node_comes_and_is_known, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_differences_are_shown_with_both_sides, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_place_is_taken_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_ranks_are_given_in_the_order_of_nodes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_place_is_left_out, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_places_beyond_the_mask_stay, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
