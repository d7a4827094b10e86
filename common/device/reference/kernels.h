#pragma once
#include "common/device/device.h"
#include "common/tensor/element.h"

/**
 * Inside the reference device: how each kind is computed. Buffers hold canonical tensors of floating dtypes
 * (labels s32, seeds s64, pictures with their variations u8); an output may share its buffer with the input
 * that op_arguments allows.
 */
struct reference_row {
    void (*run[PASS_COUNT])(const struct kernel *kernel, void *const buffers[ARG_COUNT]);
    /** NULL: none. Bytes of ARG_WORKSPACE, where op_arguments asks for one. */
    size_t (*workspace_bytes)(const struct kernel_request *request);
    /** NULL: none. Bytes of ARG_SCRATCH. */
    size_t (*scratch_bytes)(const struct kernel_request *request);
};

extern const struct reference_row reference_conv2d, reference_batch_norm, reference_batch_norm_sums, reference_max_pool,
    reference_global_average_pool, reference_activation, reference_add, reference_dropout, reference_linear,
    reference_softmax_cross_entropy, reference_vary, reference_gradient_norm, reference_sgd, reference_adamw,
    reference_rescale, reference_reorder;

/** The view of an argument; data NULL where it is absent. */
static inline struct view view_of(const struct kernel *kernel, void *const buffers[ARG_COUNT], enum arg arg) {
    bool present = kernel->args.direction[arg] != ARG_ABSENT;
    return (struct view){present ? buffers[arg] : NULL, kernel->args.desc[arg].dtype};
}

/** The dimensions of an argument. */
static inline const int64_t *dims_of(const struct kernel *kernel, enum arg arg) {
    return kernel->args.desc[arg].shape.dims;
}

static inline int64_t count_of(const struct kernel *kernel, enum arg arg) {
    return shape_count(&kernel->args.desc[arg].shape);
}

/** max(x, 0), min(max(x, 0), 6) or x. */
double activation_apply(enum activation activation, double x);
/** Whether the gradient passes, told from the activation's input or output alike: 0 < x (< 6). */
bool activation_passes(enum activation activation, double x);
