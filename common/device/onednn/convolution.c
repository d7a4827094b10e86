#include "common/device/onednn/primitive.h"

#include <string.h>

void window_fill(struct primitive_spec *spec, const struct window *window) {
    for (int i = 0; i < 2; i++) {
        spec->stride[i] = window->stride[i];
        spec->kernel[i] = window->kernel[i];
        spec->pad_before[i] = window->pad_before[i];
        spec->pad_after[i] = window->pad_after[i];
    }
}

/* oneDNN sees the weights of a grouped convolution as (groups, O / groups, I / groups, KH, KW): the same elements. */
static struct shape weight_shape(const struct shape *shape, int groups) {
    const int64_t *d = shape->dims;
    return groups == 1 ? *shape : shape_of(5, (int64_t)groups, d[0] / groups, d[1], d[2], d[3]);
}

bool convolution_fill(struct onednn_device *device, const struct kernel_request *request, struct primitive_spec *spec,
                      struct error *err) {
    const struct conv2d *conv2d = &request->op.conv2d;
    const struct tensor_desc *desc = request->args.desc;
    bool forward = request->pass == PASS_INFER || request->pass == PASS_FORWARD;
    enum arg src = request->pass == PASS_BACKWARD_DATA ? ARG_DIFF_SRC : ARG_SRC;
    enum arg dst = forward ? ARG_DST : ARG_DIFF_DST;
    enum arg weight = request->pass == PASS_BACKWARD_WEIGHT ? ARG_DIFF_WEIGHT : ARG_WEIGHT;
    enum arg bias = request->pass == PASS_BACKWARD_WEIGHT ? ARG_DIFF_BIAS : ARG_BIAS;
    struct shape grouped = weight_shape(&desc[weight].shape, conv2d->groups);
    bool has_bias = request->args.direction[bias] != ARG_ABSENT && !(op_is_int8(&request->op) && compat_numbers.int8_bias);
    (void)device;
    spec->family = FAMILY_CONVOLUTION;
    window_fill(spec, &conv2d->window);
    return layout_describe(&desc[src], &desc[src].shape, &spec->src, err) &&
           layout_describe(&desc[weight], &grouped, &spec->weight, err) &&
           (request->pass != PASS_BACKWARD_WEIGHT ||
            md_tagged(&spec->forward_weight, desc[src].dtype, &grouped, dnnl_format_tag_any, err)) &&
           layout_describe(&desc[dst], &desc[dst].shape, &spec->dst, err) &&
           (!has_bias || md_dense(&spec->bias, desc[bias].dtype, &desc[bias].shape, err));
}

static bool winograd_fill(struct onednn_device *device, const struct kernel_request *request, struct primitive_spec *spec,
                          struct error *err) {
    spec->winograd = true;
    return convolution_fill(device, request, spec, err);
}

/*
 * Whether Winograd's minimal filtering F(4 x 4, 3 x 3) is worth its transforms of the weights. That follows from how many tiles
 * of 4 x 4 pixels share them: measured on 64 to 512 channels it is level at 32 tiles and 1.2 to 3 times as fast from 48 on, in
 * each pass. Padded by one pixel all around, as networks have it: with more on one side, oneDNN's backward pass to the source
 * is wrong (2.6.3 and 3.1). By shape alone, never by a clock: the same run takes the same kernels, and gives the same bits.
 */
static bool winograd_pays(const struct kernel_request *request) {
    enum { EDGE = 4, TILES_MIN = 48, CHANNELS_MIN = 32 };
    const struct conv2d *conv2d = &request->op.conv2d;
    const struct tensor_desc *desc = request->args.desc;
    bool forward = request->pass == PASS_INFER || request->pass == PASS_FORWARD;
    const struct tensor_desc *dst = &desc[forward ? ARG_DST : ARG_DIFF_DST];
    const int64_t *weight = desc[request->pass == PASS_BACKWARD_WEIGHT ? ARG_DIFF_WEIGHT : ARG_WEIGHT].shape.dims;
    const int64_t *dims = dst->shape.dims;
    const struct window plain = {.kernel = {3, 3}, .stride = {1, 1}, .pad_before = {1, 1}, .pad_after = {1, 1}};
    bool fits = dst->dtype == DTYPE_F32 && conv2d->groups == 1 && memcmp(&conv2d->window, &plain, sizeof plain) == 0;
    int64_t tiles = dims[0] * ((dims[2] + EDGE - 1) / EDGE) * ((dims[3] + EDGE - 1) / EDGE);
    return fits && weight[0] >= CHANNELS_MIN && weight[1] >= CHANNELS_MIN && tiles >= TILES_MIN;
}

static struct onednn_kernel *convolution_prepare(struct onednn_device *device, const struct kernel_request *request,
                                                 struct error *err) {
    struct kernel_request asked = *request;
    /* dst is laid over the residual, so what was asked of the one goes for the other. */
    if (request->args.direction[ARG_SRC2] != ARG_ABSENT && asked.args.desc[ARG_DST].layout == LAYOUT_ANY)
        asked.args.desc[ARG_DST].layout = asked.args.desc[ARG_SRC2].layout;
    struct onednn_kernel *kernel = NULL;
    if (!device->direct_convolutions && winograd_pays(request))
        kernel = primitive_prepare(device, &asked, winograd_fill, NULL);
    return kernel ? kernel : primitive_prepare(device, &asked, convolution_fill, err);
}

const struct onednn_kind onednn_convolution = {.supports = kernel_precision_fits, .prepare = convolution_prepare};

/* --- max pooling --- */

/*
 * src and dst are kept alike, in the forward and the backward passes: both must see the same layouts, or the places of the
 * maxima that one leaves in the workspace would mean others to the other.
 */
static bool max_pool_fill(struct onednn_device *device, const struct kernel_request *request, struct primitive_spec *spec,
                          struct error *err) {
    bool backward = request->pass == PASS_BACKWARD_DATA;
    const struct tensor_desc *src = &request->args.desc[backward ? ARG_DIFF_SRC : ARG_SRC];
    const struct tensor_desc *dst = &request->args.desc[backward ? ARG_DIFF_DST : ARG_DST];
    bool follow_dst = src->layout == LAYOUT_ANY && dst->layout != LAYOUT_ANY;
    dnnl_format_tag_t tag = layout_tag(follow_dst ? dst : src);
    (void)device;
    spec->family = FAMILY_MAX_POOL;
    window_fill(spec, &request->op.max_pool);
    return md_tagged(&spec->src, src->dtype, &src->shape, tag, err) && md_tagged(&spec->dst, dst->dtype, &dst->shape, tag, err);
}

static struct onednn_kernel *max_pool_prepare(struct onednn_device *device, const struct kernel_request *request,
                                              struct error *err) {
    return primitive_prepare(device, request, max_pool_fill, err);
}

const struct onednn_kind onednn_max_pool = {.supports = kernel_precision_fits, .prepare = max_pool_prepare};

/* --- linear --- */

/* Features of whatever shape are one row per image in canonical order; only the weights are oneDNN's to arrange. */
static bool linear_fill(struct onednn_device *device, const struct kernel_request *request, struct primitive_spec *spec,
                        struct error *err) {
    const struct tensor_desc *desc = request->args.desc;
    bool forward = request->pass == PASS_INFER || request->pass == PASS_FORWARD;
    const struct tensor_desc *src = &desc[request->pass == PASS_BACKWARD_DATA ? ARG_DIFF_SRC : ARG_SRC];
    const struct tensor_desc *dst = &desc[forward ? ARG_DST : ARG_DIFF_DST];
    const struct tensor_desc *weight = &desc[request->pass == PASS_BACKWARD_WEIGHT ? ARG_DIFF_WEIGHT : ARG_WEIGHT];
    enum arg bias = request->pass == PASS_BACKWARD_WEIGHT ? ARG_DIFF_BIAS : ARG_BIAS;
    struct shape rows = shape_of(2, src->shape.dims[0], weight->shape.dims[1]);
    (void)device;
    spec->family = FAMILY_LINEAR;
    return md_dense(&spec->src, src->dtype, &rows, err) && layout_describe(weight, &weight->shape, &spec->weight, err) &&
           md_dense(&spec->dst, dst->dtype, &dst->shape, err) &&
           (request->args.direction[bias] == ARG_ABSENT ||
            md_dense(&spec->bias, desc[bias].dtype, &desc[bias].shape, err));
}

static struct onednn_kernel *linear_prepare(struct onednn_device *device, const struct kernel_request *request,
                                            struct error *err) {
    return primitive_prepare(device, request, linear_fill, err);
}

const struct onednn_kind onednn_linear = {.supports = kernel_precision_fits, .prepare = linear_prepare};

/* --- reorder --- */

static bool reorder_supports(const struct kernel_request *request) {
    return compat_dtype(request->args.desc[ARG_SRC].dtype) != dnnl_data_type_undef &&
           compat_dtype(request->args.desc[ARG_DST].dtype) != dnnl_data_type_undef;
}

/* The dimensions that oneDNN sees: those of a layout, where one side has one (grouped weights have five). */
static struct shape reorder_shape(const struct tensor_desc *src, const struct tensor_desc *dst) {
    const struct layout *layout = src->layout ? src->layout : dst->layout;
    struct shape shape = src->shape;
    if (!layout || !layout->blocked)
        return shape;
    shape.rank = layout->blocking.rank;
    for (int i = 0; i < shape.rank; i++)
        shape.dims[i] = layout->blocking.dims[i];
    return shape;
}

struct onednn_kernel *reorder_create(struct onednn_device *device, const struct kernel_request *request,
                                     dnnl_primitive_attr_t attr, struct error *err) {
    struct tensor_desc src = request->args.desc[ARG_SRC], dst = request->args.desc[ARG_DST];
    struct md from = {0}, to = {0};
    dnnl_primitive_desc_t desc = NULL;
    struct onednn_kernel *kernel = NULL;
    src.layout = src.layout == LAYOUT_ANY ? NULL : src.layout;
    dst.layout = dst.layout == LAYOUT_ANY ? NULL : dst.layout;
    struct shape shape = reorder_shape(&src, &dst);
    if (attr && layout_describe(&src, &shape, &from, err) && layout_describe(&dst, &shape, &to, err) &&
        compat_reorder_desc(&desc, device->engine, &from, &to, attr, err))
        kernel = primitive_kernel_create(device, request, desc, err);
    if (desc)
        dnnl_primitive_desc_destroy(desc);
    if (attr)
        dnnl_primitive_attr_destroy(attr);
    md_fini(&from);
    md_fini(&to);
    return kernel;
}

static struct onednn_kernel *reorder_prepare(struct onednn_device *device, const struct kernel_request *request,
                                             struct error *err) {
    if (cast_fits(request))
        return cast_prepare(device, request, err);
    return reorder_create(device, request, primitive_attributes(request, err), err);
}

const struct onednn_kind onednn_reorder = {.supports = reorder_supports, .prepare = reorder_prepare};
