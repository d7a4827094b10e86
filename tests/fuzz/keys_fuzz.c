/* Any bytes as an allow-list and as key files: reading them ends, cleanly, in a sorted list of whole peers or
 * in an error. */
#include "common/base/secret_file.h"
#include "common/wire/security.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { EVERY_ROLE = WIRE_TRAINER | WIRE_MEMBER | WIRE_CLIENT | WIRE_ADMIN };

static void check_peer(const struct wire_allowed *row) {
    unsigned roles = row->peer.roles;
    if (!curve_public_ok(row->key) || !row->peer.authenticated || !roles || (roles & ~EVERY_ROLE) ||
        !row->peer.name[0] || strnlen(row->peer.name, WIRE_PEER_NAME_SIZE) == WIRE_PEER_NAME_SIZE)
        abort();
}

static void read_list(const char *text) {
    int count = 0;
    struct error err;
    struct wire_allowed *list = wire_allowed_parse(text, "fuzz", &count, &err);
    for (int i = 0; list && i < count; i++) {
        check_peer(&list[i]);
        if (i && strcmp(list[i - 1].key, list[i].key) >= 0)
            abort();
    }
    free(list);
}

static void read_key_file(const char *text) {
    char public_key[CURVE_TEXT_SIZE], secret_key[CURVE_TEXT_SIZE];
    const struct key_line lines[] = {{"public", public_key, sizeof public_key},
                                     {"secret", secret_key, sizeof secret_key}};
    struct error err;
    if (key_text_parse(text, "fuzz", "Thorax CURVE secret key 1", lines, 2, &err) &&
        (!memchr(public_key, '\0', sizeof public_key) || !memchr(secret_key, '\0', sizeof secret_key)))
        abort();
    if (key_text_parse(text, "fuzz", "Thorax CURVE public key 1", lines, 1, &err) &&
        !memchr(public_key, '\0', sizeof public_key))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char *text = malloc(size + 1);
    if (!text)
        return 0;
    if (size)
        memcpy(text, data, size);
    text[size] = '\0';
    read_list(text);
    read_key_file(text);
    free(text);
    return 0;
}
