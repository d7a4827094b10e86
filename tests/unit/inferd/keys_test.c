/* Keys of those who ask: libthorax, the router and the tools' client, against members with an allow-list. */
#include "inferd/client/keys.h"
#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "inferd/client/client.h"
#include "inferd/client/thorax.h"
#include "tests/unit/inferd/fake_model.h"
#include "tests/unit/inferd/fixture.h"
#include "tests/unit/inferd/keyring.h"
#include "tests/unit/inferd/router_fixture.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <cmocka.h>

enum { TIMEOUT_MS = 20000, REFUSED_MS = 700, HEARTBEAT_MS = 100 };

static const struct fake_model_spec SICK = {.name = "sick", .logits = {0, 3, 0}};

/** A member with keys. */
struct site {
    struct keyring ring;
    struct fixture member;
};

static int setup(void **state) {
    struct site *site = calloc(1, sizeof *site);
    struct server_spec spec = fixture_spec();
    *state = site;
    keyring_init(&site->ring);
    spec.security = site->ring.security;
    fixture_start(&site->member, &spec, fake_model(&SICK));
    return 0;
}

static int teardown(void **state) {
    struct site *site = *state;
    fixture_stop(&site->member);
    keyring_fini(&site->ring);
    free(site);
    return 0;
}

/* ---- libthorax ---- */

/** name: whose key; NULL: none. */
static struct thorax_client *open_thorax(struct site *site, const char *endpoint, const char *name,
                                         const char *server_key) {
    char path[KEYRING_PATH];
    struct thorax_error error = {0};
    struct thorax_options options = {.endpoints = &endpoint,
                                     .endpoint_count = 1,
                                     .heartbeat_ms = HEARTBEAT_MS,
                                     .key = name ? keyring_path(&site->ring, name, path) : NULL,
                                     .server_keys = &server_key,
                                     .server_key_count = server_key ? 1 : 0};
    struct thorax_client *client = thorax_open(&options, &error);
    if (!client) {
        fail_msg("%s", error.message);
    }
    return client;
}

static bool ask_thorax(struct thorax_client *client, int64_t timeout_ms, struct thorax_error *error) {
    struct bytes image = fixture_image(1);
    struct thorax_answer answer;
    struct thorax_request request = {.image = image.data, .image_size = image.size, .timeout_ms = timeout_ms};
    bool ok = thorax_diagnose(client, &request, &answer, error);
    if (ok) {
        assert_int_equal(answer.status, THORAX_OK);
    }
    thorax_answer_free(&answer);
    free(image.data);
    return ok;
}

static void assert_answered(struct site *site, const char *endpoint, const char *name) {
    struct thorax_error error = {0};
    struct thorax_client *client = open_thorax(site, endpoint, name, site->ring.server.public_key);
    if (!ask_thorax(client, TIMEOUT_MS, &error)) {
        fail_msg("%s; %s", error.message, error.hint);
    }
    thorax_close(client);
}

static void assert_refused(struct site *site, const char *name, const char *server_key, int64_t timeout_ms,
                           const char *message, const char *hint) {
    struct thorax_error error = {0};
    struct thorax_client *client = open_thorax(site, site->member.endpoint, name, server_key);
    assert_false(ask_thorax(client, timeout_ms, &error));
    thorax_close(client);
    assert_int_equal(error.code, THORAX_ERROR_TIMEOUT);
    if (!strstr(error.message, message) || !strstr(error.hint, hint)) {
        fail_msg("%s; %s", error.message, error.hint);
    }
    assert_int_equal(server_counters(site->member.server)->by_status[THORAX_OK], 0);
}

static void who_is_in_the_list_is_answered(void **state) {
    struct site *site = *state;
    assert_answered(site, site->member.endpoint, "client");
    assert_answered(site, site->member.endpoint, "admin");
}

static void a_wrong_server_key_is_a_handshake_that_failed(void **state) {
    struct site *site = *state;
    assert_refused(site, "client", site->ring.stranger.public_key, REFUSED_MS, "with 1 the handshake failed",
                   "is the server key that of the other side");
}

static void a_key_that_is_not_in_the_list_is_met_by_silence_and_the_hint_says_so(void **state) {
    struct site *site = *state;
    assert_refused(site, "stranger", site->ring.server.public_key, REFUSED_MS, "0 of 1 endpoints",
                   "our key in its allow-list");
}

static void after_the_handshakes_time_the_silence_is_a_failure(void **state) {
    struct site *site = *state;
    assert_refused(site, "stranger", site->ring.server.public_key, 5000, "with 1 the handshake failed",
                   "our key in its allow-list");
}

static void clear_text_gets_no_answer_and_does_no_harm(void **state) {
    struct site *site = *state;
    assert_refused(site, NULL, NULL, REFUSED_MS, "with 1 the handshake failed", "may want keys");
    assert_answered(site, site->member.endpoint, "client");
}

/** Behind a handshake of two kinds ZeroMQ does not connect again: the exchange has to. */
static void a_member_that_gets_its_keys_later_is_found(void **state) {
    struct site *site = *state;
    struct fixture late;
    struct thorax_error error = {0};
    char endpoint[sizeof late.endpoint];
    const char *const bind[] = {endpoint, NULL};
    struct server_spec spec = fixture_spec();
    fixture_start(&late, &spec, fake_model(&SICK));
    memcpy(endpoint, late.endpoint, sizeof endpoint);
    struct thorax_client *client = open_thorax(site, endpoint, "client", site->ring.server.public_key);
    assert_false(ask_thorax(client, REFUSED_MS, &error));
    assert_non_null(strstr(error.message, "handshake failed"));
    fixture_stop(&late);
    spec.bind = bind;
    spec.security = site->ring.security;
    fixture_start(&late, &spec, fake_model(&SICK));
    assert_true(ask_thorax(client, TIMEOUT_MS, &error));
    thorax_close(client);
    fixture_stop(&late);
}

static void who_is_revoked_is_refused_and_who_is_allowed_again_is_answered(void **state) {
    struct site *site = *state;
    struct thorax_error error = {0};
    struct thorax_client *other = open_thorax(site, site->member.endpoint, "admin", site->ring.server.public_key);
    struct thorax_client *client = open_thorax(site, site->member.endpoint, "client", site->ring.server.public_key);
    assert_true(ask_thorax(client, TIMEOUT_MS, &error) && ask_thorax(other, TIMEOUT_MS, &error));
    keyring_allow(&site->ring, false);
    assert_false(ask_thorax(client, REFUSED_MS, &error));
    assert_true(ask_thorax(other, TIMEOUT_MS, &error));
    keyring_allow(&site->ring, true);
    assert_true(ask_thorax(client, TIMEOUT_MS, &error));
    thorax_close(client);
    thorax_close(other);
}

static void options_that_make_no_sense_are_errors(void **state) {
    struct site *site = *state;
    char path[KEYRING_PATH];
    const char *endpoints[] = {"tcp://127.0.0.1:1", "tcp://127.0.0.1:2", "tcp://127.0.0.1:3"};
    const char *keys[] = {site->ring.server.public_key, site->ring.client.public_key}, *nonsense[] = {"nonsense"};
    keyring_path(&site->ring, "client", path);
    const struct {
        struct thorax_options options;
        const char *fault;
    } wrong[] = {
        {{.server_keys = keys, .server_key_count = 1}, "nothing would be encrypted"},
        {{.key = path}, "the public key of the other side is wanted"},
        {{.key = path, .server_keys = keys, .server_key_count = 2}, "2 server keys for 3 endpoints"},
        {{.key = path, .server_keys = nonsense, .server_key_count = 1}, "neither a file NAME.pub nor"},
        {{.key = path, .server_keys = keys, .server_key_count = -1}, "-1 server keys"},
        {{.reserved = {path}}, "does not know"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct thorax_error error = {0};
        struct thorax_options options = wrong[i].options;
        options.endpoints = endpoints;
        options.endpoint_count = 3;
        assert_null(thorax_open(&options, &error));
        assert_int_equal(error.code, THORAX_ERROR_INVALID);
        if (!strstr(error.message, wrong[i].fault)) {
            fail_msg("%zu: %s", i, error.message);
        }
    }
}

static void a_key_file_that_others_can_read_is_refused(void **state) {
    struct site *site = *state;
    struct thorax_error error = {0};
    char path[KEYRING_PATH];
    const char *key = site->ring.server.public_key, *endpoint = site->member.endpoint;
    struct thorax_options options = {.endpoints = &endpoint,
                                     .endpoint_count = 1,
                                     .key = keyring_path(&site->ring, "client", path),
                                     .server_keys = &key,
                                     .server_key_count = 1};
    assert_int_equal(chmod(path, 0644), 0);
    assert_null(thorax_open(&options, &error));
    assert_int_equal(error.code, THORAX_ERROR_INVALID);
    assert_non_null(strstr(error.message, "lets others read or change it"));
    assert_non_null(strstr(error.hint, "chmod 0600"));
}

static void each_endpoint_may_have_a_key_of_its_own(void **state) {
    struct site *site = *state;
    struct thorax_error error = {0};
    char path[KEYRING_PATH];
    const char *endpoints[] = {"tcp://127.0.0.1:1", site->member.endpoint, "ipc:///tmp/thorax-nobody-is-here"};
    const char *keys[] = {site->ring.stranger.public_key, site->ring.server.public_key, site->ring.admin.public_key};
    struct thorax_options options = {.endpoints = endpoints,
                                     .endpoint_count = 3,
                                     .key = keyring_path(&site->ring, "client", path),
                                     .server_keys = keys,
                                     .server_key_count = 3};
    struct thorax_client *client = thorax_open(&options, &error);
    if (!client) {
        fail_msg("%s", error.message);
    }
    assert_true(ask_thorax(client, TIMEOUT_MS, &error));
    thorax_close(client);
}

/* ---- the router ---- */

static void a_router_asks_members_by_its_key_and_is_asked_by_clients_of_its_list(void **state) {
    struct site *site = *state;
    struct router_fixture router;
    const char *members[] = {site->member.endpoint}, *keys[] = {site->ring.server.public_key};
    struct router_spec spec = router_fixture_spec(members, 1);
    spec.security = site->ring.security; /* the router has the member's key and list here */
    spec.server_keys = keys;
    spec.server_key_count = 1;
    router_fixture_start(&router, &spec);
    router_fixture_wait(&router, 1);
    assert_answered(site, router.endpoint, "client");
    keyring_allow(&site->ring, false); /* messages of who is revoked do not end it */
    struct thorax_error error = {0};
    struct thorax_client *client = open_thorax(site, router.endpoint, "client", keys[0]);
    assert_false(ask_thorax(client, REFUSED_MS, &error));
    thorax_close(client);
    assert_answered(site, router.endpoint, "admin");
    router_fixture_stop(&router);
    assert_true(router.drained);
}

/* ---- ending a member ---- */

static Thorax__V1__Status drain_as(struct site *site, const char *endpoint, const char *name) {
    struct client_reply reply;
    struct error err = {0};
    struct wire_security *security = keyring_load(&site->ring, name);
    struct client *client = client_open(
        &(struct client_spec){
            .endpoint = endpoint, .security = security, .server_key = site->ring.server.public_key},
        &err);
    if (!client || !client_drain(client, TIMEOUT_MS, &reply, &err)) {
        fail_msg("%s", err.message);
    }
    Thorax__V1__Status status = reply.drain->status;
    assert_int_equal(*reply.drain->message == '\0', status == THORAX__V1__STATUS__STATUS_OK);
    client_reply_fini(&reply);
    client_close(client);
    wire_security_destroy(security);
    return status;
}

static void only_an_administrator_ends_a_member(void **state) {
    struct site *site = *state;
    assert_int_equal(drain_as(site, site->member.endpoint, "client"), THORAX__V1__STATUS__STATUS_PERMISSION_DENIED);
    assert_false(server_draining(site->member.server));
    assert_answered(site, site->member.endpoint, "client");
    assert_int_equal(drain_as(site, site->member.endpoint, "admin"), THORAX__V1__STATUS__STATUS_OK);
    assert_true(server_draining(site->member.server));
}

static void only_an_administrator_ends_a_router(void **state) {
    struct site *site = *state;
    struct router_fixture router;
    const char *members[] = {site->member.endpoint}, *keys[] = {site->ring.server.public_key};
    struct router_spec spec = router_fixture_spec(members, 1);
    spec.security = site->ring.security;
    spec.server_keys = keys;
    spec.server_key_count = 1;
    spec.allow_drain = true;
    router_fixture_start(&router, &spec);
    assert_int_equal(drain_as(site, router.endpoint, "client"), THORAX__V1__STATUS__STATUS_PERMISSION_DENIED);
    assert_false(router_draining(router.router));
    assert_int_equal(drain_as(site, router.endpoint, "admin"), THORAX__V1__STATUS__STATUS_OK);
    assert_true(router_draining(router.router));
    router_fixture_stop(&router);
}

/* ---- the tools' client ---- */

static void the_tools_client_says_why_nobody_answers(void **state) {
    struct site *site = *state;
    struct client_reply reply;
    struct error err = {0};
    struct wire_security *security = keyring_load(&site->ring, "client");
    struct client_spec spec = {.endpoint = site->member.endpoint,
                               .security = security,
                               .server_key = site->ring.stranger.public_key};
    struct client *client = client_open(&spec, &err);
    assert_non_null(client);
    assert_false(client_status(client, REFUSED_MS, &reply, &err));
    assert_int_equal(err.code, ERROR_TIMEOUT);
    assert_non_null(strstr(err.message, "the handshake failed"));
    assert_non_null(strstr(err.hint, "is the server key that of the other side"));
    client_close(client);
    spec.server_key = site->ring.server.public_key;
    assert_non_null(client = client_open(&spec, &err));
    assert_true(client_status(client, TIMEOUT_MS, &reply, &err));
    client_reply_fini(&reply);
    client_close(client);
    wire_security_destroy(security);
}

#define SITE_TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void) {
    log_init("keys_test", LOG_ERROR + 1, LOG_TEXT);
    const struct CMUnitTest tests[] = {
        SITE_TEST(who_is_in_the_list_is_answered),
        SITE_TEST(a_wrong_server_key_is_a_handshake_that_failed),
        SITE_TEST(a_key_that_is_not_in_the_list_is_met_by_silence_and_the_hint_says_so),
        SITE_TEST(after_the_handshakes_time_the_silence_is_a_failure),
        SITE_TEST(clear_text_gets_no_answer_and_does_no_harm),
        SITE_TEST(a_member_that_gets_its_keys_later_is_found),
        SITE_TEST(who_is_revoked_is_refused_and_who_is_allowed_again_is_answered),
        SITE_TEST(options_that_make_no_sense_are_errors),
        SITE_TEST(a_key_file_that_others_can_read_is_refused),
        SITE_TEST(each_endpoint_may_have_a_key_of_its_own),
        SITE_TEST(a_router_asks_members_by_its_key_and_is_asked_by_clients_of_its_list),
        SITE_TEST(only_an_administrator_ends_a_member),
        SITE_TEST(only_an_administrator_ends_a_router),
        SITE_TEST(the_tools_client_says_why_nobody_answers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
