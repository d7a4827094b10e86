#include "common/wire/message.h"
#include "common/base/text.h"
#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum { VARINT_MAX_BYTES = 10, FIELD_NUMBER_MAX = (1 << 29) - 1, TRACKED_FIELDS = 64 };

/** Bytes not yet read. */
struct reader {
    const uint8_t *at, *end;
};

/** One field as it stands in the bytes. */
struct field {
    uint32_t number;
    ProtobufCWireType wire;
    uint64_t varint;          /* WIRE_TYPE_VARINT */
    struct wire_frame nested; /* WIRE_TYPE_LENGTH_PREFIXED */
};

/** A message being checked: what is left of the limits. */
struct check {
    const struct message_limits *limits;
    int fields;
    struct error *err;
};

static bool read_varint(struct reader *reader, uint64_t *out) {
    *out = 0;
    for (int i = 0; i < VARINT_MAX_BYTES && reader->at < reader->end; i++) {
        uint8_t byte = *reader->at++;
        *out |= (uint64_t)(byte & 0x7f) << (7 * i);
        if (!(byte & 0x80)) {
            return true;
        }
    }
    return false;
}

static bool skip(struct reader *reader, uint64_t count) {
    if (count > (uint64_t)(reader->end - reader->at)) {
        return false;
    }
    reader->at += count;
    return true;
}

/** False where the bytes are no field. Groups, long deprecated, are none. */
static bool read_field(struct reader *reader, struct field *out) {
    uint64_t tag, length;
    if (!read_varint(reader, &tag) || tag >> 3 == 0 || tag >> 3 > FIELD_NUMBER_MAX) {
        return false;
    }
    out->number = (uint32_t)(tag >> 3);
    out->wire = (ProtobufCWireType)(tag & 7);
    switch (out->wire) {
    case PROTOBUF_C_WIRE_TYPE_VARINT:
        return read_varint(reader, &out->varint);
    case PROTOBUF_C_WIRE_TYPE_64BIT:
        return skip(reader, 8);
    case PROTOBUF_C_WIRE_TYPE_32BIT:
        return skip(reader, 4);
    case PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED:
        if (!read_varint(reader, &length) || length > (uint64_t)(reader->end - reader->at)) {
            return false;
        }
        out->nested = (struct wire_frame){reader->at, (size_t)length};
        return skip(reader, length);
    default:
        return false;
    }
}

/** Which bit stands for a field: its own, or for members of a oneof that of the first of them. */
static unsigned tracked_bit(const ProtobufCMessageDescriptor *type, const ProtobufCFieldDescriptor *field) {
    unsigned bit = (unsigned)(field - type->fields);
    if (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) {
        for (bit = 0; type->fields[bit].quantifier_offset != field->quantifier_offset ||
                      !(type->fields[bit].flags & PROTOBUF_C_FIELD_FLAG_ONEOF);) {
            bit++;
        }
    }
    return bit;
}

static bool check_once(struct check *check, const ProtobufCMessageDescriptor *type,
                       const ProtobufCFieldDescriptor *field, uint64_t *seen) {
    unsigned bit = tracked_bit(type, field);
    if (field->label == PROTOBUF_C_LABEL_REPEATED || bit >= TRACKED_FIELDS) {
        return true;
    }
    if (*seen >> bit & 1) {
        return error_set(check->err, ERROR_INVALID, "%s.%s: given twice, or beside its alternative",
                         type->short_name, field->name);
    }
    *seen |= UINT64_C(1) << bit;
    return true;
}

static bool check_enum(struct check *check, const ProtobufCMessageDescriptor *type,
                       const ProtobufCFieldDescriptor *field, const struct field *found) {
    const ProtobufCEnumDescriptor *values = field->descriptor;
    int64_t value = (int64_t)found->varint;
    if (found->wire == PROTOBUF_C_WIRE_TYPE_VARINT && value >= INT_MIN && value <= INT_MAX &&
        protobuf_c_enum_descriptor_get_value(values, (int)value)) {
        return true;
    }
    return error_set(check->err, ERROR_INVALID, "%s.%s: no value of %s", type->short_name, field->name,
                     values->short_name);
}

static bool check_message(struct check *check, const ProtobufCMessageDescriptor *type,
                          struct wire_frame frame, int depth);

static bool check_value(struct check *check, const ProtobufCMessageDescriptor *type,
                        const ProtobufCFieldDescriptor *field, const struct field *found, int depth) {
    if (field->type == PROTOBUF_C_TYPE_ENUM) {
        return check_enum(check, type, field, found);
    }
    if (field->type != PROTOBUF_C_TYPE_STRING && field->type != PROTOBUF_C_TYPE_MESSAGE) {
        return true; /* a wrong wire type is protobuf-c's to refuse */
    }
    if (found->wire != PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED) {
        return error_set(check->err, ERROR_FORMAT, "%s.%s: not of its type", type->short_name, field->name);
    }
    if (field->type == PROTOBUF_C_TYPE_MESSAGE) {
        return check_message(check, field->descriptor, found->nested, depth + 1);
    }
    return text_is_utf8(found->nested.data, found->nested.size) ||
           error_set(check->err, ERROR_INVALID, "%s.%s: not UTF-8, or a NUL in it", type->short_name,
                     field->name);
}

static bool check_message(struct check *check, const ProtobufCMessageDescriptor *type,
                          struct wire_frame frame, int depth) {
    struct reader reader = {frame.data, (const uint8_t *)frame.data + frame.size};
    uint64_t seen = 0;
    if (depth > check->limits->max_depth) {
        return error_set(check->err, ERROR_TOO_LARGE, "more than %d messages inside one another",
                         check->limits->max_depth);
    }
    while (reader.at < reader.end) {
        struct field found = {0};
        if (!read_field(&reader, &found)) {
            return error_set(check->err, ERROR_FORMAT, "%s: the bytes are no protobuf message",
                             type->short_name);
        }
        if (++check->fields > check->limits->max_fields) {
            return error_set(check->err, ERROR_TOO_LARGE, "more than %d fields", check->limits->max_fields);
        }
        const ProtobufCFieldDescriptor *field = protobuf_c_message_descriptor_get_field(type, found.number);
        if (field &&
            (!check_once(check, type, field, &seen) || !check_value(check, type, field, &found, depth))) {
            return false;
        }
    }
    return true;
}

bool message_check(const ProtobufCMessageDescriptor *type, struct wire_frame frame,
                   const struct message_limits *limits, struct error *err) {
    if (frame.size == 0) {
        return error_set(err, ERROR_FORMAT, "%s: an empty frame", type->short_name);
    }
    if (frame.size > limits->max_bytes) {
        return error_set(err, ERROR_TOO_LARGE, "%s of %zu bytes: at most %zu", type->short_name, frame.size,
                         limits->max_bytes);
    }
    struct check check = {.limits = limits, .err = err};
    return check_message(&check, type, frame, 1);
}

ProtobufCMessage *message_unpack(const ProtobufCMessageDescriptor *type, struct wire_frame frame,
                                 const struct message_limits *limits, struct error *err) {
    if (!message_check(type, frame, limits, err)) {
        return NULL;
    }
    ProtobufCMessage *message = protobuf_c_message_unpack(type, NULL, frame.size, frame.data);
    if (!message) {
        error_set(err, ERROR_FORMAT, "%s: a field is not of its type", type->short_name);
    }
    return message;
}

void message_free(ProtobufCMessage *message) {
    protobuf_c_message_free_unpacked(message, NULL);
}

bool message_pack(const ProtobufCMessage *message, struct bytes *out, struct error *err) {
    size_t size = protobuf_c_message_get_packed_size(message);
    *out = (struct bytes){malloc(size + 1), size};
    if (!out->data) {
        return error_set(err, ERROR_MEMORY, "no memory for a message of %zu bytes", size);
    }
    protobuf_c_message_pack(message, out->data);
    return true;
}

bool message_peek(struct wire_frame frame, uint32_t number, uint64_t *out) {
    struct reader reader = {frame.data, (const uint8_t *)frame.data + frame.size};
    *out = 0;
    while (reader.at < reader.end) {
        struct field found = {0};
        if (!read_field(&reader, &found)) {
            return false;
        }
        if (found.number == number && found.wire == PROTOBUF_C_WIRE_TYPE_VARINT) {
            *out = found.varint;
        }
    }
    return true;
}

bool message_find(struct wire_frame frame, uint32_t number, struct wire_frame *out) {
    struct reader reader = {frame.data, (const uint8_t *)frame.data + frame.size};
    struct field found = {0};
    while (reader.at < reader.end && read_field(&reader, &found)) {
        if (found.number == number && found.wire == PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED) {
            *out = found.nested;
            return true;
        }
    }
    return false;
}

static bool is_among(uint32_t number, const uint32_t *numbers, int count) {
    for (int i = 0; i < count; i++) {
        if (numbers[i] == number) {
            return true;
        }
    }
    return false;
}

size_t message_copy_without(struct wire_frame frame, const uint32_t *fields, int count, uint8_t *out) {
    struct reader reader = {frame.data, (const uint8_t *)frame.data + frame.size};
    size_t copied = 0;
    while (reader.at < reader.end) {
        const uint8_t *start = reader.at;
        struct field found = {0};
        if (!read_field(&reader, &found)) {
            break;
        }
        if (!is_among(found.number, fields, count)) {
            memcpy(out + copied, start, (size_t)(reader.at - start));
            copied += (size_t)(reader.at - start);
        }
    }
    return copied;
}

static size_t put_varint(uint64_t value, uint8_t *out) {
    size_t size = 0;
    for (; value >= 0x80; value >>= 7) {
        out[size++] = (uint8_t)(value | 0x80);
    }
    out[size++] = (uint8_t)value;
    return size;
}

size_t message_put_varint(uint32_t field, uint64_t value, uint8_t *out) {
    size_t size = put_varint((uint64_t)field << 3 | PROTOBUF_C_WIRE_TYPE_VARINT, out);
    return size + put_varint(value, out + size);
}

size_t message_put_head(uint32_t field, size_t size_bytes, uint8_t *out) {
    size_t size = put_varint((uint64_t)field << 3 | PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED, out);
    return size + put_varint(size_bytes, out + size);
}
