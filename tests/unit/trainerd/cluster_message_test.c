#include "trainerd/cluster_message.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static struct wire_frame frame_of(const struct bytes *bytes) {
    return (struct wire_frame){bytes->data, bytes->size};
}

static void test_a_hello_arrives_as_it_was_sent(void **state) {
    (void)state;
    struct cluster_hello hello = {.node = 1, .nodes = 4, .ranks = 8, .instance = UINT64_MAX, .name = "n1/42",
                                  .fingerprint = "a=b\n"};
    struct cluster_received got;
    struct bytes packed;
    assert_true(cluster_pack_hello(&hello, &packed, NULL));
    assert_true(cluster_unpack_from_node(frame_of(&packed), &got, NULL));
    assert_int_equal(got.kind, CLUSTER_HELLO);
    assert_int_equal(got.hello.node, 1);
    assert_int_equal(got.hello.nodes, 4);
    assert_int_equal(got.hello.ranks, 8);
    assert_true(got.hello.instance == UINT64_MAX);
    assert_string_equal(got.hello.name, "n1/42");
    assert_string_equal(got.hello.fingerprint, "a=b\n");
    cluster_received_fini(&got);
    free(packed.data);
}

static void test_a_state_arrives_as_it_was_sent(void **state) {
    (void)state;
    struct cluster_end ends[] = {{.rank = 3, .status = SIGKILL, .killed = true}, {.rank = 2, .status = 1 << 8, .told = true}};
    error_set(&ends[1].words, ERROR_PEER, "rank 3 is gone");
    error_hint(&ends[1].words, "look there");
    struct cluster_state sent = {.instance = 9, .generation = 2, .ends = ends, .end_count = 2, .stopped_rank = -1,
                                 .wants_stop = true};
    struct cluster_received got;
    struct bytes packed;
    assert_true(cluster_pack_state(&sent, &packed, NULL));
    assert_true(cluster_unpack_from_node(frame_of(&packed), &got, NULL));
    assert_int_equal(got.kind, CLUSTER_STATE);
    assert_int_equal(got.state.generation, 2);
    assert_int_equal(got.state.end_count, 2);
    assert_int_equal(got.state.ends[0].status, SIGKILL);
    assert_true(got.state.ends[0].killed && !got.state.ends[0].told);
    assert_int_equal(got.state.ends[1].words.code, ERROR_PEER);
    assert_string_equal(got.state.ends[1].words.message, "rank 3 is gone");
    assert_string_equal(got.state.ends[1].words.hint, "look there");
    assert_int_equal(got.state.stopped_rank, -1);
    assert_true(got.state.wants_stop && !got.state.leaves);
    cluster_received_fini(&got);
    free(packed.data);
}

static void test_orders_refusals_and_results_arrive_as_they_were_sent(void **state) {
    (void)state;
    struct cluster_orders orders = {.order = CLUSTER_STOP, .grace_ms = 2000, .kill_rank = 5,
                                    .share = {.generation = 3, .run = 77, .ranks = 8, .parts = 2, .first_rank = 4, .count = 4,
                                              .left_out = UINT64_C(1) << 63 | 2, .resumes = true}};
    struct cluster_received got;
    struct bytes packed;
    assert_true(cluster_pack_orders(&orders, &packed, NULL));
    assert_true(cluster_unpack_to_node(frame_of(&packed), &got, NULL));
    assert_int_equal(got.kind, CLUSTER_ORDERS);
    const struct cluster_share *share = &got.orders.share;
    assert_true(share->generation == 3 && share->run == 77 && share->ranks == 8 && share->parts == 2);
    assert_true(share->first_rank == 4 && share->count == 4 && share->resumes);
    assert_true(share->left_out == (UINT64_C(1) << 63 | 2));
    assert_int_equal(got.orders.order, CLUSTER_STOP);
    assert_int_equal(got.orders.kill_rank, 5);
    cluster_received_fini(&got);
    free(packed.data);
    assert_true(cluster_pack_refusal("no", true, &packed, NULL));
    assert_true(cluster_unpack_to_node(frame_of(&packed), &got, NULL));
    assert_int_equal(got.kind, CLUSTER_REFUSAL);
    assert_true(got.refusal.later && strcmp(got.refusal.reason, "no") == 0);
    cluster_received_fini(&got);
    free(packed.data);
    assert_true(cluster_pack_result(CLUSTER_FAILED, "why", &packed, NULL));
    assert_true(cluster_unpack_to_node(frame_of(&packed), &got, NULL));
    assert_true(got.kind == CLUSTER_RESULT && got.result.outcome == CLUSTER_FAILED && strcmp(got.result.reason, "why") == 0);
    cluster_received_fini(&got);
    free(packed.data);
}

static void refuse_orders(struct cluster_orders orders) {
    struct cluster_received got;
    struct bytes packed;
    struct error err = {0};
    assert_true(cluster_pack_orders(&orders, &packed, NULL));
    assert_false(cluster_unpack_to_node(frame_of(&packed), &got, &err));
    assert_int_equal(err.code, ERROR_INVALID);
    cluster_received_fini(&got);
    free(packed.data);
}

static void test_what_cannot_be_is_refused(void **state) {
    (void)state;
    struct cluster_received got;
    struct bytes packed;
    struct error err = {0};
    refuse_orders((struct cluster_orders){
        .order = CLUSTER_RUN, .kill_rank = -1, .share = {.ranks = 4, .first_rank = 3, .count = 2}});
    refuse_orders((struct cluster_orders){.order = CLUSTER_RUN, .kill_rank = -1, .share = {.ranks = 2000}});
    struct cluster_hello hello = {.node = 4, .nodes = 4, .ranks = 1, .name = "", .fingerprint = ""};
    assert_true(cluster_pack_hello(&hello, &packed, NULL));
    assert_false(cluster_unpack_from_node(frame_of(&packed), &got, &err));
    assert_string_equal(err.message, "node 4 of 4 with 1 ranks");
    cluster_received_fini(&got);
    free(packed.data);
}

/** Every part of a message, and every message with a bit turned over, is read or refused, and breaks nothing. */
static void test_torn_and_flipped_messages(void **state) {
    (void)state;
    struct cluster_end end = {.rank = 3, .status = SIGKILL};
    error_set(&end.words, ERROR_PEER, "gone");
    struct cluster_state sent = {.instance = 9, .generation = 2, .ends = &end, .end_count = 1, .stopped_rank = 3};
    struct cluster_received got;
    struct bytes packed;
    assert_true(cluster_pack_state(&sent, &packed, NULL));
    for (size_t size = 0; size < packed.size; size++) {
        cluster_unpack_from_node((struct wire_frame){packed.data, size}, &got, NULL);
        cluster_received_fini(&got);
    }
    for (size_t bit = 0; bit < 8 * packed.size; bit++) {
        packed.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
        if (cluster_unpack_from_node(frame_of(&packed), &got, NULL) && got.kind == CLUSTER_STATE) {
            for (int i = 0; i < got.state.end_count; i++)
                assert_in_range(got.state.ends[i].rank, 0, 1023);
        }
        cluster_received_fini(&got);
        cluster_unpack_to_node(frame_of(&packed), &got, NULL);
        cluster_received_fini(&got);
        packed.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    free(packed.data);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_hello_arrives_as_it_was_sent),
        cmocka_unit_test(test_a_state_arrives_as_it_was_sent),
        cmocka_unit_test(test_orders_refusals_and_results_arrive_as_they_were_sent),
        cmocka_unit_test(test_what_cannot_be_is_refused),
        cmocka_unit_test(test_torn_and_flipped_messages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
