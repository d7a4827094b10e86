#pragma once
#include "common/base/arena.h"
#include "common/base/error.h"
#include <jansson.h>

/** The kinds of field that a plain struct may have in JSON. */
enum json_kind {
    JSON_FIELD_TEXT,    /**< const char *; at most `max` bytes */
    JSON_FIELD_NAME,    /**< const char *; 1..100 of A-Z a-z 0-9 . _ - */
    JSON_FIELD_DIGEST,  /**< const char *; 64 hexadecimal digits, or "" */
    JSON_FIELD_INT,     /**< int in min..max */
    JSON_FIELD_INT64,   /**< int64_t in min..max */
    JSON_FIELD_DOUBLE,  /**< double in min..max, finite */
    JSON_FIELD_TEXTS,   /**< const char **; at most max of them, unique; the count at count_offset */
    JSON_FIELD_OBJECT,  /**< a struct, described by `fields` */
    JSON_FIELD_OBJECTS, /**< a pointer to structs; at most max of them; the count at count_offset */
    JSON_FIELD_RAW,     /**< const char *: any JSON object, kept as text of at most max bytes */
    JSON_FIELD_KINDS
};

/** One field: the one row from which reading, checking and writing come. */
struct json_field {
    const char *key;
    enum json_kind kind;
    size_t offset, count_offset;
    double min, max;
    const struct json_field *fields; /**< of an object; ends with a row without a key */
    size_t size;                     /**< JSON_FIELD_OBJECTS: of one struct */
    bool optional;                   /**< may be missing: the struct keeps what it holds */
};

/** Fills `out` from an object; strings go into the arena. Every field that is not optional must be there. Errors name the
 * field by its path. */
bool json_fields_read(const struct json_field *fields, const json_t *object, struct arena *arena, void *out,
                      struct error *err);

/** Checks a struct's values against the rows. */
bool json_fields_check(const struct json_field *fields, const void *in, struct error *err);

/** The struct as an owned JSON object, keys in the order of the rows; NULL on error. The struct must be
 * checked. */
json_t *json_fields_write(const struct json_field *fields, const void *in, struct error *err);
