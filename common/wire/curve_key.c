#include "common/wire/curve_key.h"

#include "common/base/secret_file.h"

#include <stdio.h>
#include <string.h>
#include <zmq.h>

enum { FILE_LIMIT = 4096 };
static const char secret_title[] = "Thorax CURVE secret key 1";
static const char public_title[] = "Thorax CURVE public key 1";

bool curve_key_generate(struct curve_key *key, struct error *err) {
    return zmq_curve_keypair(key->public_key, key->secret_key) == 0 ||
           error_set(err, ERROR_UNSUPPORTED, "this libzmq makes no CURVE keys: it was built without CURVE");
}

bool curve_key_write(const struct curve_key *key, const char *name, struct error *err) {
    char public[256], secret[256];
    snprintf(public, sizeof public, "%s\npublic %s\n", public_title, key->public_key);
    snprintf(secret, sizeof secret, "%s\npublic %s\nsecret %s\n", secret_title, key->public_key,
             key->secret_key);
    bool ok = secret_file_write_pair(name, secret, public, err);
    explicit_bzero(secret, sizeof secret);
    return ok;
}

/** zmq_z85_decode looks at whole groups of five and reads past the text's end where it is cut: length first.
 */
bool curve_public_ok(const char *text) {
    uint8_t bytes[32];
    return strnlen(text, CURVE_TEXT_SIZE) == CURVE_TEXT_SIZE - 1 && zmq_z85_decode(bytes, text) != NULL;
}

/** The file's public key must be the one that belongs to its secret. */
static bool check_pair(const char *path, const struct curve_key *key, struct error *err) {
    char public[CURVE_TEXT_SIZE];
    if (!curve_public_ok(key->public_key) || !curve_public_ok(key->secret_key) ||
        zmq_curve_public(public, key->secret_key) != 0)
        return error_set(err, ERROR_FORMAT, "%s: a key is not 40 characters of Z85", path);
    return strcmp(public, key->public_key) == 0 ||
           error_set(err, ERROR_FORMAT, "%s: the public key does not belong to the secret one", path);
}

bool curve_key_load(const char *path, struct curve_key *key, struct error *err) {
    const struct key_line lines[] = {{"public", key->public_key, sizeof key->public_key},
                                     {"secret", key->secret_key, sizeof key->secret_key}};
    struct bytes text;
    if (!secret_file_read(path, SECRET_PRIVATE, FILE_LIMIT, &text, err))
        return false;
    bool ok =
        key_text_parse((char *)text.data, path, secret_title, lines, 2, err) && check_pair(path, key, err);
    secret_wipe(&text);
    if (!ok)
        curve_key_wipe(key);
    return ok || error_hint(err, "`trainctl keygen curve --out NAME` makes one");
}

void curve_key_wipe(struct curve_key *key) {
    explicit_bzero(key, sizeof *key);
}

static bool load_file(const char *path, char out[CURVE_TEXT_SIZE], struct error *err) {
    const struct key_line lines[] = {{"public", out, CURVE_TEXT_SIZE}};
    struct bytes text;
    if (!secret_file_read(path, SECRET_TRUSTED, FILE_LIMIT, &text, err))
        return false;
    bool ok = key_text_parse((char *)text.data, path, public_title, lines, 1, err);
    secret_wipe(&text);
    return ok && (curve_public_ok(out) ||
                  error_set(err, ERROR_FORMAT, "%s: the key is not 40 characters of Z85", path));
}

bool curve_public_load(const char *path_or_key, char out[CURVE_TEXT_SIZE], struct error *err) {
    size_t length = strlen(path_or_key);
    if (length > 4 && strcmp(path_or_key + length - 4, ".pub") == 0)
        return load_file(path_or_key, out, err);
    if (!curve_public_ok(path_or_key))
        return error_set(err, ERROR_INVALID,
                         "\"%s\" is neither a file NAME.pub nor a CURVE key of 40 characters", path_or_key);
    memcpy(out, path_or_key, CURVE_TEXT_SIZE);
    return true;
}
