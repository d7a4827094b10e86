#include "common/graph/plan_internal.h"

#include <stdlib.h>

/*
 * Gradients in bf16 for the collective: half the bytes between ranks. A bucket is rounded into a buffer of its own, where the
 * ranks add theirs; the update begins by widening all sums back into the flat gradients. Both are kernels on the compute stream,
 * and part of the recordings where there are some. bf16 has the range of f32: what is infinite, or no number, stays so.
 */

static struct kernel *prepare_cast(struct plan *plan, int64_t count, enum dtype from, enum dtype to, struct error *err) {
    struct shape shape = shape_of(1, count);
    struct tensor_desc source = tensor_desc_dense(from, &shape), target = tensor_desc_dense(to, &shape);
    struct kernel *kernel = kernel_prepare_reorder(plan->device, &source, &target, err);
    size_t scratch = kernel && kernel->args.direction[ARG_SCRATCH] != ARG_ABSENT ? kernel->args.desc[ARG_SCRATCH].bytes : 0;
    if (scratch > plan->narrow_scratch_bytes)
        plan->narrow_scratch_bytes = scratch;
    return kernel;
}

static bool prepare_casts(struct plan *plan, struct error *err) {
    plan->narrowings = calloc((size_t)plan->reduction_count + 1, sizeof(struct kernel *));
    if (!plan->narrowings)
        return error_set(err, ERROR_MEMORY, "plan: out of memory");
    for (int i = 0; i < plan->reduction_count; i++) {
        const struct plan_reduction *bucket = &plan->reductions[i];
        if (!bucket->blocking && !(plan->narrowings[i] = prepare_cast(plan, bucket->count, DTYPE_F32, bucket->dtype, err)))
            return false;
    }
    return (plan->widening = prepare_cast(plan, plan->flat_count, DTYPE_BF16, DTYPE_F32, err));
}

bool plan_prepare_narrow(struct plan *plan, struct error *err) {
    if (!plan->narrow)
        return true;
    if (!prepare_casts(plan, err))
        return error_prefix(err, "gradients in bf16");
    plan->parameter_bytes += plan->narrow_scratch_bytes;
    return !plan->narrow_scratch_bytes ||
           (plan->narrow_scratch = plan->device->ops->alloc(plan->device, plan->narrow_scratch_bytes, err));
}

void plan_free_narrow(struct plan *plan) {
    for (int i = 0; plan->narrowings && i < plan->reduction_count; i++)
        kernel_release(plan->narrowings[i]);
    kernel_release(plan->widening);
    free(plan->narrowings);
    if (plan->narrow)
        plan->device->ops->free(plan->device, plan->narrow);
    if (plan->narrow_scratch)
        plan->device->ops->free(plan->device, plan->narrow_scratch);
}

bool plan_narrow_buckets(struct plan *plan, const struct segment *segment, struct error *err) {
    int end = segment->first_reduction + segment->reduction_count;
    for (int i = segment->first_bucket; plan->narrow && i < end; i++) {
        void *buffers[ARG_COUNT] = {[ARG_SRC] = plan_bucket_gradients(plan, i), [ARG_DST] = plan->reductions[i].buffer,
                                    [ARG_SCRATCH] = plan->narrow_scratch};
        if (!kernel_run(plan->narrowings[i], buffers, NULL, err))
            return false;
    }
    return true;
}

bool plan_widen_gradients(struct plan *plan, struct error *err) {
    void *buffers[ARG_COUNT] = {[ARG_SRC] = plan->narrow, [ARG_DST] = plan->flat[PLAN_GRADIENTS],
                                [ARG_SCRATCH] = plan->narrow_scratch};
    return !plan->narrow || kernel_run(plan->widening, buffers, NULL, err);
}
