#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/wire/endpoint.h"
#include "tests/unit/base/test.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { WAIT_MS = 15000, QUIET_MS = 400, PATH = 160 };

/** A server with keys and a list, and the peers that try to talk to it. */
struct site {
    char folder[64], allow[PATH], endpoint[256];
    struct curve_key server, member, client;
    struct wire_security *security;
    struct wire_context *context;
    struct wire_socket *router;
};

static atomic_int unread_lists;

static void report(const char *event, const struct error *err) {
    (void)err;
    unread_lists += strcmp(event, "allow_list_not_read") == 0;
}

static void make_key(struct site *site, const char *name, struct curve_key *key) {
    char path[PATH];
    snprintf(path, sizeof path, "%s/%s", site->folder, name);
    assert_true(curve_key_generate(key, NULL));
    assert_true(curve_key_write(key, path, NULL));
}

static void write_list(struct site *site, const char *text) {
    assert_true(file_write_atomic(site->allow, text, strlen(text), NULL));
}

/** The list with these roles for the member's key; NULL: without it. */
static void allow_member(struct site *site, const char *roles) {
    char text[256];
    snprintf(text, sizeof text, "# the pool\n%s client desk\n", site->client.public_key);
    if (roles)
        snprintf(text + strlen(text), sizeof text - strlen(text), "%s %s ward-3\n", site->member.public_key,
                 roles);
    write_list(site, text);
}

static struct wire_security *load(struct site *site, const char *name, bool with_list, struct error *err) {
    char path[PATH];
    snprintf(path, sizeof path, "%s/%s.key", site->folder, name);
    return wire_security_create(&(struct wire_security_spec){.secret_key = path,
                                                             .allow = with_list ? site->allow : NULL,
                                                             .report = report},
                                err);
}

static int setup(void **state) {
    struct site *site = calloc(1, sizeof *site);
    struct error err = {0};
    const char *const bind[] = {"tcp://127.0.0.1:*", NULL};
    *state = site;
    snprintf(site->folder, sizeof site->folder, "/tmp/thorax-security-XXXXXX");
    if (!mkdtemp(site->folder))
        return -1;
    snprintf(site->allow, sizeof site->allow, "%s/allow", site->folder);
    make_key(site, "server", &site->server);
    make_key(site, "member", &site->member);
    make_key(site, "client", &site->client);
    allow_member(site, "member,admin");
    site->security = load(site, "server", true, &err);
    site->context = wire_context_create(1, NULL);
    site->router = site->security
                       ? wire_socket_open(site->context,
                                          &(struct wire_socket_spec){.kind = WIRE_ROUTER,
                                                                     .bind = bind,
                                                                     .security = site->security,
                                                                     .roles = WIRE_MEMBER | WIRE_ADMIN},
                                          &err)
                       : NULL;
    return site->router && wire_socket_bound(site->router, 0, site->endpoint, sizeof site->endpoint) ? 0 : -1;
}

static int teardown(void **state) {
    struct site *site = *state;
    wire_socket_close(site->router);
    wire_context_destroy(site->context);
    wire_security_destroy(site->security);
    bool ok = file_remove_tree(site->folder, NULL);
    free(site);
    return ok ? 0 : -1;
}

/** Someone who connects: with the key of that name, or with none. */
struct peer {
    struct wire_security *security;
    struct wire_socket *socket;
};

static struct peer connect_peer(struct site *site, const char *name, const char *server_key) {
    struct peer peer = {0};
    struct error err = {0};
    const char *const connect[] = {site->endpoint, NULL};
    if (name)
        assert_non_null(peer.security = load(site, name, false, &err));
    peer.socket = wire_socket_open(
        site->context,
        &(struct wire_socket_spec){
            .kind = WIRE_DEALER, .connect = connect, .security = peer.security, .server_key = server_key},
        &err);
    assert_non_null(peer.socket);
    return peer;
}

static void close_peer(struct peer *peer) {
    wire_socket_close(peer->socket);
    wire_security_destroy(peer->security);
}

static void say(struct peer *peer) {
    struct wire_frame frame = {"hello", 5};
    assert_true(wire_send(peer->socket, &frame, 1, WAIT_MS, NULL));
}

/** Whether a message arrives within the time; fills in who sent it. */
static bool hears(struct site *site, int64_t timeout_ms, struct wire_peer *out, struct error *err) {
    struct wire_message message;
    bool ok = wire_receive(site->router, &message, timeout_ms, err);
    if (ok) {
        *out = message.peer;
        wire_message_fini(&message);
    }
    return ok;
}

static void assert_not_heard(struct site *site, const char *name, const char *server_key) {
    struct peer peer = connect_peer(site, name, server_key);
    struct wire_peer who;
    struct error err = {0};
    say(&peer);
    assert_false(hears(site, QUIET_MS, &who, &err));
    assert_int_equal(err.code, ERROR_TIMEOUT);
    close_peer(&peer);
}

static void who_is_in_the_list_is_known_by_name_and_roles(void **state) {
    struct site *site = *state;
    struct wire_peer who;
    struct error err = {0};
    struct peer peer = connect_peer(site, "member", site->server.public_key);
    say(&peer);
    assert_true(hears(site, WAIT_MS, &who, &err));
    assert_true(who.authenticated);
    assert_int_equal(who.roles, WIRE_MEMBER | WIRE_ADMIN);
    assert_string_equal(who.name, "ward-3");
    close_peer(&peer);
}

/** As every daemon does: libzmq then holds the message's first frame ready, which knows less. */
static void who_is_polled_for_is_known_as_well(void **state) {
    struct site *site = *state;
    struct wire_peer who;
    struct error err = {0};
    struct peer peer = connect_peer(site, "member", site->server.public_key);
    struct wire_poll_item item = {.socket = site->router};
    struct wire_frame frames[] = {{"7", 1}, {"", 0}, {"hello", 5}};
    assert_true(wire_send(peer.socket, frames, 3, WAIT_MS, NULL));
    assert_int_equal(wire_poll(&item, 1, WAIT_MS, &err), 1);
    assert_true(hears(site, WAIT_MS, &who, &err));
    assert_string_equal(who.name, "ward-3");
    close_peer(&peer);
}

static void a_wrong_server_key_reaches_nobody(void **state) {
    struct site *site = *state;
    assert_not_heard(site, "member", site->client.public_key);
}

static void no_key_at_all_reaches_nobody(void **state) {
    assert_not_heard(*state, NULL, NULL);
}

static void an_unknown_key_reaches_nobody_and_is_counted(void **state) {
    struct site *site = *state;
    struct curve_key stranger;
    make_key(site, "stranger", &stranger);
    assert_not_heard(site, "stranger", site->server.public_key);
    assert_true(wire_security_refusals(site->security) > 0);
}

static void a_role_that_the_socket_does_not_take_reaches_nobody(void **state) {
    struct site *site = *state; /* the list has it, as a client */
    assert_not_heard(site, "client", site->server.public_key);
    assert_true(wire_security_refusals(site->security) > 0);
}

static void who_is_revoked_is_refused_on_the_connection_that_stands(void **state) {
    struct site *site = *state;
    struct wire_peer who;
    struct error err = {0};
    struct peer peer = connect_peer(site, "member", site->server.public_key);
    say(&peer);
    assert_true(hears(site, WAIT_MS, &who, &err));
    allow_member(site, NULL);
    assert_true(wire_security_reload(site->security, &err));
    uint64_t before = wire_security_refusals(site->security);
    say(&peer);
    assert_false(hears(site, WAIT_MS, &who, &err));
    assert_int_equal(err.code, ERROR_BUSY);
    assert_true(wire_security_refusals(site->security) > before);
    allow_member(site, "client"); /* in the list, and not for this socket */
    assert_true(wire_security_reload(site->security, &err));
    say(&peer);
    assert_false(hears(site, WAIT_MS, &who, &err));
    assert_int_equal(err.code, ERROR_BUSY);
    close_peer(&peer);
}

static void a_peer_that_is_added_gets_in_without_a_restart(void **state) {
    struct site *site = *state;
    struct wire_peer who;
    struct error err = {0};
    allow_member(site, NULL);
    assert_true(wire_security_reload(site->security, &err));
    struct peer peer = connect_peer(site, "member", site->server.public_key);
    say(&peer);
    assert_false(hears(site, QUIET_MS, &who, &err));
    allow_member(site, "member"); /* nobody asks for a reload: the file's change is seen */
    assert_true(hears(site, WAIT_MS, &who, &err));
    assert_int_equal(who.roles, WIRE_MEMBER);
    close_peer(&peer);
}

static void a_broken_list_leaves_the_old_one_in_force(void **state) {
    struct site *site = *state;
    struct wire_peer who;
    struct error err = {0};
    write_list(site, "nonsense\n");
    assert_false(wire_security_reload(site->security, &err));
    assert_non_null(strstr(err.message, "allow:1: expected a public key"));
    assert_true(wire_security_find(site->security, site->member.public_key, WIRE_MEMBER, &who));

    int before = unread_lists;
    write_list(site, "other nonsense\n");
    for (int64_t end = clock_now_ms() + WAIT_MS; unread_lists == before && clock_left_ms(end) > 0;) {
        assert_true(wire_security_find(site->security, site->member.public_key, WIRE_MEMBER, &who));
        clock_sleep_ms(20);
    }
    assert_int_equal(unread_lists, before + 1);
}

static void a_list_that_others_may_write_is_refused(void **state) {
    struct site *site = *state;
    struct error err = {0};
    assert_int_equal(chmod(site->allow, 0666), 0);
    assert_false(wire_security_reload(site->security, &err));
    assert_non_null(strstr(err.message, "lets others change it"));
    assert_null(load(site, "server", true, &err));
}

static void with_keys_clear_text_is_not_bound(void **state) {
    struct site *site = *state;
    struct error err = {0};
    const char *const bind[] = {"tcp://127.0.0.1:*", NULL};
    struct wire_security *own = load(site, "member", false, &err);
    struct wire_socket_spec spec = {.kind = WIRE_ROUTER, .bind = bind, .security = own, .roles = WIRE_CLIENT};
    assert_null(wire_socket_open(site->context, &spec, &err)); /* a key and no list */
    assert_non_null(strstr(err.message, "no allow-list"));
    spec = (struct wire_socket_spec){.kind = WIRE_DEALER, .connect = bind, .security = own};
    assert_null(wire_socket_open(site->context, &spec, &err)); /* no key of the other side */
    wire_security_destroy(own);
}

static void lists_are_taken_apart(void **state) {
    struct site *site = *state;
    const char *key = site->member.public_key;
    const struct {
        const char *format, *fault;
    } wrong[] = {
        {"%s member\n", ":1: expected a name"},      {"\n%s nurse ward\n", ":2: expected roles"},
        {"%s member, ward\n", ":1: expected roles"}, {"%s member -ward\n", ":1: expected a name"},
        {"%s member ward more\n", "more words"},     {"x%s member ward\n", "expected a public key"},
        {"#remark %.3s\n", "a comment begins with"},
    };
    char text[256];
    int count;
    struct error err = {0};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        snprintf(text, sizeof text, wrong[i].format, key);
        assert_null(wire_allowed_parse(text, "list", &count, &err));
        assert_non_null(strstr(err.message, wrong[i].fault));
    }
    snprintf(text, sizeof text, "%s member a\n%s client b\n", key, key);
    assert_null(wire_allowed_parse(text, "list", &count, &err));
    assert_non_null(strstr(err.message, "the same key"));
    snprintf(text, sizeof text, "#\r\n# %s admin x\n \t%s trainer,client a.b", key, key);
    struct wire_allowed *list = wire_allowed_parse(text, "list", &count, &err);
    assert_non_null(list);
    assert_int_equal(count, 1);
    assert_int_equal(list[0].peer.roles, WIRE_TRAINER | WIRE_CLIENT);
    free(list);
}

#define SITE_TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        SITE_TEST(who_is_in_the_list_is_known_by_name_and_roles),
        SITE_TEST(who_is_polled_for_is_known_as_well),
        SITE_TEST(a_wrong_server_key_reaches_nobody),
        SITE_TEST(no_key_at_all_reaches_nobody),
        SITE_TEST(an_unknown_key_reaches_nobody_and_is_counted),
        SITE_TEST(a_role_that_the_socket_does_not_take_reaches_nobody),
        SITE_TEST(who_is_revoked_is_refused_on_the_connection_that_stands),
        SITE_TEST(a_peer_that_is_added_gets_in_without_a_restart),
        SITE_TEST(a_broken_list_leaves_the_old_one_in_force),
        SITE_TEST(a_list_that_others_may_write_is_refused),
        SITE_TEST(with_keys_clear_text_is_not_bound),
        SITE_TEST(lists_are_taken_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
