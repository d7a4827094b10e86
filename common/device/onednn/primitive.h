#pragma once
#include "common/device/onednn/kernel.h"

/** Fills in a zeroed spec (family, descriptions, window) from a request. What it made is freed by the caller, on errors too. */
typedef bool primitive_fill(struct onednn_device *device, const struct kernel_request *request, struct primitive_spec *spec,
                            struct error *err);

/**
 * A kernel around one of oneDNN's primitives. Tries the layouts as they were asked for first; where oneDNN has nothing for
 * them, or nothing but its reference loops, leaves it the choice of all of them.
 */
struct onednn_kernel *primitive_prepare(struct onednn_device *device, const struct kernel_request *request,
                                        primitive_fill *fill, struct error *err);

/** A kernel around a primitive that is described already; the description stays the caller's. */
struct onednn_kernel *primitive_kernel_create(struct onednn_device *device, const struct kernel_request *request,
                                              dnnl_primitive_desc_t primitive_desc, struct error *err);

/**
 * Gives the primitive an argument that its description does not name: the kernel's buffer for `arg`, by the number that
 * oneDNN has for it.
 */
bool primitive_bind(struct onednn_kernel *kernel, enum arg arg, int number, struct error *err);
/** The same with a number (f32) that never changes. */
bool primitive_bind_constant(struct onednn_kernel *kernel, int number, float value, struct error *err);

/** convolution.c: what its kinds and their 8-bit forms share. */
void window_fill(struct primitive_spec *spec, const struct window *window);
primitive_fill convolution_fill;
/** A copy from ARG_SRC's layout to ARG_DST's ("any": row-major), with the attributes; takes them. */
struct onednn_kernel *reorder_create(struct onednn_device *device, const struct kernel_request *request,
                                     dnnl_primitive_attr_t attr, struct error *err);

/** Attributes for a request: scratch memory is ours; residual and activation become post-ops. NULL on error. */
dnnl_primitive_attr_t primitive_attributes(const struct kernel_request *request, struct error *err);
