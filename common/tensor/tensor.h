#pragma once
#include "common/tensor/shape.h"

/** A dense tensor in host memory, row-major in the canonical order (NCHW, OIHW). */
struct tensor {
    enum dtype dtype;
    struct shape shape;
    void *data;
};

/** Allocates zeroed, owned, 64-byte aligned memory for the shape. */
bool tensor_init(struct tensor *tensor, enum dtype dtype, const struct shape *shape, struct error *err);
/** Frees the memory; harmless on a zeroed or finished tensor. */
void tensor_fini(struct tensor *tensor);
/** Bytes of the elements. */
size_t tensor_bytes(const struct tensor *tensor);

/**
 * How a device keeps the elements of a tensor in memory (blocked, padded, ...): private to the device that made it and
 * living as long as that device. Interned: two layouts of a device are equal where their pointers are.
 */
struct layout;

/** Stands in a request for "whichever the kernel likes best". */
extern const struct layout *const LAYOUT_ANY;

/**
 * What a tensor in a device's memory is like. `layout` NULL is canonical: dense and row-major, on every device.
 * `bytes` may exceed the dense size where the layout pads. A zeroed desc is an absent tensor.
 */
struct tensor_desc {
    enum dtype dtype;
    struct shape shape;
    const struct layout *layout;
    size_t bytes;
};

/** The canonical description of a dense tensor. */
struct tensor_desc tensor_desc_dense(enum dtype dtype, const struct shape *shape);
