#include "common/device/onednn/compat.h"

#include <string.h>

/* oneDNN 2.x: memory descriptions are plain structs, primitives are described in two steps. */

dnnl_status_t version_md(dnnl_memory_desc_t *out, dnnl_data_type_t type, int rank, const dnnl_dims_t dims,
                         dnnl_format_tag_t tag) {
    if (tag != dnnl_format_tag_undef)
        return dnnl_memory_desc_init_by_tag(out, rank, dims, type, tag);
    return dnnl_memory_desc_init_by_strides(out, rank, dims, type, NULL);
}

bool md_copy(struct md *out, const struct md *md, struct error *err) {
    (void)err;
    *out = *md;
    return true;
}

bool md_of_argument(struct md *out, const_dnnl_primitive_desc_t primitive_desc, int argument, struct error *err) {
    const dnnl_memory_desc_t *found = dnnl_primitive_desc_query_md(primitive_desc, dnnl_query_exec_arg_md, argument);
    (void)err;
    *out = (struct md){0};
    if (found && found->ndims > 0)
        *out = (struct md){*found, true};
    return true;
}

void md_fini(struct md *md) {
    md->present = false;
}

dnnl_data_type_t md_type(const struct md *md) {
    return md->present ? md->value.data_type : dnnl_data_type_undef;
}

bool md_equal(const struct md *a, const struct md *b) {
    return dnnl_memory_desc_equal(&a->value, &b->value);
}

size_t md_bytes(const struct md *md) {
    return md->present ? dnnl_memory_desc_get_size(&md->value) : 0;
}

bool md_blocking(const struct md *md, struct blocking *out) {
    const dnnl_memory_desc_t *value = &md->value;
    const dnnl_blocking_desc_t *found = &value->format_desc.blocking;
    if (!md->present || value->format_kind != dnnl_blocked || value->ndims > SHAPE_MAX_RANK ||
        found->inner_nblks > SHAPE_MAX_RANK)
        return false;
    *out = (struct blocking){.rank = value->ndims, .inner_count = found->inner_nblks};
    for (int i = 0; i < out->rank; i++) {
        out->dims[i] = value->dims[i];
        out->padded_dims[i] = value->padded_dims[i];
        out->strides[i] = found->strides[i];
    }
    for (int i = 0; i < out->inner_count; i++) {
        out->inner_blocks[i] = found->inner_blks[i];
        out->inner_dims[i] = (int)found->inner_idxs[i];
    }
    return true;
}

bool compat_memory(dnnl_memory_t *out, const struct md *md, dnnl_engine_t engine, struct error *err) {
    return dnnl_ok(dnnl_memory_create(out, &md->value, engine, DNNL_MEMORY_NONE), err, "create a memory object");
}

bool compat_reorder_desc(dnnl_primitive_desc_t *out, dnnl_engine_t engine, const struct md *from, const struct md *to,
                         const_dnnl_primitive_attr_t attr, struct error *err) {
    return dnnl_ok(dnnl_reorder_primitive_desc_create(out, &from->value, engine, &to->value, engine, attr), err,
                   "describe a reorder");
}

static const dnnl_memory_desc_t *optional(const struct md *md) {
    return md->present ? &md->value : NULL;
}

static dnnl_prop_kind_t forward_kind(enum pass pass) {
    return pass == PASS_INFER ? dnnl_forward_inference : dnnl_forward_training;
}

/*
 * In inference Winograd's weights would be kept as they are transformed: four times as many, and in another order for each size
 * of a batch. In training they are the ones of the direct kernels, of which plans can share one copy.
 */
static dnnl_prop_kind_t convolution_kind(const struct primitive_spec *s) {
    return s->winograd ? dnnl_forward_training : forward_kind(s->pass);
}

static dnnl_status_t describe_convolution(dnnl_convolution_desc_t *out, const struct primitive_spec *s) {
    const dnnl_memory_desc_t *src = &s->src.value, *weight = &s->weight.value, *dst = &s->dst.value;
    dnnl_alg_kind_t algorithm = s->winograd ? dnnl_convolution_winograd : dnnl_convolution_direct;
    if (s->pass == PASS_BACKWARD_DATA)
        return dnnl_convolution_backward_data_desc_init(out, algorithm, src, weight, dst, s->stride, s->pad_before,
                                                        s->pad_after);
    if (s->pass == PASS_BACKWARD_WEIGHT)
        return dnnl_convolution_backward_weights_desc_init(out, algorithm, src, weight, optional(&s->bias), dst, s->stride,
                                                           s->pad_before, s->pad_after);
    return dnnl_convolution_forward_desc_init(out, convolution_kind(s), algorithm, src, weight, optional(&s->bias), dst,
                                              s->stride, s->pad_before, s->pad_after);
}

static dnnl_status_t describe_linear(dnnl_inner_product_desc_t *out, const struct primitive_spec *s) {
    const dnnl_memory_desc_t *src = &s->src.value, *weight = &s->weight.value, *dst = &s->dst.value;
    if (s->pass == PASS_BACKWARD_DATA)
        return dnnl_inner_product_backward_data_desc_init(out, src, weight, dst);
    if (s->pass == PASS_BACKWARD_WEIGHT)
        return dnnl_inner_product_backward_weights_desc_init(out, src, weight, optional(&s->bias), dst);
    return dnnl_inner_product_forward_desc_init(out, forward_kind(s->pass), src, weight, optional(&s->bias), dst);
}

static dnnl_status_t describe_max_pool(dnnl_pooling_desc_t *out, const struct primitive_spec *s) {
    const dnnl_memory_desc_t *src = &s->src.value, *dst = &s->dst.value;
    if (s->pass == PASS_BACKWARD_DATA)
        return dnnl_pooling_backward_desc_init(out, dnnl_pooling_max, src, dst, s->stride, s->kernel, s->pad_before,
                                               s->pad_after);
    return dnnl_pooling_forward_desc_init(out, forward_kind(s->pass), dnnl_pooling_max, src, dst, s->stride, s->kernel,
                                          s->pad_before, s->pad_after);
}

/*
 * Of 2.6's 8-bit convolutions in groups those by matrix products give every group the post-ops of the first one's channels, and
 * the depthwise ones for AVX2 and SSE give wrong ones to channels that do not fill two registers of SSE.
 */
static bool is_wrong(const_dnnl_primitive_desc_t desc, const struct primitive_spec *spec) {
    enum { LANES_AT_ONCE = 8 };
    const dnnl_memory_desc_t *weight = &spec->weight.value; /* (groups, O / groups, I / groups, KH, KW) */
    const char *name = NULL;
    if (spec->family != FAMILY_CONVOLUTION || weight->ndims != 5 || weight->data_type != dnnl_s8 ||
        dnnl_primitive_desc_query(desc, dnnl_query_impl_info_str, 0, &name) != dnnl_success)
        return false;
    bool depthwise = weight->dims[1] == 1 && weight->dims[2] == 1;
    return strstr(name, "gemm") || (depthwise && weight->dims[0] % LANES_AT_ONCE && strstr(name, "jit_uni"));
}

/* The first implementation of the library's list that is right. */
static dnnl_status_t first_right(dnnl_primitive_desc_t *out, dnnl_primitive_desc_iterator_t list,
                                 const struct primitive_spec *spec) {
    dnnl_status_t status = dnnl_success;
    while (status == dnnl_success) {
        *out = dnnl_primitive_desc_iterator_fetch(list);
        if (*out && !is_wrong(*out, spec))
            return dnnl_success;
        if (*out)
            dnnl_primitive_desc_destroy(*out);
        *out = NULL;
        status = dnnl_primitive_desc_iterator_next(list);
    }
    return dnnl_unimplemented;
}

dnnl_status_t version_primitive_desc(dnnl_primitive_desc_t *out, dnnl_engine_t engine, const struct primitive_spec *spec,
                                     const_dnnl_primitive_attr_t attr, const_dnnl_primitive_desc_t hint) {
    union {
        dnnl_convolution_desc_t convolution;
        dnnl_inner_product_desc_t linear;
        dnnl_pooling_desc_t pool;
    } description;
    dnnl_status_t status = dnnl_invalid_arguments;
    switch (spec->family) {
    case FAMILY_CONVOLUTION:
        status = describe_convolution(&description.convolution, spec);
        break;
    case FAMILY_LINEAR:
        status = describe_linear(&description.linear, spec);
        break;
    case FAMILY_MAX_POOL:
        status = describe_max_pool(&description.pool, spec);
        break;
    }
    dnnl_primitive_desc_iterator_t list = NULL;
    if (status == dnnl_success)
        status = dnnl_primitive_desc_iterator_create(&list, &description, attr, engine, hint);
    if (status == dnnl_success)
        status = first_right(out, list, spec);
    if (list)
        dnnl_primitive_desc_iterator_destroy(list);
    return status;
}

dnnl_status_t version_append_sum(dnnl_post_ops_t post_ops) {
    return dnnl_post_ops_append_sum(post_ops, 1);
}

dnnl_status_t version_append_eltwise(dnnl_post_ops_t post_ops, dnnl_alg_kind_t algorithm, float alpha, float beta) {
    return dnnl_post_ops_append_eltwise(post_ops, 1, algorithm, alpha, beta);
}

dnnl_status_t version_append_scaled_sum(dnnl_post_ops_t post_ops, float factor, dnnl_data_type_t type) {
    return dnnl_post_ops_append_sum_v2(post_ops, factor, type);
}

/*
 * 2.x adds the bias before it scales, and knows scales at run time in slow kernels only. As post-ops on channels, factor and
 * bias come at run time, in our order, in the fast kernels.
 */
const struct compat_numbers compat_numbers = {
    .int8_factor = DNNL_ARG_ATTR_MULTIPLE_POST_OP(0) | DNNL_ARG_SRC_1,
    .int8_bias = DNNL_ARG_ATTR_MULTIPLE_POST_OP(1) | DNNL_ARG_SRC_1,
};

dnnl_status_t version_int8_factor_and_bias(dnnl_primitive_attr_t attr, dnnl_post_ops_t post_ops, const struct conv2d *conv2d) {
    const dnnl_dims_t dims = {1, conv2d->channels_out, 1, 1};
    dnnl_memory_desc_t channels;
    (void)attr;
    dnnl_status_t status = dnnl_memory_desc_init_by_tag(&channels, 4, dims, dnnl_f32, dnnl_abcd);
    if (status == dnnl_success)
        status = dnnl_post_ops_append_binary(post_ops, dnnl_binary_mul, &channels);
    if (status == dnnl_success && conv2d->bias)
        status = dnnl_post_ops_append_binary(post_ops, dnnl_binary_add, &channels);
    return status;
}

bool compat_reorder_factor(dnnl_primitive_attr_t attr, float factor, struct error *err) {
    return dnnl_ok(dnnl_primitive_attr_set_output_scales(attr, 1, 0, &factor), err, "set the factor of a reorder");
}
