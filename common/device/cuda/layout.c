#include "common/device/cuda/layout.h"

#include "common/device/cuda/internal.h"

#include <stdio.h>

struct layout {
    const char *name;
};
const struct layout cuda_nhwc = {"nhwc"}, cuda_packed = {"packed"};

static const enum arg data_args[] = {ARG_SRC,      ARG_SRC2,      ARG_DST,    ARG_DIFF_DST,
                                     ARG_DIFF_SRC, ARG_DIFF_SRC2, ARG_WEIGHT, ARG_DIFF_WEIGHT};
enum { DATA_ARGS = sizeof data_args / sizeof *data_args };

const struct layout *cuda_layout_of(const struct shape *shape, bool last) {
    bool same = shape->rank != 4 || shape->dims[1] == 1 || shape->dims[2] * shape->dims[3] == 1;
    return last && !same ? &cuda_nhwc : NULL;
}

static bool any_has(const struct kernel_request *request, const struct layout *layout) {
    for (int i = 0; i < DATA_ARGS; i++)
        if (request->args.direction[data_args[i]] != ARG_ABSENT && request->args.desc[data_args[i]].layout == layout)
            return true;
    return false;
}

bool cuda_request_is_last(const struct kernel_request *request) {
    return any_has(request, &cuda_nhwc);
}

bool cuda_request_may_be_last(const struct kernel_request *request) {
    return any_has(request, &cuda_nhwc) || any_has(request, LAYOUT_ANY);
}

void cuda_set_layouts(struct cuda_kernel *kernel, bool last) {
    struct op_args *args = &kernel->base.args;
    kernel->last = last;
    for (enum arg arg = ARG_NONE + 1; arg < ARG_COUNT; arg++)
        if (args->direction[arg] != ARG_ABSENT && arg != ARG_WORKSPACE && arg != ARG_SCRATCH)
            args->desc[arg] = tensor_desc_dense(args->desc[arg].dtype, &args->desc[arg].shape);
    for (int i = 0; i < DATA_ARGS; i++)
        if (args->direction[data_args[i]] != ARG_ABSENT)
            args->desc[data_args[i]].layout = cuda_layout_of(&args->desc[data_args[i]].shape, last);
}

const char *cuda_layout_text(struct device *device, const struct tensor_desc *desc, char *out, size_t size) {
    char shape[SHAPE_TEXT_SIZE];
    (void)device;
    snprintf(out, size, "%s %s %s", dtype_name(desc->dtype), shape_text(&desc->shape, shape),
             desc->layout == LAYOUT_ANY ? "any"
             : desc->layout             ? desc->layout->name
                                        : "dense");
    return out;
}

struct channels cuda_channels(const struct cuda_call *call, enum arg arg) {
    return cuda_channels_of(&call->kernel->base.args.desc[arg].shape, call->kernel->last);
}

struct channels cuda_channels_of(const struct shape *shape, bool last) {
    const int64_t *d = shape->dims;
    return (struct channels){d[0], d[1], d[2] * d[3], last};
}

struct images cuda_images_of(const struct shape *shape, bool last) {
    const int64_t *d = shape->dims;
    if (shape->rank == 4)
        return (struct images){d[1], d[2], d[3], last};
    int64_t features = 1;
    for (int i = 1; i < shape->rank; i++)
        features *= d[i];
    return (struct images){features, 1, 1, false};
}

struct images cuda_images(const struct cuda_call *call, enum arg arg) {
    return cuda_images_of(&call->kernel->base.args.desc[arg].shape, call->kernel->last);
}

int cuda_channel_width(const struct channels *shape) {
    return cuda_width(shape->last ? shape->count : shape->plane);
}
