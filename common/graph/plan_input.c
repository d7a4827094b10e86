#include "common/graph/compiler.h"
#include "common/op/variation.h"

/*
 * The images of a plan: given, or made on the device of pictures with their variations. Those take a byte a pixel, where images
 * take four in each channel, and the device has the time to vary them that the host's threads have not.
 */

/** What the step would be that makes images of that shape. */
static bool vary_request(const struct compiler *compiler, const struct shape *images, struct kernel_request *out) {
    const struct vary *vary = &compiler->spec->vary;
    struct shape rows = shape_of(2, images->dims[0], (int64_t)variation_bytes(vary->height, vary->width));
    *out = (struct kernel_request){.op = {OP_VARY, .vary = *vary}, .pass = PASS_FORWARD};
    if (!op_arguments(&out->op, out->pass, &rows, &out->args, compiler->err))
        return false;
    if (!shape_equal(&out->args.desc[ARG_DST].shape, images))
        return error_set(compiler->err, ERROR_SHAPE, "the plan varies pictures of another size than its images");
    precision_apply(compiler->plan->precision, &out->op, &out->args);
    out->args.desc[ARG_DST].layout = LAYOUT_ANY;
    return true;
}

static bool emit_vary(struct compiler *compiler, int node, const struct kernel_request *request) {
    struct plan *plan = compiler->plan;
    struct kernel *kernel = kernel_prepare(plan->device, request, compiler->err);
    if (!kernel)
        return false;
    int images = plan_add_value(plan, &kernel->args.desc[ARG_DST], STORAGE_ARENA, compiler->err);
    plan->images = images < 0 ? -1 : plan_add_value(plan, &kernel->args.desc[ARG_SRC], STORAGE_FIXED, compiler->err);
    if (plan->images < 0) {
        kernel_release(kernel);
        return false;
    }
    compiler->nodes[node].output = images;
    return compiler_emit_between(compiler, node, kernel, plan->images, images);
}

bool compiler_emit_input(struct compiler *compiler, int node) {
    struct plan *plan = compiler->plan;
    struct shape shape = plan->graph->nodes[node].op.input;
    struct kernel_request request;
    shape.dims[0] = plan->batch;
    if (plan->mode == PLAN_TRAIN && compiler->spec->vary.channels) {
        if (!vary_request(compiler, &shape, &request))
            return false;
        if (plan->device->ops->supports(plan->device, &request))
            return emit_vary(compiler, node, &request);
    }
    struct tensor_desc desc = tensor_desc_dense(DTYPE_F32, &shape);
    compiler->nodes[node].output = plan->images = plan_add_value(plan, &desc, STORAGE_FIXED, compiler->err);
    return plan->images >= 0;
}

bool plan_varies(const struct plan *plan) {
    return plan->values[plan->images].desc.dtype == DTYPE_U8;
}
