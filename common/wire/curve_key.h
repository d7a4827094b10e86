#pragma once
#include "common/base/error.h"

/**
 * CURVE keys (Curve25519, as ZeroMQ's CurveZMQ uses them) and the files that they live in. Thread-safe.
 *
 * NAME.key, mode 0600:            NAME.pub:
 *     Thorax CURVE secret key 1       Thorax CURVE public key 1
 *     public 40 characters of Z85     public 40 characters of Z85
 *     secret 40 characters of Z85
 *
 * Sources: RFC 26/CurveZMQ, RFC 32/Z85.
 */
enum { CURVE_TEXT_SIZE = 41 };

struct curve_key {
    char public_key[CURVE_TEXT_SIZE]; /**< Z85 */
    char secret_key[CURVE_TEXT_SIZE]; /**< Z85; curve_key_wipe it */
};

/** A new pair. ERROR_UNSUPPORTED: this libzmq was built without CURVE. */
bool curve_key_generate(struct curve_key *key, struct error *err);
/** Writes NAME.key and NAME.pub; never overwrites. */
bool curve_key_write(const struct curve_key *key, const char *name, struct error *err);
/** Reads a .key file, whose permissions are checked (common/base/secret_file.h). */
bool curve_key_load(const char *path, struct curve_key *key, struct error *err);
/**
 * A pair that follows from a secret which several processes share, so that all of them have the same one. The file is text
 * of 32 to 4096 characters, white space around it left out, whose permissions are checked. It has to be as random as it is
 * long: who has recorded a handshake can try words at leisure.
 */
bool curve_key_load_shared(const char *path, struct curve_key *key, struct error *err);
/** Writes a new file of 256 random bits as text, for curve_key_load_shared. Mode 0600; never overwrites. */
bool curve_secret_write(const char *path, struct error *err);
/** Overwrites it with zeros. */
void curve_key_wipe(struct curve_key *key);

/** A public key from a .pub file (whatever ends so) or, else, from its 40 characters. */
bool curve_public_load(const char *path_or_key, char out[CURVE_TEXT_SIZE], struct error *err);
/** True for 40 characters of Z85 that decode to a key. */
bool curve_public_ok(const char *text);
