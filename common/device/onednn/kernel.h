#pragma once
#include "common/device/device.h"
#include "common/device/onednn/layout.h"
#include "common/device/onednn/loops.h"

/** Inside common/device/onednn: the device, its kernels, and one row per kind of operation. */
struct onednn_device {
    struct device base;
    int threads;
    bool direct_convolutions; /**< device_spec's */
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    struct layouts *layouts;   /**< all that were handed out; the family that it shares with others */
    const struct loops *loops; /**< for this CPU's instruction set */
};

struct onednn_kernel {
    struct kernel base;
    struct onednn_device *device;
    bool (*run)(struct onednn_kernel *kernel, void *const buffers[ARG_COUNT], struct error *err);
    void (*fini)(struct onednn_kernel *kernel); /**< NULL: nothing to free but the kernel itself */
};

struct onednn_kind {
    /** Dtypes that it takes; the kind, attributes and pass have been checked. */
    bool (*supports)(const struct kernel_request *request);
    struct onednn_kernel *(*prepare)(struct onednn_device *device, const struct kernel_request *request, struct error *err);
};

extern const struct onednn_kind onednn_convolution, onednn_linear, onednn_max_pool, onednn_reorder; /* primitives */
extern const struct onednn_kind onednn_batch_norm, onednn_batch_norm_sums, onednn_activation, onednn_add, onednn_average_pool,
    onednn_dropout, onednn_loss, onednn_gradient_norm, onednn_sgd, onednn_adamw; /* loops of our own */
extern const struct onednn_kind onednn_int8_convolution, onednn_int8_max_pool, onednn_int8_average_pool, onednn_rescale;

/** A reorder that is only a cast: between f32 and bf16, canonical on both sides. By loops of our own. */
bool cast_fits(const struct kernel_request *request);
struct onednn_kernel *cast_prepare(struct onednn_device *device, const struct kernel_request *request, struct error *err);

/**
 * True where the arguments have the dtypes that a precision gives them (precision.h): f32, and bf16 where the CPU has
 * arithmetic for it.
 */
bool kernel_precision_fits(const struct kernel_request *request);

/**
 * A kernel of `size` bytes (struct onednn_kernel first, the rest zeroed) with the request's arguments. NULL: ERROR_MEMORY.
 * `implementation` must outlive it.
 */
void *kernel_create(struct onednn_device *device, const struct kernel_request *request, size_t size,
                    const char *implementation, struct error *err);
/** Takes NULL. */
void kernel_destroy(struct onednn_kernel *kernel);

/** Gives a present argument a layout and the bytes that it takes. */
void kernel_set_layout(struct onednn_kernel *kernel, enum arg arg, const struct layout *layout);
/** Gives all of SRC, SRC2, DST and their gradients that are present the layout. */
void kernel_follow(struct onednn_kernel *kernel, const struct layout *layout);
/** The layout that an elementwise kernel works in: SRC's, else that of the first of DST, DIFF_DST, DIFF_SRC that is concrete. */
const struct layout *kernel_leading_layout(const struct kernel_request *request);
/** Asks for device-private bytes. */
void kernel_set_private(struct onednn_kernel *kernel, enum arg arg, size_t bytes);
