#include "tests/unit/inferd/keyring.h"
#include "common/base/file.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

const char *keyring_path(const struct keyring *ring, const char *name, char out[KEYRING_PATH]) {
    snprintf(out, KEYRING_PATH, "%s/%s.key", ring->folder, name);
    return out;
}

static void make_key(const struct keyring *ring, const char *name, struct curve_key *key) {
    char path[KEYRING_PATH];
    snprintf(path, sizeof path, "%s/%s", ring->folder, name);
    assert_true(curve_key_generate(key, NULL));
    assert_true(curve_key_write(key, path, NULL));
}

static void write_list(const struct keyring *ring, bool client) {
    char text[512];
    snprintf(text, sizeof text, "%s admin desk\n%s client router\n", ring->admin.public_key,
             ring->server.public_key);
    if (client) {
        snprintf(text + strlen(text), sizeof text - strlen(text), "%s client ward\n",
                 ring->client.public_key);
    }
    assert_true(file_write_atomic(ring->allow, text, strlen(text), NULL));
}

void keyring_allow(struct keyring *ring, bool client) {
    write_list(ring, client);
    assert_true(wire_security_reload(ring->security, NULL));
}

void keyring_init(struct keyring *ring) {
    struct error err = {0};
    char path[KEYRING_PATH];
    memset(ring, 0, sizeof *ring);
    snprintf(ring->folder, sizeof ring->folder, "/tmp/thorax-keyring-XXXXXX");
    assert_non_null(mkdtemp(ring->folder));
    snprintf(ring->allow, sizeof ring->allow, "%s/allow", ring->folder);
    make_key(ring, "server", &ring->server);
    make_key(ring, "client", &ring->client);
    make_key(ring, "admin", &ring->admin);
    make_key(ring, "stranger", &ring->stranger);
    write_list(ring, true);
    ring->security = wire_security_create(
        &(struct wire_security_spec){.secret_key = keyring_path(ring, "server", path), .allow = ring->allow},
        &err);
    if (!ring->security) {
        fail_msg("%s", err.message);
    }
}

void keyring_fini(struct keyring *ring) {
    wire_security_destroy(ring->security);
    assert_true(file_remove_tree(ring->folder, NULL));
}

struct wire_security *keyring_load(const struct keyring *ring, const char *name) {
    char path[KEYRING_PATH];
    struct wire_security *security = wire_security_create(
        &(struct wire_security_spec){.secret_key = keyring_path(ring, name, path)}, NULL);
    assert_non_null(security);
    return security;
}
