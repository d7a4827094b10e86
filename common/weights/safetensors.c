#include "common/weights/safetensors.h"

#include "common/base/text.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "the format is little-endian, and so is every machine we run on");

/** Element types of the format; DTYPE_NONE: known to it, of no use here. */
static const struct {
    const char *name;
    enum dtype dtype;
} dtypes[] = {
    {"F32", DTYPE_F32},   {"F16", DTYPE_F16},      {"BF16", DTYPE_BF16},    {"F64", DTYPE_F64},
    {"I8", DTYPE_S8},     {"U8", DTYPE_U8},        {"I32", DTYPE_S32},      {"I64", DTYPE_S64},
    {"BOOL", DTYPE_NONE}, {"I16", DTYPE_NONE},     {"U16", DTYPE_NONE},     {"U32", DTYPE_NONE},
    {"U64", DTYPE_NONE},  {"F8_E4M3", DTYPE_NONE}, {"F8_E5M2", DTYPE_NONE}, {"C64", DTYPE_NONE},
    {"F4", DTYPE_NONE},   {"F8_E8M0", DTYPE_NONE}, {"F6_E2M3", DTYPE_NONE}, {"F6_E3M2", DTYPE_NONE},
};

enum { DTYPE_ROWS = sizeof dtypes / sizeof *dtypes };

const char *safetensors_dtype_name(enum dtype dtype) {
    for (int i = 0; i < DTYPE_ROWS; i++) {
        if (dtype != DTYPE_NONE && dtypes[i].dtype == dtype)
            return dtypes[i].name;
    }
    return NULL;
}

/** A tensor with where its bytes lie in the buffer behind the header. */
struct placed {
    struct safetensors_tensor tensor;
    uint64_t begin, end;
};

struct parser {
    struct safetensors *out;
    const uint8_t *buffer; /**< behind the header */
    uint64_t buffer_size;
    struct error *err;
};

/**
 * A parsed JSON value costs up to sixty times its text. The header of a true file is three levels deep with a
 * few brackets and commas a tensor, so counting these first keeps a hostile one from costing more than it
 * weighs.
 */
static bool scan_header(const char *text, size_t size, struct error *err) {
    int depth = 0, brackets = 0, commas = 0;
    bool in_string = false;
    for (size_t i = 0; i < size; i++) {
        char c = text[i];
        if (in_string && c == '\\')
            i++;
        else if (c == '"')
            in_string = !in_string;
        else if (in_string)
            continue;
        else if (c == '{' || c == '[')
            depth++, brackets++;
        else if (c == '}' || c == ']')
            depth--;
        else if (c == ',')
            commas++;
        if (depth > 3)
            return error_set(err, ERROR_FORMAT, "safetensors: the header is nested too deeply");
    }
    if (brackets > 4 * SAFETENSORS_MAX_TENSORS || commas > 12 * SAFETENSORS_MAX_TENSORS)
        return error_set(err, ERROR_TOO_LARGE, "safetensors: the header has too many entries");
    return true;
}

/** Checks the frame of the file and parses the header. Returns an owned object, NULL on error. */
static json_t *load_header(const uint8_t *data, size_t size, uint64_t *header_size, struct error *err) {
    if (size < 8) {
        error_set(err, ERROR_FORMAT, "safetensors: %zu bytes, too few for a header", size);
        return NULL;
    }
    memcpy(header_size, data, sizeof *header_size);
    if (*header_size > SAFETENSORS_MAX_HEADER) {
        error_set(err, ERROR_TOO_LARGE, "safetensors: a header of %llu bytes, the limit is %d",
                  (unsigned long long)*header_size, SAFETENSORS_MAX_HEADER);
        return NULL;
    }
    if (*header_size > size - 8) {
        error_set(err, ERROR_FORMAT, "safetensors: a header of %llu bytes in a file of %zu",
                  (unsigned long long)*header_size, size);
        return NULL;
    }
    const char *text = (const char *)data + 8;
    size_t length = (size_t)*header_size;
    if (length == 0 || text[0] != '{') {
        error_set(err, ERROR_FORMAT, "safetensors: the header does not start with {");
        return NULL;
    }
    if (!scan_header(text, length, err))
        return NULL;
    json_error_t why;
    json_t *header = json_loadb(text, length, JSON_REJECT_DUPLICATES, &why);
    if (!header)
        error_set(err, ERROR_FORMAT, "safetensors: the header is not proper JSON: %s", why.text);
    return header;
}

static bool parse_metadata(struct parser *parser, const json_t *metadata) {
    struct safetensors *out = parser->out;
    if (!json_is_object(metadata))
        return error_set(parser->err, ERROR_FORMAT, "safetensors: __metadata__ is not an object");
    size_t count = json_object_size(metadata);
    if (count > SAFETENSORS_MAX_METADATA)
        return error_set(parser->err, ERROR_TOO_LARGE, "safetensors: %zu entries of metadata", count);
    out->metadata = arena_alloc(&out->arena, count * sizeof *out->metadata);
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)metadata, key, value) {
        if (!json_is_string(value))
            return error_set(parser->err, ERROR_FORMAT, "safetensors: the metadata \"%.60s\" is not text",
                             key);
        char *key_copy = arena_copy(&out->arena, key, strlen(key));
        char *value_copy = arena_copy(&out->arena, json_string_value(value), json_string_length(value));
        if (!out->metadata || !key_copy || !value_copy)
            return error_set(parser->err, ERROR_MEMORY, "safetensors: out of memory");
        out->metadata[out->metadata_count++] = (struct safetensors_text){key_copy, value_copy};
    }
    return true;
}

static bool parse_dtype(struct parser *parser, const json_t *value, struct safetensors_tensor *tensor) {
    const char *name = json_string_value(value);
    for (int i = 0; name && i < DTYPE_ROWS; i++) {
        if (strcmp(dtypes[i].name, name) != 0)
            continue;
        tensor->dtype = dtypes[i].dtype;
        return tensor->dtype != DTYPE_NONE ||
               error_set(parser->err, ERROR_UNSUPPORTED,
                         "safetensors: %s: elements of type %s are of no use here", tensor->name, name);
    }
    return error_set(parser->err, ERROR_FORMAT, "safetensors: %s: \"%.20s\" is not an element type",
                     tensor->name, name ? name : "");
}

static bool parse_shape(struct parser *parser, const json_t *value, struct safetensors_tensor *tensor) {
    size_t rank = json_array_size(value);
    if (!json_is_array(value))
        return error_set(parser->err, ERROR_FORMAT, "safetensors: %s: the shape is not a list", tensor->name);
    if (rank > SHAPE_MAX_RANK)
        return error_set(parser->err, ERROR_UNSUPPORTED,
                         "safetensors: %s: %zu dimensions, at most %d are supported", tensor->name, rank,
                         SHAPE_MAX_RANK);
    tensor->shape.rank = (int)rank;
    for (size_t i = 0; i < rank; i++) {
        const json_t *dim = json_array_get(value, i);
        if (!json_is_integer(dim) || json_integer_value(dim) < 0)
            return error_set(parser->err, ERROR_FORMAT, "safetensors: %s: a dimension is not a whole number",
                             tensor->name);
        tensor->shape.dims[i] = json_integer_value(dim);
    }
    if (shape_checked_bytes(&tensor->shape, tensor->dtype, &tensor->bytes, parser->err))
        return true;
    return error_set(parser->err, ERROR_FORMAT, "safetensors: %s: the shape overflows", tensor->name);
}

static bool parse_offsets(struct parser *parser, const json_t *value, struct placed *placed) {
    const json_t *begin = json_array_get(value, 0), *end = json_array_get(value, 1);
    const char *name = placed->tensor.name;
    bool numbers = json_array_size(value) == 2 && json_is_integer(begin) && json_is_integer(end) &&
                   json_integer_value(begin) >= 0 && json_integer_value(end) >= 0;
    if (!numbers)
        return error_set(parser->err, ERROR_FORMAT, "safetensors: %s: data_offsets are not two whole numbers",
                         name);
    placed->begin = (uint64_t)json_integer_value(begin);
    placed->end = (uint64_t)json_integer_value(end);
    if (placed->end < placed->begin || placed->end > parser->buffer_size)
        return error_set(parser->err, ERROR_FORMAT, "safetensors: %s: its data would lie outside of the file",
                         name);
    if (placed->end - placed->begin != placed->tensor.bytes)
        return error_set(parser->err, ERROR_FORMAT,
                         "safetensors: %s: %llu bytes of data, its shape and type need %zu", name,
                         (unsigned long long)(placed->end - placed->begin), placed->tensor.bytes);
    placed->tensor.data = parser->buffer + placed->begin;
    return true;
}

static bool parse_tensor(struct parser *parser, const char *name, const json_t *value,
                         struct placed *placed) {
    size_t length = strlen(name);
    if (length == 0 || length > SAFETENSORS_MAX_NAME)
        return error_set(parser->err, ERROR_TOO_LARGE, "safetensors: a tensor's name of %zu bytes", length);
    for (const char *c = name; *c; c++) {
        if ((unsigned char)*c < ' ' || *c == 0x7f)
            return error_set(parser->err, ERROR_FORMAT,
                             "safetensors: a control character in a tensor's name");
    }
    placed->tensor.name = arena_copy(&parser->out->arena, name, length);
    if (!placed->tensor.name)
        return error_set(parser->err, ERROR_MEMORY, "safetensors: out of memory");
    if (!json_is_object(value))
        return error_set(parser->err, ERROR_FORMAT, "safetensors: %s is not an object", name);
    return parse_dtype(parser, json_object_get(value, "dtype"), &placed->tensor) &&
           parse_shape(parser, json_object_get(value, "shape"), &placed->tensor) &&
           parse_offsets(parser, json_object_get(value, "data_offsets"), placed);
}

static int by_place(const void *a, const void *b) {
    const struct placed *x = a, *y = b;
    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    return x->end < y->end ? -1 : x->end > y->end ? 1 : strcmp(x->tensor.name, y->tensor.name);
}

/** The tensors must cover the buffer exactly: no hole in which something could hide, no overlap. */
static bool check_cover(struct parser *parser, const struct placed *placed, int count) {
    uint64_t at = 0;
    for (int i = 0; i < count; i++) {
        if (placed[i].begin != at)
            return error_set(parser->err, ERROR_FORMAT,
                             "safetensors: %s: its data starts at %llu, the data before it ends at %llu",
                             placed[i].tensor.name, (unsigned long long)placed[i].begin,
                             (unsigned long long)at);
        at = placed[i].end;
    }
    if (at != parser->buffer_size)
        return error_set(parser->err, ERROR_FORMAT, "safetensors: %llu bytes of data, the tensors take %llu",
                         (unsigned long long)parser->buffer_size, (unsigned long long)at);
    return true;
}

static bool parse_entries(struct parser *parser, const json_t *header, struct placed *placed, int *count) {
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)header, key, value) {
        bool is_metadata = strcmp(key, "__metadata__") == 0;
        if (is_metadata ? !parse_metadata(parser, value)
                        : !parse_tensor(parser, key, value, &placed[(*count)++]))
            return false;
    }
    qsort(placed, (size_t)*count, sizeof *placed, by_place);
    return check_cover(parser, placed, *count);
}

static bool parse_header(struct parser *parser, const json_t *header) {
    struct safetensors *out = parser->out;
    size_t entries = json_object_size(header);
    if (entries > SAFETENSORS_MAX_TENSORS)
        return error_set(parser->err, ERROR_TOO_LARGE, "safetensors: %zu tensors, the limit is %d", entries,
                         SAFETENSORS_MAX_TENSORS);
    struct placed *placed = calloc(entries + 1, sizeof *placed);
    out->tensors = arena_alloc(&out->arena, (entries + 1) * sizeof *out->tensors);
    bool ok = placed && out->tensors;
    if (!ok)
        error_set(parser->err, ERROR_MEMORY, "safetensors: out of memory");
    int count = 0;
    ok = ok && parse_entries(parser, header, placed, &count);
    for (int i = 0; ok && i < count; i++)
        out->tensors[out->count++] = placed[i].tensor;
    free(placed);
    return ok;
}

bool safetensors_parse(const void *data, size_t size, struct safetensors *out, struct error *err) {
    *out = (struct safetensors){0};
    uint64_t header_size = 0;
    json_t *header = load_header(data, size, &header_size, err);
    if (!header)
        return false;
    struct parser parser = {out, (const uint8_t *)data + 8 + header_size, size - 8 - header_size, err};
    bool ok = parse_header(&parser, header);
    json_decref(header);
    if (!ok)
        safetensors_fini(out);
    return ok;
}

void safetensors_fini(struct safetensors *file) {
    arena_fini(&file->arena);
    *file = (struct safetensors){0};
}

const struct safetensors_tensor *safetensors_find(const struct safetensors *file, const char *name) {
    for (int i = 0; i < file->count; i++) {
        if (strcmp(file->tensors[i].name, name) == 0)
            return &file->tensors[i];
    }
    return NULL;
}

const char *safetensors_metadata(const struct safetensors *file, const char *key) {
    for (int i = 0; i < file->metadata_count; i++) {
        if (strcmp(file->metadata[i].key, key) == 0)
            return file->metadata[i].value;
    }
    return NULL;
}

bool safetensors_copy(const struct safetensors_tensor *tensor, struct tensor *out, struct error *err) {
    if (!tensor_init(out, tensor->dtype, &tensor->shape, err))
        return error_prefix(err, "%s", tensor->name);
    memcpy(out->data, tensor->data, tensor->bytes);
    return true;
}
