#include "trainerd/cluster_place.h"

#include "common/base/cpu.h"
#include "tests/unit/base/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { VARIABLES = 16, TEXT = 100 };

/** An environment, "NAME=VALUE" each, NULL-ended. */
static const char *const per_node[] = {"SLURM_JOB_ID=4711",          "SLURM_STEP_ID=0",      "SLURM_STEP_NUM_TASKS=3",
                                       "SLURM_NTASKS=3",             "SLURM_PROCID=1",       "SLURM_LOCALID=0",
                                       "SLURM_NODEID=1",             "SLURM_NTASKS_PER_NODE=1", "SLURM_STEP_TASKS_PER_NODE=1(x3)",
                                       "SLURM_STEP_NODELIST=gpu[003-004,12]", NULL};
static const char *const per_gpu[] = {"SLURM_JOB_ID=4711",   "SLURM_STEP_ID=0",  "SLURM_STEP_NUM_TASKS=7",
                                      "SLURM_PROCID=3",      "SLURM_LOCALID=1",  "SLURM_NODEID=1",
                                      "SLURM_STEP_TASKS_PER_NODE=2(x3),1", "SLURM_STEP_NODELIST=r[1-2]n[01-02]", NULL};
static const char *const torchrun[] = {"RANK=3", "WORLD_SIZE=4", "LOCAL_RANK=1", "LOCAL_WORLD_SIZE=2", "MASTER_ADDR=gpu1",
                                       "MASTER_PORT=29500", NULL};

static const char *const names[] = {
    "SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID",
    "SLURM_NTASKS_PER_NODE", "SLURM_STEP_TASKS_PER_NODE", "SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "RANK", "WORLD_SIZE",
    "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID"};

static int clear(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        unsetenv(names[i]);
    return 0;
}

/** "NAME=VALUE" sets, "NAME" alone removes. */
static void put(const char *pair) {
    char name[TEXT];
    size_t length = strcspn(pair, "=");
    snprintf(name, sizeof name, "%.*s", (int)length, pair);
    if (pair[length])
        setenv(name, pair + length + 1, 1);
    else
        unsetenv(name);
}

static void put_all(const char *const *pairs) {
    clear(NULL);
    for (; *pairs; pairs++)
        put(*pairs);
}

static struct trainer_config base(int ranks) {
    return (struct trainer_config){.device.ranks = ranks,
                                   .collective.trusted_network = true,
                                   .cluster = {.coordinator = "", .nodes = 1}};
}

static struct cluster_place find(const struct trainer_config *config, int devices) {
    struct cluster_place place;
    struct error err = {0};
    if (!cluster_place_find(config, devices, &place, &err))
        fail_msg("%s", err.message);
    return place;
}

static void assert_refused(const struct trainer_config *config, int devices, const char *const *words, int count) {
    struct cluster_place place;
    struct error err = {0};
    assert_false(cluster_place_find(config, devices, &place, &err));
    assert_true(err.code == ERROR_INVALID || err.code == ERROR_FORMAT);
    for (int i = 0; i < count; i++) {
        if (!strstr(err.message, words[i]))
            fail_msg("no \"%s\" in \"%s\"", words[i], err.message);
    }
}

static void without_a_launcher_this_machine_is_alone(void **state) {
    (void)state;
    struct trainer_config config = base(0);
    struct cluster_place place = find(&config, 0);
    assert_string_equal(place.source, "this machine");
    assert_string_equal(place.coordinator, "");
    assert_int_equal(place.nodes, 1);
    assert_int_equal(place.node, 0);
    assert_int_equal(place.slots, 1);
    assert_int_equal(place.shares, 1);
    assert_int_equal(find(&config, 4).slots, 4);
    config = base(2);
    assert_int_equal(find(&config, 0).slots, 2);
    assert_int_equal(find(&config, 4).slots, 2);
    assert_refused(&config, 1, (const char *[]){"device.ranks is 2", "1 GPU is"}, 2);
}

static void the_configuration_comes_before_launchers(void **state) {
    (void)state;
    struct trainer_config config = base(2);
    config.cluster = (struct trainer_cluster_config){.coordinator = "[fd00::1]:15000", .nodes = 3, .node = 2};
    put_all(per_node);
    struct cluster_place place = find(&config, 4);
    assert_string_equal(place.source, "cluster.coordinator");
    assert_string_equal(place.coordinator, "tcp://[fd00::1]:15000");
    assert_int_equal(place.nodes, 3);
    assert_int_equal(place.node, 2);
    assert_int_equal(place.slots, 2);
    config.cluster.node = 3;
    assert_refused(&config, 4, (const char *[]){"cluster.node is 3", "cluster.nodes is 3"}, 2);
    config.cluster.node = 1;
    config.collective.trusted_network = false;
    assert_refused(&config, 4, (const char *[]){"collective.trusted_network"}, 1);
    config.cluster.coordinator = "[::1]:15000";
    assert_string_equal(find(&config, 4).coordinator, "tcp://[::1]:15000");
}

static void endpoints_are_taken_apart(void **state) {
    (void)state;
    static const char *const wrong[] = {"",        "gpu1",       ":7",          "gpu1:",     "gpu1:0",      "gpu1:65536",
                                        "gpu1:+7", "gpu 1:7",    "fd00::1:7",   "[fd00::1]", "[gpu1]:7",    "[]:7",
                                        "*:7",     "tcp://g1:7", "-gpu1:7",     "a/b:7",     "[fd00::1%1]:7"};
    char out[CLUSTER_ENDPOINT_SIZE], long_name[400];
    bool local;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        if (cluster_endpoint(wrong[i], out, NULL, NULL))
            fail_msg("\"%s\" was taken", wrong[i]);
    }
    memset(long_name, 'a', sizeof long_name);
    memcpy(long_name + sizeof long_name - 3, ":7", 3);
    assert_false(cluster_endpoint(long_name, out, NULL, NULL));
    const struct {
        const char *text;
        bool local;
        const char *bound;
    } right[] = {{"gpu1.site:65535", false, "tcp://*:65535"},
                 {"10.0.0.1:1", false, "tcp://10.0.0.1:1"},
                 {"127.0.0.2:1", true, "tcp://127.0.0.2:1"},
                 {"127.example:1", false, "tcp://*:1"},
                 {"localhost:15000", true, "tcp://127.0.0.1:15000"},
                 {"[::1]:7", true, "tcp://[::1]:7"},
                 {"[fd00::1]:7", false, "tcp://[fd00::1]:7"}};
    for (size_t i = 0; i < sizeof right / sizeof *right; i++) {
        char bound[CLUSTER_ENDPOINT_SIZE];
        assert_true(cluster_endpoint(right[i].text, out, &local, NULL));
        assert_string_equal(out + strlen("tcp://"), right[i].text);
        assert_int_equal(local, right[i].local);
        cluster_bind_endpoint(out, bound);
        assert_string_equal(bound, right[i].bound);
    }
}

static void a_slurm_task_alone_on_its_node_starts_all_its_ranks(void **state) {
    (void)state;
    struct trainer_config config = base(0);
    put_all(per_node);
    struct cluster_place place = find(&config, 4);
    assert_string_equal(place.source, "Slurm");
    assert_int_equal(place.nodes, 3);
    assert_int_equal(place.node, 1);
    assert_int_equal(place.slots, 4);
    assert_int_equal(place.first_device, 0);
    assert_int_equal(place.shares, 1);
    assert_memory_equal(place.coordinator, "tcp://gpu003:", 13);
    put("SLURM_STEP_TASKS_PER_NODE");
    put("SLURM_STEP_NODELIST");
    put("SLURM_JOB_NODELIST=login1,gpu[1-9]");
    place = find(&config, 0);
    assert_int_equal(place.slots, 1);
    assert_memory_equal(place.coordinator, "tcp://login1:", 13);
}

static int port_of(const struct trainer_config *config) {
    struct cluster_place place = find(config, 0);
    const char *colon = strrchr(place.coordinator, ':');
    return colon ? (int)strtol(colon + 1, NULL, 10) : 0;
}

static void two_jobs_or_steps_differ_in_the_port_and_tasks_agree(void **state) {
    (void)state;
    struct trainer_config config = base(1);
    put_all(per_node);
    int first = port_of(&config);
    assert_true(first >= 15000 && first <= 31999);
    put("SLURM_PROCID=2");
    put("SLURM_NODEID=2");
    assert_int_equal(port_of(&config), first);
    put("SLURM_STEP_ID=1");
    int step = port_of(&config);
    put("SLURM_JOB_ID=4712");
    put("SLURM_STEP_ID=0");
    int job = port_of(&config);
    assert_true(first != step && first != job && step != job);
}

static void one_of_several_slurm_tasks_is_one_rank_with_a_gpu(void **state) {
    (void)state;
    struct trainer_config config = base(0);
    put_all(per_gpu);
    struct cluster_place place = find(&config, 8); /* those of the whole machine are visible */
    assert_int_equal(place.nodes, 7);
    assert_int_equal(place.node, 3);
    assert_int_equal(place.slots, 1);
    assert_int_equal(place.first_device, 1);
    assert_memory_equal(place.coordinator, "tcp://r1n01:", 12);
    assert_int_equal(find(&config, 2).first_device, 1);
    assert_int_equal(find(&config, 1).first_device, 0); /* CUDA_VISIBLE_DEVICES of its own */
    assert_int_equal(find(&config, 0).first_device, 0);
    config.device.ranks = 2;
    assert_int_equal(find(&config, 2).slots, 1);
    config.device.ranks = 3;
    assert_refused(&config, 2, (const char *[]){"device.ranks is 3", "2 tasks are on this node (SLURM_STEP_TASKS_PER_NODE)"}, 2);
    config.device.ranks = 1;
    put("SLURM_NODEID=0");
    put("SLURM_STEP_NUM_TASKS=4");
    put("SLURM_STEP_TASKS_PER_NODE=4");
    assert_refused(&config, 3, (const char *[]){"4 tasks on this node", "3 GPUs are visible"}, 2);
}

/** It is not to take all the GPUs that it sees while the others' tasks have one each. */
static void a_task_alone_beside_nodes_with_several_is_one_rank_too(void **state) {
    (void)state;
    struct trainer_config config = base(0);
    put_all(per_gpu);
    put("SLURM_PROCID=6");
    put("SLURM_NODEID=3");
    put("SLURM_LOCALID=0");
    assert_int_equal(find(&config, 2).slots, 1);
    put_all(torchrun);
    put("WORLD_SIZE=3");
    put("GROUP_WORLD_SIZE=2");
    put("RANK=2");
    put("LOCAL_RANK=0");
    put("LOCAL_WORLD_SIZE=1");
    assert_int_equal(find(&config, 2).slots, 1);
}

static void a_batch_script_and_a_step_of_one_task_are_this_machine(void **state) {
    (void)state;
    struct trainer_config config = base(1);
    put_all(per_node);
    put("SLURM_STEP_ID");
    assert_string_equal(find(&config, 0).source, "this machine");
    config.cluster.launcher = TRAINER_LAUNCHER_SLURM;
    assert_refused(&config, 0, (const char *[]){"SLURM_STEP_ID is not set"}, 1);
    put_all(per_node);
    put("SLURM_STEP_NUM_TASKS=1"); /* SLURM_NTASKS is then the job's */
    struct cluster_place place = find(&config, 0);
    assert_int_equal(place.nodes, 1);
    assert_string_equal(place.coordinator, "");
    put_all(per_node);
    config.cluster.launcher = TRAINER_LAUNCHER_NONE;
    assert_int_equal(find(&config, 0).nodes, 1);
}

static void torchrun_tasks_are_ranks_and_its_own_port_is_left_to_it(void **state) {
    (void)state;
    struct trainer_config config = base(1);
    put_all(torchrun);
    struct cluster_place place = find(&config, 2);
    assert_string_equal(place.source, "torchrun");
    assert_string_equal(place.coordinator, "tcp://gpu1:29500");
    assert_int_equal(place.nodes, 4);
    assert_int_equal(place.node, 3);
    assert_int_equal(place.slots, 1);
    assert_int_equal(place.first_device, 1);
    put("TORCHELASTIC_RUN_ID=none");
    int elastic = port_of(&config);
    assert_true(elastic >= 15000 && elastic <= 31999);
    put("MASTER_PORT=29501");
    assert_int_not_equal(port_of(&config), elastic);
    put("MASTER_ADDR=fd00::1");
    assert_memory_equal(find(&config, 2).coordinator, "tcp://[fd00::1]:", 16);
}

static void a_torchrun_task_a_node_starts_all_its_ranks(void **state) {
    (void)state;
    struct trainer_config config = base(0);
    put_all(torchrun);
    put("LOCAL_RANK=0");
    put("LOCAL_WORLD_SIZE=1");
    put("GROUP_WORLD_SIZE=4");
    assert_int_equal(find(&config, 8).slots, 8);
    config.device.ranks = 2;
    assert_int_equal(find(&config, 0).slots, 2);
}

/** Its host's name may be one that nobody resolves, and nothing leaves the machine. */
static void tasks_of_one_machine_meet_on_loopback(void **state) {
    (void)state;
    struct trainer_config config = base(1);
    config.collective.trusted_network = false;
    put_all(torchrun);
    put("RANK=1");
    put("WORLD_SIZE=2");
    put("MASTER_ADDR=fd00::1");
    assert_string_equal(find(&config, 0).coordinator, "tcp://127.0.0.1:29500");
    put("WORLD_SIZE=4");
    assert_refused(&config, 0, (const char *[]){"torchrun", "tcp://[fd00::1]:29500", "collective.trusted_network"}, 3);
}

static void torchrun_started_by_srun_is_torchrun(void **state) {
    (void)state;
    struct trainer_config config = base(1);
    put_all(per_gpu);
    for (size_t i = 0; torchrun[i]; i++)
        put(torchrun[i]);
    assert_string_equal(find(&config, 2).source, "torchrun");
    config.cluster.launcher = TRAINER_LAUNCHER_SLURM;
    assert_string_equal(find(&config, 2).source, "Slurm");
}

/** As is needed where the port that follows from the job is taken. */
static void a_named_launcher_s_tasks_meet_where_the_configuration_says(void **state) {
    (void)state;
    struct trainer_config config = base(1);
    config.cluster = (struct trainer_cluster_config){
        .coordinator = "gpu003:20000", .nodes = 1, .launcher = TRAINER_LAUNCHER_SLURM};
    put_all(per_gpu);
    struct cluster_place place = find(&config, 2);
    assert_string_equal(place.coordinator, "tcp://gpu003:20000");
    assert_int_equal(place.nodes, 7);
    assert_int_equal(place.node, 3);
    assert_int_equal(place.first_device, 1);
    config.cluster.nodes = 7;
    assert_int_equal(find(&config, 2).node, 3);
    config.cluster.nodes = 2;
    assert_refused(&config, 2, (const char *[]){"cluster.nodes is 2", "Slurm started 7 tasks"}, 2);
    config.cluster.coordinator = "gpu003";
    config.cluster.nodes = 1;
    assert_refused(&config, 2, (const char *[]){"cluster.coordinator: expected HOST:PORT"}, 1);
}

/** What a script for PyTorch exports is no task by itself, and half a task is an error. */
static void half_of_torchruns_variables_are_no_task_or_an_error(void **state) {
    (void)state;
    struct trainer_config config = base(1);
    put_all((const char *[]){"MASTER_ADDR=gpu1", "MASTER_PORT=29500", "WORLD_SIZE=4", NULL});
    assert_string_equal(find(&config, 0).source, "this machine");
    put("RANK=1");
    assert_refused(&config, 0, (const char *[]){"LOCAL_WORLD_SIZE is not set"}, 1);
    config.cluster.launcher = TRAINER_LAUNCHER_TORCHRUN;
    put("WORLD_SIZE");
    assert_refused(&config, 0, (const char *[]){"WORLD_SIZE is not set"}, 1);
}

/** A change to an environment that is right, and words of the error. */
struct wrong {
    const char *const *base;
    const char *change, *words[2];
};

static void missing_and_contradicting_variables_are_named(void **state) {
    (void)state;
    static const struct wrong cases[] = {
        {per_node, "SLURM_JOB_ID", {"SLURM_JOB_ID is not set", ""}},
        {per_node, "SLURM_JOB_ID=1.5", {"SLURM_JOB_ID: ", "1.5"}},
        {per_node, "SLURM_STEP_NUM_TASKS=0", {"SLURM_STEP_NUM_TASKS: 0 is not in 1..1024", ""}},
        {per_node, "SLURM_STEP_NUM_TASKS=99999999999999999999", {"SLURM_STEP_NUM_TASKS: ", "not a whole number"}},
        {per_node, "SLURM_STEP_NUM_TASKS=4", {"SLURM_STEP_TASKS_PER_NODE \"1(x3)\" are 3 tasks", "SLURM_STEP_NUM_TASKS is 4"}},
        {per_node, "SLURM_PROCID", {"SLURM_PROCID is not set", ""}},
        {per_node, "SLURM_PROCID=3", {"SLURM_PROCID is 3", "SLURM_STEP_NUM_TASKS is 3"}},
        {per_node, "SLURM_PROCID=-1", {"SLURM_PROCID: -1", ""}},
        {per_node, "SLURM_PROCID=0", {"task 0 runs on node 1", "gpu003"}},
        {per_node, "SLURM_NODEID", {"SLURM_NODEID is not set", ""}},
        {per_node, "SLURM_NODEID=3", {"SLURM_STEP_TASKS_PER_NODE: \"1(x3)\" has no node 3", ""}},
        {per_node, "SLURM_LOCALID=1", {"SLURM_LOCALID is 1", "SLURM_STEP_TASKS_PER_NODE is 1"}},
        {per_node, "SLURM_STEP_TASKS_PER_NODE=1(x3", {"SLURM_STEP_TASKS_PER_NODE: ", "1(x3"}},
        {per_node, "SLURM_STEP_NODELIST=gpu[", {"SLURM_STEP_NODELIST: \"gpu[\" is no list of hosts", ""}},
        {per_node, "SLURM_STEP_NODELIST", {"SLURM_STEP_NODELIST is not set", ""}},
        {per_gpu, "SLURM_STEP_TASKS_PER_NODE", {"SLURM_STEP_TASKS_PER_NODE is not set", ""}},
        {torchrun, "RANK=4", {"RANK is 4", "WORLD_SIZE is 4"}},
        {torchrun, "LOCAL_RANK=2", {"LOCAL_RANK is 2", "LOCAL_WORLD_SIZE is 2"}},
        {torchrun, "LOCAL_WORLD_SIZE=5", {"LOCAL_WORLD_SIZE is 5", "WORLD_SIZE is 4"}},
        {torchrun, "LOCAL_RANK", {"LOCAL_RANK is not set", ""}},
        {torchrun, "MASTER_PORT=0", {"MASTER_PORT: 0", ""}},
        {torchrun, "MASTER_ADDR=a b", {"torchrun: expected HOST:PORT", "a b"}},
        {torchrun, "GROUP_WORLD_SIZE=x", {"GROUP_WORLD_SIZE: ", ""}},
    };
    struct trainer_config config = base(1);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put_all(cases[i].base);
        put(cases[i].change);
        assert_refused(&config, 0, cases[i].words, 2);
    }
}

static void tasks_that_are_not_bound_share_the_cores(void **state) {
    (void)state;
    struct trainer_config config = base(1);
    struct cpu_set own;
    assert_true(cpu_available(&own, NULL));
    put_all(per_gpu);
    if (own.count < cpu_online())
        skip(); /* this test itself is bound */
    struct cluster_place place = find(&config, 0);
    assert_int_equal(place.share, 1);
    assert_int_equal(place.shares, 2);
}

static void a_task_that_is_bound_has_its_cores_to_itself(void **state) {
    (void)state;
    struct trainer_config config = base(1);
    struct cpu_set own;
    if (cpu_online() < 2)
        skip();
    assert_true(cpu_available(&own, NULL));
    put_all(per_gpu);
    assert_true(cpu_pin(&(struct cpu_set){.count = 1, .ids = {own.ids[0]}}, NULL));
    struct cluster_place place = find(&config, 0);
    assert_true(cpu_pin(&own, NULL));
    assert_int_equal(place.share, 0);
    assert_int_equal(place.shares, 1);
}

#define PLACE_TEST(test) cmocka_unit_test_setup_teardown(test, clear, clear)

int main(void) {
    const struct CMUnitTest tests[] = {
        PLACE_TEST(without_a_launcher_this_machine_is_alone),
        PLACE_TEST(the_configuration_comes_before_launchers),
        PLACE_TEST(endpoints_are_taken_apart),
        PLACE_TEST(a_slurm_task_alone_on_its_node_starts_all_its_ranks),
        PLACE_TEST(two_jobs_or_steps_differ_in_the_port_and_tasks_agree),
        PLACE_TEST(one_of_several_slurm_tasks_is_one_rank_with_a_gpu),
        PLACE_TEST(a_task_alone_beside_nodes_with_several_is_one_rank_too),
        PLACE_TEST(a_batch_script_and_a_step_of_one_task_are_this_machine),
        PLACE_TEST(torchrun_tasks_are_ranks_and_its_own_port_is_left_to_it),
        PLACE_TEST(a_torchrun_task_a_node_starts_all_its_ranks),
        PLACE_TEST(tasks_of_one_machine_meet_on_loopback),
        PLACE_TEST(torchrun_started_by_srun_is_torchrun),
        PLACE_TEST(a_named_launcher_s_tasks_meet_where_the_configuration_says),
        PLACE_TEST(half_of_torchruns_variables_are_no_task_or_an_error),
        PLACE_TEST(missing_and_contradicting_variables_are_named),
        PLACE_TEST(tasks_that_are_not_bound_share_the_cores),
        PLACE_TEST(a_task_that_is_bound_has_its_cores_to_itself),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
