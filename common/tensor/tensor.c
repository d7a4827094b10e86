#include "common/tensor/tensor.h"

#include <stdlib.h>
#include <string.h>

/* A number, not an address: a device in a shared object has a copy of this file, and both must mean the same. */
const struct layout *const LAYOUT_ANY = (const struct layout *)(uintptr_t)1;

bool tensor_init(struct tensor *tensor, enum dtype dtype, const struct shape *shape, struct error *err) {
    size_t bytes;
    *tensor = (struct tensor){.dtype = dtype, .shape = *shape};
    if (!shape_checked_bytes(shape, dtype, &bytes, err))
        return false;
    size_t rounded = (bytes + 63) / 64 * 64;
    tensor->data = aligned_alloc(64, rounded ? rounded : 64);
    if (!tensor->data)
        return error_set(err, ERROR_MEMORY, "out of memory for a tensor of %zu bytes", bytes);
    memset(tensor->data, 0, rounded);
    return true;
}

void tensor_fini(struct tensor *tensor) {
    free(tensor->data);
    *tensor = (struct tensor){0};
}

size_t tensor_bytes(const struct tensor *tensor) {
    return (size_t)shape_count(&tensor->shape) * dtype_size(tensor->dtype);
}

struct tensor_desc tensor_desc_dense(enum dtype dtype, const struct shape *shape) {
    return (struct tensor_desc){
        .dtype = dtype, .shape = *shape, .bytes = (size_t)shape_count(shape) * dtype_size(dtype)};
}
