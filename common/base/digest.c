#include "common/base/digest.h"

/* OpenSSL's SHA-256 uses the processor's own instructions: about five times as fast as libsodium's, where models are
 * digested many times. The plain functions, because a state of theirs is plain memory that may be left behind. */
#define OPENSSL_API_COMPAT 10100
#include <openssl/sha.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

_Static_assert(sizeof(SHA256_CTX) <= sizeof(struct digest_state), "digest_state is too small");

bool digest_start(struct error *err) {
    return sodium_init() >= 0 || error_set(err, ERROR_INTERNAL, "libsodium does not start");
}

void digest_init(struct digest_state *state) {
    SHA256_Init((SHA256_CTX *)state->opaque);
}

void digest_update(struct digest_state *state, const void *data, size_t size) {
    SHA256_Update((SHA256_CTX *)state->opaque, data, size);
}

struct digest digest_final(struct digest_state *state) {
    struct digest digest;
    SHA256_Final(digest.bytes, (SHA256_CTX *)state->opaque);
    return digest;
}

struct digest digest_of(const void *data, size_t size) {
    struct digest_state state;
    digest_init(&state);
    digest_update(&state, data, size);
    return digest_final(&state);
}

bool digest_file(const char *path, struct digest *out, struct error *err) {
    FILE *file = fopen(path, "rbe");
    if (!file)
        return error_set_errno(err, "%s", path);
    struct digest_state state;
    digest_init(&state);
    unsigned char buffer[65536];
    size_t got;
    while ((got = fread(buffer, 1, sizeof buffer, file)) > 0)
        digest_update(&state, buffer, got);
    bool ok = !ferror(file) || error_set_errno(err, "%s: reading", path);
    fclose(file);
    *out = digest_final(&state);
    return ok;
}

bool digest_equal(const struct digest *a, const struct digest *b) {
    return memcmp(a->bytes, b->bytes, sizeof a->bytes) == 0;
}

const char *digest_hex(const struct digest *digest, char out[DIGEST_HEX_SIZE]) {
    sodium_bin2hex(out, DIGEST_HEX_SIZE, digest->bytes, sizeof digest->bytes);
    return out;
}

bool digest_parse(const char *hex, struct digest *out, struct error *err) {
    size_t size = 0;
    if (strlen(hex) != 64 || sodium_hex2bin(out->bytes, sizeof out->bytes, hex, 64, NULL, &size, NULL) != 0 || size != 32)
        return error_set(err, ERROR_FORMAT, "a digest is 64 hexadecimal digits");
    return true;
}

uint64_t digest_random_u64(void) {
    uint64_t value;
    randombytes_buf(&value, sizeof value);
    return value;
}
