#include "common/device/onednn/compat.h"

/* oneDNN 3.x: memory descriptions are handles with an owner, primitives are described in one step. */

dnnl_status_t version_md(dnnl_memory_desc_t *out, dnnl_data_type_t type, int rank, const dnnl_dims_t dims,
                         dnnl_format_tag_t tag) {
    if (tag != dnnl_format_tag_undef)
        return dnnl_memory_desc_create_with_tag(out, rank, dims, type, tag);
    return dnnl_memory_desc_create_with_strides(out, rank, dims, type, NULL);
}

bool md_copy(struct md *out, const struct md *md, struct error *err) {
    out->present = dnnl_ok(dnnl_memory_desc_clone(&out->value, md->value), err, "copy a memory description");
    return out->present;
}

bool md_of_argument(struct md *out, const_dnnl_primitive_desc_t primitive_desc, int argument, struct error *err) {
    const_dnnl_memory_desc_t found = dnnl_primitive_desc_query_md(primitive_desc, dnnl_query_exec_arg_md, argument);
    int rank = 0;
    *out = (struct md){0};
    if (!found || dnnl_memory_desc_query(found, dnnl_query_ndims_s32, &rank) != dnnl_success || rank == 0)
        return true;
    out->present = dnnl_ok(dnnl_memory_desc_clone(&out->value, found), err, "copy a memory description");
    return out->present;
}

void md_fini(struct md *md) {
    if (md->present)
        dnnl_memory_desc_destroy(md->value);
    *md = (struct md){0};
}

static bool query(const struct md *md, dnnl_query_t what, void *out) {
    return dnnl_memory_desc_query(md->value, what, out) == dnnl_success;
}

dnnl_data_type_t md_type(const struct md *md) {
    dnnl_data_type_t type = dnnl_data_type_undef;
    return md->present && query(md, dnnl_query_data_type, &type) ? type : dnnl_data_type_undef;
}

bool md_equal(const struct md *a, const struct md *b) {
    return dnnl_memory_desc_equal(a->value, b->value);
}

size_t md_bytes(const struct md *md) {
    return md->present ? dnnl_memory_desc_get_size(md->value) : 0;
}

static void copy_blocking(struct blocking *out, dnnl_dims_t *const found[5]) {
    for (int i = 0; i < out->rank; i++) {
        out->dims[i] = (*found[0])[i];
        out->padded_dims[i] = (*found[1])[i];
        out->strides[i] = (*found[2])[i];
    }
    for (int i = 0; i < out->inner_count; i++) {
        out->inner_blocks[i] = (*found[3])[i];
        out->inner_dims[i] = (int)(*found[4])[i];
    }
}

bool md_blocking(const struct md *md, struct blocking *out) {
    dnnl_format_kind_t kind = dnnl_format_kind_undef;
    dnnl_dims_t *found[5];
    if (!md->present || !query(md, dnnl_query_format_kind, &kind) || kind != dnnl_blocked)
        return false;
    *out = (struct blocking){0};
    if (!query(md, dnnl_query_ndims_s32, &out->rank) || !query(md, dnnl_query_inner_nblks_s32, &out->inner_count) ||
        out->rank > SHAPE_MAX_RANK || out->inner_count > SHAPE_MAX_RANK)
        return false;
    if (!query(md, dnnl_query_dims, &found[0]) || !query(md, dnnl_query_padded_dims, &found[1]) ||
        !query(md, dnnl_query_strides, &found[2]) || !query(md, dnnl_query_inner_blks, &found[3]) ||
        !query(md, dnnl_query_inner_idxs, &found[4]))
        return false;
    copy_blocking(out, found);
    return true;
}

bool compat_memory(dnnl_memory_t *out, const struct md *md, dnnl_engine_t engine, struct error *err) {
    return dnnl_ok(dnnl_memory_create(out, md->value, engine, DNNL_MEMORY_NONE), err, "create a memory object");
}

bool compat_reorder_desc(dnnl_primitive_desc_t *out, dnnl_engine_t engine, const struct md *from, const struct md *to,
                         const_dnnl_primitive_attr_t attr, struct error *err) {
    return dnnl_ok(dnnl_reorder_primitive_desc_create(out, from->value, engine, to->value, engine, attr), err,
                   "describe a reorder");
}

static const_dnnl_memory_desc_t optional(const struct md *md) {
    return md->present ? md->value : NULL;
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

static dnnl_status_t describe_convolution(dnnl_primitive_desc_t *out, dnnl_engine_t engine, const struct primitive_spec *s,
                                          const_dnnl_primitive_attr_t attr, const_dnnl_primitive_desc_t hint) {
    const dnnl_dims_t dilation = {0};
    dnnl_alg_kind_t algorithm = s->winograd ? dnnl_convolution_winograd : dnnl_convolution_direct;
    if (s->pass == PASS_BACKWARD_DATA)
        return dnnl_convolution_backward_data_primitive_desc_create(out, engine, algorithm, s->src.value, s->weight.value,
                                                                    s->dst.value, s->stride, dilation, s->pad_before,
                                                                    s->pad_after, hint, attr);
    if (s->pass == PASS_BACKWARD_WEIGHT)
        return dnnl_convolution_backward_weights_primitive_desc_create(
            out, engine, algorithm, s->src.value, s->weight.value, optional(&s->bias), s->dst.value, s->stride, dilation,
            s->pad_before, s->pad_after, hint, attr);
    return dnnl_convolution_forward_primitive_desc_create(out, engine, convolution_kind(s), algorithm, s->src.value,
                                                          s->weight.value, optional(&s->bias), s->dst.value, s->stride,
                                                          dilation, s->pad_before, s->pad_after, attr);
}

static dnnl_status_t describe_linear(dnnl_primitive_desc_t *out, dnnl_engine_t engine, const struct primitive_spec *s,
                                     const_dnnl_primitive_attr_t attr, const_dnnl_primitive_desc_t hint) {
    if (s->pass == PASS_BACKWARD_DATA)
        return dnnl_inner_product_backward_data_primitive_desc_create(out, engine, s->src.value, s->weight.value,
                                                                      s->dst.value, hint, attr);
    if (s->pass == PASS_BACKWARD_WEIGHT)
        return dnnl_inner_product_backward_weights_primitive_desc_create(out, engine, s->src.value, s->weight.value,
                                                                         optional(&s->bias), s->dst.value, hint, attr);
    return dnnl_inner_product_forward_primitive_desc_create(out, engine, forward_kind(s->pass), s->src.value,
                                                            s->weight.value, optional(&s->bias), s->dst.value, attr);
}

static dnnl_status_t describe_max_pool(dnnl_primitive_desc_t *out, dnnl_engine_t engine, const struct primitive_spec *s,
                                       const_dnnl_primitive_attr_t attr, const_dnnl_primitive_desc_t hint) {
    const dnnl_dims_t dilation = {0};
    if (s->pass == PASS_BACKWARD_DATA)
        return dnnl_pooling_backward_primitive_desc_create(out, engine, dnnl_pooling_max, s->src.value, s->dst.value,
                                                           s->stride, s->kernel, dilation, s->pad_before, s->pad_after,
                                                           hint, attr);
    return dnnl_pooling_forward_primitive_desc_create(out, engine, forward_kind(s->pass), dnnl_pooling_max, s->src.value,
                                                      s->dst.value, s->stride, s->kernel, dilation, s->pad_before,
                                                      s->pad_after, attr);
}

dnnl_status_t version_primitive_desc(dnnl_primitive_desc_t *out, dnnl_engine_t engine, const struct primitive_spec *spec,
                                     const_dnnl_primitive_attr_t attr, const_dnnl_primitive_desc_t hint) {
    switch (spec->family) {
    case FAMILY_CONVOLUTION:
        return describe_convolution(out, engine, spec, attr, hint);
    case FAMILY_LINEAR:
        return describe_linear(out, engine, spec, attr, hint);
    case FAMILY_MAX_POOL:
        return describe_max_pool(out, engine, spec, attr, hint);
    }
    return dnnl_invalid_arguments;
}

dnnl_status_t version_append_sum(dnnl_post_ops_t post_ops) {
    return dnnl_post_ops_append_sum(post_ops, 1, 0, dnnl_data_type_undef);
}

dnnl_status_t version_append_eltwise(dnnl_post_ops_t post_ops, dnnl_alg_kind_t algorithm, float alpha, float beta) {
    return dnnl_post_ops_append_eltwise(post_ops, algorithm, alpha, beta);
}

dnnl_status_t version_append_scaled_sum(dnnl_post_ops_t post_ops, float factor, dnnl_data_type_t type) {
    return dnnl_post_ops_append_sum(post_ops, factor, 0, type);
}

const struct compat_numbers compat_numbers = {
    .int8_factor = DNNL_ARG_ATTR_SCALES | DNNL_ARG_WEIGHTS,
    .reorder_factor = DNNL_ARG_ATTR_SCALES | DNNL_ARG_SRC,
};

dnnl_status_t version_int8_factor_and_bias(dnnl_primitive_attr_t attr, dnnl_post_ops_t post_ops, const struct conv2d *conv2d) {
    enum { OUTPUT_CHANNELS = 1 << 0, GROUPS_AND_OUTPUT_CHANNELS = 1 << 0 | 1 << 1 };
    (void)post_ops; /* the bias is added after the scale: in our order */
    return dnnl_primitive_attr_set_scales_mask(attr, DNNL_ARG_WEIGHTS,
                                               conv2d->groups == 1 ? OUTPUT_CHANNELS : GROUPS_AND_OUTPUT_CHANNELS);
}

bool compat_reorder_factor(dnnl_primitive_attr_t attr, float factor, struct error *err) {
    (void)factor; /* comes with each execution */
    return dnnl_ok(dnnl_primitive_attr_set_scales_mask(attr, DNNL_ARG_SRC, 0), err, "set the factor of a reorder");
}
