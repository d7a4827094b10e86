#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/pool/message.h"
#include "common/wire/endpoint.h"
#include "tests/integration/pool_fixture.h"
#include "tests/unit/inferd/tiny_model.h"
#include "trainerd/handover.h"
#include "trainerd/trainctl/control.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* A publisher with keys: who may ask it what, for whom a member speaks, and what becomes of one that is revoked. */

/* Of a member that waits long enough for a handshake to fail; as in earnest. */
enum { HANDSHAKE_HEARTBEAT_MS = 1000 };
enum { PEERS = 4, QUIET_MS = 1500, SILENCE_MS = 5 * HEARTBEAT_MS };

/** Who is in the list. The name is that of the key's files, too. */
static const struct {
    const char *name, *roles;
} PEER[PEERS] = {{"member-0", "member"}, {"member-1", "member"}, {"trainer", "trainer"}, {"admin", "admin"}};

struct site {
    struct pool *pool;
    char keys[128], allow[160], server_key[CURVE_TEXT_SIZE], public_keys[PEERS][CURVE_TEXT_SIZE];
};

static void make_key(struct site *site, const char *name, char public_key[CURVE_TEXT_SIZE]) {
    struct curve_key key;
    char path[192];
    snprintf(path, sizeof path, "%s/%s", site->keys, name);
    assert_true(curve_key_generate(&key, NULL) && curve_key_write(&key, path, NULL));
    memcpy(public_key, key.public_key, CURVE_TEXT_SIZE);
}

/** The list with all but one. without: "" for all. */
static void write_list(struct site *site, const char *without) {
    char text[1024] = "";
    for (int i = 0; i < PEERS; i++) {
        size_t used = strlen(text);
        if (strcmp(PEER[i].name, without) != 0)
            snprintf(text + used, sizeof text - used, "%s %s %s\n", site->public_keys[i], PEER[i].roles, PEER[i].name);
    }
    assert_true(file_write_atomic(site->allow, text, strlen(text), NULL));
}

static struct wire_security *load_key(struct site *site, const char *name, const char *allow) {
    char path[192];
    struct error err = {0};
    snprintf(path, sizeof path, "%s/%s.key", site->keys, name);
    struct wire_security *security =
        wire_security_create(&(struct wire_security_spec){.secret_key = path, .allow = allow}, &err);
    assert_string_equal(err.message, "");
    return security;
}

/** A publisher on free ports, with keys. */
static struct site *site_of(void **state) {
    struct site *site = *state;
    struct pool *pool = site->pool;
    char *const endpoints[] = {pool->announce, pool->control, pool->blobs};
    pool->security = load_key(site, "publisher", site->allow);
    for (int i = 0; i < 3; i++)
        snprintf(endpoints[i], sizeof pool->announce, "tcp://127.0.0.1:*");
    start_publisher(pool, PUBLISHER_ACTIVATE_AUTO);
    for (int i = 0; i < 3; i++)
        snprintf(endpoints[i], sizeof pool->announce, "%s", publisher_endpoint(pool->publisher, (enum publisher_socket)i));
    return site;
}

static int setup(void **state) {
    struct site *site = calloc(1, sizeof *site);
    void *pool;
    pool_setup(&pool);
    site->pool = pool;
    snprintf(site->keys, sizeof site->keys, "%s/keys", site->pool->folder);
    snprintf(site->allow, sizeof site->allow, "%s/allow", site->keys);
    assert_true(file_make_folders(site->keys, NULL));
    make_key(site, "publisher", site->server_key);
    for (int i = 0; i < PEERS; i++)
        make_key(site, PEER[i].name, site->public_keys[i]);
    write_list(site, "");
    *state = site;
    return 0;
}

static int teardown(void **state) {
    struct site *site = *state;
    struct wire_security *security = site->pool->security;
    void *pool = site->pool;
    pool_teardown(&pool);
    wire_security_destroy(security);
    free(site);
    return 0;
}

/** A trainctl with the key of that name. control_leave it. */
static void enter_as(struct control *control, struct control_keys *keys, struct site *site, const char *name,
                     int64_t timeout_ms) {
    char key[192];
    struct error err = {0};
    snprintf(key, sizeof key, "%s/%s.key", site->keys, name);
    struct control_options options = {.endpoint = site->pool->control,
                                      .timeout_ms = timeout_ms,
                                      .key = key,
                                      .server_key = site->server_key};
    control_enter(control, keys, &options, &err);
    assert_string_equal(err.message, "");
}

/** What becomes of a request that somebody sends; ERROR_NONE: it is answered. */
static enum error_code ask_as(struct site *site, const char *name, Thorax__V1__ControlRequest *request,
                              int64_t timeout_ms) {
    struct control control;
    struct control_keys keys;
    struct error err = {0};
    enter_as(&control, &keys, site, name, timeout_ms);
    Thorax__V1__ControlReply *reply = control_ask(&control, request, NULL, &err);
    pool_free(reply);
    control_leave(&control, &keys);
    return reply ? ERROR_NONE : err.code;
}

/** One of each kind of request; what they point to stays as long as this does. */
struct requests {
    Thorax__V1__ControlRequest request;
    Thorax__V1__MemberReport report;
    Thorax__V1__SnapshotRequest snapshot;
    Thorax__V1__UploadRequest upload;
    Thorax__V1__PublishedModel model;
    Thorax__V1__ModelsRequest models;
    Thorax__V1__EventsRequest events;
    Thorax__V1__ApproveRequest approve;
    Thorax__V1__RevokeRequest revoke;
    Thorax__V1__RollbackRequest rollback;
    Thorax__V1__RolloutCommand command;
    Thorax__V1__RolloutStatusRequest status;
};

static Thorax__V1__ControlRequest *fresh(struct requests *all, Thorax__V1__ControlRequest__BodyCase body) {
    thorax__v1__control_request__init(&all->request);
    all->request.body_case = body;
    return &all->request;
}

/** With a report of that member. */
static Thorax__V1__ControlRequest *reporting(struct requests *all, const char *member) {
    Thorax__V1__ControlRequest *request = fresh(all, THORAX__V1__CONTROL_REQUEST__BODY__NOT_SET);
    thorax__v1__member_report__init(&all->report);
    all->report.member = (char *)member;
    all->report.state = THORAX__V1__MEMBER_STATE__MEMBER_FAILED;
    all->report.error = "made up";
    request->report = &all->report;
    return request;
}

static Thorax__V1__ControlRequest *asking_snapshot(struct requests *all, const char *member) {
    Thorax__V1__ControlRequest *request = reporting(all, member);
    thorax__v1__snapshot_request__init(&all->snapshot);
    request->body_case = THORAX__V1__CONTROL_REQUEST__BODY_SNAPSHOT;
    request->snapshot = &all->snapshot;
    return request;
}

/** Of a model whose descriptor is broken: what matters is who may ask. */
static Thorax__V1__ControlRequest *uploading(struct requests *all) {
    Thorax__V1__ControlRequest *request = fresh(all, THORAX__V1__CONTROL_REQUEST__BODY_UPLOAD);
    thorax__v1__upload_request__init(&all->upload);
    thorax__v1__published_model__init(&all->model);
    all->model.descriptor = (ProtobufCBinaryData){3, (uint8_t *)"no "};
    all->upload.model = &all->model;
    request->upload = &all->upload;
    return request;
}

static Thorax__V1__ControlRequest *asking_models(struct requests *all) {
    Thorax__V1__ControlRequest *request = fresh(all, THORAX__V1__CONTROL_REQUEST__BODY_MODELS);
    thorax__v1__models_request__init(&all->models);
    request->models = &all->models;
    return request;
}

static Thorax__V1__ControlRequest *asking_events(struct requests *all) {
    Thorax__V1__ControlRequest *request = fresh(all, THORAX__V1__CONTROL_REQUEST__BODY_EVENTS);
    thorax__v1__events_request__init(&all->events);
    request->events = &all->events;
    return request;
}

static Thorax__V1__ControlRequest *asking_status(struct requests *all) {
    Thorax__V1__ControlRequest *request = fresh(all, THORAX__V1__CONTROL_REQUEST__BODY_ROLLOUT_STATUS);
    thorax__v1__rollout_status_request__init(&all->status);
    request->rollout_status = &all->status;
    return request;
}

static Thorax__V1__ControlRequest *approving(struct requests *all, const char *model) {
    Thorax__V1__ControlRequest *request = fresh(all, THORAX__V1__CONTROL_REQUEST__BODY_APPROVE);
    thorax__v1__approve_request__init(&all->approve);
    all->approve.model = (char *)model;
    all->approve.by = "Ann";
    request->approve = &all->approve;
    return request;
}

static Thorax__V1__ControlRequest *revoking(struct requests *all) {
    Thorax__V1__ControlRequest *request = fresh(all, THORAX__V1__CONTROL_REQUEST__BODY_REVOKE);
    thorax__v1__revoke_request__init(&all->revoke);
    all->revoke.model = "none:1";
    all->revoke.by = "Ann";
    request->revoke = &all->revoke;
    return request;
}

static Thorax__V1__ControlRequest *rolling_back(struct requests *all) {
    Thorax__V1__ControlRequest *request = fresh(all, THORAX__V1__CONTROL_REQUEST__BODY_ROLLBACK);
    thorax__v1__rollback_request__init(&all->rollback);
    all->rollback.model = "none:1";
    all->rollback.by = "Ann";
    request->rollback = &all->rollback;
    return request;
}

static Thorax__V1__ControlRequest *pausing(struct requests *all) {
    Thorax__V1__ControlRequest *request = fresh(all, THORAX__V1__CONTROL_REQUEST__BODY_ROLLOUT_COMMAND);
    thorax__v1__rollout_command__init(&all->command);
    all->command.action = THORAX__V1__ROLLOUT_ACTION__ACTION_PAUSE;
    all->command.by = "Ann";
    request->rollout_command = &all->command;
    return request;
}

/** The request is denied to exactly those whose first letter is not in who. */
static void assert_only(struct site *site, const char *who, Thorax__V1__ControlRequest *request) {
    for (int i = 0; i < PEERS; i++) {
        if (strcmp(PEER[i].name, "member-1") == 0)
            continue; /* reports are of member-0 */
        bool denied = ask_as(site, PEER[i].name, request, WAIT_MS) == ERROR_DENIED;
        if (denied != !strchr(who, PEER[i].name[0]))
            fail_msg("%s, request %d: %s", PEER[i].name, (int)request->body_case, denied ? "denied" : "not denied");
    }
}

static void the_role_says_what_a_key_may_ask(void **state) {
    struct site *site = site_of(state);
    struct requests all;
    assert_only(site, "m", reporting(&all, "member-0"));
    assert_only(site, "m", asking_snapshot(&all, "member-0"));
    assert_only(site, "mta", asking_models(&all));
    assert_only(site, "mta", asking_events(&all));
    assert_only(site, "mta", asking_status(&all));
    assert_only(site, "ta", uploading(&all));
    assert_only(site, "a", approving(&all, "none:1"));
    assert_only(site, "a", revoking(&all));
    assert_only(site, "a", rolling_back(&all));
    assert_only(site, "a", pausing(&all));
}

/** What the publisher tells an administrator of models and members. */
static Thorax__V1__ControlReply *look(struct site *site) {
    struct control control;
    struct control_keys keys;
    struct requests all;
    struct error err = {0};
    enter_as(&control, &keys, site, "admin", WAIT_MS);
    Thorax__V1__ControlReply *reply = control_ask(&control, asking_models(&all), NULL, &err);
    assert_string_equal(err.message, "");
    control_leave(&control, &keys);
    return reply;
}

/** A member with its own key. Returns what is to be destroyed after daemon_stop. */
static struct wire_security *run_patient(struct site *site, struct daemon *daemon, int i, const char *server_key,
                                         int heartbeat_ms) {
    daemon_init(daemon, site->pool, i);
    daemon->spec.heartbeat_ms = heartbeat_ms;
    struct wire_security *security = load_key(site, daemon->name, NULL);
    daemon->spec.security = security;
    daemon->spec.server_key = server_key;
    daemon_run(daemon);
    return security;
}

static struct wire_security *run_member(struct site *site, struct daemon *daemon, int i) {
    return run_patient(site, daemon, i, site->server_key, HEARTBEAT_MS);
}

static void nobody_speaks_for_another_member(void **state) {
    struct site *site = site_of(state);
    struct daemon daemon;
    struct requests all;
    struct digest model = publish(site->pool, 1, SMALL_BYTES);
    struct wire_security *security = run_member(site, &daemon, 0);
    wait_for(&daemon, &model, runs);
    wait_stable(site->pool, &model);

    const char *const forgers[] = {"member-1", "trainer", "admin"};
    for (int i = 0; i < 3; i++) {
        assert_int_equal(ask_as(site, forgers[i], reporting(&all, "member-0"), WAIT_MS), ERROR_DENIED);
        Thorax__V1__ControlRequest *request = asking_models(&all); /* what it may ask, with what it may not say */
        request->report = reporting(&all, "member-0")->report;
        request->body_case = THORAX__V1__CONTROL_REQUEST__BODY_MODELS;
        request->models = &all.models;
        assert_int_equal(ask_as(site, forgers[i], request, WAIT_MS), ERROR_DENIED);
    }
    Thorax__V1__ControlReply *reply = look(site);
    assert_int_equal(reply->models->n_members, 1);
    assert_int_not_equal(reply->models->members[0]->report->state, THORAX__V1__MEMBER_STATE__MEMBER_FAILED);
    assert_string_equal(reply->models->members[0]->report->error, "");
    pool_free(reply);
    daemon_stop(&daemon);
    wire_security_destroy(security);
}

static void the_record_says_whose_key_it_was(void **state) {
    struct site *site = site_of(state);
    struct requests all;
    publish(site->pool, 1, SMALL_BYTES);
    assert_int_equal(ask_as(site, "admin", approving(&all, "chest:1"), WAIT_MS), ERROR_NONE);
    Thorax__V1__ControlReply *reply = look(site);
    assert_int_equal(reply->models->n_models, 1);
    assert_string_equal(reply->models->models[0]->approved_by, "Ann (key admin)");
    pool_free(reply);
    char long_name[100];
    memset(long_name, 'x', 99);
    long_name[99] = '\0';
    Thorax__V1__ControlRequest *request = approving(&all, "chest:1");
    all.approve.by = long_name;
    assert_int_equal(ask_as(site, "admin", request, WAIT_MS), ERROR_INVALID);
}

/** A job's handover with the key of that name, of one model. */
static struct handover *hand_over_as(struct site *site, struct wire_security *security, const char *model) {
    char folder[192];
    struct error err = {0};
    snprintf(folder, sizeof folder, "%s/handover", site->keys);
    struct handover_spec spec = {
        .endpoint = site->pool->control, .folder = folder, .retry_ms = HEARTBEAT_MS, .keys = {.security = security}};
    memcpy(spec.keys.server_key, site->server_key, CURVE_TEXT_SIZE);
    struct handover *handover = handover_create(&spec, &err);
    assert_true(handover && (!model || handover_add(handover, model, &err)));
    return handover;
}

static void a_jobs_models_come_with_the_trainers_key(void **state) {
    struct site *site = site_of(state);
    struct wire_security *member = load_key(site, "member-0", NULL), *trainer = load_key(site, "trainer", NULL);
    struct handover_result result = {.fate = HANDOVER_WAITS};
    char path[192];
    snprintf(path, sizeof path, "%s/job.safetensors", site->keys);
    assert_true(tiny_model_write(path, &(struct tiny_model_spec){.name = "job", .seed = 1, .temperature = 1}, NULL));

    struct handover *handover = hand_over_as(site, member, path);
    clock_sleep_ms(QUIET_MS);
    handover_stop(handover);
    assert_true(handover_next_result(handover, &result));
    assert_int_equal(result.fate, HANDOVER_WAITS); /* the list may get it in the meantime */
    if (result.error.code != ERROR_DENIED)
        fail_msg("%s", result.error.message);
    handover_destroy(handover);

    handover = hand_over_as(site, trainer, NULL); /* takes up what was left */
    for (int64_t end = clock_now_ms() + WAIT_MS; handover_waiting(handover) && clock_left_ms(end) > 0;)
        clock_sleep_ms(5);
    assert_true(handover_next_result(handover, &result));
    assert_int_equal(result.fate, HANDOVER_DONE);
    handover_destroy(handover);
    wire_security_destroy(member);
    wire_security_destroy(trainer);
}

/** Until the publisher has the list without that one. */
static void revoke(struct site *site, const char *name) {
    uint64_t before = wire_security_removals(site->pool->security);
    write_list(site, name);
    int64_t end = clock_now_ms() + WAIT_MS;
    while (wire_security_removals(site->pool->security) == before && clock_left_ms(end) > 0)
        clock_sleep_ms(5);
    assert_true(clock_left_ms(end) > 0);
}

static void wait_members(struct pool *pool, int count) {
    struct publisher_status status = {.members = -1};
    for (int64_t end = clock_now_ms() + WAIT_MS; status.members != count && clock_left_ms(end) > 0; clock_sleep_ms(5))
        assert_true(publisher_status(pool->publisher, &status, NULL));
    assert_int_equal(status.members, count);
}

static void who_is_revoked_falls_silent_and_comes_back(void **state) {
    struct site *site = site_of(state);
    struct daemon daemons[2];
    struct wire_security *keys[2];
    struct digest first = publish(site->pool, 1, SMALL_BYTES);
    for (int i = 0; i < 2; i++)
        keys[i] = run_member(site, &daemons[i], i);
    wait_all(daemons, 2, &first);
    wait_stable(site->pool, &first);

    revoke(site, "member-1");
    wait_members(site->pool, 1);
    struct digest second = publish(site->pool, 2, SMALL_BYTES);
    wait_for(&daemons[0], &second, runs);
    wait_stable(site->pool, &second);
    clock_sleep_ms(QUIET_MS);
    assert_true(runs(&daemons[1], &first));

    write_list(site, "");
    wait_for(&daemons[1], &second, runs);
    stop_all(daemons, 2);
    for (int i = 0; i < 2; i++)
        wire_security_destroy(keys[i]);
}

static bool hears(struct wire_socket *socket, int64_t timeout_ms) {
    struct wire_message message;
    bool ok = wire_receive(socket, &message, timeout_ms, NULL);
    if (ok)
        wire_message_fini(&message);
    return ok;
}

/** One that subscribes and never says a word, with the key of that name. */
struct listener {
    struct wire_security *security;
    struct wire_context *context;
    struct wire_socket *socket;
};

static struct listener listen_as(struct site *site, const char *name) {
    const char *const connect[] = {site->pool->announce, NULL};
    struct listener listener = {.security = load_key(site, name, NULL), .context = wire_context_create(1, NULL)};
    struct wire_socket_spec spec = {
        .kind = WIRE_SUB, .connect = connect, .security = listener.security, .server_key = site->server_key};
    listener.socket = wire_socket_open(listener.context, &spec, NULL);
    assert_true(wire_subscribe(listener.socket, "", NULL));
    assert_true(hears(listener.socket, WAIT_MS));
    return listener;
}

static void listener_close(struct listener *listener) {
    wire_socket_close(listener->socket);
    wire_context_destroy(listener->context);
    wire_security_destroy(listener->security);
}

static void who_is_revoked_hears_no_more_announcements(void **state) {
    struct site *site = site_of(state);
    struct listener revoked = listen_as(site, "member-1"), kept = listen_as(site, "member-0");
    write_list(site, "member-1");
    int64_t end = clock_now_ms() + WAIT_MS;
    while (hears(revoked.socket, SILENCE_MS) && clock_left_ms(end) > 0) {
    }
    assert_true(clock_left_ms(end) > 0);
    assert_false(hears(revoked.socket, QUIET_MS));
    while (hears(kept.socket, 0)) { /* what waited there */
    }
    assert_true(hears(kept.socket, WAIT_MS));
    listener_close(&revoked);
    listener_close(&kept);
}

/** Whether the member says what is wrong, in its status. */
static bool says_handshake(struct daemon *daemon, const struct digest *digest) {
    (void)digest;
    struct subscriber_status status;
    subscriber_status(daemon->subscriber, &status);
    return status.error.code == ERROR_DENIED && strstr(status.error.message, "the handshake fails");
}

static void a_member_that_does_not_get_in_says_why(void **state) {
    write_list(*state, "member-1");
    struct site *site = site_of(state);
    struct daemon daemons[2];
    struct wire_security *keys[2];
    struct digest model = publish(site->pool, 1, SMALL_BYTES);
    keys[0] = run_patient(site, &daemons[0], 0, site->public_keys[0], HANDSHAKE_HEARTBEAT_MS); /* not the publisher's */
    keys[1] = run_patient(site, &daemons[1], 1, site->server_key, HANDSHAKE_HEARTBEAT_MS);     /* not in the list */
    for (int i = 0; i < 2; i++) {
        wait_for(&daemons[i], &model, says_handshake);
        assert_false(runs(&daemons[i], &model));
    }
    stop_all(daemons, 2);
    for (int i = 0; i < 2; i++)
        wire_security_destroy(keys[i]);
}

#define SITE_TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        SITE_TEST(the_role_says_what_a_key_may_ask),
        SITE_TEST(nobody_speaks_for_another_member),
        SITE_TEST(the_record_says_whose_key_it_was),
        SITE_TEST(a_jobs_models_come_with_the_trainers_key),
        SITE_TEST(who_is_revoked_falls_silent_and_comes_back),
        SITE_TEST(who_is_revoked_hears_no_more_announcements),
        SITE_TEST(a_member_that_does_not_get_in_says_why),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
