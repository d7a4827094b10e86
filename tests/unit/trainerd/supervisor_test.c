#include "common/base/clock.h"
#include "common/base/cpu.h"
#include "common/base/file.h"
#include "common/base/signals.h"
#include "common/base/text.h"
#include "tests/unit/trainerd/supervisor_modes.h"
#include "trainerd/supervisor.h"

#include <dirent.h>
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

enum { RANKS = SUPERVISOR_MODE_RANKS };

/* The tests. Each has a private folder for what the supervisor makes, which must be empty in the end. */
struct scene {
    char folder[64], reports[4096];
    char program[16], mode_option[16], mode[16];
    char *arguments[4];
    struct cluster_place place;
    struct supervisor_spec spec;
    int stop_at_report; /* raise SIGTERM after that many */
    int reported;
    enum cluster_outcome outcome;
    const char *stop_at_event; /* raise SIGTERM at it; NULL: none */
    int64_t checkpoints;
};

static bool on_report(void *context, int rank, const char *kind, const void *data, size_t size,
                      struct error *err) {
    (void)err;
    struct scene *scene = context;
    size_t used = strlen(scene->reports);
    snprintf(scene->reports + used, sizeof scene->reports - used, "%d %s %.*s;", rank, kind, (int)size,
             (const char *)data);
    if (++scene->reported == scene->stop_at_report)
        raise(SIGTERM);
    return true;
}

/** Generations and what ended them, in words. */
static void on_event(void *context, const char *event, const struct metric *metrics, int count) {
    struct scene *scene = context;
    size_t used = strlen(scene->reports);
    used += (size_t)snprintf(scene->reports + used, sizeof scene->reports - used, "%s", event);
    for (int i = 0; i < count && used < sizeof scene->reports; i++) {
        const struct metric *metric = &metrics[i];
        bool text = metric->kind == METRIC_TEXT;
        used += text ? (size_t)snprintf(scene->reports + used, sizeof scene->reports - used, " %s", metric->text)
                     : (size_t)snprintf(scene->reports + used, sizeof scene->reports - used, " %d", (int)metric->integer);
    }
    if (used < sizeof scene->reports)
        snprintf(scene->reports + used, sizeof scene->reports - used, ";");
    if (scene->stop_at_event && strstr(scene->reports, scene->stop_at_event) && !signals_stop)
        raise(SIGTERM);
}

static bool run(struct scene *scene, struct error *err) {
    return supervisor_run(&scene->spec, &scene->outcome, err);
}

static void set_scene(struct scene *scene, const char *mode) {
    memset(scene, 0, sizeof *scene);
    signals_stop = 0;
    snprintf(scene->folder, sizeof scene->folder, "/tmp/thorax-test-XXXXXX");
    assert_non_null(mkdtemp(scene->folder));
    setenv("XDG_RUNTIME_DIR", scene->folder, 1);
    snprintf(scene->program, sizeof scene->program, "test");
    snprintf(scene->mode_option, sizeof scene->mode_option, "--mode");
    snprintf(scene->mode, sizeof scene->mode, "%s", mode);
    scene->arguments[0] = scene->program;
    scene->arguments[1] = scene->mode_option;
    scene->arguments[2] = scene->mode;
    scene->place = (struct cluster_place){.nodes = 1, .slots = RANKS, .shares = 1, .source = "test"};
    scene->spec = (struct supervisor_spec){.arguments = scene->arguments,
                                           .place = &scene->place,
                                           .fingerprint = "",
                                           .coordinator = {.batch = {.images = RANKS, .parts = 1},
                                                           .min_ranks = 1,
                                                           .join_timeout_ms = 20000,
                                                           .silence_ms = 60000,
                                                           .grace_ms = 5000,
                                                           .context = scene,
                                                           .on_report = on_report,
                                                           .on_event = on_event}};
}

/** No process, no zombie, no file is left. */
static void end_scene(struct scene *scene) {
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    assert_int_equal(errno, ECHILD);
    DIR *folder = opendir(scene->folder);
    int entries = 0;
    while (readdir(folder))
        entries++;
    closedir(folder);
    assert_int_equal(entries, 2); /* . and .. */
    assert_true(file_remove_tree(scene->folder, NULL));
}

static void assert_contains(const char *text, const char *part) {
    if (!strstr(text, part))
        fail_msg("\"%s\" does not say \"%s\"", text, part);
}

static void test_workers_get_their_share_of_cores_and_end_well(void **state) {
    (void)state;
    struct scene scene;
    struct error err = {0};
    struct cpu_set all, share;
    char expected[64];
    set_scene(&scene, "report");
    assert_true(cpu_available(&all, NULL));
    if (!run(&scene, &err))
        fail_msg("%s", err.message);
    for (int rank = 0; rank < RANKS; rank++) {
        cpu_share(&all, rank, RANKS, &share);
        snprintf(expected, sizeof expected, "%d budget %d passive %d:%d;", rank, share.count, share.count,
                 share.ids[0]);
        assert_contains(scene.reports, expected);
    }
    end_scene(&scene);
}

static void test_a_team_may_spin_only_on_cores_of_its_own(void **state) {
    (void)state;
    struct scene scene;
    struct cpu_set all;
    set_scene(&scene, "report");
    assert_true(cpu_available(&all, NULL));
    scene.spec.active_wait = true;
    scene.spec.threads_per_rank = 3;
    assert_true(run(&scene, NULL));
    assert_contains(scene.reports, all.count >= RANKS ? "0 budget 3 active" : "0 budget 3 passive");
    end_scene(&scene);
    if (all.count < 2)
        return;
    struct cpu_set one = {.count = 1, .ids = {all.ids[0]}};
    set_scene(&scene, "report");
    scene.spec.active_wait = true;
    assert_true(cpu_pin(&one, NULL));
    bool ok = run(&scene, NULL);
    assert_true(cpu_pin(&all, NULL));
    assert_true(ok);
    assert_contains(scene.reports, "1 budget 1 passive 1:");
    end_scene(&scene);
}

static void test_a_killed_rank_is_named(void **state) {
    (void)state;
    struct scene scene;
    struct error err = {0};
    set_scene(&scene, "killed");
    assert_false(run(&scene, &err));
    assert_int_equal(err.code, ERROR_PEER);
    assert_contains(err.message, "rank 1 was killed by signal 9");
    assert_contains(err.message, "last heard of");
    end_scene(&scene);
}

static void test_the_cause_is_named_not_its_victim(void **state) {
    (void)state;
    struct scene scene;
    struct error err = {0};
    set_scene(&scene, "error");
    assert_false(run(&scene, &err));
    assert_contains(err.message, "rank 1 was killed by signal 6");
    end_scene(&scene);
}

static void test_last_words_reach_the_supervisor_before_joining_too(void **state) {
    (void)state;
    struct scene scene;
    struct error err = {0};
    set_scene(&scene, "early");
    assert_false(run(&scene, &err));
    assert_int_equal(err.code, ERROR_NOT_FOUND);
    assert_string_equal(err.message, "rank 1 failed: data: /nowhere: no such folder");
    assert_string_equal(err.hint, "set data.directory");
    end_scene(&scene);
}

static void test_sigterm_is_passed_on_once(void **state) {
    (void)state;
    struct scene scene;
    struct error err = {0};
    set_scene(&scene, "stop");
    scene.stop_at_report = RANKS;
    if (!run(&scene, &err))
        fail_msg("%s", err.message);
    for (int rank = 0; rank < RANKS; rank++) {
        char expected[32];
        snprintf(expected, sizeof expected, "%d signals 1;", rank);
        assert_contains(scene.reports, expected);
    }
    end_scene(&scene);
}

static void test_who_does_not_stop_is_killed_and_named(void **state) {
    (void)state;
    struct scene scene;
    struct error err = {0};
    set_scene(&scene, "stubborn");
    scene.stop_at_report = RANKS;
    scene.spec.coordinator.grace_ms = 400;
    int64_t start_ms = clock_now_ms();
    assert_false(run(&scene, &err));
    assert_in_range(clock_now_ms() - start_ms, 400, 15000);
    assert_int_equal(err.code, ERROR_TIMEOUT);
    assert_contains(err.message, "rank 1 did not stop within 0.4 s");
    end_scene(&scene);
}

static void test_a_lost_rank_is_started_again_from_the_checkpoint(void **state) {
    (void)state;
    struct scene scene;
    struct error err = {0};
    set_scene(&scene, "lost_once");
    scene.spec.coordinator.restarts = 1;
    if (!run(&scene, &err))
        fail_msg("%s", err.message);
    assert_int_equal(scene.outcome, CLUSTER_FINISHED);
    assert_contains(scene.reports, "generation 1 2 1 1;lost 1 rank 1 was killed by signal 9 (Killed), last heard of ");
    assert_contains(scene.reports, "generation 2 2 1 1;");
    assert_contains(scene.reports, "0 resumes ;");
    assert_contains(scene.reports, "1 resumes ;");
    end_scene(&scene);
}

static int64_t no_checkpoint(void *context) {
    (void)context;
    return -1;
}

static void test_a_place_that_fails_again_and_again_is_left_out(void **state) {
    (void)state;
    struct scene scene;
    struct error err = {0};
    set_scene(&scene, "broken_place");
    scene.spec.coordinator.restarts = 2;
    scene.spec.coordinator.saved_step = no_checkpoint;
    if (!run(&scene, &err))
        fail_msg("%s", err.message);
    assert_int_equal(scene.outcome, CLUSTER_FINISHED);
    assert_contains(scene.reports, "generation 3 2 1 1;left_out 0 0 1 rank 0 was killed by signal 9");
    assert_contains(scene.reports, "generation 4 1 1 2;"); /* one rank, on one node, in two parts */
    assert_contains(scene.reports, "0 place 1;");
    end_scene(&scene);
}

/** Where it was never tried again, nothing says that the place is to blame. */
static void test_nothing_is_left_out_without_restarts(void **state) {
    (void)state;
    struct scene scene;
    struct error err = {0};
    set_scene(&scene, "broken_place");
    assert_false(run(&scene, &err));
    assert_contains(err.message, "rank 0 was killed by signal 9");
    assert_null(strstr(scene.reports, "left_out"));
    end_scene(&scene);
}

static void test_who_dies_again_and_again_ends_the_run(void **state) {
    (void)state;
    struct scene scene;
    struct error err = {0};
    set_scene(&scene, "killed");
    scene.spec.coordinator.min_ranks = RANKS; /* so that nobody can be left out */
    scene.spec.coordinator.restarts = 2;
    scene.spec.coordinator.saved_step = no_checkpoint;
    assert_false(run(&scene, &err));
    assert_contains(err.message, "rank 1 was killed by signal 9");
    assert_contains(scene.reports, "lost 2 rank 1");
    assert_contains(scene.reports, "generation 3 2 1 1;");
    assert_null(strstr(scene.reports, "generation 4"));
    end_scene(&scene);
}

static int64_t more_checkpoints(void *context) {
    struct scene *scene = context;
    return ++scene->checkpoints;
}

/** As long as there are new checkpoints in between, ranks may be lost without end: here until the test tells all to stop. */
static void test_a_run_that_gets_on_is_not_given_up(void **state) {
    (void)state;
    struct scene scene;
    struct error err = {0};
    set_scene(&scene, "killed");
    scene.spec.coordinator.restarts = 1;
    scene.spec.coordinator.saved_step = more_checkpoints;
    scene.stop_at_event = "generation 4";
    bool ok = run(&scene, &err);
    assert_contains(scene.reports, "lost 3 rank 1");
    assert_true(ok ? scene.outcome == CLUSTER_STOPPED : strstr(err.message, "rank 1 was killed") != NULL);
    end_scene(&scene);
}

static void test_what_a_rank_says_itself_ends_the_run(void **state) {
    (void)state;
    struct scene scene;
    struct error err = {0};
    set_scene(&scene, "early");
    scene.spec.coordinator.restarts = 100;
    assert_false(run(&scene, &err));
    assert_string_equal(err.message, "rank 1 failed: data: /nowhere: no such folder");
    assert_null(strstr(scene.reports, "generation 2"));
    end_scene(&scene);
}

static void test_a_stopped_process_is_lost(void **state) {
    (void)state;
    struct scene scene;
    struct error err = {0};
    set_scene(&scene, "stopped_once");
    scene.spec.coordinator.restarts = 1;
    scene.spec.coordinator.silence_ms = 1000;
    int64_t start_ms = clock_now_ms();
    if (!run(&scene, &err))
        fail_msg("%s", err.message);
    assert_in_range(clock_now_ms() - start_ms, 1000, 20000);
    assert_contains(scene.reports, "lost 1 rank 1 hangs: its process has been stopped from running for 1.0 s;generation 2");
    end_scene(&scene);
}

static void test_ranks_that_regroup_meet_again_and_ranks_that_stop_do_not(void **state) {
    (void)state;
    struct scene scene;
    struct error err = {0};
    set_scene(&scene, "regroup");
    if (!run(&scene, &err))
        fail_msg("%s", err.message);
    assert_int_equal(scene.outcome, CLUSTER_STOPPED);
    assert_contains(scene.reports, "generation 1 2 1 1;generation 2 2 1 1;");
    assert_null(strstr(scene.reports, "lost"));
    end_scene(&scene);
}

static void test_a_silent_rank_is_a_hang(void **state) {
    (void)state;
    struct scene scene;
    struct error err = {0};
    set_scene(&scene, "hang");
    scene.spec.coordinator.hang_timeout_ms = 1500;
    scene.spec.coordinator.grace_ms = 300;
    assert_false(run(&scene, &err));
    assert_int_equal(err.code, ERROR_TIMEOUT);
    assert_contains(err.message, "rank 1 hangs");
    end_scene(&scene);
}

/** And is not given the time to stop that it will not use. */
static void test_a_rank_that_was_waited_for_is_named(void **state) {
    (void)state;
    struct scene scene;
    struct error err = {0};
    set_scene(&scene, "waiting");
    scene.spec.coordinator.grace_ms = 60000;
    int64_t start_ms = clock_now_ms();
    assert_false(run(&scene, &err));
    assert_in_range(clock_now_ms() - start_ms, 4000, 30000);
    assert_int_equal(err.code, ERROR_TIMEOUT);
    assert_contains(err.message, "rank 1 hangs: no sign of life for ");
    assert_contains(err.message, " s; rank 0 failed: all-reduce: the other ranks did not answer");
    end_scene(&scene);
}

static void test_ranks_that_differ_end_the_run(void **state) {
    (void)state;
    struct scene scene;
    struct error err = {0};
    set_scene(&scene, "differ");
    assert_false(run(&scene, &err));
    assert_int_equal(err.code, ERROR_INVALID);
    assert_contains(err.message, "rank 0 has \"lr=2\", rank 1 has \"lr=1\"");
    end_scene(&scene);
}

static void test_who_never_joins_is_named(void **state) {
    (void)state;
    struct scene scene;
    struct error err = {0};
    set_scene(&scene, "orphan");
    scene.spec.coordinator.join_timeout_ms = 500;
    scene.spec.coordinator.grace_ms = 100;
    assert_false(run(&scene, &err));
    assert_contains(err.message, "rank 0 has not come to the rendezvous within 0.5 s");
    end_scene(&scene);
}

static void test_a_program_that_cannot_be_executed(void **state) {
    (void)state;
    struct scene scene;
    struct error err = {0};
    set_scene(&scene, "report");
    scene.spec.program = "/nowhere/trainerd";
    assert_false(run(&scene, &err));
    assert_contains(err.message, "cannot execute /nowhere/trainerd");
    end_scene(&scene);
}

static pid_t read_pid(const char *folder, int rank) {
    char path[128];
    struct bytes text;
    int64_t pid = 0;
    snprintf(path, sizeof path, "%s/pid.%d", folder, rank);
    while (!file_exists(path))
        clock_sleep_ms(10);
    assert_true(file_read(path, 64, &text, NULL));
    assert_true(text_to_int((char *)text.data, 1, INT32_MAX, &pid, NULL));
    free(text.data);
    return (pid_t)pid;
}

/** waitpid, however many signals arrive meanwhile. */
static int wait_for(pid_t pid) {
    int status = 0;
    pid_t got;
    while ((got = waitpid(pid, &status, 0)) < 0 && errno == EINTR)
        continue;
    assert_int_equal(got, pid);
    return status;
}

/** Where the supervisor is killed with SIGKILL it can clean up nothing, and still no worker lives on. */
static void test_no_orphan_outlives_a_killed_supervisor(void **state) {
    (void)state;
    struct scene scene;
    set_scene(&scene, "orphan");
    setenv("ORPHAN_FOLDER", scene.folder, 1);
    scene.spec.coordinator.join_timeout_ms = 0;
    /* Orphans become our children, so that their end can be waited for. */
    assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
    pid_t supervisor = fork();
    if (supervisor == 0)
        _exit(!run(&scene, NULL));
    pid_t workers[RANKS];
    for (int rank = 0; rank < RANKS; rank++)
        workers[rank] = read_pid(scene.folder, rank);
    kill(supervisor, SIGKILL);
    wait_for(supervisor);
    for (int rank = 0; rank < RANKS; rank++) {
        int status = wait_for(workers[rank]);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    }
    prctl(PR_SET_CHILD_SUBREAPER, 0);
    unsetenv("ORPHAN_FOLDER");
    assert_true(file_remove_tree(scene.folder, NULL));
}

static void test_a_worker_without_a_supervisor_says_so(void **state) {
    (void)state;
    struct supervisor_worker worker;
    struct error err = {0};
    assert_false(supervisor_worker_read(0, &worker, &err));
    assert_int_equal(err.code, ERROR_STATE);
    assert_contains(err.message, "started by its supervisor only");
}

int main(int argc, char *argv[]) {
    if (argc == 5 && strcmp(argv[3], "--worker") == 0)
        return supervisor_mode_run(argv[2], argv[4]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_workers_get_their_share_of_cores_and_end_well),
        cmocka_unit_test(test_a_team_may_spin_only_on_cores_of_its_own),
        cmocka_unit_test(test_a_killed_rank_is_named),
        cmocka_unit_test(test_the_cause_is_named_not_its_victim),
        cmocka_unit_test(test_last_words_reach_the_supervisor_before_joining_too),
        cmocka_unit_test(test_sigterm_is_passed_on_once),
        cmocka_unit_test(test_who_does_not_stop_is_killed_and_named),
        cmocka_unit_test(test_a_lost_rank_is_started_again_from_the_checkpoint),
        cmocka_unit_test(test_a_place_that_fails_again_and_again_is_left_out),
        cmocka_unit_test(test_nothing_is_left_out_without_restarts),
        cmocka_unit_test(test_who_dies_again_and_again_ends_the_run),
        cmocka_unit_test(test_a_run_that_gets_on_is_not_given_up),
        cmocka_unit_test(test_what_a_rank_says_itself_ends_the_run),
        cmocka_unit_test(test_a_stopped_process_is_lost),
        cmocka_unit_test(test_ranks_that_regroup_meet_again_and_ranks_that_stop_do_not),
        cmocka_unit_test(test_a_silent_rank_is_a_hang),
        cmocka_unit_test(test_a_rank_that_was_waited_for_is_named),
        cmocka_unit_test(test_ranks_that_differ_end_the_run),
        cmocka_unit_test(test_who_never_joins_is_named),
        cmocka_unit_test(test_a_program_that_cannot_be_executed),
        cmocka_unit_test(test_no_orphan_outlives_a_killed_supervisor),
        cmocka_unit_test(test_a_worker_without_a_supervisor_says_so),
    };
    if (!signals_install(NULL))
        return 2;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
