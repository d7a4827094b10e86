#include "common/device/onednn/kernel.h"
#include "common/device/onednn/team.h"
#include "common/op/dropout.h"

/* Activation and add go over memory as it lies, padding too: zero stays zero in all of them. */

struct elementwise_job {
    const struct onednn_kernel *kernel;
    const float *a, *b;
    float *out;
    int64_t count;
};

/* Shares in steps of a cache line, so that no two threads write to one. */
static void share_lines(int64_t count, int part, int parts, int64_t *begin, int64_t *end) {
    team_share((count + LANES - 1) / LANES, part, parts, begin, end);
    *begin *= LANES;
    *end = *end * LANES < count ? *end * LANES : count;
}

static void activate_part(void *context, int part, int parts) {
    const struct elementwise_job *job = context;
    int64_t begin, end;
    share_lines(job->count, part, parts, &begin, &end);
    job->kernel->device->loops->activate(job->out + begin, job->a + begin, job->b ? job->b + begin : NULL, end - begin,
                                         job->kernel->base.op.activation);
}

static bool activate_run(struct onednn_kernel *kernel, void *const buffers[ARG_COUNT], struct error *err) {
    const struct op_args *args = &kernel->base.args;
    struct elementwise_job job = {
        .kernel = kernel,
        .a = buffers[ARG_SRC],
        .b = args->direction[ARG_SRC2] != ARG_ABSENT ? buffers[ARG_SRC2] : NULL,
        .out = buffers[ARG_DST],
        .count = (int64_t)(args->desc[ARG_DST].bytes / sizeof(float)),
    };
    (void)err;
    team_run(kernel->device->threads, activate_part, &job);
    return true;
}

static void gradient_part(void *context, int part, int parts) {
    const struct elementwise_job *job = context;
    const struct loops *loops = job->kernel->device->loops;
    int64_t begin, end;
    share_lines(job->count, part, parts, &begin, &end);
    if (job->b)
        loops->activate_gradient(job->out + begin, job->a + begin, job->b + begin, end - begin,
                                 job->kernel->base.op.activation);
    else
        loops->activate(job->out + begin, job->a + begin, NULL, end - begin, ACTIVATION_NONE);
}

static bool gradient_run(struct onednn_kernel *kernel, void *const buffers[ARG_COUNT], struct error *err) {
    const struct op_args *args = &kernel->base.args;
    struct elementwise_job job = {
        .kernel = kernel,
        .a = buffers[ARG_DIFF_DST],
        .b = args->direction[ARG_DST] != ARG_ABSENT ? buffers[ARG_DST] : NULL,
        .out = buffers[ARG_DIFF_SRC],
        .count = (int64_t)(args->desc[ARG_DIFF_SRC].bytes / sizeof(float)),
    };
    (void)err;
    team_run(kernel->device->threads, gradient_part, &job);
    return true;
}

static struct onednn_kernel *elementwise_prepare(struct onednn_device *device, const struct kernel_request *request,
                                                 struct error *err) {
    struct onednn_kernel *kernel = kernel_create(device, request, sizeof *kernel, device->loops->name, err);
    if (!kernel)
        return NULL;
    kernel_follow(kernel, kernel_leading_layout(request));
    kernel->run = request->pass == PASS_BACKWARD_DATA ? gradient_run : activate_run;
    return kernel;
}

const struct onednn_kind onednn_activation = {.supports = kernel_all_f32, .prepare = elementwise_prepare};
const struct onednn_kind onednn_add = {.supports = kernel_all_f32, .prepare = elementwise_prepare};

/* --- dropout: drawn by canonical position, so it works in the canonical layout only --- */

struct dropout_job {
    const float *from;
    float *to;
    const int64_t *seed; /* NULL in inference: nothing is dropped */
    const struct dropout *dropout;
    int64_t count, features;
};

static void dropout_part(void *context, int part, int parts) {
    const struct dropout_job *job = context;
    const struct dropout *dropout = job->dropout;
    int64_t begin, end;
    share_lines(job->count, part, parts, &begin, &end);
    for (int64_t i = begin; i < end; i++) {
        bool kept = !job->seed || dropout_keeps(job->seed, dropout->salt, dropout->rate, job->features, i);
        float factor = job->seed ? 1 - dropout->rate : 1;
        job->to[i] = kept ? job->from[i] / factor : 0;
    }
}

static bool dropout_run(struct onednn_kernel *kernel, void *const buffers[ARG_COUNT], struct error *err) {
    bool backward = kernel->base.pass == PASS_BACKWARD_DATA;
    const struct tensor_desc *desc = &kernel->base.args.desc[backward ? ARG_DIFF_SRC : ARG_DST];
    struct dropout_job job = {
        .from = buffers[backward ? ARG_DIFF_DST : ARG_SRC],
        .to = buffers[backward ? ARG_DIFF_SRC : ARG_DST],
        .seed = kernel->base.pass == PASS_INFER ? NULL : buffers[ARG_SEED],
        .dropout = &kernel->base.op.dropout,
        .count = shape_count(&desc->shape),
        .features = shape_count(&desc->shape) / desc->shape.dims[0],
    };
    (void)err;
    team_run(kernel->device->threads, dropout_part, &job);
    return true;
}

static struct onednn_kernel *dropout_prepare(struct onednn_device *device, const struct kernel_request *request,
                                             struct error *err) {
    struct onednn_kernel *kernel = kernel_create(device, request, sizeof *kernel, "loops:philox", err);
    if (!kernel)
        return NULL;
    kernel_follow(kernel, NULL);
    kernel->run = dropout_run;
    return kernel;
}

const struct onednn_kind onednn_dropout = {.supports = kernel_all_f32, .prepare = dropout_prepare};
