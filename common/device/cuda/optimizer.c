#include "common/device/cuda/internal.h"

/* --- gradient norm: slices, folded to FOLD pairs and those to one; the numbers are fixed, so is the order
 * --- */

enum { SLICES = 16384, FOLD = 128 };

static bool gradient_norm(const struct cuda_call *call, struct error *err) {
    struct pair *sums = cuda_buffer(call, ARG_SCRATCH);
    struct sum_squares squares = {.gradient = cuda_buffer(call, ARG_GRADIENT),
                                  .sums = sums,
                                  .count = cuda_count(call, ARG_GRADIENT),
                                  .slices = SLICES};
    struct fold_pairs some = {.from = sums, .to = sums + SLICES, .from_count = SLICES, .to_count = FOLD};
    struct fold_pairs one = {
        .from = some.to, .to = cuda_buffer(call, ARG_NORM), .from_count = FOLD, .to_count = 1};
    return cuda_launched(call, launch_sum_squares(&squares, SLICES, call->stream), err) &&
           cuda_launched(call, launch_fold_pairs(&some, FOLD, call->stream), err) &&
           cuda_launched(call, launch_fold_pairs(&one, 1, call->stream), err);
}

static bool norm_prepare(struct cuda_kernel *kernel, struct error *err) {
    (void)err;
    cuda_set_private(kernel, ARG_SCRATCH, (SLICES + FOLD) * sizeof(struct pair));
    return true;
}

const struct cuda_row cuda_gradient_norm = {.prepare = norm_prepare, .run = {[PASS_FORWARD] = gradient_norm}};

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

const struct cuda_row cuda_sgd = {.run = {[PASS_FORWARD] = sgd}};
const struct cuda_row cuda_adamw = {.run = {[PASS_FORWARD] = adamw}};
