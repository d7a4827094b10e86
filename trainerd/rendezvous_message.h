#pragma once
#include "common/wire/endpoint.h"

/**
 * The messages between a worker (DEALER) and the rendezvous (ROUTER): a head of 28 bytes, then for some verbs
 * a key and a value. Whole numbers are little-endian.
 *
 *     0  "TRDV"      4  version 1   5  verb   6  0 0
 *     8  rank u32   12  world size u32   16  generation u64   24  sequence u32 (an answer repeats its
 * question's)
 */
enum rendezvous_verb {
    RENDEZVOUS_HELLO = 1, /**< value: fingerprint; answered by WELCOME when all are there, or REFUSED */
    RENDEZVOUS_SET,       /**< key, value; answered by OK or REFUSED */
    RENDEZVOUS_GET,       /**< key; answered by OK with the value, as soon as it is set */
    RENDEZVOUS_REPORT,    /**< kind, value; not answered */
    RENDEZVOUS_HEARTBEAT, /**< not answered */
    RENDEZVOUS_LEAVE,     /**< answered by OK: all that was sent before has been handled */
    RENDEZVOUS_OK,        /**< value */
    RENDEZVOUS_WELCOME,
    RENDEZVOUS_REFUSED, /**< value: text for people */
    RENDEZVOUS_VERB_COUNT,
};
enum { RENDEZVOUS_HEAD_SIZE = 28, RENDEZVOUS_FRAMES = 3 };

struct rendezvous_message {
    enum rendezvous_verb verb;
    uint32_t rank, world_size;
    uint64_t generation;
    uint32_t sequence;
    struct wire_frame key, value; /**< borrowed */
};

/** Fills in frames that borrow head and the message's own memory. */
void rendezvous_pack(const struct rendezvous_message *message, uint8_t head[RENDEZVOUS_HEAD_SIZE],
                     struct wire_frame frames[RENDEZVOUS_FRAMES]);

/** Reads three hostile frames; out borrows them. Checks lengths, version and verb, not who may send what. */
bool rendezvous_unpack(const struct wire_frame *frames, int count, struct rendezvous_message *out);
