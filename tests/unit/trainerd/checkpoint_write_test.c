/* Ranks of two nodes write one checkpoint, each into its own folder. */
#include "trainerd/checkpoint_write.h"
#include "common/base/digest.h"
#include "tests/unit/graph/network.h"
#include "tests/unit/trainerd/ranks.h"

#include <stdlib.h>
#include <string.h>

enum { WEIGHTS_SEED = 4, STEP = 6 };
enum { SLOT_FILE, SLOT_WEIGHTS, SLOT_RUNNING };

/** Set by each test before the ranks are forked. */
static struct scene {
    bool replicates, blocked; /* blocked: rank 1's folder cannot be made */
} scene;

/** What all ranks have in common but the running statistics, of which each has its own. */
static struct parameters *parameters_of(const struct graph *graph, int rank) {
    struct parameters *weights = network_parameters(graph, WEIGHTS_SEED), *own = network_parameters(graph, 100 + (uint64_t)rank);
    for (int i = 0; i < graph->parameter_count; i++) {
        if (graph->parameters[i].role.diff == ARG_NONE)
            memcpy(weights->tensors[i].data, own->tensors[i].data, tensor_bytes(&weights->tensors[i]));
    }
    parameters_destroy(own);
    return weights;
}

/** Of the trained parameters, or of the running statistics. */
static uint64_t hash_of(struct plan *plan, const struct graph *graph, bool trained) {
    struct parameters *values = parameters_create(graph, NULL);
    struct digest_state state;
    uint64_t first;
    digest_init(&state);
    if (!values || !plan_export(plan, PLAN_VALUES, values, NULL))
        _exit(1);
    for (int i = 0; i < values->count; i++) {
        if ((graph->parameters[i].role.diff != ARG_NONE) == trained)
            digest_update(&state, values->tensors[i].data, tensor_bytes(&values->tensors[i]));
    }
    struct digest digest = digest_final(&state);
    memcpy(&first, digest.bytes, sizeof first);
    parameters_destroy(values);
    return first;
}

static uint64_t hash_of_file(const char *folder) {
    char path[CHECKPOINT_PATH_SIZE];
    struct digest digest;
    uint64_t first = 0;
    if (checkpoint_path(folder, STEP, path, NULL) && digest_file(path, &digest, NULL))
        memcpy(&first, digest.bytes, sizeof first);
    return first;
}

static void write_one(struct job *job, struct collective *collective) {
    struct device *device = network_device();
    struct graph *graph = network_graph(0);
    struct parameters *host = parameters_of(graph, job->rank);
    struct plan_spec plan = {.graph = graph, .parameters = host, .device = device, .mode = PLAN_TRAIN, .batch = 1,
                             .optimizer = OP_SGD};
    struct training_state state = {.global_step = STEP, .ranks = job->world_size, .parts = 1};
    char folder[128];
    struct error *err = &job->board->error[job->rank];
    snprintf(folder, sizeof folder, "%s/node-%d", job->folder, job->rank);
    CHECK(digest_start(NULL));
    CHECK(!(scene.blocked && job->rank == 1) || file_write_atomic(folder, "", 0, NULL));
    struct checkpoint_write_spec spec = {.folder = folder, .collective = collective, .plan = network_plan(&plan), .graph = graph,
                                         .host = host, .state = &state, .keep_last = 1, .node = job->rank,
                                         .writes = job->rank == 0 || scene.replicates, .replicates = scene.replicates};
    uint64_t weights = hash_of(spec.plan, graph, true);
    CHECK(checkpoint_write(&spec, err) == (err->code == ERROR_NONE));
    CHECK(hash_of(spec.plan, graph, true) == weights);
    job->board->hash[job->rank][SLOT_FILE] = hash_of_file(folder);
    job->board->hash[job->rank][SLOT_WEIGHTS] = weights;
    job->board->hash[job->rank][SLOT_RUNNING] = hash_of(spec.plan, graph, false);
    plan_destroy(spec.plan);
    parameters_destroy(host);
    graph_destroy(graph);
    device_close(device);
}

static void each_node_has_the_bytes_that_rank_0_writes_alone(void **state) {
    (void)state;
    scene = (struct scene){.replicates = false};
    struct board *alone = run_well(2, write_one);
    assert_int_not_equal(alone->hash[0][SLOT_FILE], 0);
    assert_int_equal(alone->hash[1][SLOT_FILE], 0);
    assert_int_not_equal(alone->hash[0][SLOT_RUNNING], alone->hash[1][SLOT_RUNNING]); /* else there is nothing to share */
    scene.replicates = true;
    struct board *board = run_well(2, write_one);
    for (int rank = 0; rank < 2; rank++) {
        assert_int_equal(board->hash[rank][SLOT_FILE], alone->hash[0][SLOT_FILE]);
        assert_int_equal(board->hash[rank][SLOT_RUNNING], alone->hash[0][SLOT_RUNNING]);
    }
    board_destroy(board);
    board_destroy(alone);
}

static void a_node_that_cannot_write_is_named_everywhere(void **state) {
    (void)state;
    scene = (struct scene){.replicates = true, .blocked = true};
    struct board *board = run_well(2, write_one);
    assert_int_equal(board->error[0].code, ERROR_PEER);
    assert_string_equal(board->error[0].message, "rank 1 on node 1 could not write the checkpoint of step 6");
    assert_non_null(strstr(board->error[1].message, "/node-1"));
    assert_int_not_equal(board->error[1].code, ERROR_PEER);
    board_destroy(board);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_node_has_the_bytes_that_rank_0_writes_alone),
        cmocka_unit_test(a_node_that_cannot_write_is_named_everywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
