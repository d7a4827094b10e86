/* Ranks, each a process, find out which checkpoint to go on from, in one folder or in one a node. */
#include "trainerd/checkpoint_agree.h"
#include "common/base/digest.h"
#include "common/weights/safetensors.h"
#include "tests/unit/graph/network.h"
#include "tests/unit/trainerd/ranks.h"
#include "trainerd/checkpoint_spread.h"
#include "trainerd/checkpoint_state.h"

#include <stdlib.h>
#include <string.h>

enum {
    NODES = 2,
    OUR_RUN = 0xabcdef,
    OTHER_RUN = 0x1234,
    FLOATS = (9 << 20) / 4 + 3, /* more than two of the pieces in which a file is sent, and not evenly */
    BYTES_MAX = 16 << 20,
};
_Static_assert((int)NODES <= (int)RANKS_MAX, "a node has a rank");

/** What a node's folder holds. */
struct held {
    int64_t step; /* 0: nothing */
    uint64_t run;
    float value; /* that its tensor is full of */
};

/** Set by each test before the ranks are forked. */
static struct scene {
    struct held held[NODES][2];
    int ranks_per_node;
    bool resumes, replicates, shared;
    uint64_t run;
    size_t bytes_max;
} scene;

/** What a rank leaves on the board. */
enum { SLOT_PATH, SLOT_FILE, SLOT_FILES, SLOT_NODES, SLOT_RECEIVED, SLOT_SKIPPED };

static int setup(void **state) {
    (void)state;
    scene = (struct scene){.ranks_per_node = 1, .resumes = true, .replicates = true, .run = OUR_RUN, .bytes_max = BYTES_MAX};
    return 0;
}

static bool write_checkpoint(const char *folder, const struct held *held) {
    struct training_state state = {.global_step = held->step, .run = held->run, .ranks = 1, .parts = 1};
    char path[CHECKPOINT_PATH_SIZE], *text = checkpoint_state_print(&state, NULL);
    float *values = malloc(FLOATS * sizeof *values);
    for (int i = 0; i < FLOATS; i++)
        values[i] = held->value + (float)i;
    struct safetensors_tensor tensor = {.name = "value/x", .dtype = DTYPE_F32, .shape = shape_of(1, FLOATS), .data = values};
    struct safetensors_text metadata = {"thorax.checkpoint", text};
    struct safetensors_content content = {&tensor, 1, &metadata, 1};
    bool ok = file_make_folders(folder, NULL) && checkpoint_path(folder, held->step, path, NULL) &&
              safetensors_write(path, &content, NULL);
    free(values);
    free(text);
    return ok;
}

static void folder_of(const struct job *job, int node, char out[128]) {
    snprintf(out, 128, "%s/node-%d/checkpoints", job->folder, scene.shared ? 0 : node);
}

static uint64_t hash_of_file(const char *path) {
    struct digest digest;
    uint64_t first = 0;
    if (digest_file(path, &digest, NULL))
        memcpy(&first, digest.bytes, sizeof first);
    return first;
}

static int count_files(const char *folder) {
    int count = 0;
    for (int64_t step = 1; step < 100; step++) {
        char path[CHECKPOINT_PATH_SIZE];
        count += checkpoint_path(folder, step, path, NULL) && file_exists(path);
    }
    return count;
}

static bool fill_folder(const char *folder, int node) {
    for (int i = 0; i < 2; i++) {
        if (scene.held[node][i].step && !write_checkpoint(folder, &scene.held[node][i]))
            return false;
    }
    return true;
}

static void leave(const struct job *job, const char *folder, const struct checkpoint_agreement *agreement) {
    uint64_t *out = job->board->hash[job->rank];
    const char *name = strrchr(agreement->path, '/');
    out[SLOT_PATH] = name ? strtoull(name + strlen("/step-"), NULL, 10) : 0;
    out[SLOT_FILE] = *agreement->path ? hash_of_file(agreement->path) : 0;
    out[SLOT_FILES] = (uint64_t)count_files(folder);
    out[SLOT_NODES] = (uint64_t)agreement->nodes;
    out[SLOT_RECEIVED] = (uint64_t)agreement->received;
    out[SLOT_SKIPPED] = (uint64_t)agreement->skipped;
}

static void agree(struct job *job, struct collective *collective) {
    char folder[128];
    int node = job->rank / scene.ranks_per_node;
    struct checkpoint_agreement agreement;
    struct error *err = &job->board->error[job->rank];
    struct device *device = network_device();
    folder_of(job, node, folder);
    CHECK(digest_start(NULL));
    CHECK(job->rank % scene.ranks_per_node != 0 || fill_folder(folder, node));
    CHECK(collective_barrier(collective, NULL)); /* a node's folder is as it is before any of its ranks looks */
    struct checkpoint_agree_spec spec = {.folder = folder, .resumes = scene.resumes, .replicates = scene.replicates,
                                         .run = scene.run, .node = node, .local_rank = job->rank % scene.ranks_per_node,
                                         .bytes_max = scene.bytes_max, .collective = collective, .device = device};
    bool ok = checkpoint_agree(&spec, &agreement, err);
    CHECK(ok == (err->code == ERROR_NONE));
    leave(job, folder, &agreement);
    device_close(device);
}

static struct board *run_scene(void) {
    return run_well(NODES * scene.ranks_per_node, agree);
}

/** All ranks took that step, with the bytes of the first. */
static void check_taken(const struct board *board, uint64_t step, uint64_t received) {
    for (int rank = 0; rank < NODES * scene.ranks_per_node; rank++) {
        const uint64_t *left = board->hash[rank];
        if (board->error[rank].code != ERROR_NONE)
            fail_msg("rank %d: %s", rank, board->error[rank].message);
        assert_int_equal(left[SLOT_PATH], step);
        assert_int_equal(left[SLOT_FILE], board->hash[0][SLOT_FILE]);
        assert_int_equal(left[SLOT_NODES], NODES);
        assert_int_equal(left[SLOT_RECEIVED], received);
    }
    assert_true((board->hash[0][SLOT_FILE] != 0) == (step != 0));
}

/** All ranks refuse, in the same words. */
static void check_refused(const struct board *board, const char *const texts[], int count) {
    for (int rank = 0; rank < NODES * scene.ranks_per_node; rank++) {
        assert_int_equal(board->error[rank].code, ERROR_STATE);
        assert_string_equal(board->error[rank].message, board->error[0].message);
    }
    for (int i = 0; i < count; i++) {
        if (!strstr(board->error[0].message, texts[i]))
            fail_msg("\"%s\" does not say \"%s\"", board->error[0].message, texts[i]);
    }
}

static void what_both_have_is_taken(void **state) {
    (void)state;
    scene.held[0][0] = scene.held[1][0] = (struct held){7, OUR_RUN, 1};
    struct board *board = run_scene();
    check_taken(board, 7, 0);
    board_destroy(board);
}

static void a_node_that_lacks_it_is_sent_the_same_bytes(void **state) {
    (void)state;
    scene.held[0][0] = (struct held){7, OUR_RUN, 1};
    struct board *board = run_scene();
    check_taken(board, 7, 1);
    assert_int_equal(board->hash[1][SLOT_FILES], 1);
    board_destroy(board);
}

static void all_ranks_of_a_node_can_read_what_its_first_received(void **state) {
    (void)state;
    scene.ranks_per_node = 2;
    scene.held[1][0] = (struct held){7, OUR_RUN, 1}; /* so that the sender is no rank 0 */
    struct board *board = run_scene();
    check_taken(board, 7, 1);
    board_destroy(board);
}

static void a_stale_one_is_passed_over_whoever_has_it(void **state) {
    (void)state;
    for (int ahead = 0; ahead < NODES; ahead++) {
        scene.held[ahead][0] = scene.held[!ahead][0] = (struct held){4, OUR_RUN, 1};
        scene.held[ahead][1] = (struct held){9, OUR_RUN, 2};
        scene.held[!ahead][1] = (struct held){0};
        struct board *board = run_scene();
        check_taken(board, 9, 1);
        assert_int_equal(board->hash[!ahead][SLOT_FILES], 2);
        board_destroy(board);
    }
}

static void other_bytes_of_one_step_are_refused(void **state) {
    (void)state;
    scene.held[0][0] = (struct held){7, OUR_RUN, 1};
    scene.held[1][0] = (struct held){7, OUR_RUN, 2};
    struct board *board = run_scene();
    const char *const texts[] = {"rank 0 on node 0", "rank 1 on node 1", "of step 7"};
    check_refused(board, texts, 3);
    board_destroy(board);
}

static void checkpoints_of_other_runs_do_not_count(void **state) {
    (void)state;
    scene.held[0][0] = (struct held){7, OUR_RUN, 1};
    scene.held[1][0] = (struct held){20, OTHER_RUN, 2};
    struct board *board = run_scene();
    check_taken(board, 7, 1);
    board_destroy(board);
}

static void two_runs_are_refused_where_none_is_asked_for(void **state) {
    (void)state;
    scene.run = 0;
    scene.held[0][0] = (struct held){7, OUR_RUN, 1};
    scene.held[1][0] = (struct held){5, OTHER_RUN, 2};
    struct board *board = run_scene();
    const char *const texts[] = {"rank 0 on node 0", "0000000000abcdef", "rank 1 on node 1", "0000000000001234"};
    check_refused(board, texts, 4);
    board_destroy(board);
}

static void nothing_is_sent_unless_asked_for(void **state) {
    (void)state;
    static const char *const others[] = {"rank 1 on node 1 has none", "rank 1 on node 1 has one of step 3"};
    scene.replicates = false;
    scene.held[0][0] = (struct held){7, OUR_RUN, 1};
    for (int stale = 0; stale < 2; stale++) {
        scene.held[1][0] = (struct held){stale ? 3 : 0, OUR_RUN, 1};
        struct board *board = run_scene();
        const char *const texts[] = {"rank 0 on node 0 has a checkpoint of step 7", others[stale]};
        check_refused(board, texts, 2);
        assert_non_null(strstr(board->error[0].hint, "do they see the same run folder?"));
        assert_int_equal(board->hash[1][SLOT_FILES], stale);
        board_destroy(board);
    }
}

static void a_folder_that_all_share_needs_no_sending(void **state) {
    (void)state;
    scene.shared = true;
    scene.replicates = false;
    scene.held[0][0] = (struct held){7, OUR_RUN, 1};
    struct board *board = run_scene();
    check_taken(board, 7, 0);
    board_destroy(board);
}

static void without_any_all_begin_afresh(void **state) {
    (void)state;
    for (int resumes = 0; resumes < 2; resumes++) {
        scene.resumes = resumes;
        struct board *board = run_scene();
        check_taken(board, 0, 0);
        board_destroy(board);
    }
}

static void a_fresh_start_overwrites_nothing(void **state) {
    (void)state;
    scene.resumes = false;
    scene.held[1][0] = (struct held){7, OTHER_RUN, 1};
    struct board *board = run_scene();
    assert_int_equal(board->error[1].code, ERROR_STATE);
    assert_non_null(strstr(board->error[1].message, "/node-1/checkpoints (node 1): an earlier run left checkpoints here"));
    assert_int_equal(board->error[0].code, ERROR_PEER); /* the supervisor believes the other one's words */
    board_destroy(board);
}

static void a_file_larger_than_the_networks_is_not_sent(void **state) {
    (void)state;
    scene.bytes_max = FLOATS * sizeof(float);
    scene.held[0][0] = (struct held){7, OUR_RUN, 1};
    struct board *board = run_scene();
    for (int rank = 0; rank < NODES; rank++) {
        assert_int_equal(board->error[rank].code, ERROR_TOO_LARGE);
        assert_non_null(strstr(board->error[rank].message, "rank 0 on node 0"));
    }
    assert_int_equal(board->hash[1][SLOT_FILES], 0);
    board_destroy(board);
}

/** The root says another digest than that of its file. */
static void send_other_bytes(struct job *job, struct collective *collective) {
    struct device *device = network_device();
    char from[128], to[128], text[] = "not what was announced";
    snprintf(from, sizeof from, "%s/from", job->folder);
    snprintf(to, sizeof to, "%s/folder/to", job->folder);
    CHECK(digest_start(NULL));
    CHECK(job->rank != 0 || file_write_atomic(from, text, sizeof text, NULL));
    struct checkpoint_spread_spec spec = {.collective = collective, .device = device, .root = 0, .from = from,
                                          .to = job->rank ? to : NULL, .bytes = sizeof text, .digest = digest_of("else", 4)};
    struct error *err = &job->board->error[job->rank];
    CHECK(checkpoint_spread(&spec, err) == (job->rank == 0));
    CHECK(!file_exists(to));
    device_close(device);
}

static void received_bytes_are_checked(void **state) {
    (void)state;
    struct board *board = run_well(2, send_other_bytes);
    assert_int_equal(board->error[1].code, ERROR_FORMAT);
    assert_non_null(strstr(board->error[1].message, "rank 0 sent other bytes than it said"));
    board_destroy(board);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(what_both_have_is_taken, setup),
        cmocka_unit_test_setup(a_node_that_lacks_it_is_sent_the_same_bytes, setup),
        cmocka_unit_test_setup(all_ranks_of_a_node_can_read_what_its_first_received, setup),
        cmocka_unit_test_setup(a_stale_one_is_passed_over_whoever_has_it, setup),
        cmocka_unit_test_setup(other_bytes_of_one_step_are_refused, setup),
        cmocka_unit_test_setup(checkpoints_of_other_runs_do_not_count, setup),
        cmocka_unit_test_setup(two_runs_are_refused_where_none_is_asked_for, setup),
        cmocka_unit_test_setup(nothing_is_sent_unless_asked_for, setup),
        cmocka_unit_test_setup(a_folder_that_all_share_needs_no_sending, setup),
        cmocka_unit_test_setup(without_any_all_begin_afresh, setup),
        cmocka_unit_test_setup(a_fresh_start_overwrites_nothing, setup),
        cmocka_unit_test_setup(a_file_larger_than_the_networks_is_not_sent, setup),
        cmocka_unit_test_setup(received_bytes_are_checked, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
