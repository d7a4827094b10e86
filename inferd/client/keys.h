#pragma once
#include "common/wire/security.h"
#include "inferd/client/dispatch.h"

/**
 * What one who asks proves itself with, and knows the endpoints by. Zeroed: clear text. Not to be copied or
 * moved.
 */
struct client_keys {
    struct wire_security *security;            /**< owned; NULL: clear text */
    const char *servers[DISPATCH_MAX_MEMBERS]; /**< (server_count) Z85, into text */
    int server_count;                          /**< 1: the same for all endpoints; else one each; 0: none */
    char text[DISPATCH_MAX_MEMBERS][CURVE_TEXT_SIZE];
};

struct client_keys_spec {
    const char *key;                /**< our own .key file; NULL: clear text, and then there is no server key */
    const char *const *server_keys; /**< (server_key_count) each a .pub file or its 40 characters */
    int server_key_count;
};

/** Reads the files. Errors say which one, and what is wrong with it. */
bool client_keys_load(struct client_keys *keys, const struct client_keys_spec *spec, struct error *err);
/** After all sockets that use them. Takes a zeroed one. */
void client_keys_fini(struct client_keys *keys);
