#include "common/graph/plan_internal.h"

#include <stdlib.h>

/*
 * Gradient accumulation: a step's batch is run in parts, and each segment's buckets are summed as soon as they are complete: the
 * first part's gradients are put aside, those of the others are added to them, and to those of the last part all before: so the
 * sum lies where the collective and the optimiser look for it, and reductions start while the last part still runs.
 */

/** buffers[ARG_DST] = buffers[ARG_SRC] + buffers[ARG_SRC2] for a bucket's elements, in place of either. */
static struct kernel *prepare_sum(struct plan *plan, int64_t count, struct error *err) {
    struct kernel_request request = {.op = {.kind = OP_ADD}, .pass = PASS_FORWARD};
    struct shape shapes[OP_MAX_INPUTS] = {shape_of(1, count), shape_of(1, count)};
    if (!op_arguments(&request.op, request.pass, shapes, &request.args, err))
        return NULL;
    return kernel_prepare(plan->device, &request, err);
}

bool plan_prepare_parts(struct plan *plan, int parts, struct error *err) {
    size_t bytes = (size_t)plan->flat_count * sizeof(float);
    plan->parts = parts;
    if (parts == 1)
        return true;
    if (!(plan->held = plan->device->ops->alloc(plan->device, bytes, err)))
        return error_prefix(err, "the sum of the parts' gradients");
    plan->parameter_bytes += bytes;
    plan->sums = calloc((size_t)plan->reduction_count + 1, sizeof *plan->sums);
    if (!plan->sums)
        return error_set(err, ERROR_MEMORY, "plan: out of memory");
    for (int i = 0; i < plan->reduction_count; i++) {
        bool bucket = !plan->reductions[i].blocking;
        if (bucket && !(plan->sums[i] = prepare_sum(plan, plan->reductions[i].count, err)))
            return false;
    }
    return true;
}

void plan_free_parts(struct plan *plan) {
    for (int i = 0; plan->sums && i < plan->reduction_count; i++)
        kernel_release(plan->sums[i]);
    free(plan->sums);
    if (plan->held)
        plan->device->ops->free(plan->device, plan->held);
}

static bool sum_bucket(struct plan *plan, int reduction, struct error *err) {
    const struct plan_reduction *bucket = &plan->reductions[reduction];
    float *gradients = plan_bucket_gradients(plan, reduction);
    float *held = plan->held + (gradients - (float *)plan->flat[PLAN_GRADIENTS]);
    bool last = plan->part + 1 == plan->parts;
    void *to = last ? gradients : held, *from = last ? held : gradients;
    if (plan->part == 0)
        return plan->device->ops->copy(plan->device, held, gradients, (size_t)bucket->count * sizeof *held, NULL, err);
    void *buffers[ARG_COUNT] = {[ARG_SRC] = to, [ARG_SRC2] = from, [ARG_DST] = to};
    return kernel_run(plan->sums[reduction], buffers, NULL, err);
}

bool plan_sum_parts(struct plan *plan, const struct segment *segment, struct error *err) {
    int end = segment->first_reduction + segment->reduction_count;
    for (int i = segment->first_bucket; plan->parts > 1 && i < end; i++) {
        if (!sum_bucket(plan, i, err))
            return false;
    }
    return true;
}

void plan_set_part(struct plan *plan, int part) {
    plan->part = part;
}

void plan_shape(const struct plan *plan, struct plan_shape *out) {
    *out = (struct plan_shape){plan->batch, plan->parts, plan->values[plan->images].desc.bytes / (size_t)plan->batch};
}
