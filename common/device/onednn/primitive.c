#include "common/device/onednn/primitive.h"

#include "common/device/onednn/team.h"

#include <string.h>

struct primitive_kernel {
    struct onednn_kernel base;
    dnnl_primitive_t primitive;
    int count; /**< of the three arrays below */
    enum arg args[ARG_COUNT];
    dnnl_exec_arg_t exec[ARG_COUNT];
    float constant;
    void *handles[ARG_COUNT]; /**< what the memory objects point to now */
};

static const struct {
    enum arg arg;
    int number;
} numbers[] = {
    {ARG_SRC, DNNL_ARG_SRC},
    {ARG_WEIGHT, DNNL_ARG_WEIGHTS},
    {ARG_BIAS, DNNL_ARG_BIAS},
    {ARG_DST, DNNL_ARG_DST},
    {ARG_WORKSPACE, DNNL_ARG_WORKSPACE},
    {ARG_SCRATCH, DNNL_ARG_SCRATCHPAD},
    {ARG_DIFF_DST, DNNL_ARG_DIFF_DST},
    {ARG_DIFF_SRC, DNNL_ARG_DIFF_SRC},
    {ARG_DIFF_WEIGHT, DNNL_ARG_DIFF_WEIGHTS},
    {ARG_DIFF_BIAS, DNNL_ARG_DIFF_BIAS},
};
enum { NUMBER_COUNT = sizeof numbers / sizeof *numbers };

struct copy {
    char *dst;
    const char *src;
    size_t bytes;
};

static void copy_part(void *context, int part, int parts) {
    const struct copy *copy = context;
    int64_t begin, end;
    team_share((int64_t)(copy->bytes / LANES), part, parts, &begin, &end);
    size_t first = (size_t)begin * LANES, last = part + 1 == parts ? copy->bytes : (size_t)end * LANES;
    memcpy(copy->dst + first, copy->src + first, last - first);
}

/* The sum post-op adds to what dst holds: the residual has to be there, if the caller did not lay dst over it. */
static void place_residual(const struct primitive_kernel *kernel, void *const buffers[ARG_COUNT]) {
    const struct op_args *args = &kernel->base.base.args;
    struct copy copy = {buffers[ARG_DST], buffers[ARG_SRC2], args->desc[ARG_DST].bytes};
    if (args->direction[ARG_SRC2] != ARG_ABSENT && copy.dst != copy.src)
        team_run(kernel->base.device->threads, copy_part, &copy);
}

static bool primitive_run(struct onednn_kernel *base, void *const buffers[ARG_COUNT], struct error *err) {
    struct primitive_kernel *kernel = (struct primitive_kernel *)base;
    team_adopt(base->device->threads);
    place_residual(kernel, buffers);
    for (int i = 0; i < kernel->count; i++) {
        void *handle = kernel->args[i] == ARG_NONE ? &kernel->constant : buffers[kernel->args[i]];
        /* Setting a handle makes oneDNN clear the padding: once is enough, since every kernel keeps it clear. */
        if (handle == kernel->handles[i])
            continue;
        if (!dnnl_ok(dnnl_memory_set_data_handle(kernel->exec[i].memory, handle), err, "point to a buffer"))
            return false;
        kernel->handles[i] = handle;
    }
    return dnnl_ok(dnnl_primitive_execute(kernel->primitive, base->device->stream, kernel->count, kernel->exec), err,
                   "run a primitive");
}

static void primitive_fini(struct onednn_kernel *base) {
    struct primitive_kernel *kernel = (struct primitive_kernel *)base;
    for (int i = 0; i < kernel->count; i++)
        dnnl_memory_destroy(kernel->exec[i].memory);
    if (kernel->primitive)
        dnnl_primitive_destroy(kernel->primitive);
}

static bool bind_memory(struct primitive_kernel *kernel, enum arg arg, int number, const struct md *md, struct error *err) {
    int i = kernel->count;
    kernel->args[i] = arg;
    kernel->exec[i].arg = number;
    if (!compat_memory(&kernel->exec[i].memory, md, kernel->base.device->engine, err))
        return false;
    kernel->count++;
    return true;
}

/* Takes over what the primitive expects of one argument. */
static bool adopt_argument(struct primitive_kernel *kernel, dnnl_primitive_desc_t desc, int row, struct error *err) {
    enum arg arg = numbers[row].arg;
    struct op_args *args = &kernel->base.base.args;
    const struct layout *layout = NULL;
    struct md md = {0};
    if (arg != ARG_SCRATCH && args->direction[arg] == ARG_ABSENT)
        return true;
    bool good = md_of_argument(&md, desc, numbers[row].number, err);
    size_t bytes = md_bytes(&md);
    if (good && (arg == ARG_SCRATCH || arg == ARG_WORKSPACE)) {
        kernel_set_private(&kernel->base, arg, bytes);
    } else if (good) {
        good = layout_intern(kernel->base.device, &md, &layout, err);
        kernel_set_layout(&kernel->base, arg, layout);
    }
    good = good && (bytes == 0 || bind_memory(kernel, arg, numbers[row].number, &md, err));
    md_fini(&md);
    return good;
}

bool primitive_bind(struct onednn_kernel *base, enum arg arg, int number, struct error *err) {
    const struct tensor_desc *desc = &base->base.args.desc[arg];
    struct md md = {0};
    bool good = md_dense(&md, desc->dtype, &desc->shape, err) &&
                bind_memory((struct primitive_kernel *)base, arg, number, &md, err);
    md_fini(&md);
    return good;
}

bool primitive_bind_constant(struct onednn_kernel *base, int number, float value, struct error *err) {
    struct primitive_kernel *kernel = (struct primitive_kernel *)base;
    struct shape one = shape_of(1, (int64_t)1);
    struct md md = {0};
    kernel->constant = value;
    bool good = md_dense(&md, DTYPE_F32, &one, err) && bind_memory(kernel, ARG_NONE, number, &md, err);
    md_fini(&md);
    return good;
}

static const char *implementation_of(dnnl_primitive_desc_t desc) {
    const char *name = NULL;
    return dnnl_primitive_desc_query(desc, dnnl_query_impl_info_str, 0, &name) == dnnl_success && name ? name : "unknown";
}

static bool is_reference(dnnl_primitive_desc_t desc) {
    return strncmp(implementation_of(desc), "ref", 3) == 0;
}

/* The name belongs to the description that the primitive keeps, not to the one that it was made from. */
static bool adopt_name(struct primitive_kernel *kernel, struct error *err) {
    const_dnnl_primitive_desc_t own = NULL;
    if (!dnnl_ok(dnnl_primitive_get_primitive_desc(kernel->primitive, &own), err, "look at a primitive"))
        return false;
    kernel->base.base.implementation = implementation_of((dnnl_primitive_desc_t)own);
    kernel->base.base.reference_fallback = is_reference((dnnl_primitive_desc_t)own);
    return true;
}

struct onednn_kernel *primitive_kernel_create(struct onednn_device *device, const struct kernel_request *request,
                                              dnnl_primitive_desc_t primitive_desc, struct error *err) {
    struct primitive_kernel *kernel = kernel_create(device, request, sizeof *kernel, "", err);
    if (!kernel)
        return NULL;
    kernel->base.run = primitive_run;
    kernel->base.fini = primitive_fini;
    bool good = dnnl_ok(dnnl_primitive_create(&kernel->primitive, primitive_desc), err, "create a primitive") &&
                adopt_name(kernel, err);
    for (int row = 0; good && row < NUMBER_COUNT; row++)
        good = adopt_argument(kernel, primitive_desc, row, err);
    if (!good) {
        kernel_destroy(&kernel->base);
        return NULL;
    }
    if (request->args.direction[ARG_SRC2] != ARG_ABSENT)
        kernel_set_layout(&kernel->base, ARG_SRC2, kernel->base.base.args.desc[ARG_DST].layout);
    return &kernel->base;
}

static bool add_post_ops(dnnl_primitive_attr_t attr, const struct conv2d *conv2d, struct error *err) {
    dnnl_post_ops_t post_ops = NULL;
    bool int8 = conv2d->int8.src != DTYPE_NONE;
    bool good = dnnl_ok(dnnl_post_ops_create(&post_ops), err, "make post-ops") &&
                (int8 ? compat_int8_post_ops(attr, post_ops, conv2d, err)
                      : compat_post_ops(post_ops, conv2d->residual, conv2d->activation, err)) &&
                dnnl_ok(dnnl_primitive_attr_set_post_ops(attr, post_ops), err, "set post-ops");
    if (post_ops)
        dnnl_post_ops_destroy(post_ops);
    return good;
}

dnnl_primitive_attr_t primitive_attributes(const struct kernel_request *request, struct error *err) {
    dnnl_primitive_attr_t attr = NULL;
    if (!dnnl_ok(dnnl_primitive_attr_create(&attr), err, "make attributes"))
        return NULL;
    if (dnnl_ok(dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user), err, "use our scratch memory") &&
        (request->op.kind != OP_CONV2D || add_post_ops(attr, &request->op.conv2d, err)))
        return attr;
    dnnl_primitive_attr_destroy(attr);
    return NULL;
}

static dnnl_primitive_desc_t describe(struct onednn_device *device, const struct kernel_request *request,
                                      primitive_fill *fill, struct error *err) {
    struct primitive_spec spec = {.pass = request->pass};
    dnnl_primitive_desc_t desc = NULL;
    dnnl_primitive_attr_t attr = primitive_attributes(request, err);
    if (attr && fill(device, request, &spec, err) && !compat_primitive_desc(&desc, device->engine, &spec, attr, err))
        desc = NULL;
    md_fini(&spec.src);
    md_fini(&spec.weight);
    md_fini(&spec.forward_weight);
    md_fini(&spec.bias);
    md_fini(&spec.dst);
    if (attr)
        dnnl_primitive_attr_destroy(attr);
    return desc;
}

/* The request with all layouts left open; false where nothing was fixed anyway. */
static bool relax(struct kernel_request *request) {
    static const enum arg chosen[] = {ARG_SRC, ARG_SRC2, ARG_WEIGHT, ARG_DST, ARG_DIFF_DST, ARG_DIFF_SRC, ARG_DIFF_WEIGHT};
    bool changed = false;
    for (size_t i = 0; i < sizeof chosen / sizeof *chosen; i++) {
        struct tensor_desc *desc = &request->args.desc[chosen[i]];
        if (request->args.direction[chosen[i]] == ARG_ABSENT || desc->layout == LAYOUT_ANY)
            continue;
        desc->layout = LAYOUT_ANY;
        changed = true;
    }
    return changed;
}

struct onednn_kernel *primitive_prepare(struct onednn_device *device, const struct kernel_request *request,
                                        primitive_fill *fill, struct error *err) {
    struct kernel_request relaxed = *request;
    dnnl_primitive_desc_t desc = describe(device, request, fill, err);
    if ((!desc || is_reference(desc)) && relax(&relaxed)) {
        dnnl_primitive_desc_t other = describe(device, &relaxed, fill, err);
        if (other && desc)
            dnnl_primitive_desc_destroy(desc);
        desc = other ? other : desc;
    }
    if (!desc)
        return NULL;
    struct onednn_kernel *kernel = primitive_kernel_create(device, request, desc, err);
    dnnl_primitive_desc_destroy(desc);
    return kernel;
}
