#include "common/device/device.h"

#include "common/tensor/element.h"

/* The shapes of the inputs that the arguments of any pass tell of: its source, or what has the source's
 * shape. */
static void inputs_of(const struct op_args *args, struct shape inputs[OP_MAX_INPUTS]) {
    static const enum arg first[] = {ARG_SRC, ARG_DIFF_SRC, ARG_PARAMETER, ARG_GRADIENT};
    static const enum arg second[] = {ARG_SRC2, ARG_DIFF_SRC2};
    inputs[0] = (struct shape){0};
    for (size_t i = sizeof first / sizeof *first; i-- > 0;)
        if (args->direction[first[i]] != ARG_ABSENT)
            inputs[0] = args->desc[first[i]].shape;
    inputs[1] = inputs[0];
    for (size_t i = 0; i < sizeof second / sizeof *second; i++)
        if (args->direction[second[i]] != ARG_ABSENT)
            inputs[1] = args->desc[second[i]].shape;
}

static bool check_argument(enum arg arg, const struct op_args *got, const struct op_args *want,
                           struct error *err) {
    char a[SHAPE_TEXT_SIZE], b[SHAPE_TEXT_SIZE];
    if (got->direction[arg] != want->direction[arg])
        return error_set(err, ERROR_INVALID, "%s is %s", arg_name(arg),
                         want->direction[arg] == ARG_ABSENT  ? "not an argument"
                         : got->direction[arg] == ARG_ABSENT ? "missing"
                                                             : "given in the wrong direction");
    if (want->direction[arg] == ARG_ABSENT || arg == ARG_WORKSPACE || arg == ARG_SCRATCH)
        return true;
    if (!dtype_size(got->desc[arg].dtype))
        return error_set(err, ERROR_INVALID, "%s has no dtype", arg_name(arg));
    if (want->desc[arg].dtype != got->desc[arg].dtype && !element_is_floating(want->desc[arg].dtype))
        return error_set(err, ERROR_INVALID, "%s is of %s, should be of %s", arg_name(arg),
                         dtype_name(got->desc[arg].dtype), dtype_name(want->desc[arg].dtype));
    if (!shape_equal(&got->desc[arg].shape, &want->desc[arg].shape))
        return error_set(err, ERROR_SHAPE, "%s is %s, should be %s", arg_name(arg),
                         shape_text(&got->desc[arg].shape, a), shape_text(&want->desc[arg].shape, b));
    return true;
}

static bool check_request(const struct kernel_request *request, struct error *err) {
    struct shape inputs[OP_MAX_INPUTS];
    struct op_args want;
    inputs_of(&request->args, inputs);
    if (!op_arguments(&request->op, request->pass, inputs, &want, err))
        return false;
    for (enum arg arg = ARG_NONE + 1; arg < ARG_COUNT; arg++)
        if (!check_argument(arg, &request->args, &want, err))
            return false;
    return true;
}

struct kernel *kernel_prepare(struct device *device, const struct kernel_request *request,
                              struct error *err) {
    char text[160];
    struct kernel *kernel = NULL;
    if (!check_request(request, err))
        error_prefix(err, "%s, %s", op_text(&request->op, text, sizeof text), pass_name(request->pass));
    else if (!device->ops->supports(device, request))
        error_set(err, ERROR_UNSUPPORTED, "the %s device has no %s, %s, for these dtypes and layouts",
                  device->ops->name, op_text(&request->op, text, sizeof text), pass_name(request->pass));
    else
        kernel = device->ops->prepare(device, request, err);
    return kernel;
}

bool device_shares(const struct device *a, const struct device *b) {
    return a == b || (a->family && a->family == b->family);
}

void kernel_release(struct kernel *kernel) {
    if (kernel)
        kernel->device->ops->release(kernel);
}

bool kernel_run(struct kernel *kernel, void *const buffers[ARG_COUNT], struct stream *stream,
                struct error *err) {
    for (enum arg arg = ARG_NONE + 1; arg < ARG_COUNT; arg++)
        if (kernel->args.direction[arg] != ARG_ABSENT && kernel->args.desc[arg].bytes && !buffers[arg])
            return error_set(err, ERROR_INVALID, "%s, %s: no buffer for %s", op_kind_name(kernel->op.kind),
                             pass_name(kernel->pass), arg_name(arg));
    return kernel->device->ops->run(kernel, buffers, stream, err);
}

struct kernel *kernel_prepare_reorder(struct device *device, const struct tensor_desc *from,
                                      const struct tensor_desc *to, struct error *err) {
    struct kernel_request request = {.op.kind = OP_REORDER, .pass = PASS_FORWARD};
    if (!op_arguments(&request.op, request.pass, &from->shape, &request.args, err))
        return NULL;
    request.args.desc[ARG_SRC] = *from;
    request.args.desc[ARG_DST] = *to;
    return kernel_prepare(device, &request, err);
}
