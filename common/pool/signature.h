#pragma once
#include "common/base/error.h"
#include <stddef.h>
#include <stdint.h>

/**
 * Ed25519 signatures (RFC 8032, by libsodium), and the files that their keys live in. All of it is
 * thread-safe.
 *
 * NAME.key, mode 0600:             NAME.pub:
 *     Thorax Ed25519 secret key 1      Thorax Ed25519 public key 1
 *     public 64 hexadecimal digits     public 64 hexadecimal digits
 *     secret 64 hexadecimal digits
 *
 * where `secret` is RFC 8032's 32-byte secret.
 */
enum { SIGNATURE_SIZE = 64, SIGNATURE_PUBLIC_SIZE = 32, SIGNATURE_ID_SIZE = 17 };

/** Whoever has it can sign. signature_key_wipe it. */
struct signature_key {
    uint8_t public_key[SIGNATURE_PUBLIC_SIZE];
    uint8_t secret_key[64]; /**< libsodium's form: the secret of RFC 8032, then the public key */
};

/** A new pair, from the system's random numbers. */
bool signature_key_generate(struct signature_key *key, struct error *err);
/** Writes NAME.key and NAME.pub; never overwrites. */
bool signature_key_write(const struct signature_key *key, const char *name, struct error *err);
/** Reads a .key file, whose permissions are checked (common/base/secret_file.h). */
bool signature_key_load(const char *path, struct signature_key *key, struct error *err);
/** Overwrites it with zeros. */
void signature_key_wipe(struct signature_key *key);
/** Reads a .pub file, which only its owner may be able to write. */
bool signature_public_load(const char *path, uint8_t out[SIGNATURE_PUBLIC_SIZE], struct error *err);

/** The first 16 hexadecimal digits of a public key: how people and logs call it. Returns out. */
const char *signature_key_id(const uint8_t key[SIGNATURE_PUBLIC_SIZE], char out[SIGNATURE_ID_SIZE]);

void signature_make(const struct signature_key *key, const void *data, size_t size,
                    uint8_t out[SIGNATURE_SIZE]);
/** False where it is not this key's signature of exactly these bytes. */
bool signature_verify(const uint8_t key[SIGNATURE_PUBLIC_SIZE], const uint8_t signature[SIGNATURE_SIZE],
                      const void *data, size_t size);
