#include "common/graph/plan.h"

#include "common/graph/passes.h"
#include "common/graph/plan_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/** A small convolution in the precision, as the device is asked for it. */
static bool sample_request(enum precision precision, enum plan_mode mode, struct kernel_request *out, struct error *err) {
    struct window window = {{3, 3}, {1, 1}, {1, 1}, {1, 1}};
    struct shape shape = shape_of(4, 1, 16, 8, 8);
    *out = (struct kernel_request){.op = {OP_CONV2D, .conv2d = {.channels_out = 16, .window = window, .groups = 1}},
                                   .pass = mode == PLAN_TRAIN ? PASS_BACKWARD_WEIGHT : PASS_INFER};
    if (precision == PRECISION_INT8)
        out->op.conv2d.int8 = (struct conv2d_int8){.src = DTYPE_U8, .dst = DTYPE_U8};
    if (!op_arguments(&out->op, out->pass, &shape, &out->args, err))
        return false;
    precision_apply(precision, &out->op, &out->args);
    return true;
}

bool plan_precision_supported(struct device *device, enum precision precision, enum plan_mode mode, struct error *err) {
    struct kernel_request request;
    struct device_info info;
    if (precision == PRECISION_F32)
        return true;
    if (sample_request(precision, mode, &request, err) && device->ops->supports(device, &request))
        return true;
    device->ops->info(device, &info);
    return error_set(err, ERROR_UNSUPPORTED, "precision %s: not on this device, %s", precision_name(precision), info.name);
}

/** Asks for the kernel that gathers a synchronised batch norm's sums. */
static bool check_synchronised(const struct plan_spec *spec, struct error *err) {
    struct kernel_request request = {.op = {OP_BATCH_NORM_SUMS, .batch_norm = {.epsilon = 1e-5f, .synchronised = true}},
                                     .pass = PASS_BACKWARD_DATA};
    struct shape shape = shape_of(4, (int64_t)1, (int64_t)16, (int64_t)8, (int64_t)8);
    struct device_info info;
    if (spec->freeze_batch_norm)
        return error_set(err, ERROR_INVALID, "a batch norm is frozen or synchronised, not both");
    if (!op_arguments(&request.op, request.pass, &shape, &request.args, err))
        return false;
    precision_apply(spec->precision, &request.op, &request.args);
    if (spec->device->ops->supports(spec->device, &request))
        return true;
    spec->device->ops->info(spec->device, &info);
    return error_set(err, ERROR_UNSUPPORTED, "synchronised batch norm: not on this device, %s", info.name);
}

static bool check_spec(const struct plan_spec *spec, struct error *err) {
    if (spec->precision == PRECISION_INT8)
        return error_set(err, ERROR_INVALID, "a quantised graph says so itself: its plan's precision is that of the rest");
    if (!plan_precision_supported(spec->device, spec->precision, spec->mode, err))
        return false;
    if (spec->batch < 1 || spec->batch > 65536)
        return error_set(err, ERROR_INVALID, "a plan's batch must be 1 to 65536, not %lld", (long long)spec->batch);
    if (spec->parts < 0 || spec->parts > 65536)
        return error_set(err, ERROR_INVALID, "a step has 1 to 65536 parts, not %d", spec->parts);
    if (spec->share && (spec->mode != PLAN_INFER || !spec->share->store || !device_shares(spec->share->device, spec->device) ||
                        spec->share->precision != spec->precision))
        return error_set(err, ERROR_INVALID, "only inference plans of one precision, on devices that share, share weights");
    if (spec->mode == PLAN_TRAIN && spec->synchronise_batch_norm && !check_synchronised(spec, err))
        return false;
    if (spec->mode == PLAN_TRAIN && spec->optimizer != OP_SGD && spec->optimizer != OP_ADAMW)
        return error_set(err, ERROR_INVALID, "a training plan's optimizer is SGD or AdamW");
    return true;
}

/** The graph that is trained: fused, with the loss as its last node. */
static struct graph *training_graph(const struct plan_spec *spec, struct error *err) {
    enum norm_statistics statistics = spec->freeze_batch_norm        ? NORM_STATISTICS_RUNNING
                                      : spec->synchronise_batch_norm ? NORM_STATISTICS_ALL_RANKS
                                                                     : NORM_STATISTICS_BATCH;
    struct graph *graph = graph_fuse_for_training(spec->graph, spec->device, spec->precision, statistics, err);
    if (!graph)
        return NULL;
    struct op loss = {.kind = OP_SOFTMAX_CROSS_ENTROPY, .softmax_cross_entropy = {spec->label_smoothing}};
    int logits = graph->node_count - 1;
    if (graph_add(graph, "loss", &loss, &logits, err) < 0) {
        graph_destroy(graph);
        return NULL;
    }
    return graph;
}

/** Loss and gradients are linear in the class weights: there they are scaled, by any device's kernels. */
static bool upload_class_weights(struct plan *plan, float scale, struct error *err) {
    const struct value *value = &plan->values[plan->class_weights];
    size_t count = (size_t)shape_count(&value->desc.shape);
    float *scaled = malloc(count * sizeof *scaled);
    if (!scaled)
        return error_set(err, ERROR_MEMORY, "plan: out of memory");
    for (size_t i = 0; i < count; i++)
        scaled[i] = plan->class_weight_values[i] * scale;
    bool ok = plan->device->ops->upload(plan->device, value->memory, scaled, count * sizeof *scaled, NULL, err);
    free(scaled);
    plan->loss_scale = scale;
    return ok;
}

static bool keep_class_weights(struct plan *plan, const float *weights, struct error *err) {
    if (plan->class_weights < 0)
        return true;
    size_t count = (size_t)shape_count(&plan->values[plan->class_weights].desc.shape);
    plan->class_weight_values = malloc(count * sizeof *weights);
    if (!plan->class_weight_values)
        return error_set(err, ERROR_MEMORY, "plan: out of memory");
    for (size_t i = 0; i < count; i++)
        plan->class_weight_values[i] = weights ? weights[i] : 1.0f;
    return upload_class_weights(plan, 1, err) && plan->device->ops->synchronise(plan->device, NULL, err);
}

bool plan_set_loss_scale(struct plan *plan, float scale, struct error *err) {
    if (plan->class_weights < 0)
        return error_set(err, ERROR_STATE, "an inference plan has no loss");
    return scale == plan->loss_scale || upload_class_weights(plan, scale, err);
}

static bool open_graph(struct plan *plan, const struct plan_spec *spec, struct error *err) {
    if (plan->mode == PLAN_TRAIN)
        return (plan->graph = training_graph(spec, err));
    if (spec->share) {
        plan->store = weight_store_retain(spec->share->store);
    } else {
        plan->store = weight_store_create(spec, err);
    }
    plan->graph = plan->store ? plan->store->graph : NULL;
    return plan->graph;
}

static bool load_stored_weights(struct plan *plan, struct error *err) {
    size_t before = plan->store->bytes;
    for (int i = 0; i < plan->value_count; i++) {
        struct value *value = &plan->values[i];
        if (value->storage == STORAGE_PARAMETER &&
            !(value->memory = weight_store_get(plan->store, plan->device, value->parameter, &value->desc, err)))
            return false;
    }
    plan->parameter_bytes = plan->store->bytes - before;
    plan->segments = calloc(1, sizeof *plan->segments);
    if (!plan->segments)
        return error_set(err, ERROR_MEMORY, "plan: out of memory");
    plan->segments[0] = (struct segment){.step_count = plan->step_count};
    plan->segment_count = 1;
    return true;
}

struct plan *plan_create(const struct plan_spec *spec, struct error *err) {
    if (!check_spec(spec, err))
        return NULL;
    struct plan *plan = calloc(1, sizeof *plan);
    if (!plan) {
        error_set(err, ERROR_MEMORY, "plan: out of memory");
        return NULL;
    }
    plan->device = spec->device;
    plan->mode = spec->mode;
    plan->precision = spec->precision;
    plan->batch = spec->batch;
    plan->images = plan->labels = plan->seed = plan->class_weights = plan->loss = plan->logits = -1;
    bool ok = open_graph(plan, spec, err) && plan_compile(plan, spec, err);
    ok = ok && (plan->mode == PLAN_TRAIN ? plan_make_state(plan, spec, err) : load_stored_weights(plan, err));
    ok = ok && plan_prepare_parts(plan, plan->mode == PLAN_TRAIN && spec->parts > 1 ? spec->parts : 1, err);
    ok = ok && plan_prepare_narrow(plan, err) && plan_place(plan, err) && keep_class_weights(plan, spec->class_weights, err);
    if (ok)
        plan_bind_sums(plan);
    ok = ok && plan_prepare_transfer(plan, err) && plan_record(plan, err);
    ok = ok && (plan->mode == PLAN_INFER || plan_load_values(plan, spec, err));
    if (!ok) {
        plan_destroy(plan);
        return NULL;
    }
    return plan;
}

void plan_destroy(struct plan *plan) {
    if (!plan)
        return;
    plan_free_recordings(plan);
    plan_free_transfer(plan);
    for (int i = 0; i < plan->step_count; i++)
        kernel_release(plan->steps[i].kernel);
    plan_free_parts(plan);
    plan_free_narrow(plan);
    plan_free_state(plan);
    if (plan->mode == PLAN_TRAIN)
        graph_destroy(plan->graph);
    weight_store_release(plan->store, plan->device);
    free(plan->class_weight_values);
    free(plan->outputs);
    free(plan->values);
    free(plan->steps);
    free(plan->segments);
    free(plan->reductions);
    free(plan->parameters);
    free(plan);
}

int plan_segment_count(const struct plan *plan) {
    return plan->segment_count;
}

bool plan_run_step(struct plan *plan, int step, struct error *err) {
    struct step *row = &plan->steps[step];
    return kernel_run(row->kernel, row->buffers, NULL, err) ||
           error_prefix(err, "node %s, %s", plan->graph->nodes[row->node].name, pass_name(row->kernel->pass));
}

bool plan_run_steps(struct plan *plan, int segment, struct error *err) {
    const struct segment *row = &plan->segments[segment];
    for (int i = 0; i < row->step_count; i++) {
        if (!plan_run_step(plan, row->first_step + i, err))
            return false;
    }
    return plan->parts > 1 || plan_finish_buckets(plan, row, err);
}

bool plan_finish_buckets(struct plan *plan, const struct segment *segment, struct error *err) {
    return plan_sum_parts(plan, segment, err) &&
           (plan->part + 1 < plan->parts || plan_narrow_buckets(plan, segment, err));
}

static bool launch(struct plan *plan, struct recording *recording, struct error *err) {
    return plan->device->ops->recording_launch(plan->device, recording, NULL, err);
}

bool plan_run_segment(struct plan *plan, int segment, struct error *err) {
    const struct segment *row = &plan->segments[segment];
    bool ok = row->recording ? launch(plan, row->recording, err) : plan_run_steps(plan, segment, err);
    if (!ok || (plan->parts > 1 && !plan_finish_buckets(plan, row, err)))
        return false;
    return !row->done || plan->device->ops->event_record(plan->device, row->done, NULL, err);
}

int plan_reductions(const struct plan *plan, int segment, const struct plan_reduction **out) {
    const struct segment *row = &plan->segments[segment];
    *out = plan->reductions ? plan->reductions + row->first_reduction : NULL;
    return row->reduction_count;
}

bool plan_run(struct plan *plan, struct error *err) {
    for (int i = 0; i < plan->segment_count; i++) {
        if (!plan_run_segment(plan, i, err))
            return false;
    }
    return true;
}

bool plan_run_update(struct plan *plan, int unused, struct error *err) {
    void *buffers[ARG_COUNT] = {[ARG_PARAMETER] = plan->flat[PLAN_VALUES], [ARG_GRADIENT] = plan->flat[PLAN_GRADIENTS],
                                [ARG_STATE] = plan->flat[PLAN_STATE],      [ARG_STATE2] = plan->flat[PLAN_STATE2],
                                [ARG_EMA] = plan->flat[PLAN_EMA],          [ARG_DECAY] = plan->decay,
                                [ARG_HYPER] = plan->hyper,                 [ARG_NORM] = plan->norm,
                                [ARG_SCRATCH] = plan->update_scratch};
    (void)unused;
    return plan_widen_gradients(plan, err) && kernel_run(plan->norm_kernel, buffers, NULL, err) &&
           kernel_run(plan->optimizer_kernel, buffers, NULL, err);
}

bool plan_update(struct plan *plan, const float hyper[HYPER_COUNT], struct error *err) {
    if (plan->mode != PLAN_TRAIN)
        return error_set(err, ERROR_STATE, "an inference plan has nothing to update");
    if (!plan->device->ops->upload(plan->device, plan->hyper, hyper, HYPER_COUNT * sizeof(float), NULL, err))
        return false;
    return plan->update ? launch(plan, plan->update, err) : plan_run_update(plan, 0, err);
}

static bool read_back(struct plan *plan, void *to, const void *from, size_t bytes, struct error *err) {
    return plan->device->ops->download(plan->device, to, from, bytes, NULL, err) &&
           plan->device->ops->synchronise(plan->device, NULL, err);
}

bool plan_read_logits(struct plan *plan, float *logits, struct error *err) {
    const struct value *value = &plan->values[plan->logits];
    return read_back(plan, logits, value->memory, (size_t)shape_count(&value->desc.shape) * sizeof(float), err);
}

const struct graph_node *plan_node(const struct plan *plan, int node) {
    return node < plan->graph->node_count ? &plan->graph->nodes[node] : NULL;
}

bool plan_read_output(struct plan *plan, int node, float *out, struct error *err) {
    if (!plan->outputs)
        return error_set(err, ERROR_STATE, "the plan does not keep its nodes' outputs");
    const struct value *value = &plan->values[plan->outputs[node]];
    struct tensor tensor = {DTYPE_F32, value->desc.shape, out};
    return plan_download_tensor(plan->device, &value->desc, value->memory, &tensor, err) ||
           error_prefix(err, "output of node %s", plan->graph->nodes[node].name);
}

bool plan_fetch_loss(struct plan *plan, float *loss, struct error *err) {
    if (plan->loss < 0)
        return error_set(err, ERROR_STATE, "an inference plan has no loss");
    return plan->device->ops->download(plan->device, loss, plan->values[plan->loss].memory, sizeof *loss, NULL, err);
}

float plan_loss_scale(const struct plan *plan) {
    return plan->loss_scale;
}

bool plan_read_loss(struct plan *plan, float *loss, struct error *err) {
    if (!plan_fetch_loss(plan, loss, err) || !plan->device->ops->synchronise(plan->device, NULL, err))
        return false;
    *loss /= plan->loss_scale;
    return true;
}

bool plan_read_gradient_norm(struct plan *plan, float gradient_scale, double out[2], struct error *err) {
    if (!plan->norm)
        return error_set(err, ERROR_STATE, "an inference plan has no gradients");
    if (!read_back(plan, out, plan->norm, 2 * sizeof *out, err))
        return false;
    out[0] = sqrt(out[0]) * gradient_scale;
    return true;
}

void plan_memory(const struct plan *plan, struct plan_memory *out) {
    *out = (struct plan_memory){plan->arena_bytes, plan->arena_sum_bytes, plan->arena_live_bytes, plan->parameter_bytes};
}

const char *plan_fingerprint(const struct plan *plan) {
    return plan->fingerprint;
}

int plan_step_count(const struct plan *plan) {
    return plan->step_count;
}

void plan_describe_step(const struct plan *plan, int step, struct plan_step *out) {
    const struct step *row = &plan->steps[step];
    const struct graph_node *node = &plan->graph->nodes[row->node];
    struct shape shapes[OP_MAX_INPUTS] = {0};
    graph_input_shapes(plan->graph, node, plan->batch, shapes);
    *out = (struct plan_step){.name = node->name, .kernel = row->kernel};
    if (row->kernel->op.kind == node->op.kind)
        out->flops = op_flops(&node->op, row->kernel->pass, shapes);
    for (int arg = 0; arg < ARG_COUNT; arg++) {
        if (arg != ARG_SCRATCH && row->kernel->args.direction[arg] != ARG_ABSENT)
            out->bytes += row->kernel->args.desc[arg].bytes;
    }
}
