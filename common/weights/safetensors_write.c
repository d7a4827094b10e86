#include "common/weights/safetensors.h"

#include "common/base/file.h"
#include "common/base/text.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

/** The format's canonical order: elements of larger size first, so that all stay aligned; then by name. */
static int by_size_then_name(const void *a, const void *b) {
    const struct safetensors_tensor *x = a, *y = b;
    size_t left = dtype_size(x->dtype), right = dtype_size(y->dtype);
    return left != right ? (left > right ? -1 : 1) : strcmp(x->name, y->name);
}

static bool check_tensor(struct safetensors_tensor *tensor, const struct safetensors_tensor *previous,
                         struct error *err) {
    size_t length = strlen(tensor->name);
    if (length == 0 || length > SAFETENSORS_MAX_NAME || !text_is_utf8(tensor->name, length))
        return error_set(err, ERROR_INVALID, "safetensors: \"%.60s\" cannot be a tensor's name",
                         tensor->name);
    if (strcmp(tensor->name, "__metadata__") == 0 || (previous && strcmp(previous->name, tensor->name) == 0))
        return error_set(err, ERROR_INVALID, "safetensors: the name %s is taken", tensor->name);
    if (!safetensors_dtype_name(tensor->dtype))
        return error_set(err, ERROR_UNSUPPORTED, "safetensors: %s: no element type", tensor->name);
    return shape_checked_bytes(&tensor->shape, tensor->dtype, &tensor->bytes, err) ||
           error_prefix(err, "%s", tensor->name);
}

/** Checks and orders the tensors, and fills in their sizes. */
static bool put_in_order(struct safetensors_tensor *tensors, int count, struct error *err) {
    qsort(tensors, (size_t)count, sizeof *tensors, by_size_then_name);
    for (int i = 0; i < count; i++) {
        if (!check_tensor(&tensors[i], i > 0 ? &tensors[i - 1] : NULL, err))
            return false;
    }
    return true;
}

static json_t *shape_json(const struct shape *shape) {
    json_t *dims = json_array();
    for (int i = 0; dims && i < shape->rank; i++)
        json_array_append_new(dims, json_integer(shape->dims[i]));
    return dims;
}

static bool add_metadata(json_t *header, const struct safetensors_content *content, struct error *err) {
    json_t *metadata = json_object();
    bool ok = metadata && json_object_set_new(header, "__metadata__", metadata) == 0;
    for (int i = 0; ok && i < content->metadata_count; i++) {
        const struct safetensors_text *text = &content->metadata[i];
        ok = !json_object_get(metadata, text->key) &&
             json_object_set_new(metadata, text->key, json_string(text->value)) == 0;
        if (!ok)
            return error_set(err, ERROR_INVALID,
                             "safetensors: the metadata \"%.60s\" stands twice or is not UTF-8", text->key);
    }
    return ok || error_set(err, ERROR_MEMORY, "safetensors: out of memory");
}

static bool add_tensors(json_t *header, const struct safetensors_tensor *tensors, int count,
                        struct error *err) {
    size_t at = 0;
    for (int i = 0; i < count; i++) {
        const struct safetensors_tensor *tensor = &tensors[i];
        json_t *entry = json_pack("{s:s, s:o, s:[I, I]}", "dtype", safetensors_dtype_name(tensor->dtype),
                                  "shape", shape_json(&tensor->shape), "data_offsets", (json_int_t)at,
                                  (json_int_t)(at + tensor->bytes));
        if (json_object_set_new(header, tensor->name, entry) != 0)
            return error_set(err, ERROR_MEMORY, "safetensors: out of memory");
        at += tensor->bytes;
    }
    return true;
}

/** The length and the header in owned memory, padded with spaces so that the data starts at a multiple of 8.
 */
static bool header_bytes(const struct safetensors_content *content, const struct safetensors_tensor *tensors,
                         struct bytes *out, struct error *err) {
    json_t *header = json_object();
    bool ok = header || error_set(err, ERROR_MEMORY, "safetensors: out of memory");
    ok = ok && (content->metadata_count == 0 || add_metadata(header, content, err));
    ok = ok && add_tensors(header, tensors, content->count, err);
    size_t length = ok ? json_dumpb(header, NULL, 0, JSON_COMPACT) : 0;
    uint64_t padded = (length + 7) / 8 * 8;
    if (ok && padded > SAFETENSORS_MAX_HEADER)
        ok = error_set(err, ERROR_TOO_LARGE, "safetensors: a header of %zu bytes, the limit is %d", length,
                       SAFETENSORS_MAX_HEADER);
    *out = (struct bytes){ok ? malloc(8 + padded) : NULL, 8 + padded};
    if (out->data) {
        memset(out->data + 8, ' ', padded);
        memcpy(out->data, &padded, sizeof padded);
        json_dumpb(header, (char *)out->data + 8, length, JSON_COMPACT);
    } else if (ok) {
        ok = error_set(err, ERROR_MEMORY, "safetensors: out of memory");
    }
    json_decref(header);
    return ok;
}

static bool write_parts(const char *path, const struct safetensors_content *content,
                        const struct safetensors_tensor *tensors, struct error *err) {
    struct bytes *parts = calloc((size_t)content->count + 1, sizeof *parts);
    if (!parts)
        return error_set(err, ERROR_MEMORY, "safetensors: out of memory");
    bool ok = header_bytes(content, tensors, &parts[0], err);
    for (int i = 0; i < content->count; i++)
        parts[i + 1] = (struct bytes){(uint8_t *)tensors[i].data, tensors[i].bytes};
    ok = ok && file_write_atomic_parts(path, parts, (size_t)content->count + 1, err);
    free(parts[0].data);
    free(parts);
    return ok;
}

bool safetensors_write(const char *path, const struct safetensors_content *content, struct error *err) {
    if (content->count > SAFETENSORS_MAX_TENSORS || content->metadata_count > SAFETENSORS_MAX_METADATA)
        return error_set(err, ERROR_TOO_LARGE, "safetensors: %d tensors, %d entries of metadata",
                         content->count, content->metadata_count);
    size_t bytes = ((size_t)content->count + 1) * sizeof(struct safetensors_tensor);
    struct safetensors_tensor *tensors = malloc(bytes);
    if (!tensors)
        return error_set(err, ERROR_MEMORY, "safetensors: out of memory");
    if (content->count > 0)
        memcpy(tensors, content->tensors, (size_t)content->count * sizeof *tensors);
    bool ok = put_in_order(tensors, content->count, err) && write_parts(path, content, tensors, err);
    free(tensors);
    return ok;
}
