#pragma once
#include "common/device/device.h"

struct cuda_kernel;
struct cuda_call;

/**
 * The one layout beside the canonical one: channels last. Images and their gradients are (N, H, W, C) in memory, weights
 * (O, KH, KW, I / groups). Where both orders are the same bytes (one channel, or one pixel) a tensor is canonical.
 */
extern const struct layout cuda_nhwc;
/** And that of an 8-bit convolution's weights: see int8.h. */
extern const struct layout cuda_packed;

/** The layout of a tensor of that shape in a kernel whose channels are last, or are not. */
const struct layout *cuda_layout_of(const struct shape *shape, bool last);
/** Whether a request speaks of NHWC: for the kinds that take what comes. */
bool cuda_request_is_last(const struct kernel_request *request);
/** Whether it leaves any layout to the kernel, or speaks of NHWC: for convolutions. */
bool cuda_request_may_be_last(const struct kernel_request *request);
/** Gives images, weights and their gradients that layout, and all else the canonical one. */
void cuda_set_layouts(struct cuda_kernel *kernel, bool last);

/** As device_ops.layout_text, e.g. "bf16 (64, 3, 3, 64) nhwc". */
const char *cuda_layout_text(struct device *device, const struct tensor_desc *desc, char *out, size_t size);
