#pragma once
#include "common/pool/descriptor.h"

/**
 * Which models this member takes: signed by a key that it trusts, not revoked, not older than its floor, and
 * of a kind that runs here. Any thread; its mutex, which guards what was read of the list of revocations, is
 * a leaf lock.
 */
struct trust;

enum { TRUST_MAX_KEYS = 64, TRUST_MAX_PRECISIONS = 8 };

struct trust_spec {
    const char *const *keys; /**< (key_count): .pub files, or public keys of 64 hexadecimal digits */
    int key_count;           /**< 0: unsigned models are taken too */
    const char
        *oldest; /**< "2026-11-24T00:00:00Z": models described before are refused; "" : there is no floor */
    const char *
        revoked; /**< a file of lines "model DIGEST" and "key DIGITS", read again when it changes; "": none */
    const char *const *precisions; /**< (precision_count): that this member computes in, beside f32 */
    int precision_count;
    int instances;            /**< that need buffers of their own for a model; 0: one */
    int64_t max_memory_bytes; /**< a model that needs more is refused; 0: what the process may take at most */
};

/** Reads keys and list; errors name the file. Returns owned. */
struct trust *trust_create(const struct trust_spec *spec, struct error *err);
/** Takes NULL. */
void trust_destroy(struct trust *trust);

/**
 * Whether the model may be fetched, kept and run here; err says why not. descriptor NULL: nothing is known of
 * the model but its digest, e.g. it was stored by version 0.1: refused where signatures are wanted.
 */
bool trust_check(struct trust *trust, const struct descriptor *descriptor, struct error *err);
