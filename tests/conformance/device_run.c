#include "tests/conformance/device_run.h"

#include "common/base/text.h"
#include "common/tensor/element.h"

#include <string.h>

bool host_tensors_init(struct tensor tensors[ARG_COUNT], const struct op_args *args, struct error *err) {
    memset(tensors, 0, ARG_COUNT * sizeof *tensors);
    for (int arg = ARG_NONE + 1; arg < ARG_COUNT; arg++) {
        const struct tensor_desc *desc = &args->desc[arg];
        if (args->direction[arg] == ARG_ABSENT || arg == ARG_WORKSPACE || arg == ARG_SCRATCH)
            continue;
        if (!tensor_init(&tensors[arg], desc->dtype, &desc->shape, err)) {
            host_tensors_fini(tensors);
            return false;
        }
    }
    return true;
}

void host_tensors_fini(struct tensor tensors[ARG_COUNT]) {
    for (int arg = 0; arg < ARG_COUNT; arg++)
        tensor_fini(&tensors[arg]);
}

double host_get(const struct tensor *tensor, int64_t i) {
    return element_load(tensor->data, tensor->dtype, i);
}

void host_set(struct tensor *tensor, int64_t i, double value) {
    element_store(tensor->data, tensor->dtype, i, value);
}

/* Copies between two buffers of the device that hold the same tensor in two descriptions. */
static bool reorder(struct device *device, void *dst, const struct tensor_desc *to, void *src,
                    const struct tensor_desc *from, struct error *err) {
    void *buffers[ARG_COUNT] = {[ARG_SRC] = src, [ARG_DST] = dst};
    struct kernel *kernel = kernel_prepare_reorder(device, from, to, err);
    void *scratch = NULL;
    bool ok = kernel != NULL;
    if (ok && kernel->args.direction[ARG_SCRATCH] != ARG_ABSENT && kernel->args.desc[ARG_SCRATCH].bytes) {
        scratch = buffers[ARG_SCRATCH] =
            device->ops->alloc(device, kernel->args.desc[ARG_SCRATCH].bytes, err);
        ok = scratch != NULL;
    }
    ok = ok && kernel_run(kernel, buffers, NULL, err) && device->ops->synchronise(device, NULL, err);
    if (scratch)
        device->ops->free(device, scratch);
    kernel_release(kernel);
    return ok;
}

/* Host tensor -> device buffer (to_device), or back. */
static bool transfer(struct device *device, struct tensor *host, void *buffer, const struct tensor_desc *desc,
                     bool to_device, struct error *err) {
    const struct device_ops *ops = device->ops;
    struct tensor_desc dense = tensor_desc_dense(host->dtype, &host->shape);
    bool same = !desc->layout && desc->dtype == host->dtype, ok;
    void *stage = same ? buffer : ops->alloc(device, dense.bytes, err);
    if (!stage)
        return false;
    if (to_device)
        ok = ops->upload(device, stage, host->data, dense.bytes, NULL, err) &&
             (same || reorder(device, buffer, desc, stage, &dense, err));
    else
        ok = (same || reorder(device, stage, &dense, buffer, desc, err)) &&
             ops->download(device, host->data, stage, dense.bytes, NULL, err);
    ok = ok && ops->synchronise(device, NULL, err);
    if (!same)
        ops->free(device, stage);
    return ok;
}

/* The kernel's buffers; owned[arg] are those to free. */
struct buffers {
    void *at[ARG_COUNT];
    bool owned[ARG_COUNT];
};

static bool place_workspace(struct device *device, const struct kernel *kernel, struct buffers *buffers,
                            struct workspace *workspace, struct error *err) {
    size_t bytes = kernel->args.desc[ARG_WORKSPACE].bytes;
    if (kernel->args.direction[ARG_WORKSPACE] == ARG_OUT) {
        workspace->bytes = bytes;
        workspace->data = device->ops->alloc(device, bytes, err);
    } else if (workspace->bytes != bytes) {
        return error_set(err, ERROR_STATE,
                         "the backward pass wants a workspace of %zu bytes, the forward pass left %zu", bytes,
                         workspace->bytes);
    }
    buffers->at[ARG_WORKSPACE] = workspace->data;
    return workspace->data != NULL;
}

static bool same_description(const struct tensor_desc *a, const struct tensor_desc *b) {
    return a->layout == b->layout && a->bytes == b->bytes && a->dtype == b->dtype;
}

static bool place_one(struct device_run *run, const struct kernel *kernel, enum arg arg,
                      struct buffers *buffers, struct error *err) {
    const struct op_args *args = &kernel->args;
    enum arg over = args->in_place[arg];
    if (run->in_place && over != ARG_NONE && same_description(&args->desc[arg], &args->desc[over])) {
        buffers->at[arg] = buffers->at[over];
        run->shared = true;
        return true;
    }
    buffers->at[arg] = run->device->ops->alloc(run->device, args->desc[arg].bytes, err);
    buffers->owned[arg] = buffers->at[arg] != NULL;
    return buffers->owned[arg];
}

/* Inputs come first: outputs may take over their buffers. */
static bool place(struct device_run *run, const struct kernel *kernel, struct buffers *buffers,
                  struct workspace *workspace, struct error *err) {
    for (int outputs = 0; outputs < 2; outputs++)
        for (int arg = ARG_NONE + 1; arg < ARG_COUNT; arg++) {
            enum arg_direction direction = kernel->args.direction[arg];
            bool output = direction == ARG_OUT;
            if (direction == ARG_ABSENT || arg == ARG_WORKSPACE || output != (outputs == 1))
                continue;
            if (!place_one(run, kernel, (enum arg)arg, buffers, err))
                return false;
        }
    return kernel->args.direction[ARG_WORKSPACE] == ARG_ABSENT ||
           place_workspace(run->device, kernel, buffers, workspace, err);
}

static bool transfer_all(struct device_run *run, const struct kernel *kernel,
                         struct tensor tensors[ARG_COUNT], struct buffers *buffers, bool to_device,
                         struct error *err) {
    enum arg_direction skip = to_device ? ARG_OUT : ARG_IN;
    for (int arg = ARG_NONE + 1; arg < ARG_COUNT; arg++) {
        enum arg_direction direction = kernel->args.direction[arg];
        if (direction == ARG_ABSENT || direction == skip || arg == ARG_WORKSPACE || arg == ARG_SCRATCH)
            continue;
        if (!transfer(run->device, &tensors[arg], buffers->at[arg], &kernel->args.desc[arg], to_device, err))
            return error_prefix(err, "%s %s", to_device ? "uploading" : "downloading",
                                arg_name((enum arg)arg));
    }
    return true;
}

bool device_run(struct device_run *run, struct tensor tensors[ARG_COUNT], struct workspace *workspace,
                struct error *err) {
    struct buffers buffers = {0};
    struct kernel *kernel = kernel_prepare(run->device, run->request, err);
    if (!kernel)
        return false;
    run->prepared = kernel->args;
    run->shared = false;
    (void)text_copy(run->implementation, sizeof run->implementation,
                    kernel->implementation ? kernel->implementation : "");
    bool ok = place(run, kernel, &buffers, workspace, err) &&
              transfer_all(run, kernel, tensors, &buffers, true, err) &&
              kernel_run(kernel, buffers.at, NULL, err) &&
              run->device->ops->synchronise(run->device, NULL, err) &&
              transfer_all(run, kernel, tensors, &buffers, false, err);
    for (int arg = 0; arg < ARG_COUNT; arg++)
        if (buffers.owned[arg])
            run->device->ops->free(run->device, buffers.at[arg]);
    kernel_release(kernel);
    return ok;
}

void workspace_fini(struct workspace *workspace, struct device *device) {
    if (workspace->data)
        device->ops->free(device, workspace->data);
    *workspace = (struct workspace){0};
}
