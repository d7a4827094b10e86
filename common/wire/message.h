#pragma once
#include "common/base/file.h"
#include "common/wire/endpoint.h"
#include <protobuf-c/protobuf-c.h>

/** The version in every Envelope and pool message. */
enum { MESSAGE_PROTOCOL_VERSION = 1 };

/** What a message from outside may cost. Checked on the bytes, before anything is allocated. */
struct message_limits {
    size_t max_bytes; /**< of the packed message */
    int max_fields;   /**< fields in all of it, repeated, nested and unknown ones counted: each costs memory
                         when unpacked */
    int max_depth;    /**< messages inside one another; 1: none inside the outermost */
};

/**
 * Checks packed bytes against a type, without allocating: well-formed, within the limits, no field or oneof
 * given twice (which parsers resolve in different ways: two pictures in one request must not be a matter of
 * taste), strings UTF-8 without NUL, enums among their values: protobuf-c looks at none of these. Unknown
 * fields are let pass. Errors: FORMAT (empty and malformed), INVALID (naming the field), TOO_LARGE.
 * Thread-safe. Source: protobuf.dev, "Encoding".
 */
bool message_check(const ProtobufCMessageDescriptor *type, struct wire_frame frame,
                   const struct message_limits *limits, struct error *err);

/** message_check, then unpacks. Returns owned (message_free), NULL on error. Cast it to the type's struct. */
ProtobufCMessage *message_unpack(const ProtobufCMessageDescriptor *type, struct wire_frame frame,
                                 const struct message_limits *limits, struct error *err);

/** Takes NULL. */
void message_free(ProtobufCMessage *message);

/** Packs into owned memory (free(out->data)). */
bool message_pack(const ProtobufCMessage *message, struct bytes *out, struct error *err);

/**
 * The number in an outermost varint field, 0 where it is absent: so that a protocol version can be read from
 * a message of a version that we do not know otherwise. False where the outermost fields are malformed.
 */
bool message_peek(struct wire_frame frame, uint32_t field, uint64_t *out);

/** The outermost length-delimited field of that number; false where there is none, or the fields are malformed. */
bool message_find(struct wire_frame frame, uint32_t field, struct wire_frame *out);

/**
 * Copies a message without its outermost fields of these numbers, as they stand in its bytes. out has room for
 * frame.size. The number of bytes copied; malformed fields end the copy.
 */
size_t message_copy_without(struct wire_frame frame, const uint32_t *fields, int count, uint8_t *out);

enum { MESSAGE_FIELD_HEAD_MAX = 20 };
/** Writes a varint field (tag and value) to out, which has MESSAGE_FIELD_HEAD_MAX bytes. Returns the bytes written. */
size_t message_put_varint(uint32_t field, uint64_t value, uint8_t *out);
/** Writes tag and length of a length-delimited field; its bytes are to follow. As message_put_varint. */
size_t message_put_head(uint32_t field, size_t size_bytes, uint8_t *out);
