#include "common/device/onednn/kernel.h"
#include "common/device/onednn/team.h"

#include <math.h>
#include <stdlib.h>

/* --- gradient norm: sums of fixed stretches, added in their order, so the same bits for any number of threads --- */

enum { STRETCH = 1 << 16 };

struct norm_job {
    const struct loops *loops;
    const float *gradient;
    int64_t count;
    double (*sums)[2]; /* (stretches): sum of squares, count of non-finite values */
};

static int64_t stretches(int64_t count) {
    return (count + STRETCH - 1) / STRETCH;
}

static void norm_part(void *context, int part, int parts) {
    const struct norm_job *job = context;
    int64_t begin, end;
    team_share(stretches(job->count), part, parts, &begin, &end);
    for (int64_t i = begin; i < end; i++) {
        int64_t left = job->count - i * STRETCH;
        job->sums[i][0] = job->sums[i][1] = 0;
        job->loops->square_sum(job->gradient + i * STRETCH, left < STRETCH ? left : STRETCH, &job->sums[i][0],
                               &job->sums[i][1]);
    }
}

static int64_t element_count(const struct onednn_kernel *kernel) {
    return shape_count(&kernel->base.args.desc[ARG_GRADIENT].shape);
}

/* The sums are few and live with the kernel: an optimiser's plan has no place for scratch memory. */
struct norm_kernel {
    struct onednn_kernel base;
    double (*sums)[2];
};

static bool norm_run(struct onednn_kernel *base, void *const buffers[ARG_COUNT], struct error *err) {
    struct norm_kernel *kernel = (struct norm_kernel *)base;
    struct norm_job job = {base->device->loops, buffers[ARG_GRADIENT], element_count(base), kernel->sums};
    double *norm = buffers[ARG_NORM];
    (void)err;
    team_run(base->device->threads, norm_part, &job);
    norm[0] = norm[1] = 0;
    for (int64_t i = 0; i < stretches(job.count); i++) {
        norm[0] += job.sums[i][0];
        norm[1] += job.sums[i][1];
    }
    return true;
}

static void norm_fini(struct onednn_kernel *base) {
    free(((struct norm_kernel *)base)->sums);
}

static struct onednn_kernel *norm_prepare(struct onednn_device *device, const struct kernel_request *request,
                                          struct error *err) {
    struct norm_kernel *kernel = kernel_create(device, request, sizeof *kernel, device->loops->name, err);
    if (!kernel)
        return NULL;
    kernel->base.run = norm_run;
    kernel->base.fini = norm_fini;
    kernel->sums = calloc((size_t)stretches(element_count(&kernel->base)), sizeof *kernel->sums);
    if (kernel->sums)
        return &kernel->base;
    kernel_destroy(&kernel->base);
    error_set(err, ERROR_MEMORY, "out of memory for the partial sums of a norm");
    return NULL;
}

const struct onednn_kind onednn_gradient_norm = {.supports = kernel_precision_fits, .prepare = norm_prepare};

/* --- SGD and AdamW, the moving average with them: one pass over every buffer --- */

struct step_job {
    void (*update)(const struct optimizer_buffers *buffers, int64_t first_block, int64_t last_block,
                   const struct optimizer_step *step);
    struct optimizer_buffers buffers;
    struct optimizer_step step;
    int64_t blocks;
};

/* What every gradient is multiplied by: its scale, and the shortening to the clip norm (PyTorch's clip_grad_norm_). */
static double gradient_factor(const float *hyper, const double *norm) {
    double scale = (double)hyper[HYPER_GRADIENT_SCALE], clip = (double)hyper[HYPER_CLIP_NORM];
    double shrink = clip / (sqrt(norm[0]) * fabs(scale) + 1e-6);
    return clip > 0 && shrink < 1 ? scale * shrink : scale;
}

static struct optimizer_step step_of(const float *hyper, const double *norm) {
    return (struct optimizer_step){
        .rate = hyper[HYPER_LEARNING_RATE],
        .weight_decay = hyper[HYPER_WEIGHT_DECAY],
        .momentum = hyper[HYPER_MOMENTUM],
        .gradient_factor = (float)gradient_factor(hyper, norm),
        .ema_decay = hyper[HYPER_EMA_DECAY],
        .beta1 = hyper[HYPER_BETA1],
        .beta2 = hyper[HYPER_BETA2],
        .epsilon = hyper[HYPER_EPSILON],
        .inverse_bias1 = (float)(1 / (double)hyper[HYPER_BIAS1]),
        .inverse_root_bias2 = (float)(1 / sqrt((double)hyper[HYPER_BIAS2])),
    };
}

static void step_part(void *context, int part, int parts) {
    const struct step_job *job = context;
    int64_t begin, end;
    team_share(job->blocks, part, parts, &begin, &end);
    job->update(&job->buffers, begin, end, &job->step);
}

static bool step_run(struct onednn_kernel *kernel, void *const buffers[ARG_COUNT], struct error *err) {
    const struct loops *loops = kernel->device->loops;
    bool adamw = kernel->base.op.kind == OP_ADAMW;
    const double *norm = buffers[ARG_NORM];
    struct step_job job = {
        .update = adamw ? loops->adamw : loops->sgd,
        .buffers = {.parameter = buffers[ARG_PARAMETER],
                    .state = buffers[ARG_STATE],
                    .second = adamw ? buffers[ARG_STATE2] : NULL,
                    .ema = kernel->base.args.direction[ARG_EMA] != ARG_ABSENT ? buffers[ARG_EMA] : NULL,
                    .gradient = buffers[ARG_GRADIENT],
                    .decay = buffers[ARG_DECAY]},
        .step = step_of(buffers[ARG_HYPER], norm),
        .blocks = element_count(kernel) / OPTIMIZER_BLOCK,
    };
    (void)err;
    /* A gradient that is not finite would spoil everything for good: the step is left out. */
    if (norm[1] == 0)
        team_run(kernel->device->threads, step_part, &job);
    return true;
}

static struct onednn_kernel *step_prepare(struct onednn_device *device, const struct kernel_request *request,
                                          struct error *err) {
    struct onednn_kernel *kernel = kernel_create(device, request, sizeof *kernel, device->loops->name, err);
    if (kernel)
        kernel->run = step_run;
    return kernel;
}

const struct onednn_kind onednn_sgd = {.supports = kernel_precision_fits, .prepare = step_prepare};
const struct onednn_kind onednn_adamw = {.supports = kernel_precision_fits, .prepare = step_prepare};
