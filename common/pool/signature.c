#include "common/pool/signature.h"

#include "common/base/secret_file.h"

#include <sodium.h>
#include <stdio.h>
#include <string.h>

enum { HEX_SIZE = 2 * SIGNATURE_PUBLIC_SIZE + 1, FILE_LIMIT = 4096 };
static const char secret_title[] = "Thorax Ed25519 secret key 1";
static const char public_title[] = "Thorax Ed25519 public key 1";

_Static_assert(crypto_sign_ed25519_SEEDBYTES == SIGNATURE_PUBLIC_SIZE, "one length of hexadecimal texts");

bool signature_key_generate(struct signature_key *key, struct error *err) {
    if (sodium_init() < 0)
        return error_set(err, ERROR_INTERNAL, "libsodium does not start");
    crypto_sign_ed25519_keypair(key->public_key, key->secret_key);
    return true;
}

bool signature_key_write(const struct signature_key *key, const char *name, struct error *err) {
    char public_hex[HEX_SIZE], secret_hex[HEX_SIZE], public[256], secret[256];
    sodium_bin2hex(public_hex, sizeof public_hex, key->public_key, sizeof key->public_key);
    sodium_bin2hex(secret_hex, sizeof secret_hex, key->secret_key, crypto_sign_ed25519_SEEDBYTES);
    snprintf(public, sizeof public, "%s\npublic %s\n", public_title, public_hex);
    snprintf(secret, sizeof secret, "%s\npublic %s\nsecret %s\n", secret_title, public_hex, secret_hex);
    bool ok = secret_file_write_pair(name, secret, public, err);
    sodium_memzero(secret_hex, sizeof secret_hex);
    sodium_memzero(secret, sizeof secret);
    return ok;
}

static bool from_hex(const char *hex, uint8_t out[SIGNATURE_PUBLIC_SIZE]) {
    size_t size = 0;
    return sodium_hex2bin(out, SIGNATURE_PUBLIC_SIZE, hex, HEX_SIZE - 1, NULL, &size, NULL) == 0 &&
           size == SIGNATURE_PUBLIC_SIZE;
}

/** Makes the pair from the secret; the file's public key must be the one that belongs to it. */
static bool fill_key(const char *path, const char *public_hex, const char *secret_hex,
                     struct signature_key *key, struct error *err) {
    uint8_t seed[crypto_sign_ed25519_SEEDBYTES], public[SIGNATURE_PUBLIC_SIZE];
    bool ok = from_hex(public_hex, public) && from_hex(secret_hex, seed);
    if (ok)
        crypto_sign_ed25519_seed_keypair(key->public_key, key->secret_key, seed);
    sodium_memzero(seed, sizeof seed);
    if (!ok)
        return error_set(err, ERROR_FORMAT, "%s: a key is not 64 hexadecimal digits", path);
    return sodium_memcmp(public, key->public_key, sizeof public) == 0 ||
           error_set(err, ERROR_FORMAT, "%s: the public key does not belong to the secret one", path);
}

bool signature_key_load(const char *path, struct signature_key *key, struct error *err) {
    char public[HEX_SIZE], secret[HEX_SIZE];
    const struct key_line lines[] = {{"public", public, sizeof public}, {"secret", secret, sizeof secret}};
    struct bytes text;
    *key = (struct signature_key){0};
    if (!secret_file_read(path, SECRET_PRIVATE, FILE_LIMIT, &text, err))
        return false;
    bool ok = key_text_parse((char *)text.data, path, secret_title, lines, 2, err) &&
              fill_key(path, public, secret, key, err);
    secret_wipe(&text);
    sodium_memzero(secret, sizeof secret);
    if (!ok)
        signature_key_wipe(key);
    return ok;
}

void signature_key_wipe(struct signature_key *key) {
    sodium_memzero(key, sizeof *key);
}

bool signature_public_load(const char *path, uint8_t out[SIGNATURE_PUBLIC_SIZE], struct error *err) {
    char public[HEX_SIZE];
    const struct key_line lines[] = {{"public", public, sizeof public}};
    struct bytes text;
    if (!secret_file_read(path, SECRET_TRUSTED, FILE_LIMIT, &text, err))
        return false;
    bool ok = key_text_parse((char *)text.data, path, public_title, lines, 1, err);
    secret_wipe(&text);
    return ok && (from_hex(public, out) ||
                  error_set(err, ERROR_FORMAT, "%s: the key is not 64 hexadecimal digits", path));
}

const char *signature_key_id(const uint8_t key[SIGNATURE_PUBLIC_SIZE], char out[SIGNATURE_ID_SIZE]) {
    return sodium_bin2hex(out, SIGNATURE_ID_SIZE, key, (SIGNATURE_ID_SIZE - 1) / 2);
}

void signature_make(const struct signature_key *key, const void *data, size_t size,
                    uint8_t out[SIGNATURE_SIZE]) {
    crypto_sign_ed25519_detached(out, NULL, data, size, key->secret_key);
}

bool signature_verify(const uint8_t key[SIGNATURE_PUBLIC_SIZE], const uint8_t signature[SIGNATURE_SIZE],
                      const void *data, size_t size) {
    return crypto_sign_ed25519_verify_detached(signature, data, size, key) == 0;
}
