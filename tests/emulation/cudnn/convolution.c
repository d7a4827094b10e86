#include "common/tensor/half.h"
#include "tests/emulation/cudnn/internal.h"

#include <stdlib.h>
#include <string.h>

/* The calls. Whatever the layout and the type, sums are made of dense f32 copies. */

/* --- asking for algorithms --- */

/** cudnnConvolution...AlgoPerf_t, whose three kinds differ in the enumeration alone. */
typedef cudnnConvolutionFwdAlgoPerf_t candidate;
_Static_assert(sizeof(candidate) == sizeof(cudnnConvolutionBwdDataAlgoPerf_t), "one struct for all three");
_Static_assert(sizeof(candidate) == sizeof(cudnnConvolutionBwdFilterAlgoPerf_t), "one struct for all three");

static candidate describe(const struct algorithm *row, const struct problem *problem) {
    bool fits = algorithm_fits(row, problem);
    return (candidate){.algo = (cudnnConvolutionFwdAlgo_t)row->number,
                       .status = fits ? CUDNN_STATUS_SUCCESS : CUDNN_STATUS_NOT_SUPPORTED,
                       .time = -1,
                       .memory = fits ? row->workspace(&problem->sizes) : 0,
                       .determinism = row->deterministic ? CUDNN_DETERMINISTIC : CUDNN_NON_DETERMINISTIC,
                       .mathType = problem->math};
}

/** As cuDNN: those that fit first, the rest with a status that says no. */
static cudnnStatus_t list(cudnnHandle_t handle, cudnnStatus_t made, const struct problem *problem, int wanted, int *count,
                          void *out, const char *who) {
    *count = 0;
    if (made != CUDNN_STATUS_SUCCESS || !handle_check(handle, who))
        return made != CUDNN_STATUS_SUCCESS ? made : CUDNN_STATUS_BAD_PARAM;
    emulation_note(EMULATION_HANDLE, who);
    if (!view_is_nchw(&problem->x) && emulation_fails(EMULATION_REFUSE_NHWC))
        return CUDNN_STATUS_SUCCESS; /* a list of none */
    for (int fits = 1; fits >= 0; fits--)
        for (int i = 0; algorithm_at(problem->direction, i) && *count < wanted; i++) {
            const struct algorithm *row = algorithm_at(problem->direction, i);
            if (algorithm_fits(row, problem) == (fits != 0))
                ((candidate *)out)[(*count)++] = describe(row, problem);
        }
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnGetConvolutionForwardAlgorithm_v7(cudnnHandle_t handle, const cudnnTensorDescriptor_t x,
                                                     const cudnnFilterDescriptor_t w,
                                                     const cudnnConvolutionDescriptor_t convolution,
                                                     const cudnnTensorDescriptor_t y, const int wanted, int *count,
                                                     cudnnConvolutionFwdAlgoPerf_t *out) {
    static const char who[] = "cudnnGetConvolutionForwardAlgorithm_v7";
    struct problem problem;
    cudnnStatus_t made = problem_make(&problem, DIRECTION_FORWARD, x, w, convolution, y, who);
    return list(handle, made, &problem, wanted, count, out, who);
}

cudnnStatus_t cudnnGetConvolutionBackwardDataAlgorithm_v7(cudnnHandle_t handle, const cudnnFilterDescriptor_t w,
                                                          const cudnnTensorDescriptor_t dy,
                                                          const cudnnConvolutionDescriptor_t convolution,
                                                          const cudnnTensorDescriptor_t dx, const int wanted, int *count,
                                                          cudnnConvolutionBwdDataAlgoPerf_t *out) {
    static const char who[] = "cudnnGetConvolutionBackwardDataAlgorithm_v7";
    struct problem problem;
    cudnnStatus_t made = problem_make(&problem, DIRECTION_DATA, dx, w, convolution, dy, who);
    return list(handle, made, &problem, wanted, count, out, who);
}

cudnnStatus_t cudnnGetConvolutionBackwardFilterAlgorithm_v7(cudnnHandle_t handle, const cudnnTensorDescriptor_t x,
                                                            const cudnnTensorDescriptor_t dy,
                                                            const cudnnConvolutionDescriptor_t convolution,
                                                            const cudnnFilterDescriptor_t dw, const int wanted, int *count,
                                                            cudnnConvolutionBwdFilterAlgoPerf_t *out) {
    static const char who[] = "cudnnGetConvolutionBackwardFilterAlgorithm_v7";
    struct problem problem;
    cudnnStatus_t made = problem_make(&problem, DIRECTION_FILTER, x, dw, convolution, dy, who);
    return list(handle, made, &problem, wanted, count, out, who);
}

/* --- running --- */

/** What follows a forward convolution: scaled z, bias and an activation. */
struct epilogue {
    const void *z, *bias; /* NULL: none */
    struct view4 z_view;
    float z_factor;
    bool relu;
};

struct run {
    struct problem problem;
    void *x, *w, *y, *workspace;
    size_t workspace_bytes;
    float alpha, beta;
    struct epilogue epilogue;
};

/** Where the rows of a view begin, one after the other as NCHW has them; elements of a row are strides[3] apart. */
static int64_t row_of(const struct view4 *v, int64_t row) {
    const int *d = v->dims, *s = v->strides;
    int64_t h = row % d[2], c = row / d[2] % d[1], n = row / ((int64_t)d[2] * d[1]);
    return n * s[0] + c * s[1] + h * s[2];
}

static float load(const void *memory, enum dtype dtype, int64_t at) {
    return dtype == DTYPE_F32 ? ((const float *)memory)[at] : half_decode(dtype, ((const uint16_t *)memory)[at]);
}

static void store(void *memory, enum dtype dtype, int64_t at, double value) {
    if (dtype == DTYPE_F32)
        ((float *)memory)[at] = (float)value;
    else
        ((uint16_t *)memory)[at] = half_encode(dtype, (float)value);
}

static float *dense(const struct view4 *view) {
    float *out = malloc((size_t)view_count(view) * sizeof *out);
    if (!out)
        abort();
    return out;
}

static float *gather(const struct view4 *view, const void *memory) {
    float *out = dense(view), *to = out;
    if (view->dtype == DTYPE_F32 && view_is_nchw(view))
        return memcpy(out, memory, (size_t)view_count(view) * sizeof *out);
    for (int64_t row = 0; row < view_count(view) / view->dims[3]; row++)
        for (int64_t at = row_of(view, row), w = 0; w < view->dims[3]; w++, at += view->strides[3])
            *to++ = load(memory, view->dtype, at);
    return out;
}

/** What the i-th element of channel c becomes. */
static double finished(const struct run *run, const struct view4 *view, const void *memory, float value, int64_t at,
                       int64_t z_at, int64_t c) {
    const struct epilogue *e = &run->epilogue;
    double sum = (double)run->alpha * (double)value;
    if (run->beta != 0)
        sum += (double)run->beta * (double)load(memory, view->dtype, at);
    if (e->z)
        sum += (double)e->z_factor * (double)load(e->z, e->z_view.dtype, z_at);
    if (e->bias)
        sum += (double)load(e->bias, view->dtype, c);
    return e->relu && !(sum > 0) ? 0 : sum; /* of a NaN too */
}

/** memory = alpha values + beta memory, and what follows; without beta memory is not looked at. */
static void scatter(const struct run *run, const struct view4 *view, void *memory, const float *values) {
    const struct epilogue *e = &run->epilogue;
    if (view->dtype == DTYPE_F32 && view_is_nchw(view) && run->alpha == 1 && run->beta == 0 && !e->z && !e->bias &&
        !e->relu) {
        memcpy(memory, values, (size_t)view_count(view) * sizeof *values);
        return;
    }
    for (int64_t row = 0; row < view_count(view) / view->dims[3]; row++) {
        int64_t at = row_of(view, row), z_at = e->z ? row_of(&e->z_view, row) : 0, c = row / view->dims[2] % view->dims[1];
        for (int w = 0; w < view->dims[3]; w++, at += view->strides[3], z_at += e->z_view.strides[3])
            store(memory, view->dtype, at, finished(run, view, memory, *values++, at, z_at, c));
    }
}

/** cuDNN uses it as it likes. */
static void spoil_workspace(const struct run *run) {
    if (run->workspace_bytes)
        memset(run->workspace, 0xFF, run->workspace_bytes);
}

static void run_forward(void *argument) {
    const struct run *run = argument;
    const struct problem *p = &run->problem;
    float *x = gather(&p->x, run->x), *w = gather(&p->w, run->w), *y = dense(&p->y);
    spoil_workspace(run);
    loop_forward(&p->sizes, x, w, y);
    scatter(run, &p->y, run->y, y);
    free(x), free(w), free(y);
}

static void run_data(void *argument) {
    const struct run *run = argument;
    const struct problem *p = &run->problem;
    float *dx = dense(&p->x), *w = gather(&p->w, run->w), *dy = gather(&p->y, run->y);
    spoil_workspace(run);
    loop_data(&p->sizes, w, dy, dx);
    scatter(run, &p->x, run->x, dx);
    free(dx), free(w), free(dy);
}

static void run_filter(void *argument) {
    const struct run *run = argument;
    const struct problem *p = &run->problem;
    float *x = gather(&p->x, run->x), *dw = dense(&p->w), *dy = gather(&p->y, run->y);
    spoil_workspace(run);
    loop_filter(&p->sizes, x, dy, dw);
    scatter(run, &p->w, run->w, dw);
    free(x), free(dw), free(dy);
}

/* --- checking and queueing --- */

static const struct algorithm *find_algorithm(const struct problem *problem, int number) {
    for (int i = 0; algorithm_at(problem->direction, i); i++)
        if (algorithm_at(problem->direction, i)->number == number)
            return algorithm_at(problem->direction, i);
    return NULL;
}

static cudnnStatus_t check_algorithm(struct run *run, int number, const char *who) {
    const struct algorithm *algorithm = find_algorithm(&run->problem, number);
    if (!algorithm || !algorithm_fits(algorithm, &run->problem)) {
        emulation_finding("%s: algorithm %d does not do this convolution", who, number);
        return CUDNN_STATUS_NOT_SUPPORTED;
    }
    size_t needed = algorithm->workspace(&run->problem.sizes);
    if (run->workspace_bytes < needed || (needed && !run->workspace)) {
        emulation_finding("%s: a workspace of %zu bytes where algorithm %d needs %zu", who,
                          run->workspace ? run->workspace_bytes : 0, number, needed);
        return CUDNN_STATUS_BAD_PARAM_SIZE_INSUFFICIENT;
    }
    return CUDNN_STATUS_SUCCESS;
}

static bool overlap(const struct emulation_range *a, const struct emulation_range *b) {
    const char *p = a->memory, *q = b->memory;
    return a->bytes && b->bytes && p < q + b->bytes && q < p + a->bytes;
}

/** x, w, y, the workspace, z and the bias. The result may lie on none of them but z. */
static cudnnStatus_t queue(cudnnHandle_t handle, const struct run *run, void (*work)(void *), const char *who) {
    const struct problem *p = &run->problem;
    const struct epilogue *e = &run->epilogue;
    struct view4 bias = {.dtype = p->y.dtype, .dims = {1, p->y.dims[1], 1, 1}, .strides = {1, 1, 1, 1}};
    enum { X, W, Y, WORKSPACE, Z, BIAS, COUNT };
    static const int written[DIRECTION_COUNT] = {Y, X, W};
    int result = written[p->direction];
    struct emulation_range ranges[COUNT] = {
        [X] = view_range(&p->x, run->x, result == X),
        [W] = view_range(&p->w, run->w, result == W),
        [Y] = view_range(&p->y, run->y, result == Y),
        [WORKSPACE] = {run->workspace, run->workspace_bytes, true},
    };
    if (e->z)
        ranges[Z] = view_range(&e->z_view, e->z, false);
    if (e->bias)
        ranges[BIAS] = view_range(&bias, e->bias, false);
    for (int i = 0; i < COUNT; i++) {
        if (i != result && i != Z && overlap(&ranges[i], &ranges[result]))
            emulation_finding("%s: the result overlaps an argument", who);
        if (!emulation_check_alignment(who, ranges[i].memory, i == WORKSPACE ? 16 : dtype_size(p->x.dtype)))
            return CUDNN_STATUS_BAD_PARAM_MISALIGNED_POINTER;
    }
    cudaError_t queued = emulation_enqueue(handle->stream, who, ranges, COUNT, work, run, sizeof *run);
    return queued == cudaSuccess ? CUDNN_STATUS_SUCCESS : CUDNN_STATUS_EXECUTION_FAILED;
}

/** On sm_80 and later CUDNN_DEFAULT_MATH allows TF32 too. */
static void note_math(const struct problem *p) {
    bool wide = p->x.dtype == DTYPE_F32;
    if (wide && p->math != CUDNN_FMA_MATH)
        emulation_note(EMULATION_MATH, "tf32");
    else if (!wide && p->math == CUDNN_TENSOR_OP_MATH)
        emulation_note(EMULATION_MATH, "narrow");
}

static cudnnStatus_t start(cudnnHandle_t handle, cudnnStatus_t made, struct run *run, int algorithm, void (*work)(void *),
                           const char *who) {
    emulation_note(EMULATION_CUDNN, who);
    if (made == CUDNN_STATUS_SUCCESS && !handle_check(handle, who))
        made = CUDNN_STATUS_BAD_PARAM;
    else if (made / 1000 == CUDNN_STATUS_NOT_SUPPORTED / 1000)
        emulation_finding("%s: cuDNN does not do this combination of types or layouts", who);
    if (made == CUDNN_STATUS_SUCCESS)
        made = check_algorithm(run, algorithm, who);
    note_math(&run->problem);
    return made == CUDNN_STATUS_SUCCESS ? queue(handle, run, work, who) : made;
}

cudnnStatus_t cudnnConvolutionForward(cudnnHandle_t handle, const void *alpha, const cudnnTensorDescriptor_t x_view,
                                      const void *x, const cudnnFilterDescriptor_t w_view, const void *w,
                                      const cudnnConvolutionDescriptor_t convolution, cudnnConvolutionFwdAlgo_t algorithm,
                                      void *workspace, size_t bytes, const void *beta, const cudnnTensorDescriptor_t y_view,
                                      void *y) {
    static const char who[] = "cudnnConvolutionForward";
    struct run run = {.x = (void *)x, .w = (void *)w, .y = y, .workspace = workspace, .workspace_bytes = bytes};
    run.alpha = *(const float *)alpha;
    run.beta = *(const float *)beta;
    cudnnStatus_t made = problem_make(&run.problem, DIRECTION_FORWARD, x_view, w_view, convolution, y_view, who);
    return start(handle, made, &run, (int)algorithm, run_forward, who);
}

cudnnStatus_t cudnnConvolutionBackwardData(cudnnHandle_t handle, const void *alpha, const cudnnFilterDescriptor_t w_view,
                                           const void *w, const cudnnTensorDescriptor_t dy_view, const void *dy,
                                           const cudnnConvolutionDescriptor_t convolution,
                                           cudnnConvolutionBwdDataAlgo_t algorithm, void *workspace, size_t bytes,
                                           const void *beta, const cudnnTensorDescriptor_t dx_view, void *dx) {
    static const char who[] = "cudnnConvolutionBackwardData";
    struct run run = {.x = dx, .w = (void *)w, .y = (void *)dy, .workspace = workspace, .workspace_bytes = bytes};
    run.alpha = *(const float *)alpha;
    run.beta = *(const float *)beta;
    cudnnStatus_t made = problem_make(&run.problem, DIRECTION_DATA, dx_view, w_view, convolution, dy_view, who);
    return start(handle, made, &run, (int)algorithm, run_data, who);
}

cudnnStatus_t cudnnConvolutionBackwardFilter(cudnnHandle_t handle, const void *alpha, const cudnnTensorDescriptor_t x_view,
                                             const void *x, const cudnnTensorDescriptor_t dy_view, const void *dy,
                                             const cudnnConvolutionDescriptor_t convolution,
                                             cudnnConvolutionBwdFilterAlgo_t algorithm, void *workspace, size_t bytes,
                                             const void *beta, const cudnnFilterDescriptor_t dw_view, void *dw) {
    static const char who[] = "cudnnConvolutionBackwardFilter";
    struct run run = {.x = (void *)x, .w = dw, .y = (void *)dy, .workspace = workspace, .workspace_bytes = bytes};
    run.alpha = *(const float *)alpha;
    run.beta = *(const float *)beta;
    cudnnStatus_t made = problem_make(&run.problem, DIRECTION_FILTER, x_view, dw_view, convolution, dy_view, who);
    return start(handle, made, &run, (int)algorithm, run_filter, who);
}

/**
 * y = activation(alpha1 convolution + alpha2 z + bias). As cuDNN: ReLU, or the identity with IMPLICIT_PRECOMP_GEMM alone; NaNs
 * are not handed on.
 */
static cudnnStatus_t describe_epilogue(struct run *run, cudnnTensorDescriptor_t z, cudnnTensorDescriptor_t bias,
                                       cudnnActivationDescriptor_t activation, int algorithm, const char *who) {
    struct epilogue *e = &run->epilogue;
    if (!tensor_check(z, who) || !tensor_check(bias, who) || !activation_check(activation, who))
        return CUDNN_STATUS_BAD_PARAM;
    e->z_view = z->view;
    e->relu = activation->mode == CUDNN_ACTIVATION_RELU;
    bool same = bias->view.type == run->problem.y.type && bias->view.dims[1] == run->problem.y.dims[1] &&
                view_count(&bias->view) == bias->view.dims[1];
    for (int i = 0; i < 4; i++)
        same = same && z->view.dims[i] == run->problem.y.dims[i];
    if (!same) {
        emulation_finding("%s: z or the bias is not of the result's shape or type", who);
        return CUDNN_STATUS_BAD_PARAM_SHAPE_MISMATCH;
    }
    bool identity =
        activation->mode == CUDNN_ACTIVATION_IDENTITY && algorithm == CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM;
    bool known = activation->nan == CUDNN_NOT_PROPAGATE_NAN && (e->relu || identity);
    return known ? CUDNN_STATUS_SUCCESS : CUDNN_STATUS_NOT_SUPPORTED;
}

cudnnStatus_t cudnnConvolutionBiasActivationForward(
    cudnnHandle_t handle, const void *alpha1, const cudnnTensorDescriptor_t x_view, const void *x,
    const cudnnFilterDescriptor_t w_view, const void *w, const cudnnConvolutionDescriptor_t convolution,
    cudnnConvolutionFwdAlgo_t algorithm, void *workspace, size_t bytes, const void *alpha2,
    const cudnnTensorDescriptor_t z_view, const void *z, const cudnnTensorDescriptor_t bias_view, const void *bias,
    const cudnnActivationDescriptor_t activation, const cudnnTensorDescriptor_t y_view, void *y) {
    static const char who[] = "cudnnConvolutionBiasActivationForward";
    struct run run = {.x = (void *)x, .w = (void *)w, .y = y, .workspace = workspace, .workspace_bytes = bytes};
    run.alpha = *(const float *)alpha1;
    run.epilogue = (struct epilogue){.z = z, .bias = bias, .z_factor = *(const float *)alpha2};
    if (run.epilogue.z_factor == 0)
        run.epilogue.z = NULL; /* not looked at */
    cudnnStatus_t made = problem_make(&run.problem, DIRECTION_FORWARD, x_view, w_view, convolution, y_view, who);
    if (emulation_fails(EMULATION_REFUSE_FUSED))
        return CUDNN_STATUS_NOT_SUPPORTED;
    if (made == CUDNN_STATUS_SUCCESS)
        made = describe_epilogue(&run, z_view, bias_view, activation, (int)algorithm, who);
    return start(handle, made, &run, (int)algorithm, run_forward, who);
}

/* --- measuring --- */

/**
 * As cuDNN: runs what fits into the workspace, so that all memory is used and the result overwritten, and waits. What is the
 * fastest is made up: the reverse of what the heuristics say, so that it shows which of the two was asked.
 */
static cudnnStatus_t measure(cudnnHandle_t handle, cudnnStatus_t made, struct run *run, int wanted, int *count, void *out,
                             void (*work)(void *), const char *who) {
    const struct problem *p = &run->problem;
    int rows = 0;
    *count = 0;
    emulation_note(EMULATION_CUDNN, who);
    if (made == CUDNN_STATUS_SUCCESS && !handle_check(handle, who))
        made = CUDNN_STATUS_BAD_PARAM;
    if (made == CUDNN_STATUS_SUCCESS)
        made = queue(handle, run, work, who);
    if (made != CUDNN_STATUS_SUCCESS)
        return made;
    while (algorithm_at(p->direction, rows))
        rows++;
    for (int fits = 1; fits >= 0; fits--)
        for (int i = rows - 1; i >= 0 && *count < wanted; i--) {
            const struct algorithm *row = algorithm_at(p->direction, i);
            candidate described = describe(row, p);
            described.time = (float)(rows - i);
            if (described.memory > run->workspace_bytes)
                described.status = CUDNN_STATUS_ALLOC_FAILED;
            if ((described.status == CUDNN_STATUS_SUCCESS) == (fits != 0))
                ((candidate *)out)[(*count)++] = described;
        }
    return cudaStreamSynchronize(handle->stream) == cudaSuccess ? CUDNN_STATUS_SUCCESS : CUDNN_STATUS_EXECUTION_FAILED;
}

cudnnStatus_t cudnnFindConvolutionForwardAlgorithmEx(cudnnHandle_t handle, const cudnnTensorDescriptor_t x_view, const void *x,
                                                     const cudnnFilterDescriptor_t w_view, const void *w,
                                                     const cudnnConvolutionDescriptor_t convolution,
                                                     const cudnnTensorDescriptor_t y_view, void *y, const int wanted, int *count,
                                                     cudnnConvolutionFwdAlgoPerf_t *out, void *workspace, size_t bytes) {
    static const char who[] = "cudnnFindConvolutionForwardAlgorithmEx";
    struct run run = {.x = (void *)x, .w = (void *)w, .y = y, .workspace = workspace, .workspace_bytes = bytes, .alpha = 1};
    cudnnStatus_t made = problem_make(&run.problem, DIRECTION_FORWARD, x_view, w_view, convolution, y_view, who);
    return measure(handle, made, &run, wanted, count, out, run_forward, who);
}

cudnnStatus_t cudnnFindConvolutionBackwardDataAlgorithmEx(cudnnHandle_t handle, const cudnnFilterDescriptor_t w_view,
                                                          const void *w, const cudnnTensorDescriptor_t dy_view, const void *dy,
                                                          const cudnnConvolutionDescriptor_t convolution,
                                                          const cudnnTensorDescriptor_t dx_view, void *dx, const int wanted,
                                                          int *count, cudnnConvolutionBwdDataAlgoPerf_t *out, void *workspace,
                                                          size_t bytes) {
    static const char who[] = "cudnnFindConvolutionBackwardDataAlgorithmEx";
    struct run run = {.x = dx, .w = (void *)w, .y = (void *)dy, .workspace = workspace, .workspace_bytes = bytes, .alpha = 1};
    cudnnStatus_t made = problem_make(&run.problem, DIRECTION_DATA, dx_view, w_view, convolution, dy_view, who);
    return measure(handle, made, &run, wanted, count, out, run_data, who);
}

cudnnStatus_t cudnnFindConvolutionBackwardFilterAlgorithmEx(cudnnHandle_t handle, const cudnnTensorDescriptor_t x_view,
                                                            const void *x, const cudnnTensorDescriptor_t dy_view,
                                                            const void *dy, const cudnnConvolutionDescriptor_t convolution,
                                                            const cudnnFilterDescriptor_t dw_view, void *dw, const int wanted,
                                                            int *count, cudnnConvolutionBwdFilterAlgoPerf_t *out,
                                                            void *workspace, size_t bytes) {
    static const char who[] = "cudnnFindConvolutionBackwardFilterAlgorithmEx";
    struct run run = {.x = (void *)x, .w = dw, .y = (void *)dy, .workspace = workspace, .workspace_bytes = bytes, .alpha = 1};
    cudnnStatus_t made = problem_make(&run.problem, DIRECTION_FILTER, x_view, dw_view, convolution, dy_view, who);
    return measure(handle, made, &run, wanted, count, out, run_filter, who);
}
