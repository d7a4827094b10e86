/* Plans of several devices with one copy of the weights, on every device that can share. */
#include "tests/unit/graph/network.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { PLACES = 2, ROUNDS = 40, BATCH = 3, VALUES = BATCH * NETWORK_CLASSES };

/* One device with a plan, and the thread that runs it. */
struct place {
    struct device *device;
    struct plan *plan;
    pthread_t thread;
    float expected[VALUES];
    int differing;
};

struct pair {
    struct graph *graph;
    struct parameters *parameters;
    struct place places[PLACES];
};

static void open_pair(struct pair *pair, const char *name) {
    struct device_spec device = {.name = name, .threads = 1};
    struct plan_spec spec = {.mode = PLAN_INFER, .batch = BATCH};
    struct error err = {0};
    spec.graph = pair->graph = network_graph(0);
    spec.parameters = pair->parameters = network_parameters(pair->graph, 5);
    for (int i = 0; i < PLACES; i++) {
        device.share = pair->places[0].device;
        spec.share = pair->places[0].plan;
        if (!(pair->places[i].device = device_open(&device, &err)))
            fail_msg("%s", err.message);
        spec.device = pair->places[i].device;
        pair->places[i].plan = network_plan(&spec);
    }
}

static void close_place(struct place *place) {
    plan_destroy(place->plan);
    device_close(place->device);
}

static void *answer_again_and_again(void *context) {
    struct place *place = context;
    float answer[VALUES];
    for (int i = 0; i < ROUNDS; i++) {
        network_answer(place->plan, BATCH, answer);
        place->differing += memcmp(answer, place->expected, sizeof answer) != 0;
    }
    return NULL;
}

static void check_pair(struct pair *pair) {
    struct plan_memory first, second;
    plan_memory(pair->places[0].plan, &first);
    plan_memory(pair->places[1].plan, &second);
    assert_true(first.parameter_bytes > 0);
    assert_int_equal(second.parameter_bytes, 0); /* no layout of its own, and so no copy */
    for (int i = 0; i < PLACES; i++)
        network_answer(pair->places[i].plan, BATCH, pair->places[i].expected);
    assert_memory_equal(pair->places[0].expected, pair->places[1].expected, sizeof pair->places[0].expected);
    for (int i = 0; i < PLACES; i++)
        assert_int_equal(pthread_create(&pair->places[i].thread, NULL, answer_again_and_again, &pair->places[i]), 0);
    for (int i = 0; i < PLACES; i++) {
        pthread_join(pair->places[i].thread, NULL);
        assert_int_equal(pair->places[i].differing, 0);
    }
    close_place(&pair->places[0]); /* weights and layouts live on */
    answer_again_and_again(&pair->places[1]);
    assert_int_equal(pair->places[1].differing, 0);
    close_place(&pair->places[1]);
}

static void devices_that_share_have_one_copy_of_the_weights(void **state) {
    const struct device_ops *row;
    (void)state;
    for (int i = 0; (row = device_registry_row(i)); i++) {
        struct pair pair = {0};
        if (!row->shares || !row->available(NULL))
            continue;
        open_pair(&pair, row->name);
        check_pair(&pair);
        parameters_destroy(pair.parameters);
        graph_destroy(pair.graph);
    }
}

static void devices_on_their_own_share_no_weights(void **state) {
    struct pair pair = {0};
    struct error err = {0};
    struct device other = {.ops = device_registry_row(0)};
    (void)state;
    open_pair(&pair, "reference");
    struct plan_spec spec = {.graph = pair.graph,
                             .parameters = pair.parameters,
                             .device = &other,
                             .mode = PLAN_INFER,
                             .batch = 1,
                             .share = pair.places[0].plan};
    assert_null(plan_create(&spec, &err));
    assert_int_equal(err.code, ERROR_INVALID);
    for (int i = 0; i < PLACES; i++)
        close_place(&pair.places[i]);
    parameters_destroy(pair.parameters);
    graph_destroy(pair.graph);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(devices_that_share_have_one_copy_of_the_weights),
        cmocka_unit_test(devices_on_their_own_share_no_weights),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
