#include "common/device/cuda/algorithm_cache.h"
#include "common/device/cuda/convolution.h"

#include <stdio.h>

/*
 * Which algorithm is the fastest, measured by cuDNN itself (cudnnFindConvolution...AlgorithmEx) once for each convolution, and
 * remembered in the device's file. Measuring takes memory of its own, for as long as it lasts; where there is none, or
 * anything else goes wrong, cuDNN's guess stands.
 */

/** All that a measurement depends on. False where it does not fit. */
static bool make_key(const struct convolution *c, char out[ALGORITHM_KEY_SIZE]) {
    const struct cuda_device *device = cuda_device_of(c->base.base.device);
    const struct op_args *args = &c->base.base.args;
    enum pass pass = c->base.base.pass;
    char op[160], result[SHAPE_TEXT_SIZE], image[SHAPE_TEXT_SIZE];
    int length = snprintf(out, ALGORITHM_KEY_SIZE, "%s; %s %s %s; %s on %s to %s;%s%s", device->name, pass_name(pass),
                          dtype_name(c->dtype), c->base.last ? "nhwc" : "nchw", op_text(&c->base.base.op, op, sizeof op),
                          shape_text(&c->padded_shape, image),
                          shape_text(&args->desc[convolution_result(pass)].shape, result),
                          device->deterministic ? " deterministic" : "", device->tf32 ? " tf32" : "");
    return length > 0 && length < ALGORITHM_KEY_SIZE;
}

/** The memory of a measurement: image, weights, result and workspace. */
struct trial {
    void *x, *w, *y, *workspace;
    size_t workspace_bytes;
};

static size_t bytes_of(const struct convolution *c, const struct shape *shape) {
    return (size_t)shape_count(shape) * dtype_size(c->dtype);
}

static void trial_fini(struct trial *trial, struct device *device) {
    void *const all[] = {trial->x, trial->w, trial->y, trial->workspace};
    for (int i = 0; i < 4; i++)
        if (all[i])
            cuda_free(device, all[i]);
}

static bool trial_init(struct trial *trial, const struct convolution *c, const struct candidate *rows, int count) {
    struct device *device = c->base.base.device;
    const struct tensor_desc *desc = c->base.base.args.desc;
    enum pass pass = c->base.base.pass;
    *trial = (struct trial){0};
    for (int i = 0; i < count; i++)
        trial->workspace_bytes = rows[i].bytes > trial->workspace_bytes ? rows[i].bytes : trial->workspace_bytes;
    return (trial->x = cuda_alloc(device, bytes_of(c, &c->padded_shape), NULL)) &&
           (trial->w = cuda_alloc(device, bytes_of(c, &desc[convolution_weight(pass)].shape), NULL)) &&
           (trial->y = cuda_alloc(device, bytes_of(c, &desc[convolution_result(pass)].shape), NULL)) &&
           (!trial->workspace_bytes || (trial->workspace = cuda_alloc(device, trial->workspace_bytes, NULL)));
}

typedef bool measure_function(const struct convolution *c, const struct trial *t, struct candidate *out, int *count);

static cudnnHandle_t cudnn_of(const struct convolution *c) {
    return cuda_device_of(c->base.base.device)->cudnn;
}

static bool measure_forward(const struct convolution *c, const struct trial *t, struct candidate *out, int *count) {
    cudnnConvolutionFwdAlgoPerf_t found[CONVOLUTION_CANDIDATES];
    if (cudnnFindConvolutionForwardAlgorithmEx(cudnn_of(c), c->src, t->x, c->weight, t->w, c->descriptor, c->dst, t->y,
                                               CONVOLUTION_CANDIDATES, count, found, t->workspace,
                                               t->workspace_bytes) != CUDNN_STATUS_SUCCESS)
        return false;
    CONVOLUTION_COPY_CANDIDATES(found, *count, out);
    return true;
}

static bool measure_data(const struct convolution *c, const struct trial *t, struct candidate *out, int *count) {
    cudnnConvolutionBwdDataAlgoPerf_t found[CONVOLUTION_CANDIDATES];
    if (cudnnFindConvolutionBackwardDataAlgorithmEx(cudnn_of(c), c->weight, t->w, c->dst, t->y, c->descriptor, c->src, t->x,
                                                    CONVOLUTION_CANDIDATES, count, found, t->workspace,
                                                    t->workspace_bytes) != CUDNN_STATUS_SUCCESS)
        return false;
    CONVOLUTION_COPY_CANDIDATES(found, *count, out);
    return true;
}

static bool measure_weight(const struct convolution *c, const struct trial *t, struct candidate *out, int *count) {
    cudnnConvolutionBwdFilterAlgoPerf_t found[CONVOLUTION_CANDIDATES];
    if (cudnnFindConvolutionBackwardFilterAlgorithmEx(cudnn_of(c), c->src, t->x, c->dst, t->y, c->descriptor, c->weight, t->w,
                                                      CONVOLUTION_CANDIDATES, count, found, t->workspace,
                                                      t->workspace_bytes) != CUDNN_STATUS_SUCCESS)
        return false;
    CONVOLUTION_COPY_CANDIDATES(found, *count, out);
    return true;
}

/** The place of an algorithm among the usable ones, -1: it is none of them. */
static int row_of(const struct candidate *rows, int count, int algorithm, int math) {
    for (int i = 0; i < count; i++)
        if (rows[i].algorithm == algorithm && (int)rows[i].math == math)
            return i;
    return -1;
}

/** cuDNN gives the fastest first. -1: nothing was measured. */
static int measure(const struct convolution *c, const struct candidate *rows, int count) {
    static measure_function *const by_pass[PASS_COUNT] = {measure_forward, measure_forward, measure_data, measure_weight};
    struct cuda_device *device = cuda_device_of(c->base.base.device);
    struct candidate found[CONVOLUTION_CANDIDATES];
    struct trial trial;
    int measured = 0, best = -1;
    if (trial_init(&trial, c, rows, count) &&
        cudnnSetStream(device->cudnn, device->stream) == CUDNN_STATUS_SUCCESS &&
        by_pass[c->base.base.pass](c, &trial, found, &measured))
        measured = convolution_usable(c, found, measured);
    else
        measured = 0;
    for (int i = 0; i < measured && best < 0; i++)
        best = row_of(rows, count, found[i].algorithm, (int)found[i].math);
    trial_fini(&trial, c->base.base.device);
    return best;
}

int convolution_search(struct convolution *c, const struct candidate *rows, int count) {
    struct algorithm_cache *cache = cuda_device_of(c->base.base.device)->algorithms;
    char key[ALGORITHM_KEY_SIZE];
    int algorithm, math, best = -1;
    if (count < 2 || !make_key(c, key))
        return 0;
    if (algorithm_cache_find(cache, key, &algorithm, &math))
        best = row_of(rows, count, algorithm, math);
    if (best < 0 && (best = measure(c, rows, count)) >= 0)
        algorithm_cache_put(cache, key, rows[best].algorithm, (int)rows[best].math);
    return best < 0 ? 0 : best;
}
