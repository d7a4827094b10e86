#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/wire/endpoint.h"
#include "tests/unit/base/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

enum { WAIT_MS = 15000, QUIET_MS = 400, PATH = 160 };
static const char ours[] = "correct horse battery staple 0123456789";

/** A coordinator that takes whoever has its secret. */
struct site {
    char folder[64], endpoint[256];
    struct wire_security *security;
    struct wire_context *context;
    struct wire_socket *router;
};

/** Writes a file with that text and mode. Returns its path, which the next call overwrites. */
static const char *write_file(const struct site *site, const char *text, mode_t mode) {
    static char path[PATH];
    snprintf(path, sizeof path, "%s/secret", site->folder);
    assert_true(file_write_atomic(path, text, strlen(text), NULL));
    assert_int_equal(chmod(path, mode), 0);
    return path;
}

static struct wire_security *share(const struct site *site, const char *text, struct error *err) {
    return wire_security_create_shared(write_file(site, text, 0600), NULL, err);
}

static int setup(void **state) {
    struct site *site = calloc(1, sizeof *site);
    const char *const bind[] = {"tcp://127.0.0.1:*", NULL};
    *state = site;
    snprintf(site->folder, sizeof site->folder, "/tmp/thorax-secret-XXXXXX");
    if (!mkdtemp(site->folder))
        return -1;
    site->security = share(site, ours, NULL);
    site->context = wire_context_create(1, NULL);
    struct wire_socket_spec spec = {.kind = WIRE_ROUTER, .bind = bind, .security = site->security, .roles = WIRE_TRAINER};
    site->router = site->security ? wire_socket_open(site->context, &spec, NULL) : NULL;
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

/** Whether what a peer says, with that security (NULL: none) to the server of that key, is heard; who: as it is known then. */
static bool is_heard(struct site *site, struct wire_security *security, const char *server_key, int64_t timeout_ms,
                     struct wire_peer *who) {
    const char *const connect[] = {site->endpoint, NULL};
    struct wire_socket_spec spec = {.kind = WIRE_DEALER, .connect = connect, .security = security, .server_key = server_key};
    struct wire_socket *socket = wire_socket_open(site->context, &spec, NULL);
    struct wire_message message;
    assert_non_null(socket);
    assert_true(wire_send(socket, &(struct wire_frame){"hello", 5}, 1, WAIT_MS, NULL));
    bool heard = wire_receive(site->router, &message, timeout_ms, NULL);
    if (heard) {
        *who = message.peer;
        wire_message_fini(&message);
    }
    wire_socket_close(socket);
    return heard;
}

static void who_has_the_secret_is_a_trainer(void **state) {
    struct site *site = *state;
    struct wire_peer who;
    struct wire_security *node = share(site, "\n  correct horse battery staple 0123456789\t\r\n", NULL);
    assert_non_null(node);
    assert_string_equal(wire_security_key(node)->public_key, wire_security_key(site->security)->public_key);
    assert_true(is_heard(site, node, wire_security_key(node)->public_key, WAIT_MS, &who));
    assert_true(who.authenticated);
    assert_int_equal(who.roles, WIRE_TRAINER);
    assert_string_equal(who.name, "cluster");
    assert_true(wire_security_reload(site->security, NULL)); /* there is no file, and the list stays */
    assert_true(is_heard(site, node, wire_security_key(node)->public_key, WAIT_MS, &who));
    wire_security_destroy(node);
}

/** Neither as its own key says, nor where it has found out the coordinator's public key. */
static void who_has_another_secret_is_refused(void **state) {
    struct site *site = *state;
    struct wire_peer who;
    struct wire_security *stranger = share(site, "correct horse battery staple 0123456780", NULL);
    assert_non_null(stranger);
    assert_false(is_heard(site, stranger, wire_security_key(stranger)->public_key, QUIET_MS, &who));
    assert_false(is_heard(site, stranger, wire_security_key(site->security)->public_key, QUIET_MS, &who));
    assert_true(wire_security_refusals(site->security) > 0);
    wire_security_destroy(stranger);
}

static void who_has_no_secret_is_refused(void **state) {
    struct wire_peer who;
    assert_false(is_heard(*state, NULL, NULL, QUIET_MS, &who));
}

static void the_pair_is_one_that_libzmq_computes_with(void **state) {
    struct site *site = *state;
    char public_key[CURVE_TEXT_SIZE];
    const struct curve_key *key = wire_security_key(site->security);
    assert_int_equal(zmq_curve_public(public_key, key->secret_key), 0);
    assert_string_equal(public_key, key->public_key);
}

/** BLAKE2b of 32 bytes with that personalisation, then SHA-512's first half as the secret key, as libsodium's manual says of
 * crypto_box_seed_keypair: computed with Python's hashlib. Nodes of two versions meet only while it stays so. */
static void the_pair_of_a_secret_stays_what_it_is(void **state) {
    struct site *site = *state;
    assert_string_equal(wire_security_key(site->security)->secret_key, "R#ENBf&)l0dV2/$su<rc6(2YEk$q={!TcxnoNE++");
}

static void files_that_are_no_secret_are_errors(void **state) {
    struct site *site = *state;
    char *text = calloc(1, 4200);
    struct error err = {0};
    assert_null(share(site, "  too short by one, 31 characters      \n\n\n", &err));
    assert_non_null(strstr(err.message, "31 characters, and a secret has at least 32"));
    assert_null(wire_security_create_shared(write_file(site, ours, 0640), NULL, &err));
    assert_non_null(strstr(err.message, "lets others read or change it"));
    memset(text, 'x', 4097);
    assert_null(share(site, text, &err));
    assert_int_equal(err.code, ERROR_TOO_LARGE);
    text[4096] = '\0';
    struct wire_security *longest = share(site, text, &err);
    assert_non_null(longest);
    wire_security_destroy(longest);
    free(text);
    assert_null(wire_security_create_shared("/nowhere/secret", NULL, &err));
    assert_int_equal(err.code, ERROR_NOT_FOUND);
}

static void a_byte_of_zero_is_no_text(void **state) {
    struct site *site = *state;
    char path[PATH], bytes[64];
    struct error err = {0};
    memset(bytes, 'x', sizeof bytes);
    bytes[40] = '\0';
    snprintf(path, sizeof path, "%s", write_file(site, ours, 0600));
    assert_true(file_write_atomic(path, bytes, sizeof bytes, NULL));
    assert_int_equal(chmod(path, 0600), 0);
    assert_null(wire_security_create_shared(path, NULL, &err));
    assert_non_null(strstr(err.message, "not a text file"));
}

static void secrets_are_made_that_differ_and_are_not_overwritten(void **state) {
    struct site *site = *state;
    char paths[2][PATH];
    struct curve_key keys[2];
    struct stat status;
    struct error err = {0};
    for (int i = 0; i < 2; i++) {
        snprintf(paths[i], sizeof paths[i], "%s/made-%d", site->folder, i);
        assert_true(curve_secret_write(paths[i], &err));
        assert_int_equal(stat(paths[i], &status), 0);
        assert_int_equal(status.st_mode & 07777, 0600);
        assert_true(curve_key_load_shared(paths[i], &keys[i], &err));
    }
    assert_string_not_equal(keys[0].public_key, keys[1].public_key);
    assert_false(curve_secret_write(paths[0], &err));
    assert_int_equal(err.code, ERROR_STATE);
}

#define SITE_TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        SITE_TEST(who_has_the_secret_is_a_trainer),
        SITE_TEST(who_has_another_secret_is_refused),
        SITE_TEST(who_has_no_secret_is_refused),
        SITE_TEST(the_pair_is_one_that_libzmq_computes_with),
        SITE_TEST(the_pair_of_a_secret_stays_what_it_is),
        SITE_TEST(files_that_are_no_secret_are_errors),
        SITE_TEST(a_byte_of_zero_is_no_text),
        SITE_TEST(secrets_are_made_that_differ_and_are_not_overwritten),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
