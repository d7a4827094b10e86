#include "common/device/cuda/int8.h"

/* Pools and rescaling of 8-bit integers, and how weights are packed for convolution_int8.c. */

enum { ROWS_MULTIPLE = 4, DEPTH_MULTIPLE = 16 }; /* cuBLAS asks for 4 of each, and is faster with 16 bytes */

static int64_t rounded(int64_t value, int64_t multiple) {
    return (value + multiple - 1) / multiple * multiple;
}

struct packing cuda_packing_of(const struct shape *weight) {
    const int64_t *d = weight->dims;
    struct packing p = {.rows = rounded(d[0], ROWS_MULTIPLE), .depth = rounded(d[1] * d[2] * d[3], DEPTH_MULTIPLE)};
    p.sums_at = (size_t)(p.rows * p.depth);
    p.bytes = p.sums_at + (size_t)p.rows * sizeof(int32_t);
    return p;
}

struct tensor_desc cuda_packed_desc(const struct shape *weight) {
    struct tensor_desc desc = tensor_desc_dense(DTYPE_S8, weight);
    desc.layout = &cuda_packed;
    desc.bytes = cuda_packing_of(weight).bytes;
    return desc;
}

static bool pack_prepare(struct cuda_kernel *kernel, const struct kernel_request *request, struct error *err) {
    struct tensor_desc *dst = &kernel->base.args.desc[ARG_DST];
    (void)request;
    (void)err;
    *dst = cuda_packed_desc(&dst->shape);
    return true;
}

static bool pack_supports(const struct kernel_request *request) {
    const struct tensor_desc *desc = request->args.desc;
    return desc[ARG_SRC].dtype == DTYPE_S8 && desc[ARG_DST].dtype == DTYPE_S8 && desc[ARG_DST].shape.rank == 4;
}

static bool pack(const struct cuda_call *call, struct error *err) {
    const struct shape *shape = &call->kernel->base.args.desc[ARG_DST].shape;
    struct packing p = cuda_packing_of(shape);
    char *packed = cuda_buffer(call, ARG_DST);
    struct pack_weight rows = {.src = cuda_buffer(call, ARG_SRC),
                               .dst = (int8_t *)packed,
                               .channels_out = shape->dims[0],
                               .channels_in = shape->dims[1],
                               .taps = shape->dims[2] * shape->dims[3],
                               .depth = p.depth};
    struct sum_weight sum = {.packed = rows.dst, .sums = (int32_t *)(packed + p.sums_at), .depth = p.depth};
    return cuda_launched(call, launch_pack_weight(&rows, p.rows * p.depth, call->stream), err) &&
           cuda_launched(call, launch_sum_weight(&sum, p.rows, call->stream), err);
}

const struct cuda_row cuda_packing = {.canonical = true,
                                      .integers = true,
                                      .supports = pack_supports,
                                      .prepare = pack_prepare,
                                      .run = {[PASS_FORWARD] = pack}};

static bool is_8_bit(enum dtype dtype) {
    return dtype == DTYPE_U8 || dtype == DTYPE_S8;
}

/* --- max pooling --- */

static bool max_supports(const struct kernel_request *request) {
    const struct tensor_desc *desc = request->args.desc;
    return is_8_bit(desc[ARG_SRC].dtype) && desc[ARG_DST].dtype == desc[ARG_SRC].dtype;
}

static bool max_pool(const struct cuda_call *call, struct error *err) {
    struct int8_max_pool k = {.src = cuda_buffer(call, ARG_SRC),
                              .dst = cuda_buffer(call, ARG_DST),
                              .from = cuda_images(call, ARG_SRC),
                              .to = cuda_images(call, ARG_DST),
                              .window = call->kernel->base.op.max_pool,
                              .dtype = call->kernel->base.args.desc[ARG_SRC].dtype};
    return cuda_launched(call, launch_int8_max_pool(&k, cuda_count(call, ARG_DST), call->stream), err);
}

const struct cuda_row cuda_int8_max_pool = {.integers = true, .supports = max_supports, .run = {[PASS_INFER] = max_pool}};

/* --- global average pooling --- */

static bool average_supports(const struct kernel_request *request) {
    return is_8_bit(request->args.desc[ARG_SRC].dtype) && request->args.desc[ARG_DST].dtype == DTYPE_F32;
}

static bool average_pool(const struct cuda_call *call, struct error *err) {
    struct int8_average k = {.src = cuda_buffer(call, ARG_SRC),
                             .dst = cuda_buffer(call, ARG_DST),
                             .from = cuda_images(call, ARG_SRC),
                             .is_signed = call->kernel->base.args.desc[ARG_SRC].dtype == DTYPE_S8};
    return cuda_launched(call, launch_int8_average(&k, cuda_count(call, ARG_DST), call->stream), err);
}

const struct cuda_row cuda_int8_average_pool = {
    .integers = true, .supports = average_supports, .run = {[PASS_INFER] = average_pool}};

/* --- rescaling, and reorders: a factor of 1 --- */

struct rescaling {
    struct cuda_kernel base;
    bool from_last, to_last;
};

/** Each side keeps the layout that was asked for. One that is left open is NHWC where it is of integers, else the other's. */
static bool rescale_prepare(struct cuda_kernel *kernel, const struct kernel_request *request, struct error *err) {
    struct rescaling *rescaling = (struct rescaling *)kernel;
    struct tensor_desc *desc = kernel->base.args.desc;
    const struct layout *from = request->args.desc[ARG_SRC].layout, *to = request->args.desc[ARG_DST].layout;
    (void)err;
    if (to == LAYOUT_ANY)
        to = is_8_bit(desc[ARG_DST].dtype) ? &cuda_nhwc : from;
    from = from == LAYOUT_ANY ? to : from;
    desc[ARG_SRC].layout = cuda_layout_of(&desc[ARG_SRC].shape, from == &cuda_nhwc);
    desc[ARG_DST].layout = cuda_layout_of(&desc[ARG_DST].shape, to == &cuda_nhwc);
    rescaling->from_last = desc[ARG_SRC].layout != NULL;
    rescaling->to_last = desc[ARG_DST].layout != NULL;
    return true;
}

static bool rescale_by(const struct cuda_call *call, float factor, struct error *err) {
    const struct rescaling *rescaling = (const struct rescaling *)call->kernel;
    const struct tensor_desc *desc = call->kernel->base.args.desc;
    struct int8_rescale k = {.src = cuda_buffer(call, ARG_SRC),
                             .dst = cuda_buffer(call, ARG_DST),
                             .from = cuda_images_of(&desc[ARG_SRC].shape, rescaling->from_last),
                             .to = cuda_images_of(&desc[ARG_DST].shape, rescaling->to_last),
                             .from_dtype = desc[ARG_SRC].dtype,
                             .to_dtype = desc[ARG_DST].dtype,
                             .factor = factor};
    return cuda_launched(call, launch_int8_rescale(&k, cuda_count(call, ARG_DST), call->stream), err);
}

static bool rescale_fits(enum dtype dtype) {
    return is_8_bit(dtype) || dtype == DTYPE_F32 || dtype == DTYPE_BF16 || dtype == DTYPE_F16;
}

static bool rescale_supports(const struct kernel_request *request) {
    return rescale_fits(request->args.desc[ARG_SRC].dtype) && rescale_fits(request->args.desc[ARG_DST].dtype);
}

static bool rescale(const struct cuda_call *call, struct error *err) {
    return rescale_by(call, call->kernel->base.op.rescale.factor, err);
}

const struct cuda_row cuda_rescale = {.kernel_size = sizeof(struct rescaling),
                                      .integers = true,
                                      .supports = rescale_supports,
                                      .prepare = rescale_prepare,
                                      .run = {[PASS_INFER] = rescale}};

static bool reorder_supports(const struct kernel_request *request) {
    const struct tensor_desc *desc = request->args.desc;
    return is_8_bit(desc[ARG_SRC].dtype) && desc[ARG_DST].dtype == desc[ARG_SRC].dtype &&
           desc[ARG_SRC].layout != &cuda_packed;
}

static bool reorder(const struct cuda_call *call, struct error *err) {
    return rescale_by(call, 1, err);
}

const struct cuda_row cuda_int8_reorder = {.kernel_size = sizeof(struct rescaling),
                                           .integers = true,
                                           .supports = reorder_supports,
                                           .prepare = rescale_prepare,
                                           .run = {[PASS_FORWARD] = reorder}};
