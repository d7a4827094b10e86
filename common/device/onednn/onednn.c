#include "common/device/onednn/onednn.h"

#include "common/base/cpu.h"
#include "common/device/host.h"
#include "common/device/onednn/kernel.h"
#include "common/device/onednn/team.h"
#include "common/op/precision.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct onednn_kind *const kinds[OP_KIND_COUNT] = {
    [OP_CONV2D] = &onednn_convolution,
    [OP_BATCH_NORM] = &onednn_batch_norm,
    [OP_BATCH_NORM_SUMS] = &onednn_batch_norm_sums,
    [OP_ACTIVATION] = &onednn_activation,
    [OP_ADD] = &onednn_add,
    [OP_MAX_POOL] = &onednn_max_pool,
    [OP_GLOBAL_AVERAGE_POOL] = &onednn_average_pool,
    [OP_LINEAR] = &onednn_linear,
    [OP_DROPOUT] = &onednn_dropout,
    [OP_SOFTMAX_CROSS_ENTROPY] = &onednn_loss,
    [OP_REORDER] = &onednn_reorder,
    [OP_GRADIENT_NORM] = &onednn_gradient_norm,
    [OP_SGD] = &onednn_sgd,
    [OP_ADAMW] = &onednn_adamw,
};

/* The forms for 8-bit integers: quantized.c */
static const struct onednn_kind *const int8_kinds[OP_KIND_COUNT] = {
    [OP_CONV2D] = &onednn_int8_convolution,
    [OP_MAX_POOL] = &onednn_int8_max_pool,
    [OP_GLOBAL_AVERAGE_POOL] = &onednn_int8_average_pool,
    [OP_RESCALE] = &onednn_rescale,
};

static bool onednn_available(struct error *err) {
    (void)err;
    return true;
}

static bool choose_threads(int wanted, int *out, struct error *err) {
    struct cpu_set *set = malloc(sizeof *set);
    bool good = set != NULL || error_set(err, ERROR_MEMORY, "out of memory for the set of processors");
    if (good && wanted <= 0)
        good = cpu_available(set, err);
    if (good)
        *out = wanted > 0 ? wanted : set->count;
    free(set);
    return good;
}

static void onednn_close(struct device *base) {
    struct onednn_device *device = (struct onednn_device *)base;
    if (device->stream)
        dnnl_stream_destroy(device->stream);
    if (device->engine)
        dnnl_engine_destroy(device->engine);
    layouts_release(device->layouts);
    free(device);
}

/* Engines of the CPU are alike, so that only the layouts have to be common. */
static bool join_family(struct onednn_device *device, const struct device *share, struct error *err) {
    const struct onednn_device *other = (const struct onednn_device *)share;
    device->layouts = other ? layouts_retain(other->layouts) : layouts_create();
    device->base.family = device->layouts;
    return device->layouts || error_set(err, ERROR_MEMORY, "out of memory for a device");
}

static struct device *onednn_open(const struct device_spec *spec, struct error *err) {
    struct onednn_device *device = calloc(1, sizeof *device);
    if (!device) {
        error_set(err, ERROR_MEMORY, "out of memory for a device");
        return NULL;
    }
    device->base.ops = &onednn_device_ops;
    device->loops = loops_row(0);
    device->direct_convolutions = spec->direct_convolutions;
    if (!join_family(device, spec->share, err) || !choose_threads(spec->threads, &device->threads, err) ||
        !dnnl_ok(dnnl_engine_create(&device->engine, dnnl_cpu, 0), err, "open the CPU") ||
        !dnnl_ok(dnnl_stream_create(&device->stream, device->engine, dnnl_stream_default_flags), err, "make a stream")) {
        onednn_close(&device->base);
        return NULL;
    }
    return &device->base;
}

static void onednn_info(struct device *base, struct device_info *out) {
    const struct onednn_device *device = (const struct onednn_device *)base;
    const dnnl_version_t *version = dnnl_version();
    *out = (struct device_info){.int8_weight_bits = compat_int8_is_exact() ? 8 : 7, .host_memory = true};
    snprintf(out->name, sizeof out->name, "onednn %d.%d.%d (%s), %d thread%s%s", version->major, version->minor, version->patch,
             cpu_instruction_set(), device->threads, device->threads == 1 ? "" : "s",
             device->direct_convolutions ? ", no winograd" : "");
}

static const struct onednn_kind *kind_of(const struct kernel_request *request) {
    if ((unsigned)request->op.kind >= OP_KIND_COUNT)
        return NULL;
    return op_is_int8(&request->op) ? int8_kinds[request->op.kind] : kinds[request->op.kind];
}

static bool onednn_supports(struct device *device, const struct kernel_request *request) {
    const struct onednn_kind *kind = kind_of(request);
    (void)device;
    return kind && kind->supports(request);
}

static bool check_layouts(const struct kernel_request *request, struct error *err) {
    for (enum arg arg = ARG_NONE + 1; arg < ARG_COUNT; arg++)
        if (request->args.direction[arg] != ARG_ABSENT && !layout_check(&request->args.desc[arg], err))
            return error_prefix(err, "%s", arg_name(arg));
    return true;
}

static struct kernel *onednn_prepare(struct device *base, const struct kernel_request *request, struct error *err) {
    struct onednn_device *device = (struct onednn_device *)base;
    const struct onednn_kind *kind = kind_of(request);
    if (!kind) {
        error_set(err, ERROR_UNSUPPORTED, "oneDNN device: no kernels of kind %d", (int)request->op.kind);
        return NULL;
    }
    if (!check_layouts(request, err))
        return NULL;
    team_adopt(device->threads);
    struct onednn_kernel *kernel = kind->prepare(device, request, err);
    return kernel ? &kernel->base : NULL;
}

static bool onednn_run(struct kernel *base, void *const buffers[ARG_COUNT], struct stream *stream, struct error *err) {
    struct onednn_kernel *kernel = (struct onednn_kernel *)base;
    (void)stream;
    return kernel->run(kernel, buffers, err);
}

static void onednn_release(struct kernel *kernel) {
    kernel_destroy((struct onednn_kernel *)kernel);
}

bool kernel_precision_fits(const struct kernel_request *request) {
    const struct op_args *args = &request->args;
    return precision_fits(PRECISION_F32, &request->op, args) ||
           (compat_has_bf16() && precision_fits(PRECISION_BF16, &request->op, args));
}

void *kernel_create(struct onednn_device *device, const struct kernel_request *request, size_t size,
                    const char *implementation, struct error *err) {
    struct onednn_kernel *kernel = calloc(1, size);
    if (!kernel) {
        error_set(err, ERROR_MEMORY, "out of memory for a kernel");
        return NULL;
    }
    kernel->device = device;
    kernel->base = (struct kernel){&device->base, request->op, request->pass, request->args, implementation, false};
    return kernel;
}

void kernel_destroy(struct onednn_kernel *kernel) {
    if (kernel && kernel->fini)
        kernel->fini(kernel);
    free(kernel);
}

void kernel_set_layout(struct onednn_kernel *kernel, enum arg arg, const struct layout *layout) {
    struct tensor_desc *desc = &kernel->base.args.desc[arg];
    if (kernel->base.args.direction[arg] == ARG_ABSENT)
        return;
    *desc = tensor_desc_dense(desc->dtype, &desc->shape);
    desc->layout = layout;
    if (layout)
        desc->bytes = md_bytes(&layout->md);
}

void kernel_follow(struct onednn_kernel *kernel, const struct layout *layout) {
    static const enum arg data[] = {ARG_SRC, ARG_SRC2, ARG_DST, ARG_DIFF_DST, ARG_DIFF_SRC, ARG_DIFF_SRC2};
    for (size_t i = 0; i < sizeof data / sizeof *data; i++)
        kernel_set_layout(kernel, data[i], layout);
}

const struct layout *kernel_leading_layout(const struct kernel_request *request) {
    static const enum arg leaders[] = {ARG_SRC, ARG_DST, ARG_DIFF_DST, ARG_DIFF_SRC};
    for (size_t i = 0; i < sizeof leaders / sizeof *leaders; i++) {
        const struct layout *layout = request->args.desc[leaders[i]].layout;
        if (request->args.direction[leaders[i]] != ARG_ABSENT && layout != LAYOUT_ANY)
            return layout;
    }
    return NULL;
}

void kernel_set_private(struct onednn_kernel *kernel, enum arg arg, size_t bytes) {
    struct op_args *args = &kernel->base.args;
    struct shape shape = shape_of(1, (int64_t)bytes);
    if (arg == ARG_SCRATCH)
        args->direction[arg] = bytes ? ARG_INOUT : ARG_ABSENT;
    if (args->direction[arg] != ARG_ABSENT)
        args->desc[arg] = tensor_desc_dense(DTYPE_U8, &shape);
}

const struct device_ops onednn_device_ops = {
    .name = "onednn",
    .shares = true,
    .available = onednn_available,
    .open = onednn_open,
    .close = onednn_close,
    .info = onednn_info,
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
    .supports = onednn_supports,
    .prepare = onednn_prepare,
    .run = onednn_run,
    .release = onednn_release,
    .layout_text = layout_text,
};
