#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/rng.h"
#include "common/base/text.h"
#include "tests/integration/publisher_process.h"
#include "trainerd/registry.h"
#include "trainerd/upload.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/*
 * registry_kill_test [KILLS [SEED]]: a publisher under a stream of commands is killed at random moments. What it
 * had answered has then happened, every model's file is there and right, one model is stable, and its numbers
 * never go back. The short form is for CI; the long one: 2000.
 */

enum { SHORT_KILLS = 60, ANSWER_MS = 200, STREAM_MS = 120, MODELS_MAX = 4096, EVENTS_PAGE = 100, KNOWN_RECENT = 12 };

static int64_t kills = SHORT_KILLS, seed = 1;

/** What was answered since the last look, and so must be among the events. */
struct promise {
    const char *event;
    struct digest digest;
};

struct storm {
    struct pool *pool;
    struct publisher_process publisher;
    struct rng rng;
    struct control control;
    bool talks; /* control is open */
    int model_count; /* tried to publish; the i-th is made from i */
    struct digest models[MODELS_MAX];
    bool revoked[MODELS_MAX];
    bool was_stable;
    uint64_t number, last_event;
    int promise_count, answered, refused;
    struct promise promises[256];
};

/* ---- talking ---- */

/** One question, over a connection that is made anew where an answer was missed. NULL: refused (*heard), or nobody there. */
static Thorax__V1__ControlReply *ask(struct storm *storm, Thorax__V1__ControlRequest *request, bool *heard) {
    struct error err = {0};
    if (!storm->talks)
        storm->talks = control_open(&storm->control, storm->pool->control, ANSWER_MS, NULL, NULL);
    Thorax__V1__ControlReply *reply = control_ask(&storm->control, request, NULL, &err);
    *heard = reply || strstr(err.message, "refused");
    if (!*heard) {
        control_close(&storm->control);
        storm->talks = false;
    }
    if (reply) {
        assert_true(reply->number >= storm->number); /* never back, over all kills */
        storm->number = reply->number;
    }
    return reply;
}

static void promise(struct storm *storm, const char *event, const struct digest *digest) {
    assert_true(storm->promise_count < 256);
    storm->promises[storm->promise_count++] = (struct promise){event, *digest};
    storm->answered++;
}

/** A request that is answered by "done"; what it then promises. */
static bool command(struct storm *storm, Thorax__V1__ControlRequest *request, const char *event, const struct digest *digest) {
    bool heard;
    Thorax__V1__ControlReply *reply = ask(storm, request, &heard);
    bool done = reply && reply->body_case == THORAX__V1__CONTROL_REPLY__BODY_DONE;
    if (done && event)
        promise(storm, event, digest);
    storm->refused += heard && !done;
    pool_free(reply);
    return done;
}

/* ---- the commands ---- */

static void publish_one(struct storm *storm) {
    char version[16], gate[REGISTRY_TEXT_SIZE];
    int i = storm->model_count;
    size_t size = 5000 + rng_below(&storm->rng, 40000);
    struct descriptor descriptor;
    struct control control;
    if (i == MODELS_MAX)
        return;
    snprintf(version, sizeof version, "%d", i);
    void *data = model_bytes((uint32_t)(seed * MODELS_MAX + i), size);
    struct descriptor_spec spec = {.name = "chest", .version = version, .data = data, .size = size};
    assert_true(descriptor_make(&descriptor, &spec, NULL));
    storm->models[storm->model_count++] = descriptor.digest;
    if (control_open(&control, storm->pool->control, ANSWER_MS, NULL, NULL) &&
        upload_model(&control, &descriptor, data, true, gate, NULL))
        promise(storm, "published", &descriptor.digest);
    control_close(&control);
    descriptor_fini(&descriptor);
    free(data);
}

/** One of the newest models. */
static int any_model(struct storm *storm) {
    int recent = storm->model_count < KNOWN_RECENT ? storm->model_count : KNOWN_RECENT;
    return storm->model_count - 1 - (int)rng_below(&storm->rng, (uint32_t)recent);
}

static void approve(struct storm *storm, char *name, const struct digest *digest) {
    Thorax__V1__ControlRequest request;
    Thorax__V1__ApproveRequest body;
    thorax__v1__control_request__init(&request);
    thorax__v1__approve_request__init(&body);
    body.model = name;
    body.by = text_for_packing("ada");
    request.body_case = THORAX__V1__CONTROL_REQUEST__BODY_APPROVE;
    request.approve = &body;
    command(storm, &request, "approved", digest);
}

static void start_rollout(struct storm *storm, char *name, const struct digest *digest) {
    Thorax__V1__ControlRequest request;
    Thorax__V1__RolloutStart body;
    Thorax__V1__RolloutPlan plan;
    Thorax__V1__RolloutStep step, *steps[] = {&step};
    thorax__v1__control_request__init(&request);
    thorax__v1__rollout_start__init(&body);
    thorax__v1__rollout_plan__init(&plan);
    thorax__v1__rollout_step__init(&step);
    step.kind = THORAX__V1__ROLLOUT_STEP_KIND__STEP_WAVE;
    step.percent = 100;
    plan.name = text_for_packing("storm");
    plan.steps = steps;
    plan.n_steps = 1;
    plan.on_failure = THORAX__V1__ROLLOUT_REACTION__REACTION_ROLLBACK;
    body.model = name;
    body.plan = &plan;
    body.by = text_for_packing("ada");
    request.body_case = THORAX__V1__CONTROL_REQUEST__BODY_ROLLOUT_START;
    request.rollout_start = &body;
    command(storm, &request, "rollout_started", digest);
}

static void steer_rollout(struct storm *storm) {
    Thorax__V1__ControlRequest request;
    Thorax__V1__RolloutCommand body;
    thorax__v1__control_request__init(&request);
    thorax__v1__rollout_command__init(&body);
    body.action = THORAX__V1__ROLLOUT_ACTION__ACTION_PAUSE + (int)rng_below(&storm->rng, 3);
    body.by = text_for_packing("ada");
    request.body_case = THORAX__V1__CONTROL_REQUEST__BODY_ROLLOUT_COMMAND;
    request.rollout_command = &body;
    command(storm, &request, NULL, NULL);
}

static void roll_back(struct storm *storm, char *name, const struct digest *digest) {
    Thorax__V1__ControlRequest request;
    Thorax__V1__RollbackRequest body;
    thorax__v1__control_request__init(&request);
    thorax__v1__rollback_request__init(&body);
    body.model = name;
    body.by = text_for_packing("ada");
    request.body_case = THORAX__V1__CONTROL_REQUEST__BODY_ROLLBACK;
    request.rollback = &body;
    storm->was_stable |= command(storm, &request, "rollback", digest);
}

static void revoke_model(struct storm *storm, int i, char *name) {
    Thorax__V1__ControlRequest request;
    Thorax__V1__RevokeRequest body;
    thorax__v1__control_request__init(&request);
    thorax__v1__revoke_request__init(&body);
    body.model = name;
    body.by = text_for_packing("ada");
    body.reason = text_for_packing("a test");
    request.body_case = THORAX__V1__CONTROL_REQUEST__BODY_REVOKE;
    request.revoke = &body;
    if (command(storm, &request, storm->revoked[i] ? NULL : "revoked", &storm->models[i]))
        storm->revoked[i] = true;
}

static void any_command(struct storm *storm) {
    char name[DIGEST_HEX_SIZE];
    uint32_t dice = rng_below(&storm->rng, 100);
    if (dice < 25 || storm->model_count == 0) {
        publish_one(storm);
        return;
    }
    int i = any_model(storm);
    digest_hex(&storm->models[i], name);
    if (dice < 55)
        approve(storm, name, &storm->models[i]);
    else if (dice < 75)
        start_rollout(storm, name, &storm->models[i]);
    else if (dice < 85)
        steer_rollout(storm);
    else if (dice < 95)
        roll_back(storm, name, &storm->models[i]);
    else
        revoke_model(storm, i, name);
}

/* ---- the kill ---- */

struct killer {
    pid_t pid;
    int64_t after_us;
};

static void *strike(void *context) {
    const struct killer *killer = context;
    usleep((useconds_t)killer->after_us);
    kill(killer->pid, SIGKILL);
    return NULL;
}

static void stream_until_killed(struct storm *storm) {
    struct killer killer = {storm->publisher.pid, (int64_t)rng_below(&storm->rng, STREAM_MS * 1000)};
    pthread_t thread;
    int64_t end_ms = clock_now_ms() + killer.after_us / 1000 + 1;
    assert_int_equal(pthread_create(&thread, NULL, strike, &killer), 0);
    do
        any_command(storm);
    while (clock_now_ms() < end_ms);
    pthread_join(thread, NULL);
    publisher_process_kill(&storm->publisher);
    if (storm->talks)
        control_close(&storm->control);
    storm->talks = false;
}

/* ---- what must hold ---- */

static bool check_file(void *context, const struct digest *digest, struct error *err) {
    const struct storm *storm = context;
    struct digest found;
    char hex[DIGEST_HEX_SIZE], path[256];
    digest_hex(digest, hex);
    snprintf(path, sizeof path, "%s/publisher/objects/%.2s/%s", storm->pool->folder, hex, hex + 2);
    return digest_file(path, &found, err) &&
           (digest_equal(&found, digest) || error_set(err, ERROR_FORMAT, "%s is damaged", path));
}

/** While nobody has the store open: as a crash left it. */
static void check_files(struct storm *storm) {
    char store[128];
    struct error err = {0};
    snprintf(store, sizeof store, "%s/publisher", storm->pool->folder);
    registry_each_stored(store, check_file, storm, &err);
    assert_string_equal(err.message, "");
}

static Thorax__V1__ControlReply *ask_surely(struct storm *storm, Thorax__V1__ControlRequest *request) {
    Thorax__V1__ControlReply *reply = NULL;
    bool heard;
    for (int64_t deadline_ms = clock_now_ms() + WAIT_MS; !reply; reply = ask(storm, request, &heard))
        assert_true(clock_now_ms() < deadline_ms);
    return reply;
}

static int index_of(const struct storm *storm, const struct digest *digest) {
    int i = storm->model_count - 1;
    while (i >= 0 && !digest_equal(&storm->models[i], digest))
        i--;
    return i;
}

/** One model is stable, once there was one; no revoked one is anything else. */
static void check_models(struct storm *storm) {
    Thorax__V1__ControlRequest request;
    Thorax__V1__ModelsRequest body;
    int stable = 0;
    thorax__v1__control_request__init(&request);
    thorax__v1__models_request__init(&body);
    request.body_case = THORAX__V1__CONTROL_REQUEST__BODY_MODELS;
    request.models = &body;
    Thorax__V1__ControlReply *reply = ask_surely(storm, &request);
    for (size_t k = 0; k < reply->models->n_models; k++) {
        const Thorax__V1__ModelRow *row = reply->models->models[k];
        struct digest digest;
        assert_true(pool_digest(&row->digest, &digest));
        int i = index_of(storm, &digest);
        assert_true(i >= 0);
        assert_true(!storm->revoked[i] || row->state == THORAX__V1__MODEL_STATE__MODEL_REVOKED);
        stable += row->state == THORAX__V1__MODEL_STATE__MODEL_CURRENT;
    }
    pool_free(reply);
    assert_true(stable <= 1);
    assert_true(stable == 1 || !storm->was_stable);
    storm->was_stable = stable == 1;
}

static void keep_promise(struct storm *storm, const Thorax__V1__RegistryEvent *event) {
    struct digest digest;
    if (!pool_digest(&event->digest, &digest))
        return;
    if (strcmp(event->kind, "revoked") == 0) /* once, even where nobody heard the answer */
        storm->revoked[index_of(storm, &digest)] = true;
    for (int i = 0; i < storm->promise_count; i++) {
        if (strcmp(storm->promises[i].event, event->kind) == 0 && digest_equal(&storm->promises[i].digest, &digest)) {
            storm->promises[i] = storm->promises[--storm->promise_count];
            return;
        }
    }
}

/** What was answered stands among the events, which only grow. */
static void check_events(struct storm *storm) {
    Thorax__V1__ControlRequest request;
    Thorax__V1__EventsRequest body;
    size_t count = EVENTS_PAGE;
    thorax__v1__control_request__init(&request);
    thorax__v1__events_request__init(&body);
    request.body_case = THORAX__V1__CONTROL_REQUEST__BODY_EVENTS;
    request.events = &body;
    while (count == EVENTS_PAGE) {
        body.after = storm->last_event;
        body.limit = EVENTS_PAGE;
        Thorax__V1__ControlReply *reply = ask_surely(storm, &request);
        count = reply->events->n_events;
        for (size_t i = 0; i < count; i++) {
            assert_true(reply->events->events[i]->id > storm->last_event);
            storm->last_event = reply->events->events[i]->id;
            keep_promise(storm, reply->events->events[i]);
        }
        pool_free(reply);
    }
    for (int i = 0; i < storm->promise_count; i++)
        print_message("lost: %s of model %d\n", storm->promises[i].event, index_of(storm, &storm->promises[i].digest));
    assert_int_equal(storm->promise_count, 0);
}

static void what_was_answered_survives_any_kill(void **state) {
    struct storm *storm = calloc(1, sizeof *storm);
    struct daemon member;
    assert_non_null(storm);
    storm->pool = *state;
    rng_init(&storm->rng, (uint64_t)seed, RNG_TEST, 0, 0);
    daemon_init(&member, storm->pool, 0);
    daemon_run(&member); /* so that rollouts get somewhere */
    for (int64_t i = 0; i < kills; i++) {
        publisher_process_start(&storm->publisher, storm->pool, PUBLISHER_ACTIVATE_MANUAL);
        check_models(storm);
        check_events(storm);
        stream_until_killed(storm);
        check_files(storm);
    }
    publisher_process_start(&storm->publisher, storm->pool, PUBLISHER_ACTIVATE_MANUAL);
    check_models(storm);
    check_events(storm);
    print_message("%lld kills, seed %lld: %d models, %d commands done, %d refused, number %llu, event %llu\n",
                  (long long)kills, (long long)seed, storm->model_count, storm->answered, storm->refused,
                  (unsigned long long)storm->number, (unsigned long long)storm->last_event);
    assert_true(storm->was_stable && storm->answered > kills);
    daemon_stop(&member);
    if (storm->talks)
        control_close(&storm->control);
    publisher_process_fini(&storm->publisher);
    free(storm);
}

int main(int argc, char **argv) {
    int code;
    if (publisher_process_main(argc, argv, &code))
        return code;
    log_init("registry_kill_test", LOG_ERROR, LOG_TEXT);
    if (!digest_start(NULL) || (argc > 1 && !text_to_int(argv[1], 1, 1000000, &kills, NULL)) ||
        (argc > 2 && !text_to_int(argv[2], 0, 1000000, &seed, NULL)))
        return 2;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_was_answered_survives_any_kill, pool_setup, pool_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
