#include "common/device/reference/reference.h"
#include "common/device/host.h"
#include "common/device/reference/kernels.h"

#include <stdio.h>
#include <stdlib.h>

static const struct reference_row *const rows[OP_KIND_COUNT] = {
    [OP_CONV2D] = &reference_conv2d,
    [OP_BATCH_NORM] = &reference_batch_norm,
    [OP_BATCH_NORM_SUMS] = &reference_batch_norm_sums,
    [OP_ACTIVATION] = &reference_activation,
    [OP_ADD] = &reference_add,
    [OP_MAX_POOL] = &reference_max_pool,
    [OP_GLOBAL_AVERAGE_POOL] = &reference_global_average_pool,
    [OP_LINEAR] = &reference_linear,
    [OP_DROPOUT] = &reference_dropout,
    [OP_SOFTMAX_CROSS_ENTROPY] = &reference_softmax_cross_entropy,
    [OP_RESCALE] = &reference_rescale,
    [OP_VARY] = &reference_vary,
    [OP_REORDER] = &reference_reorder,
    [OP_GRADIENT_NORM] = &reference_gradient_norm,
    [OP_SGD] = &reference_sgd,
    [OP_ADAMW] = &reference_adamw,
};

static bool available(struct error *err) {
    (void)err;
    return true;
}

static struct device *open_device(const struct device_spec *spec, struct error *err) {
    struct device *device = calloc(1, sizeof *device);
    (void)spec;
    if (!device) {
        error_set(err, ERROR_MEMORY, "out of memory for a device");
        return NULL;
    }
    device->ops = &reference_device_ops;
    device->family = &reference_device_ops; /* it has no layouts, and its memory is the host's */
    return device;
}

static void close_device(struct device *device) {
    free(device);
}

static void info(struct device *device, struct device_info *out) {
    (void)device;
    *out = (struct device_info){.int8_weight_bits = 8, .host_memory = true};
    snprintf(out->name, sizeof out->name, "reference, 1 thread");
}

/* Integers stand where op_arguments puts them (kernel_prepare has checked), and floats of any width everywhere else. */
static bool dtype_fits(const struct op *op, enum arg arg, enum dtype dtype) {
    switch (arg) {
    case ARG_LABEL:
        return dtype == DTYPE_S32;
    case ARG_SEED:
        return dtype == DTYPE_S64;
    case ARG_WORKSPACE:
    case ARG_SCRATCH:
        return dtype == DTYPE_U8;
    default:
        if (op->kind == OP_VARY && arg == ARG_SRC)
            return dtype == DTYPE_U8;
        return element_is_floating(dtype) || (op_is_int8(op) && (dtype == DTYPE_U8 || dtype == DTYPE_S8));
    }
}

static bool supports(struct device *device, const struct kernel_request *request) {
    const struct reference_row *row = rows[request->op.kind];
    (void)device;
    if (!row || !row->run[request->pass])
        return false;
    for (enum arg arg = ARG_NONE + 1; arg < ARG_COUNT; arg++) {
        const struct tensor_desc *desc = &request->args.desc[arg];
        if (request->args.direction[arg] == ARG_ABSENT)
            continue;
        if (!dtype_fits(&request->op, arg, desc->dtype) || (desc->layout && desc->layout != LAYOUT_ANY))
            return false;
    }
    return true;
}

static struct kernel *prepare(struct device *device, const struct kernel_request *request,
                              struct error *err) {
    const struct reference_row *row = rows[request->op.kind];
    struct kernel *kernel = calloc(1, sizeof *kernel);
    if (!kernel) {
        error_set(err, ERROR_MEMORY, "out of memory for a kernel");
        return NULL;
    }
    *kernel = (struct kernel){.device = device,
                              .op = request->op,
                              .pass = request->pass,
                              .args = request->args,
                              .implementation = "reference"};
    for (enum arg arg = ARG_NONE + 1; arg < ARG_COUNT; arg++) {
        struct tensor_desc *desc = &kernel->args.desc[arg];
        if (kernel->args.direction[arg] != ARG_ABSENT)
            *desc = tensor_desc_dense(desc->dtype, &desc->shape);
    }
    if (kernel->args.direction[ARG_WORKSPACE] != ARG_ABSENT) {
        struct shape bytes = shape_of(1, (int64_t)row->workspace_bytes(request));
        kernel->args.desc[ARG_WORKSPACE] = tensor_desc_dense(DTYPE_U8, &bytes);
    }
    if (row->scratch_bytes) {
        struct shape bytes = shape_of(1, (int64_t)row->scratch_bytes(request));
        kernel->args.direction[ARG_SCRATCH] = ARG_OUT;
        kernel->args.desc[ARG_SCRATCH] = tensor_desc_dense(DTYPE_U8, &bytes);
    }
    return kernel;
}

static bool run(struct kernel *kernel, void *const buffers[ARG_COUNT], struct stream *stream,
                struct error *err) {
    (void)stream;
    (void)err;
    rows[kernel->op.kind]->run[kernel->pass](kernel, buffers);
    return true;
}

static void release(struct kernel *kernel) {
    free(kernel);
}

static const char *layout_text(struct device *device, const struct tensor_desc *desc, char *out,
                               size_t size) {
    (void)device;
    (void)desc;
    snprintf(out, size, "canonical");
    return out;
}

const struct device_ops reference_device_ops = {
    .name = "reference",
    .shares = true,
    .available = available,
    .open = open_device,
    .close = close_device,
    .info = info,
    .alloc = host_memory_alloc,
    .free = host_memory_free,
    .host_alloc = host_memory_alloc,
    .host_free = host_memory_free,
    .upload = host_copy,
    .download = host_copy,
    .copy = host_copy,
    .zero = host_zero,
    .stream_create = host_stream_create,
    .stream_destroy = host_stream_destroy,
    .event_create = host_event_create,
    .event_destroy = host_event_destroy,
    .event_record = host_event_record,
    .stream_wait = host_stream_wait,
    .event_done = host_event_done,
    .synchronise = host_synchronise,
    .supports = supports,
    .prepare = prepare,
    .run = run,
    .release = release,
    .layout_text = layout_text,
};
