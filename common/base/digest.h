#pragma once
#include "common/base/error.h"
#include <stddef.h>
#include <stdint.h>

/** A SHA-256 digest. */
struct digest {
    uint8_t bytes[32];
};

enum { DIGEST_HEX_SIZE = 65 };

/** The state of a digest taken piece by piece. */
struct digest_state {
    _Alignas(16) unsigned char opaque[128];
};

/** Call once per process before any other function here (libsodium's own start). Harmless to repeat. */
bool digest_start(struct error *err);
struct digest digest_of(const void *data, size_t size);
void digest_init(struct digest_state *state);
void digest_update(struct digest_state *state, const void *data, size_t size);
struct digest digest_final(struct digest_state *state);
/** Digest of a whole file, read through a small buffer. */
bool digest_file(const char *path, struct digest *out, struct error *err);
bool digest_equal(const struct digest *a, const struct digest *b);
/** Lower-case hexadecimal with a final NUL. Returns out. */
const char *digest_hex(const struct digest *digest, char out[DIGEST_HEX_SIZE]);
/** Exactly 64 hexadecimal digits. */
bool digest_parse(const char *hex, struct digest *out, struct error *err);
/** A 64-bit seed that no other process draws, for incarnations and request ids (from the system's generator). */
uint64_t digest_random_u64(void);
