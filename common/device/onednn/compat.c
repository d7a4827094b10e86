#include "common/device/onednn/compat.h"

#include <dnnl_debug.h>

bool dnnl_ok(dnnl_status_t status, struct error *err, const char *what) {
    enum error_code code = status == dnnl_out_of_memory       ? ERROR_MEMORY
                           : status == dnnl_unimplemented     ? ERROR_UNSUPPORTED
                           : status == dnnl_invalid_arguments ? ERROR_INVALID
                                                              : ERROR_INTERNAL;
    return status == dnnl_success || error_set(err, code, "oneDNN cannot %s: %s", what, dnnl_status2str(status));
}

dnnl_data_type_t compat_dtype(enum dtype dtype) {
    static const dnnl_data_type_t types[DTYPE_COUNT] = {
        [DTYPE_F32] = dnnl_f32, [DTYPE_BF16] = dnnl_bf16, [DTYPE_F16] = dnnl_f16,
        [DTYPE_S8] = dnnl_s8,   [DTYPE_U8] = dnnl_u8,     [DTYPE_S32] = dnnl_s32,
    };
    return types[dtype];
}

/* An instruction set's number has the bits of those that it contains. AMX contains AVX-512 with bf16. */
bool compat_has_bf16(void) {
    return (dnnl_get_effective_cpu_isa() & dnnl_cpu_isa_avx512_core_bf16) == dnnl_cpu_isa_avx512_core_bf16;
}

bool md_tagged(struct md *out, enum dtype dtype, const struct shape *shape, dnnl_format_tag_t tag, struct error *err) {
    dnnl_dims_t dims = {0};
    for (int i = 0; i < shape->rank; i++)
        dims[i] = shape->dims[i];
    dnnl_status_t status = version_md(&out->value, compat_dtype(dtype), shape->rank, dims, tag);
    out->present = dnnl_ok(status, err, "describe memory");
    return out->present;
}

bool md_dense(struct md *out, enum dtype dtype, const struct shape *shape, struct error *err) {
    return md_tagged(out, dtype, shape, dnnl_format_tag_undef, err);
}

/* The pass whose description guides the choice of a backward primitive. */
static bool forward_hint(dnnl_primitive_desc_t *out, dnnl_engine_t engine, const struct primitive_spec *spec,
                         struct error *err) {
    struct primitive_spec forward = *spec;
    forward.pass = PASS_FORWARD;
    forward.winograd = false; /* it only guides, and may be there for one pass and not for the other */
    if (spec->forward_weight.present)
        forward.weight = spec->forward_weight;
    return dnnl_ok(version_primitive_desc(out, engine, &forward, NULL, NULL), err, "describe the forward pass");
}

bool compat_primitive_desc(dnnl_primitive_desc_t *out, dnnl_engine_t engine, const struct primitive_spec *spec,
                           const_dnnl_primitive_attr_t attr, struct error *err) {
    bool backward = spec->pass == PASS_BACKWARD_DATA || spec->pass == PASS_BACKWARD_WEIGHT;
    dnnl_primitive_desc_t hint = NULL;
    if (backward && !forward_hint(&hint, engine, spec, err))
        return false;
    bool good = dnnl_ok(version_primitive_desc(out, engine, spec, attr, hint), err, "describe a primitive");
    dnnl_primitive_desc_destroy(hint);
    return good;
}

bool compat_post_ops(dnnl_post_ops_t post_ops, bool sum, enum activation activation, struct error *err) {
    if (sum && !dnnl_ok(version_append_sum(post_ops), err, "append a sum"))
        return false;
    if (activation == ACTIVATION_RELU)
        return dnnl_ok(version_append_eltwise(post_ops, dnnl_eltwise_relu, 0, 0), err, "append a ReLU");
    if (activation == ACTIVATION_RELU6)
        return dnnl_ok(version_append_eltwise(post_ops, dnnl_eltwise_clip, 0, 6), err, "append a ReLU6");
    return true;
}

bool compat_int8_post_ops(dnnl_primitive_attr_t attr, dnnl_post_ops_t post_ops, const struct conv2d *conv2d, struct error *err) {
    const struct conv2d_int8 *q = &conv2d->int8;
    return dnnl_ok(version_int8_factor_and_bias(attr, post_ops, conv2d), err, "scale sums of integers") &&
           (!conv2d->residual || dnnl_ok(version_append_scaled_sum(post_ops, q->residual_factor, compat_dtype(q->residual)), err,
                                         "append a scaled sum")) &&
           compat_post_ops(post_ops, false, conv2d->activation, err);
}

bool compat_int8_is_exact(void) {
    /* An instruction set is a set of bits that contains those of its predecessors. */
    unsigned avx512 = dnnl_cpu_isa_avx512_core_vnni & ~(unsigned)dnnl_cpu_isa_avx512_core;
    unsigned avx2 = dnnl_cpu_isa_avx2_vnni & ~(unsigned)dnnl_cpu_isa_avx2;
    return ((unsigned)dnnl_get_effective_cpu_isa() & (avx512 | avx2)) != 0;
}
