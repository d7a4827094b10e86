#include "common/graph/plan_internal.h"

#include "common/base/digest.h"
#include "common/graph/buckets.h"
#include "common/graph/passes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static size_t scratch_bytes(const struct kernel *kernel) {
    return kernel->args.direction[ARG_SCRATCH] == ARG_ABSENT ? 0 : kernel->args.desc[ARG_SCRATCH].bytes;
}

/** Runs a reorder between a device buffer in some layout and a dense one. */
static bool reorder_once(struct device *device, const struct tensor_desc *from, const void *source, const struct tensor_desc *to,
                         void *target, struct error *err) {
    struct kernel *kernel = kernel_prepare_reorder(device, from, to, err);
    if (!kernel)
        return false;
    void *scratch = NULL;
    size_t bytes = scratch_bytes(kernel);
    bool ok = !bytes || (scratch = device->ops->alloc(device, bytes, err));
    void *buffers[ARG_COUNT] = {[ARG_SRC] = (void *)source, [ARG_DST] = target, [ARG_SCRATCH] = scratch};
    ok = ok && kernel_run(kernel, buffers, NULL, err) && device->ops->synchronise(device, NULL, err);
    if (scratch)
        device->ops->free(device, scratch);
    kernel_release(kernel);
    return ok;
}

bool plan_upload_tensor(struct device *device, const struct tensor *from, const struct tensor_desc *desc,
                        void *memory, struct error *err) {
    struct tensor_desc dense = tensor_desc_dense(from->dtype, &from->shape);
    if (!desc->layout && desc->dtype == from->dtype)
        return device->ops->upload(device, memory, from->data, dense.bytes, NULL, err) &&
               device->ops->synchronise(device, NULL, err);
    void *staging = device->ops->alloc(device, dense.bytes, err);
    bool ok = staging && device->ops->upload(device, staging, from->data, dense.bytes, NULL, err) &&
              reorder_once(device, &dense, staging, desc, memory, err);
    if (staging)
        device->ops->free(device, staging);
    return ok;
}

bool plan_download_tensor(struct device *device, const struct tensor_desc *desc, const void *memory,
                          struct tensor *to, struct error *err) {
    struct tensor_desc dense = tensor_desc_dense(to->dtype, &to->shape);
    if (!desc->layout && desc->dtype == to->dtype)
        return device->ops->download(device, to->data, memory, dense.bytes, NULL, err) &&
               device->ops->synchronise(device, NULL, err);
    void *staging = device->ops->alloc(device, dense.bytes, err);
    bool ok = staging && reorder_once(device, desc, memory, &dense, staging, err) &&
              device->ops->download(device, to->data, staging, dense.bytes, NULL, err) &&
              device->ops->synchronise(device, NULL, err);
    if (staging)
        device->ops->free(device, staging);
    return ok;
}

struct ready {
    int parameter, step;
};

static int compare_ready(const void *a, const void *b) {
    const struct ready *left = a, *right = b;
    return left->step != right->step ? left->step - right->step : left->parameter - right->parameter;
}

/** Elements that a parameter takes in the flat buffers: its layout's bytes, padded to whole optimiser blocks. */
static int64_t flat_elements(const struct plan *plan, int parameter) {
    int64_t elements = (int64_t)(plan->values[plan->parameters[parameter].value].desc.bytes / sizeof(float));
    return (elements + OPTIMIZER_BLOCK - 1) / OPTIMIZER_BLOCK * OPTIMIZER_BLOCK;
}

/** Gives every learnt parameter its place, in the order in which gradients become ready; `order` holds them so. */
static int lay_out_parameters(struct plan *plan, struct ready *order) {
    int count = 0;
    for (int i = 0; i < plan->graph->parameter_count; i++) {
        if (plan->parameters[i].gradient >= 0)
            order[count++] = (struct ready){i, plan->parameters[i].ready_step};
    }
    qsort(order, (size_t)count, sizeof *order, compare_ready);
    for (int i = 0; i < count; i++) {
        plan->parameters[order[i].parameter].offset = plan->flat_count;
        plan->flat_count += flat_elements(plan, order[i].parameter);
    }
    return count;
}

/** A reduction and the step that completes it. */
struct cut {
    int step;
    struct plan_reduction reduction;
};

/** A sum that blocks goes before the buckets of its step, so that the next segment waits for no more than it needs. */
static int compare_cuts(const void *a, const void *b) {
    const struct cut *left = a, *right = b;
    if (left->step != right->step)
        return left->step - right->step;
    if (left->reduction.blocking != right->reduction.blocking)
        return left->reduction.blocking ? -1 : 1;
    return (left->reduction.buffer > right->reduction.buffer) - (left->reduction.buffer < right->reduction.buffer);
}

/** The buckets, as parameters become ready. ends, last: (count), scratch. Returns how many. */
static int find_buckets(const struct plan *plan, const struct ready *order, int count, size_t bucket_bytes, size_t *ends,
                        int *last, struct cut *cuts) {
    enum dtype dtype = plan->narrow ? DTYPE_BF16 : DTYPE_F32;
    char *summed = plan->narrow ? plan->narrow : plan->flat[PLAN_GRADIENTS];
    size_t first = 0;
    for (int i = 0; i < count; i++)
        ends[i] = sizeof(float) *
                  (size_t)(i + 1 < count ? plan->parameters[order[i + 1].parameter].offset : plan->flat_count);
    int found = buckets_cut(ends, count, bucket_bytes, last);
    for (int i = 0; i < found; i++) {
        size_t end = ends[last[i]] / sizeof(float);
        char *buffer = summed + first * dtype_size(dtype);
        cuts[i] = (struct cut){order[last[i]].step, {.buffer = buffer, .dtype = dtype, .count = (int64_t)(end - first)}};
        first = end;
    }
    return found;
}

/** Behind the `found` buckets, the sums that block, whose buffers plan_bind_sums knows; all in their order. Returns how many. */
static int add_blocking(const struct plan *plan, int found, struct cut *cuts) {
    for (int i = 0; i < plan->step_count; i++) {
        const struct tensor_desc *sums = &plan->steps[i].kernel->args.desc[ARG_SUMS];
        if (plan->steps[i].blocks)
            cuts[found++] =
                (struct cut){i, {.dtype = sums->dtype, .count = shape_count(&sums->shape), .blocking = true}};
    }
    qsort(cuts, (size_t)found, sizeof *cuts, compare_cuts);
    return found;
}

/** Appends a reduction, and ends the segment with the step that completes it; a step may complete several. */
static void add_cut(struct plan *plan, const struct cut *cut) {
    struct segment *last = plan->segment_count ? &plan->segments[plan->segment_count - 1] : NULL;
    int next_step = last ? last->first_step + last->step_count : 0, reduction = plan->reduction_count++;
    plan->reductions[reduction] = cut->reduction;
    if (last && cut->step < next_step)
        last->reduction_count++;
    else
        plan->segments[plan->segment_count++] = (struct segment){next_step, cut->step + 1 - next_step, reduction, 1,
                                                                 reduction + cut->reduction.blocking, NULL, NULL};
}

/** Gives each segment with reductions the event that gates them, where the device runs behind the host's back. */
static bool make_events(struct plan *plan, struct error *err) {
    struct device_info info = {0};
    plan->device->ops->info(plan->device, &info);
    for (int i = 0; i < plan->segment_count && !info.host_memory; i++) {
        struct segment *segment = &plan->segments[i];
        if (segment->reduction_count && !plan->device->ops->event_create(plan->device, &segment->done, err))
            return false;
        for (int j = 0; j < segment->reduction_count; j++)
            plan->reductions[segment->first_reduction + j].ready = segment->done;
    }
    return true;
}

static bool cut_segments(struct plan *plan, const struct ready *order, int count, size_t bucket_bytes, struct error *err) {
    size_t most = (size_t)(count + plan->step_count) + 2; /* at most one sum a step blocks */
    struct cut *cuts = calloc(most, sizeof *cuts);
    size_t *ends = calloc(most, sizeof *ends);
    int *last_of = calloc(most, sizeof *last_of), found = 0;
    plan->segments = calloc(most, sizeof *plan->segments);
    plan->reductions = calloc(most, sizeof *plan->reductions);
    bool ok = (cuts && ends && last_of && plan->segments && plan->reductions) ||
              error_set(err, ERROR_MEMORY, "plan: out of memory");
    if (ok)
        found = add_blocking(plan, find_buckets(plan, order, count, bucket_bytes, ends, last_of, cuts), cuts);
    for (int i = 0; i < found; i++)
        add_cut(plan, &cuts[i]);
    free(last_of);
    free(ends);
    free(cuts);
    if (!ok)
        return false;
    struct segment *last = plan->segment_count ? &plan->segments[plan->segment_count - 1] : NULL;
    int done = last ? last->first_step + last->step_count : 0, end = plan->reduction_count;
    if (done < plan->step_count)
        plan->segments[plan->segment_count++] = (struct segment){done, plan->step_count - done, end, 0, end, NULL, NULL};
    return make_events(plan, err);
}

void plan_bind_sums(struct plan *plan) {
    for (int i = 0; i < plan->segment_count; i++) {
        const struct segment *segment = &plan->segments[i];
        const struct step *last = &plan->steps[segment->first_step + segment->step_count - 1];
        if (segment->first_reduction < segment->first_bucket)
            plan->reductions[segment->first_reduction].buffer = last->buffers[ARG_SUMS];
    }
}

static void *device_zeroed(struct plan *plan, size_t bytes, struct error *err) {
    void *memory = plan->device->ops->alloc(plan->device, bytes, err);
    if (memory)
        plan->parameter_bytes += bytes;
    return memory;
}

static bool allocate_flat(struct plan *plan, const struct plan_spec *spec, struct error *err) {
    bool wanted[PLAN_BUFFER_COUNT] = {[PLAN_VALUES] = true, [PLAN_GRADIENTS] = true, [PLAN_STATE] = true,
                                      [PLAN_STATE2] = spec->optimizer == OP_ADAMW, [PLAN_EMA] = spec->ema};
    for (int i = 0; i < PLAN_BUFFER_COUNT; i++) {
        if (wanted[i] && !(plan->flat[i] = device_zeroed(plan, (size_t)plan->flat_count * sizeof(float), err)))
            return false;
    }
    if (spec->bf16_reductions &&
        !(plan->narrow = device_zeroed(plan, (size_t)plan->flat_count * dtype_size(DTYPE_BF16), err)))
        return false;
    return (plan->decay = device_zeroed(plan, (size_t)plan->flat_count / OPTIMIZER_BLOCK * sizeof(float), err)) &&
           (plan->hyper = device_zeroed(plan, HYPER_COUNT * sizeof(float), err)) &&
           (plan->norm = device_zeroed(plan, 2 * sizeof(double), err));
}

/** Points the values of parameters and gradients at their memory; running statistics get memory of their own. */
static bool bind_flat(struct plan *plan, struct error *err) {
    for (int i = 0; i < plan->value_count; i++) {
        struct value *value = &plan->values[i];
        if (value->storage != STORAGE_PARAMETER && value->storage != STORAGE_GRADIENT)
            continue;
        int64_t offset = plan->parameters[value->parameter].offset;
        if (offset < 0)
            value->memory = device_zeroed(plan, value->desc.bytes, err);
        else
            value->memory = (float *)plan->flat[value->storage == STORAGE_GRADIENT ? PLAN_GRADIENTS : PLAN_VALUES] + offset;
        if (!value->memory)
            return false;
    }
    return true;
}

static bool upload_decay(struct plan *plan, struct error *err) {
    size_t blocks = (size_t)plan->flat_count / OPTIMIZER_BLOCK;
    float *decay = calloc(blocks + 1, sizeof *decay);
    if (!decay)
        return error_set(err, ERROR_MEMORY, "plan: out of memory");
    for (int i = 0; i < plan->graph->parameter_count; i++) {
        const struct flat_parameter *parameter = &plan->parameters[i];
        if (parameter->offset < 0 || !plan->graph->parameters[i].role.decay)
            continue;
        int64_t first = parameter->offset / OPTIMIZER_BLOCK, count = flat_elements(plan, i) / OPTIMIZER_BLOCK;
        for (int64_t block = first; block < first + count; block++)
            decay[block] = 1.0f;
    }
    bool ok = plan->device->ops->upload(plan->device, plan->decay, decay, blocks * sizeof *decay, NULL, err) &&
              plan->device->ops->synchronise(plan->device, NULL, err);
    free(decay);
    return ok;
}

static struct kernel *prepare_flat(struct plan *plan, const struct op *op, struct error *err) {
    struct kernel_request request = {.op = *op, .pass = PASS_FORWARD};
    struct shape shape = shape_of(1, plan->flat_count);
    if (!op_arguments(&request.op, PASS_FORWARD, &shape, &request.args, err))
        return NULL;
    return kernel_prepare(plan->device, &request, err);
}

/** The kernels of plan_update, and the scratch that they take turns with. */
static bool prepare_update(struct plan *plan, const struct plan_spec *spec, struct error *err) {
    struct op norm = {.kind = OP_GRADIENT_NORM}, update = {.kind = spec->optimizer, .optimizer = {.ema = spec->ema}};
    if (!(plan->norm_kernel = prepare_flat(plan, &norm, err)) || !(plan->optimizer_kernel = prepare_flat(plan, &update, err)))
        return false;
    size_t one = scratch_bytes(plan->norm_kernel), other = scratch_bytes(plan->optimizer_kernel);
    size_t bytes = one > other ? one : other;
    return !bytes || (plan->update_scratch = device_zeroed(plan, bytes, err));
}

/** The ranks' agreement: where every parameter lies, in which layout, and how the buckets are cut. */
static bool make_fingerprint(struct plan *plan, struct error *err) {
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (!out)
        return error_set(err, ERROR_MEMORY, "plan: out of memory");
    for (int i = 0; i < plan->graph->parameter_count; i++) {
        char layout[256];
        const struct value *value = &plan->values[plan->parameters[i].value];
        fprintf(out, "%s %lld %s\n", plan->graph->parameters[i].name, (long long)plan->parameters[i].offset,
                plan->device->ops->layout_text(plan->device, &value->desc, layout, sizeof layout));
    }
    for (int i = 0; i < plan->reduction_count; i++) {
        const struct plan_reduction *row = &plan->reductions[i];
        fprintf(out, "%s %s %lld\n", row->blocking ? "sums" : "bucket", dtype_name(row->dtype), (long long)row->count);
    }
    fclose(out);
    struct digest digest = digest_of(text, size);
    digest_hex(&digest, plan->fingerprint);
    free(text);
    return true;
}

bool plan_make_state(struct plan *plan, const struct plan_spec *spec, struct error *err) {
    struct ready *order = calloc((size_t)plan->graph->parameter_count + 1, sizeof *order);
    if (!order)
        return error_set(err, ERROR_MEMORY, "plan: out of memory");
    int count = lay_out_parameters(plan, order);
    size_t bucket_bytes = spec->bucket_bytes ? spec->bucket_bytes : (size_t)25 << 20;
    bool ok = allocate_flat(plan, spec, err) && bind_flat(plan, err) && cut_segments(plan, order, count, bucket_bytes, err) &&
              upload_decay(plan, err);
    free(order);
    for (int i = 0; ok && i < plan->graph->parameter_count; i++) {
        plan->parameters[i].original = graph_find_parameter(spec->graph, plan->graph->parameters[i].name);
        if (plan->parameters[i].original < 0)
            ok = error_set(err, ERROR_INTERNAL, "parameter %s got lost", plan->graph->parameters[i].name);
    }
    return ok && prepare_update(plan, spec, err) && make_fingerprint(plan, err);
}

bool plan_load_values(struct plan *plan, const struct plan_spec *spec, struct error *err) {
    return plan_import(plan, PLAN_VALUES, spec->parameters, err) &&
           (!spec->ema || plan_import(plan, PLAN_EMA, spec->parameters, err));
}

void plan_free_state(struct plan *plan) {
    struct device *device = plan->device;
    for (int i = 0; i < plan->value_count; i++) {
        const struct value *value = &plan->values[i];
        bool statistic = plan->mode == PLAN_TRAIN && value->storage == STORAGE_PARAMETER &&
                         plan->parameters[value->parameter].offset < 0;
        if (value->memory && (statistic || value->storage == STORAGE_FIXED))
            device->ops->free(device, value->memory);
    }
    void *owned[] = {plan->arena, plan->decay, plan->hyper, plan->norm, plan->update_scratch};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) {
        if (owned[i])
            device->ops->free(device, owned[i]);
    }
    for (int i = 0; i < PLAN_BUFFER_COUNT; i++) {
        if (plan->flat[i])
            device->ops->free(device, plan->flat[i]);
    }
    for (int i = 0; i < plan->segment_count; i++) {
        if (plan->segments[i].done)
            device->ops->event_destroy(device, plan->segments[i].done);
    }
    kernel_release(plan->norm_kernel);
    kernel_release(plan->optimizer_kernel);
}

bool plan_has_buffer(const struct plan *plan, enum plan_buffer which) {
    return plan->flat[which] != NULL;
}

/** Where a parameter's part of a buffer lies; NULL: running statistics outside of PLAN_VALUES. */
static void *buffer_of(const struct plan *plan, int parameter, enum plan_buffer which) {
    const struct flat_parameter *row = &plan->parameters[parameter];
    if (row->offset >= 0)
        return (float *)plan->flat[which] + row->offset;
    return which == PLAN_VALUES ? plan->values[row->value].memory : NULL;
}

bool plan_export(struct plan *plan, enum plan_buffer which, struct parameters *out, struct error *err) {
    if (!plan_has_buffer(plan, which))
        return error_set(err, ERROR_STATE, "the plan does not keep that buffer");
    for (int i = 0; i < plan->graph->parameter_count; i++) {
        const void *memory = buffer_of(plan, i, which);
        const struct tensor_desc *desc = &plan->values[plan->parameters[i].value].desc;
        if (memory && !plan_download_tensor(plan->device, desc, memory, &out->tensors[plan->parameters[i].original], err))
            return error_prefix(err, "parameter %s", plan->graph->parameters[i].name);
    }
    return true;
}

bool plan_import(struct plan *plan, enum plan_buffer which, const struct parameters *from, struct error *err) {
    if (!plan_has_buffer(plan, which))
        return error_set(err, ERROR_STATE, "the plan does not keep that buffer");
    for (int i = 0; i < plan->graph->parameter_count; i++) {
        void *memory = buffer_of(plan, i, which);
        const struct tensor_desc *desc = &plan->values[plan->parameters[i].value].desc;
        if (memory && !plan_upload_tensor(plan->device, &from->tensors[plan->parameters[i].original], desc, memory, err))
            return error_prefix(err, "parameter %s", plan->graph->parameters[i].name);
    }
    return true;
}
