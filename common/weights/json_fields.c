#include "common/weights/json_fields.h"

#include "common/base/text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/** What a kind of field can do. `read` finds the type right or sets err; values are checked afterwards, by
 * `check`. */
struct kind_ops {
    const char *noun;
    bool (*read)(const struct json_field *field, const json_t *value, struct arena *arena, char *out,
                 struct error *err);
    bool (*check)(const struct json_field *field, const char *in, struct error *err);
    json_t *(*write)(const struct json_field *field, const char *in, struct error *err);
};

static const struct kind_ops kinds[JSON_FIELD_KINDS];

static bool wrong_type(const struct json_field *field, struct error *err) {
    return error_set(err, ERROR_FORMAT, "%s: expected %s", field->key, kinds[field->kind].noun);
}

static int *count_at(const struct json_field *field, const char *base) {
    return (int *)(base + field->count_offset);
}

/* Text */

static const char *text_at(const struct json_field *field, const char *in) {
    return *(const char *const *)(in + field->offset);
}

/** UTF-8 without control characters (line ends apart): text of a file must not steer a terminal. */
static bool is_clean(const char *text, size_t length) {
    for (size_t i = 0; i < length; i++) {
        if (((unsigned char)text[i] < ' ' && text[i] != '\n') || text[i] == 0x7f)
            return false;
    }
    return text_is_utf8(text, length);
}

static char *copy_text(const json_t *value, struct arena *arena, struct error *err) {
    char *copy = arena_copy(arena, json_string_value(value), json_string_length(value));
    if (!copy)
        error_set(err, ERROR_MEMORY, "out of memory");
    return copy;
}

static bool read_text(const struct json_field *field, const json_t *value, struct arena *arena, char *out,
                      struct error *err) {
    if (!json_is_string(value))
        return wrong_type(field, err);
    const char *copy = copy_text(value, arena, err);
    if (copy)
        *(const char **)(out + field->offset) = copy;
    return copy != NULL;
}

static bool check_text(const struct json_field *field, const char *in, struct error *err) {
    const char *text = text_at(field, in);
    size_t length = text ? strlen(text) : 0;
    if (!text || !is_clean(text, length))
        return error_set(err, ERROR_INVALID, "%s: not text in UTF-8 without control characters", field->key);
    if ((double)length > field->max)
        return error_set(err, ERROR_TOO_LARGE, "%s: %zu bytes, the limit is %.0f", field->key, length,
                         field->max);
    return true;
}

static bool check_name(const struct json_field *field, const char *in, struct error *err) {
    const char *text = text_at(field, in);
    size_t length = text ? strlen(text) : 0;
    const char *allowed = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
    if (length >= 1 && length <= 100 && strspn(text, allowed) == length)
        return true;
    return error_set(err, ERROR_INVALID, "%s: expected 1 to 100 letters, digits, dots, dashes or underscores",
                     field->key);
}

static bool check_digest(const struct json_field *field, const char *in, struct error *err) {
    const char *text = text_at(field, in);
    size_t length = text ? strlen(text) : 1;
    if (length == 0 || (length == 64 && strspn(text, "0123456789abcdef") == length))
        return true;
    return error_set(err, ERROR_INVALID, "%s: expected 64 hexadecimal digits", field->key);
}

static json_t *write_text(const struct json_field *field, const char *in, struct error *err) {
    (void)err;
    return json_string(text_at(field, in));
}

/* Numbers */

static bool out_of_range(const struct json_field *field, double value, struct error *err) {
    return error_set(err, ERROR_INVALID, "%s: %.15g is not in %.15g..%.15g", field->key, value, field->min,
                     field->max);
}

static bool read_int(const struct json_field *field, const json_t *value, struct arena *arena, char *out,
                     struct error *err) {
    (void)arena;
    double number = (double)json_integer_value(value);
    if (!json_is_integer(value))
        return wrong_type(field, err);
    if (number < field->min || number > field->max)
        return out_of_range(field, number, err);
    if (field->kind == JSON_FIELD_INT)
        *(int *)(out + field->offset) = (int)json_integer_value(value);
    else
        *(int64_t *)(out + field->offset) = json_integer_value(value);
    return true;
}

static int64_t int_at(const struct json_field *field, const char *in) {
    return field->kind == JSON_FIELD_INT ? *(const int *)(in + field->offset)
                                         : *(const int64_t *)(in + field->offset);
}

static bool check_int(const struct json_field *field, const char *in, struct error *err) {
    double number = (double)int_at(field, in);
    return (number >= field->min && number <= field->max) || out_of_range(field, number, err);
}

static json_t *write_int(const struct json_field *field, const char *in, struct error *err) {
    (void)err;
    return json_integer(int_at(field, in));
}

static bool read_double(const struct json_field *field, const json_t *value, struct arena *arena, char *out,
                        struct error *err) {
    (void)arena;
    if (!json_is_number(value))
        return wrong_type(field, err);
    *(double *)(out + field->offset) = json_number_value(value);
    return true;
}

static bool check_double(const struct json_field *field, const char *in, struct error *err) {
    double number = *(const double *)(in + field->offset);
    return (number >= field->min && number <= field->max) ||
           out_of_range(field, number, err); /* also where it is NaN */
}

static json_t *write_double(const struct json_field *field, const char *in, struct error *err) {
    (void)err;
    return json_real(*(const double *)(in + field->offset));
}

/* Lists of text */

static bool read_texts(const struct json_field *field, const json_t *value, struct arena *arena, char *out,
                       struct error *err) {
    size_t count = json_array_size(value);
    if (!json_is_array(value))
        return wrong_type(field, err);
    if ((double)count > field->max)
        return error_set(err, ERROR_TOO_LARGE, "%s: %zu entries, the limit is %.0f", field->key, count,
                         field->max);
    const char **texts = arena_alloc(arena, (count + 1) * sizeof *texts);
    if (!texts)
        return error_set(err, ERROR_MEMORY, "out of memory");
    for (size_t i = 0; i < count; i++) {
        const json_t *text = json_array_get(value, i);
        if (!json_is_string(text))
            return wrong_type(field, err);
        if (!(texts[i] = copy_text(text, arena, err)))
            return false;
    }
    *(const char ***)(out + field->offset) = texts;
    *count_at(field, out) = (int)count;
    return true;
}

static bool check_texts(const struct json_field *field, const char *in, struct error *err) {
    const char *const *texts = *(const char *const *const *)(in + field->offset);
    int count = *count_at(field, in);
    if (count < (int)field->min || count > (int)field->max)
        return out_of_range(field, count, err);
    for (int i = 0; i < count; i++) {
        size_t length = texts[i] ? strlen(texts[i]) : 0;
        if (length == 0 || length > 100 || !is_clean(texts[i], length))
            return error_set(err, ERROR_INVALID,
                             "%s: entry %d is not 1 to 100 bytes of UTF-8 without control characters",
                             field->key, i + 1);
        for (int k = 0; k < i; k++) {
            if (strcmp(texts[i], texts[k]) == 0)
                return error_set(err, ERROR_INVALID, "%s: \"%s\" stands twice", field->key, texts[i]);
        }
    }
    return true;
}

static json_t *write_texts(const struct json_field *field, const char *in, struct error *err) {
    (void)err;
    const char *const *texts = *(const char *const *const *)(in + field->offset);
    json_t *list = json_array();
    for (int i = 0; list && i < *count_at(field, in); i++)
        json_array_append_new(list, json_string(texts[i]));
    return list;
}

/* Structs */

static bool read_object(const struct json_field *field, const json_t *value, struct arena *arena, char *out,
                        struct error *err) {
    if (!json_is_object(value))
        return wrong_type(field, err);
    return json_fields_read(field->fields, value, arena, out + field->offset, err) ||
           error_prefix(err, "%s", field->key);
}

static bool check_object(const struct json_field *field, const char *in, struct error *err) {
    return json_fields_check(field->fields, in + field->offset, err) || error_prefix(err, "%s", field->key);
}

static json_t *write_object(const struct json_field *field, const char *in, struct error *err) {
    return json_fields_write(field->fields, in + field->offset, err);
}

static bool read_objects(const struct json_field *field, const json_t *value, struct arena *arena, char *out,
                         struct error *err) {
    size_t count = json_array_size(value);
    if (!json_is_array(value))
        return wrong_type(field, err);
    if ((double)count > field->max)
        return error_set(err, ERROR_TOO_LARGE, "%s: %zu entries, the limit is %.0f", field->key, count,
                         field->max);
    char *items = arena_alloc(arena, (count + 1) * field->size);
    if (!items)
        return error_set(err, ERROR_MEMORY, "out of memory");
    for (size_t i = 0; i < count; i++) {
        const json_t *item = json_array_get(value, i);
        if (!json_is_object(item))
            return wrong_type(field, err);
        if (!json_fields_read(field->fields, item, arena, items + i * field->size, err))
            return error_prefix(err, "%s %zu", field->key, i + 1);
    }
    *(char **)(out + field->offset) = items;
    *count_at(field, out) = (int)count;
    return true;
}

static bool check_objects(const struct json_field *field, const char *in, struct error *err) {
    const char *items = *(const char *const *)(in + field->offset);
    int count = *count_at(field, in);
    if (count < (int)field->min || count > (int)field->max)
        return out_of_range(field, count, err);
    for (int i = 0; i < count; i++) {
        if (!json_fields_check(field->fields, items + (size_t)i * field->size, err))
            return error_prefix(err, "%s %d", field->key, i + 1);
    }
    return true;
}

static json_t *write_objects(const struct json_field *field, const char *in, struct error *err) {
    const char *items = *(const char *const *)(in + field->offset);
    json_t *list = json_array();
    for (int i = 0; list && i < *count_at(field, in); i++)
        json_array_append_new(list, json_fields_write(field->fields, items + (size_t)i * field->size, err));
    return list;
}

/* JSON that others understand */

static bool read_raw(const struct json_field *field, const json_t *value, struct arena *arena, char *out,
                     struct error *err) {
    if (!json_is_object(value))
        return wrong_type(field, err);
    size_t length = json_dumpb(value, NULL, 0, JSON_COMPACT);
    char *text = length > 0 ? arena_alloc(arena, length + 1) : NULL;
    if (!text)
        return error_set(err, ERROR_MEMORY, "out of memory");
    json_dumpb(value, text, length, JSON_COMPACT);
    *(const char **)(out + field->offset) = text;
    return true;
}

static bool check_raw(const struct json_field *field, const char *in, struct error *err) {
    if (!check_text(field, in, err))
        return false;
    json_t *value = json_loads(text_at(field, in), JSON_REJECT_DUPLICATES, NULL);
    bool ok = json_is_object(value);
    json_decref(value);
    return ok || error_set(err, ERROR_INVALID, "%s: not a JSON object", field->key);
}

static json_t *write_raw(const struct json_field *field, const char *in, struct error *err) {
    (void)err;
    return json_loads(text_at(field, in), JSON_REJECT_DUPLICATES, NULL);
}

static const struct kind_ops kinds[JSON_FIELD_KINDS] = {
    [JSON_FIELD_TEXT] = {"text", read_text, check_text, write_text},
    [JSON_FIELD_NAME] = {"text", read_text, check_name, write_text},
    [JSON_FIELD_DIGEST] = {"text", read_text, check_digest, write_text},
    [JSON_FIELD_INT] = {"a whole number", read_int, check_int, write_int},
    [JSON_FIELD_INT64] = {"a whole number", read_int, check_int, write_int},
    [JSON_FIELD_DOUBLE] = {"a number", read_double, check_double, write_double},
    [JSON_FIELD_TEXTS] = {"a list of text", read_texts, check_texts, write_texts},
    [JSON_FIELD_OBJECT] = {"an object", read_object, check_object, write_object},
    [JSON_FIELD_OBJECTS] = {"a list of objects", read_objects, check_objects, write_objects},
    [JSON_FIELD_RAW] = {"an object", read_raw, check_raw, write_raw},
};

bool json_fields_read(const struct json_field *fields, const json_t *object, struct arena *arena, void *out,
                      struct error *err) {
    for (const struct json_field *field = fields; field->key; field++) {
        const json_t *value = json_object_get(object, field->key);
        if (!value && field->optional)
            continue;
        if (!value)
            return error_set(err, ERROR_FORMAT, "%s: missing", field->key);
        if (!kinds[field->kind].read(field, value, arena, out, err))
            return false;
    }
    return true;
}

bool json_fields_check(const struct json_field *fields, const void *in, struct error *err) {
    for (const struct json_field *field = fields; field->key; field++) {
        if (!kinds[field->kind].check(field, in, err))
            return false;
    }
    return true;
}

json_t *json_fields_write(const struct json_field *fields, const void *in, struct error *err) {
    json_t *object = json_object();
    for (const struct json_field *field = fields; object && field->key; field++) {
        if (json_object_set_new(object, field->key, kinds[field->kind].write(field, in, err)) != 0) {
            json_decref(object);
            object = NULL;
        }
    }
    if (!object)
        error_set(err, ERROR_MEMORY, "out of memory");
    return object;
}
