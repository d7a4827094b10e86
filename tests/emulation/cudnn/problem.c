#include "tests/emulation/cudnn/internal.h"

/* What makes a convolution: descriptors that agree, and the algorithms that cuDNN documents for it. */

/* --- sizes --- */

static int result_size(const struct sizes *s, int axis) {
    int reach = s->dilation[axis] * (s->kernel[axis] - 1) + 1;
    return (s->in[axis] + 2 * s->pad[axis] - reach) / s->stride[axis] + 1;
}

static struct sizes sizes_of(const struct cudnnConvolutionStruct *convolution, const struct view4 *x, const struct view4 *w,
                             const struct view4 *y) {
    struct sizes s = {.batch = x->dims[0], .channels = x->dims[1], .outputs = w->dims[0], .groups = convolution->groups};
    for (int axis = 0; axis < 2; axis++) {
        s.kernel[axis] = w->dims[2 + axis];
        s.in[axis] = x->dims[2 + axis];
        s.out[axis] = y->dims[2 + axis];
        s.pad[axis] = convolution->pad[axis];
        s.stride[axis] = convolution->stride[axis];
        s.dilation[axis] = convolution->dilation[axis];
    }
    return s;
}

static const char *contradiction(const struct problem *p) {
    const struct sizes *s = &p->sizes;
    if (s->channels % s->groups || s->outputs % s->groups)
        return "the groups do not divide the channels";
    if (p->w.dims[1] != s->channels / s->groups)
        return "the filter's channels are not the image's, divided by the groups";
    if (p->y.dims[1] != s->outputs || p->y.dims[0] != s->batch)
        return "the result's batch or channels are not the image's and the filter's";
    for (int axis = 0; axis < 2; axis++)
        if (s->out[axis] < 1 || s->out[axis] != result_size(s, axis))
            return "the result's height or width does not follow from the image's";
    return NULL;
}

/** cuDNN's documented configurations: one type for all, sums in f32; one packed layout for all. */
static cudnnStatus_t configuration(const struct problem *p) {
    if (!p->x.dtype || p->x.type != p->w.type || p->x.type != p->y.type)
        return CUDNN_STATUS_NOT_SUPPORTED_DATA_TYPE;
    bool nchw = view_is_nchw(&p->x) && view_is_nchw(&p->w) && view_is_nchw(&p->y);
    bool nhwc = view_is_nhwc(&p->x) && view_is_nhwc(&p->w) && view_is_nhwc(&p->y);
    return nchw || nhwc ? CUDNN_STATUS_SUCCESS : CUDNN_STATUS_NOT_SUPPORTED_LAYOUT;
}

cudnnStatus_t problem_make(struct problem *out, enum direction direction, cudnnTensorDescriptor_t x,
                           cudnnFilterDescriptor_t w, cudnnConvolutionDescriptor_t convolution, cudnnTensorDescriptor_t y,
                           const char *who) {
    if (!tensor_check(x, who) || !filter_check(w, who) || !convolution_check(convolution, who) || !tensor_check(y, who))
        return CUDNN_STATUS_BAD_PARAM;
    *out = (struct problem){.direction = direction, .x = x->view, .w = w->view, .y = y->view, .math = convolution->math};
    out->sizes = sizes_of(convolution, &out->x, &out->w, &out->y);
    const char *wrong = contradiction(out);
    if (!wrong)
        return configuration(out);
    emulation_finding("%s: %s", who, wrong);
    return CUDNN_STATUS_BAD_PARAM_SHAPE_MISMATCH;
}

/* --- algorithms --- */

static size_t nothing(const struct sizes *s) {
    (void)s;
    return 0;
}

static size_t offsets(const struct sizes *s) {
    return (size_t)(s->channels / s->groups) * (size_t)s->kernel[0] * (size_t)s->kernel[1] * sizeof(int) + 64;
}

static size_t columns(const struct sizes *s) {
    return offsets(s) * (size_t)s->out[0] * (size_t)s->out[1];
}

static size_t partial_filter(const struct sizes *s) {
    return offsets(s) * (size_t)s->outputs;
}

static bool is_winograd(const struct sizes *s) {
    bool plain = s->stride[0] == 1 && s->stride[1] == 1 && s->dilation[0] == 1 && s->dilation[1] == 1;
    return s->groups == 1 && s->kernel[0] == 3 && s->kernel[1] == 3 && plain;
}

static bool is_ungrouped(const struct sizes *s) {
    return s->groups == 1;
}

static const struct algorithm forward[] = {
    {CUDNN_CONVOLUTION_FWD_ALGO_WINOGRAD, true, false, is_winograd, offsets},
    {CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM, true, true, NULL, offsets},
    {CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM, true, true, NULL, nothing},
    {CUDNN_CONVOLUTION_FWD_ALGO_GEMM, true, false, is_ungrouped, columns},
};
static const struct algorithm data[] = {
    {CUDNN_CONVOLUTION_BWD_DATA_ALGO_WINOGRAD, true, false, is_winograd, offsets},
    {CUDNN_CONVOLUTION_BWD_DATA_ALGO_0, false, false, NULL, nothing},
    {CUDNN_CONVOLUTION_BWD_DATA_ALGO_1, true, true, NULL, offsets},
};
static const struct algorithm filter[] = {
    {CUDNN_CONVOLUTION_BWD_FILTER_ALGO_0, false, true, NULL, nothing},
    {CUDNN_CONVOLUTION_BWD_FILTER_ALGO_3, false, false, NULL, partial_filter},
    {CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1, true, true, NULL, partial_filter},
};

const struct algorithm *algorithm_at(enum direction direction, int i) {
    static const struct {
        const struct algorithm *rows;
        int count;
    } tables[DIRECTION_COUNT] = {
        {forward, sizeof forward / sizeof *forward},
        {data, sizeof data / sizeof *data},
        {filter, sizeof filter / sizeof *filter},
    };
    return i < tables[direction].count ? &tables[direction].rows[i] : NULL;
}

bool algorithm_fits(const struct algorithm *algorithm, const struct problem *problem) {
    bool nchw = view_is_nchw(&problem->x) && view_is_nchw(&problem->w) && view_is_nchw(&problem->y);
    return (nchw || algorithm->nhwc) && (!algorithm->fits || algorithm->fits(&problem->sizes));
}
