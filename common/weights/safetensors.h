#pragma once
#include "common/base/arena.h"
#include "common/base/error.h"
#include "common/tensor/tensor.h"

/** Limits of ours on top of the format's. The largest network here has 626 tensors and a header of 70 KiB. */
enum {
    SAFETENSORS_MAX_HEADER = 8 << 20,
    SAFETENSORS_MAX_TENSORS = 16384,
    SAFETENSORS_MAX_NAME = 255,
    SAFETENSORS_MAX_METADATA = 256,
};

/** A tensor in a file: a view of its bytes, which may stand at any address (some writers do not align). */
struct safetensors_tensor {
    const char *name;
    enum dtype dtype;
    struct shape shape;
    const void *data; /**< dense, row-major, little-endian; not aligned; never NULL */
    size_t bytes;
};

/** An entry of `__metadata__`. */
struct safetensors_text {
    const char *key, *value;
};

/** A parsed file: names in an arena, tensors as views of the caller's bytes, in the order of their offsets.
 */
struct safetensors {
    struct arena arena;
    int count;
    struct safetensors_tensor *tensors; /**< in the order in which they lie in the file */
    int metadata_count;
    struct safetensors_text *metadata;
};

/**
 * Parses the bytes of a safetensors file, which out->tensors then borrows. Everything the format's reference
 * parser refuses is refused (ERROR_FORMAT naming the tensor where there is one), further what is past the
 * limits above (ERROR_TOO_LARGE), names that are no plain UTF-8, and element types or ranks that this program
 * has no use for (ERROR_UNSUPPORTED). On error nothing is to be freed. Source: the safetensors format,
 * https://github.com/huggingface/safetensors.
 */
bool safetensors_parse(const void *data, size_t size, struct safetensors *out, struct error *err);

/** Harmless on a zeroed or finished one. */
void safetensors_fini(struct safetensors *file);

/** The tensor of that name; NULL where there is none. */
const struct safetensors_tensor *safetensors_find(const struct safetensors *file, const char *name);

/** The value of a metadata key; NULL where there is none. */
const char *safetensors_metadata(const struct safetensors *file, const char *key);

/** An owned, aligned copy of a tensor. */
bool safetensors_copy(const struct safetensors_tensor *tensor, struct tensor *out, struct error *err);

/** What a file is written from. Everything is borrowed. */
struct safetensors_content {
    const struct safetensors_tensor *tensors; /**< in any order; `bytes` is not looked at */
    int count;
    const struct safetensors_text *metadata;
    int metadata_count;
};

/**
 * Writes a file atomically (temporary, fsync, rename), in the format's canonical order: larger elements
 * first, then by name; the header is padded so that the data starts at a multiple of 8. The same content
 * gives the same bytes. Names must be unique and within the limits: ERROR_INVALID otherwise.
 */
bool safetensors_write(const char *path, const struct safetensors_content *content, struct error *err);

/** The format's name of an element type ("F32"); NULL where it has none or this program no use for it. */
const char *safetensors_dtype_name(enum dtype dtype);
