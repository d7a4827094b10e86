#include "common/device/onednn/primitive.h"
#include "common/device/onednn/team.h"

/* The kinds for 8-bit integers. All of them work in NHWC, the only layout in which oneDNN has fast kernels for these. */

static bool is_8_bit(enum dtype dtype) {
    return dtype == DTYPE_U8 || dtype == DTYPE_S8;
}

static bool layout_nhwc(struct onednn_device *device, const struct tensor_desc *desc, const struct layout **out,
                        struct error *err) {
    struct md md = {0};
    bool good = md_tagged(&md, desc->dtype, &desc->shape, dnnl_acdb, err) && layout_intern(device, &md, out, err);
    md_fini(&md);
    return good;
}

/* What is kept otherwise will have to be reordered: into what oneDNN likes best. */
static void leave_open(struct kernel_request *request) {
    static const enum arg data[] = {ARG_SRC, ARG_SRC2, ARG_DST};
    for (size_t i = 0; i < sizeof data / sizeof *data; i++)
        if (request->args.direction[data[i]] != ARG_ABSENT && layout_tag(&request->args.desc[data[i]]) != dnnl_acdb)
            request->args.desc[data[i]].layout = LAYOUT_ANY;
}

/* --- convolution --- */

/* A residual is added where dst is, so one takes as much room as the other. */
static bool convolution_supports(const struct kernel_request *request) {
    const struct tensor_desc *desc = request->args.desc;
    bool residual = request->args.direction[ARG_SRC2] != ARG_ABSENT, bias = request->args.direction[ARG_BIAS] != ARG_ABSENT;
    return is_8_bit(desc[ARG_SRC].dtype) && desc[ARG_WEIGHT].dtype == DTYPE_S8 && desc[ARG_SCALE].dtype == DTYPE_F32 &&
           (!bias || desc[ARG_BIAS].dtype == DTYPE_F32) &&
           (residual ? is_8_bit(desc[ARG_DST].dtype) && is_8_bit(desc[ARG_SRC2].dtype)
                     : compat_dtype(desc[ARG_DST].dtype) != dnnl_data_type_undef);
}

/* dst is laid over the residual: what was asked of the one goes for the other, whichever of the two dtypes each has. */
static bool align_residual(struct onednn_device *device, struct kernel_request *request, struct error *err) {
    struct tensor_desc *dst = &request->args.desc[ARG_DST], *residual = &request->args.desc[ARG_SRC2];
    if (request->args.direction[ARG_SRC2] == ARG_ABSENT || dst->layout != LAYOUT_ANY || residual->layout == LAYOUT_ANY)
        return true;
    return layout_alike(device, residual, dst->dtype, &dst->layout, err);
}

/* What the primitive's description does not name; the residual is kept as dst is. */
static bool complete(struct onednn_kernel *kernel, struct error *err) {
    const struct op_args *args = &kernel->base.args;
    const struct layout *layout = NULL;
    if (!primitive_bind(kernel, ARG_SCALE, compat_numbers.int8_factor, err))
        return false;
    if (compat_numbers.int8_bias && args->direction[ARG_BIAS] != ARG_ABSENT &&
        !primitive_bind(kernel, ARG_BIAS, compat_numbers.int8_bias, err))
        return false;
    if (args->direction[ARG_SRC2] == ARG_ABSENT)
        return true;
    if (!layout_alike(kernel->device, &args->desc[ARG_DST], args->desc[ARG_SRC2].dtype, &layout, err))
        return false;
    kernel_set_layout(kernel, ARG_SRC2, layout);
    return args->desc[ARG_SRC2].bytes == args->desc[ARG_DST].bytes ||
           error_set(err, ERROR_UNSUPPORTED, "oneDNN keeps dst in a layout that the residual cannot have");
}

static struct onednn_kernel *convolution_prepare(struct onednn_device *device, const struct kernel_request *request,
                                                 struct error *err) {
    struct kernel_request asked = *request;
    leave_open(&asked);
    if (!align_residual(device, &asked, err))
        return NULL;
    struct onednn_kernel *kernel = primitive_prepare(device, &asked, convolution_fill, err);
    if (kernel && !complete(kernel, err)) {
        kernel_destroy(kernel);
        return NULL;
    }
    return kernel;
}

const struct onednn_kind onednn_int8_convolution = {.supports = convolution_supports, .prepare = convolution_prepare};

/* --- max pooling --- */

static bool max_pool_supports(const struct kernel_request *request) {
    return is_8_bit(request->args.desc[ARG_SRC].dtype) &&
           request->args.desc[ARG_DST].dtype == request->args.desc[ARG_SRC].dtype;
}

static bool max_pool_fill(struct onednn_device *device, const struct kernel_request *request, struct primitive_spec *spec,
                          struct error *err) {
    const struct tensor_desc *src = &request->args.desc[ARG_SRC], *dst = &request->args.desc[ARG_DST];
    (void)device;
    spec->family = FAMILY_MAX_POOL;
    window_fill(spec, &request->op.max_pool);
    return md_tagged(&spec->src, src->dtype, &src->shape, dnnl_acdb, err) &&
           md_tagged(&spec->dst, dst->dtype, &dst->shape, dnnl_acdb, err);
}

static struct onednn_kernel *max_pool_prepare(struct onednn_device *device, const struct kernel_request *request,
                                              struct error *err) {
    return primitive_prepare(device, request, max_pool_fill, err);
}

const struct onednn_kind onednn_int8_max_pool = {.supports = max_pool_supports, .prepare = max_pool_prepare};

/* --- global average pooling: exact sums of the pixels of (N, H, W, C), divided once --- */

struct average_job {
    const struct kernel *kernel;
    const uint8_t *src;
    float *dst;
};

/* Sums of `lanes` channels over all pixels. s8 is read as u8 with its sign bit turned over, which adds 128. */
static void sum_channels(const uint8_t *src, int64_t pixels, int64_t channels, int lanes, uint8_t flip, int32_t sum[LANES]) {
    for (int64_t pixel = 0; pixel < pixels; pixel++, src += channels)
        for (int lane = 0; lane < lanes; lane++)
            sum[lane] += src[lane] ^ flip;
}

static void average_image(const struct average_job *job, int64_t image) {
    const struct tensor_desc *desc = &job->kernel->args.desc[ARG_SRC];
    int64_t channels = desc->shape.dims[1], pixels = desc->shape.dims[2] * desc->shape.dims[3];
    bool is_signed = desc->dtype == DTYPE_S8;
    for (int64_t c = 0; c < channels; c += LANES) {
        int lanes = channels - c < LANES ? (int)(channels - c) : LANES;
        int64_t offset = is_signed ? pixels * -INT8_MIN : 0;
        int32_t sum[LANES] = {0};
        const uint8_t *src = job->src + image * pixels * channels + c;
        if (lanes == LANES)
            sum_channels(src, pixels, channels, LANES, is_signed ? 0x80 : 0, sum);
        else
            sum_channels(src, pixels, channels, lanes, is_signed ? 0x80 : 0, sum);
        for (int lane = 0; lane < lanes; lane++)
            job->dst[image * channels + c + lane] = (float)((double)(sum[lane] - offset) / (double)pixels);
    }
}

static void average_part(void *context, int part, int parts) {
    const struct average_job *job = context;
    int64_t begin, end;
    team_share(job->kernel->args.desc[ARG_SRC].shape.dims[0], part, parts, &begin, &end);
    for (int64_t image = begin; image < end; image++)
        average_image(job, image);
}

static bool average_run(struct onednn_kernel *kernel, void *const buffers[ARG_COUNT], struct error *err) {
    struct average_job job = {.kernel = &kernel->base, .src = buffers[ARG_SRC], .dst = buffers[ARG_DST]};
    (void)err;
    team_run(kernel->device->threads, average_part, &job);
    return true;
}

/* A sum of so many bytes still fits into s32. */
static bool average_supports(const struct kernel_request *request) {
    const struct tensor_desc *src = &request->args.desc[ARG_SRC];
    return is_8_bit(src->dtype) && request->args.desc[ARG_DST].dtype == DTYPE_F32 &&
           src->shape.dims[2] * src->shape.dims[3] <= INT32_MAX / UINT8_MAX;
}

static struct onednn_kernel *average_prepare(struct onednn_device *device, const struct kernel_request *request,
                                             struct error *err) {
    const struct layout *layout = NULL;
    struct onednn_kernel *kernel = kernel_create(device, request, sizeof *kernel, "loops:nhwc", err);
    if (!kernel || !layout_nhwc(device, &request->args.desc[ARG_SRC], &layout, err)) {
        kernel_destroy(kernel);
        return NULL;
    }
    kernel_set_layout(kernel, ARG_SRC, layout);
    kernel_set_layout(kernel, ARG_DST, NULL);
    kernel->run = average_run;
    return kernel;
}

const struct onednn_kind onednn_int8_average_pool = {.supports = average_supports, .prepare = average_prepare};

/* --- rescale: a reorder with a factor --- */

/* Integers are for the kinds above; floats stay as the integers were. */
static bool choose_layouts(struct onednn_device *device, struct op_args *args, struct error *err) {
    struct tensor_desc *src = &args->desc[ARG_SRC], *dst = &args->desc[ARG_DST];
    src->layout = src->layout == LAYOUT_ANY ? NULL : src->layout;
    if (dst->layout != LAYOUT_ANY)
        return true;
    if (is_8_bit(dst->dtype) && dst->shape.rank == 4)
        return layout_nhwc(device, dst, &dst->layout, err);
    return layout_alike(device, src, dst->dtype, &dst->layout, err);
}

static bool rescale_supports(const struct kernel_request *request) {
    return compat_dtype(request->args.desc[ARG_SRC].dtype) != dnnl_data_type_undef &&
           compat_dtype(request->args.desc[ARG_DST].dtype) != dnnl_data_type_undef;
}

static struct onednn_kernel *rescale_prepare(struct onednn_device *device, const struct kernel_request *request,
                                             struct error *err) {
    struct kernel_request asked = *request;
    dnnl_primitive_attr_t attr = choose_layouts(device, &asked.args, err) ? primitive_attributes(&asked, err) : NULL;
    if (!attr)
        return NULL;
    if (!compat_reorder_factor(attr, asked.op.rescale.factor, err)) {
        dnnl_primitive_attr_destroy(attr);
        return NULL;
    }
    struct onednn_kernel *kernel = reorder_create(device, &asked, attr, err);
    if (kernel && compat_numbers.reorder_factor &&
        !primitive_bind_constant(kernel, compat_numbers.reorder_factor, asked.op.rescale.factor, err)) {
        kernel_destroy(kernel);
        return NULL;
    }
    return kernel;
}

const struct onednn_kind onednn_rescale = {.supports = rescale_supports, .prepare = rescale_prepare};
