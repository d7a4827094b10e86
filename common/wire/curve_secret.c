#include "common/wire/curve_key.h"

#include "common/base/secret_file.h"

#include <sodium.h>
#include <stdint.h>
#include <string.h>
#include <zmq.h>

enum { SECRET_BYTES = 32, TEXT_MIN = 32, TEXT_MAX = 4096 };

/** BLAKE2b's personalisation, 16 bytes: what else is made from the same secret is another key. */
static const uint8_t purpose[crypto_generichash_blake2b_PERSONALBYTES + 1] = "thorax cluster 1";

/** libsodium's X25519, which is what libzmq's CURVE computes with. */
static bool derive(const uint8_t *text, size_t size, struct curve_key *key) {
    uint8_t seed[crypto_box_SEEDBYTES], public[crypto_box_PUBLICKEYBYTES], secret[crypto_box_SECRETKEYBYTES];
    bool ok = sodium_init() >= 0 &&
              crypto_generichash_blake2b_salt_personal(seed, sizeof seed, text, size, NULL, 0, NULL, purpose) == 0 &&
              crypto_box_seed_keypair(public, secret, seed) == 0 && zmq_z85_encode(key->public_key, public, sizeof public) &&
              zmq_z85_encode(key->secret_key, secret, sizeof secret);
    sodium_memzero(seed, sizeof seed);
    sodium_memzero(secret, sizeof secret);
    return ok;
}

static bool is_space(uint8_t c) {
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool derive_trimmed(const char *path, const struct bytes *file, struct curve_key *key, struct error *err) {
    size_t first = 0, end = file->size;
    if (memchr(file->data, '\0', file->size))
        return error_set(err, ERROR_FORMAT, "%s: not a text file", path);
    while (first < end && is_space(file->data[first]))
        first++;
    while (end > first && is_space(file->data[end - 1]))
        end--;
    if (end - first < TEXT_MIN)
        return error_set(err, ERROR_INVALID, "%s: %zu characters, and a secret has at least %d", path, end - first, TEXT_MIN);
    return derive(file->data + first, end - first, key) ||
           error_set(err, ERROR_UNSUPPORTED, "%s: libsodium makes no key of it", path);
}

bool curve_key_load_shared(const char *path, struct curve_key *key, struct error *err) {
    struct bytes file;
    if (!secret_file_read(path, SECRET_PRIVATE, TEXT_MAX, &file, err))
        return false;
    bool ok = derive_trimmed(path, &file, key, err);
    secret_wipe(&file);
    if (!ok)
        curve_key_wipe(key);
    return ok || error_hint(err, "`trainctl keygen secret --out FILE` makes one");
}

bool curve_secret_write(const char *path, struct error *err) {
    uint8_t random[SECRET_BYTES];
    char text[2 * SECRET_BYTES + 2];
    if (sodium_init() < 0)
        return error_set(err, ERROR_INTERNAL, "libsodium does not start");
    randombytes_buf(random, sizeof random);
    sodium_bin2hex(text, sizeof text, random, sizeof random);
    text[2 * SECRET_BYTES] = '\n';
    text[2 * SECRET_BYTES + 1] = '\0';
    bool ok = secret_file_write(path, text, err);
    sodium_memzero(random, sizeof random);
    sodium_memzero(text, sizeof text);
    return ok;
}
