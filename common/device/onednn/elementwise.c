#include "common/device/onednn/kernel.h"
#include "common/device/onednn/team.h"
#include "common/op/dropout.h"

/* Activation and add go over memory as it lies, padding too: zero stays zero in all of them. */

struct elementwise_job {
    const struct onednn_kernel *kernel;
    const struct row_loops *loops;
    const char *a, *b;
    char *out;
    int64_t count;
};

/* Shares in steps of whole cache lines (of bf16; two of f32), so that no two threads write to one. */
static void share_lines(int64_t count, int part, int parts, int64_t *begin, int64_t *end) {
    enum { STEP = 2 * LANES };
    team_share((count + STEP - 1) / STEP, part, parts, begin, end);
    *begin *= STEP;
    *end = *end * STEP < count ? *end * STEP : count;
}

/* The loops for the dtype of an argument, and how many elements it has with its padding. */
static void describe_job(struct elementwise_job *job, enum arg arg) {
    const struct tensor_desc *desc = &job->kernel->base.args.desc[arg];
    job->loops = loops_of(job->kernel->device->loops, desc->dtype);
    job->count = (int64_t)(desc->bytes / job->loops->element_bytes);
}

static void activate_part(void *context, int part, int parts) {
    const struct elementwise_job *job = context;
    int64_t begin, end;
    share_lines(job->count, part, parts, &begin, &end);
    int64_t at = begin * (int64_t)job->loops->element_bytes;
    job->loops->activate(job->out + at, job->a + at, job->b ? job->b + at : NULL, end - begin,
                         job->kernel->base.op.activation);
}

static bool activate_run(struct onednn_kernel *kernel, void *const buffers[ARG_COUNT], struct error *err) {
    bool add = kernel->base.args.direction[ARG_SRC2] != ARG_ABSENT;
    struct elementwise_job job = {
        .kernel = kernel,
        .a = buffers[ARG_SRC],
        .b = add ? buffers[ARG_SRC2] : NULL,
        .out = buffers[ARG_DST],
    };
    (void)err;
    describe_job(&job, ARG_DST);
    team_run(kernel->device->threads, activate_part, &job);
    return true;
}

static void gradient_part(void *context, int part, int parts) {
    const struct elementwise_job *job = context;
    int64_t begin, end;
    share_lines(job->count, part, parts, &begin, &end);
    int64_t at = begin * (int64_t)job->loops->element_bytes;
    if (job->b)
        job->loops->activate_gradient(job->out + at, job->a + at, job->b + at, end - begin,
                                      job->kernel->base.op.activation);
    else
        job->loops->activate(job->out + at, job->a + at, NULL, end - begin, ACTIVATION_NONE);
}

static bool gradient_run(struct onednn_kernel *kernel, void *const buffers[ARG_COUNT], struct error *err) {
    bool activated = kernel->base.args.direction[ARG_DST] != ARG_ABSENT;
    struct elementwise_job job = {
        .kernel = kernel,
        .a = buffers[ARG_DIFF_DST],
        .b = activated ? buffers[ARG_DST] : NULL,
        .out = buffers[ARG_DIFF_SRC],
    };
    (void)err;
    describe_job(&job, ARG_DIFF_SRC);
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

const struct onednn_kind onednn_activation = {.supports = kernel_precision_fits, .prepare = elementwise_prepare};
const struct onednn_kind onednn_add = {.supports = kernel_precision_fits, .prepare = elementwise_prepare};

/* --- casts: f32 to bf16 and back, where oneDNN without AVX-512 has but a loop that is a hundred times as slow --- */

struct cast_job {
    const struct loops *loops;
    const void *from;
    void *to;
    int64_t count;
    bool narrows;
};

static void cast_part(void *context, int part, int parts) {
    const struct cast_job *job = context;
    int64_t begin, end;
    share_lines(job->count, part, parts, &begin, &end);
    if (job->narrows)
        job->loops->narrow((uint16_t *)job->to + begin, (const float *)job->from + begin, end - begin);
    else
        job->loops->widen((float *)job->to + begin, (const uint16_t *)job->from + begin, end - begin);
}

static bool cast_run(struct onednn_kernel *kernel, void *const buffers[ARG_COUNT], struct error *err) {
    const struct tensor_desc *dst = &kernel->base.args.desc[ARG_DST];
    struct cast_job job = {kernel->device->loops, buffers[ARG_SRC], buffers[ARG_DST], shape_count(&dst->shape),
                           dst->dtype == DTYPE_BF16};
    (void)err;
    team_run(kernel->device->threads, cast_part, &job);
    return true;
}

bool cast_fits(const struct kernel_request *request) {
    const struct tensor_desc *src = &request->args.desc[ARG_SRC], *dst = &request->args.desc[ARG_DST];
    bool narrows = src->dtype == DTYPE_F32 && dst->dtype == DTYPE_BF16;
    bool widens = src->dtype == DTYPE_BF16 && dst->dtype == DTYPE_F32;
    return !src->layout && !dst->layout && (narrows || widens);
}

struct onednn_kernel *cast_prepare(struct onednn_device *device, const struct kernel_request *request, struct error *err) {
    struct onednn_kernel *kernel = kernel_create(device, request, sizeof *kernel, device->loops->name, err);
    if (kernel)
        kernel->run = cast_run;
    return kernel;
}

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

const struct onednn_kind onednn_dropout = {.supports = kernel_precision_fits, .prepare = dropout_prepare};
