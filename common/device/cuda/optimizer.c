#include "common/device/cuda/internal.h"

/* --- gradient norm: slices, folded stage by stage; the numbers are fixed, so is the order --- */

enum { SLICES = 32768, STAGES = 4 };
static const int64_t stages[STAGES] = {SLICES, 512, 16, 1};

static bool gradient_norm(const struct cuda_call *call, struct error *err) {
    struct pair *sums = cuda_buffer(call, ARG_SCRATCH);
    struct sum_squares squares = {.gradient = cuda_buffer(call, ARG_GRADIENT),
                                  .sums = sums,
                                  .count = cuda_count(call, ARG_GRADIENT),
                                  .slices = SLICES};
    bool ok = cuda_launched(call, launch_sum_squares(&squares, SLICES, call->stream), err);
    for (int i = 1; ok && i < STAGES; i++) {
        struct pair *to = i + 1 < STAGES ? sums + stages[i - 1] : cuda_buffer(call, ARG_NORM);
        struct fold_pairs k = {.from = sums, .to = to, .from_count = stages[i - 1], .to_count = stages[i]};
        ok = cuda_launched(call, launch_fold_pairs(&k, k.to_count, call->stream), err);
        sums = to;
    }
    return ok;
}

static bool norm_prepare(struct cuda_kernel *kernel, const struct kernel_request *request, struct error *err) {
    (void)request;
    (void)err;
    cuda_set_private(kernel, ARG_SCRATCH, (size_t)(stages[0] + stages[1] + stages[2]) * sizeof(struct pair));
    return true;
}

const struct cuda_row cuda_gradient_norm = {.canonical = true, .prepare = norm_prepare, .run = {[PASS_FORWARD] = gradient_norm}};

/* --- optimisers --- */

static struct flat_buffers flat_of(const struct cuda_call *call) {
    return (struct flat_buffers){.parameter = cuda_buffer(call, ARG_PARAMETER),
                                 .state = cuda_buffer(call, ARG_STATE),
                                 .state2 = cuda_buffer(call, ARG_STATE2),
                                 .ema = cuda_buffer(call, ARG_EMA),
                                 .gradient = cuda_buffer(call, ARG_GRADIENT),
                                 .decay = cuda_buffer(call, ARG_DECAY),
                                 .hyper = cuda_buffer(call, ARG_HYPER),
                                 .norm = cuda_buffer(call, ARG_NORM)};
}

static bool sgd(const struct cuda_call *call, struct error *err) {
    struct sgd k = {flat_of(call)};
    return cuda_launched(call, launch_sgd(&k, cuda_count(call, ARG_PARAMETER), call->stream), err);
}

static bool adamw(const struct cuda_call *call, struct error *err) {
    struct adamw k = {flat_of(call)};
    return cuda_launched(call, launch_adamw(&k, cuda_count(call, ARG_PARAMETER), call->stream), err);
}

const struct cuda_row cuda_sgd = {.canonical = true, .run = {[PASS_FORWARD] = sgd}};
const struct cuda_row cuda_adamw = {.canonical = true, .run = {[PASS_FORWARD] = adamw}};
