#pragma once
#include "common/wire/security.h"

enum { KEYRING_PATH = 128 };

/**
 * A server's keys and allow-list, and the keys of those who ask: client and admin are in the list with the
 * role of that name, the server (as a client: a router in front of it has the same key), stranger is not.
 */
struct keyring {
    char folder[64], allow[KEYRING_PATH];
    struct curve_key server, client, admin, stranger;
    struct wire_security *security; /**< the server's */
};

/** Fails the test where anything does. */
void keyring_init(struct keyring *ring);
void keyring_fini(struct keyring *ring);
/** The .key file of "server", "client", "admin" or "stranger". Returns out. */
const char *keyring_path(const struct keyring *ring, const char *name, char out[KEYRING_PATH]);
/** Writes the list, with or without the client, and has the server read it. */
void keyring_allow(struct keyring *ring, bool client);
/** The keys of one who asks. Returns owned. */
struct wire_security *keyring_load(const struct keyring *ring, const char *name);
