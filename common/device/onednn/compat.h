#pragma once
#include "common/tensor/tensor.h"
#include "common/op/op.h"
#include <dnnl.h>

/**
 * oneDNN's C interface changed between 2.x and 3.x: memory descriptions became opaque handles, operation
 * descriptions disappeared, post-ops lost or gained arguments. compat_v2.c and compat_v3.c are the only files
 * that differ; CMake takes the one that fits the headers. compat.c is what both share.
 */

/** A description of memory. Owned: md_fini ends it; zeroed is none. */
struct md {
    dnnl_memory_desc_t value;
    bool present;
};

/** How a blocked description places its elements, in elements. */
struct blocking {
    int rank;
    int64_t dims[SHAPE_MAX_RANK], padded_dims[SHAPE_MAX_RANK];
    int64_t strides[SHAPE_MAX_RANK]; /**< of each dimension's outer part */
    int inner_count;                 /**< innermost blocks, outermost of them first */
    int64_t inner_blocks[SHAPE_MAX_RANK];
    int inner_dims[SHAPE_MAX_RANK]; /**< which dimension each block splits */
};

/** Turns a status into an error. The library's one converter; `what` says what was tried. */
bool dnnl_ok(dnnl_status_t status, struct error *err, const char *what);

/** oneDNN's name of an element type; dnnl_data_type_undef for those that it lacks. */
dnnl_data_type_t compat_dtype(enum dtype dtype);

/** Whether oneDNN has arithmetic for bf16 here: the CPU has, and nobody limited oneDNN to less (ONEDNN_MAX_CPU_ISA). */
bool compat_has_bf16(void);

/** Row-major of these dimensions. */
bool md_dense(struct md *out, enum dtype dtype, const struct shape *shape, struct error *err);
/** By a format tag, such as dnnl_aBcd16b, or dnnl_format_tag_any for "whatever the primitive likes best". */
bool md_tagged(struct md *out, enum dtype dtype, const struct shape *shape, dnnl_format_tag_t tag, struct error *err);
bool md_copy(struct md *out, const struct md *md, struct error *err);
/** What a primitive expects for DNNL_ARG_*. Left absent where it has no such argument. */
bool md_of_argument(struct md *out, const_dnnl_primitive_desc_t primitive_desc, int argument, struct error *err);
void md_fini(struct md *md);

/** dnnl_data_type_undef for an absent one. */
dnnl_data_type_t md_type(const struct md *md);
bool md_equal(const struct md *a, const struct md *b);
/** Bytes, with padding; 0 for an absent one. */
size_t md_bytes(const struct md *md);
/** False where it is not a blocked format (opaque weights, more dimensions than we have). */
bool md_blocking(const struct md *md, struct blocking *out);

/** A memory object without a buffer. */
bool compat_memory(dnnl_memory_t *out, const struct md *md, dnnl_engine_t engine, struct error *err);

/** The primitives with a forward pass and backward passes. */
enum family { FAMILY_CONVOLUTION, FAMILY_LINEAR, FAMILY_MAX_POOL };

/** What all of them need, each what it has. In backward passes src, weight, bias and dst stand for their gradients. */
struct primitive_spec {
    enum family family;
    enum pass pass;
    struct md src, weight, bias, dst; /**< owned by whoever filled them in */
    /** PASS_BACKWARD_WEIGHT: the weights of the forward pass, whose dtype may be another than their gradient's; else absent */
    struct md forward_weight;
    bool winograd; /**< FAMILY_CONVOLUTION: by Winograd's minimal filtering; ERROR_UNSUPPORTED where oneDNN has it not */
    dnnl_dims_t stride, kernel, pad_before, pad_after;
};

/** Creates the primitive description; backward passes make the forward description that they need as a hint themselves. */
bool compat_primitive_desc(dnnl_primitive_desc_t *out, dnnl_engine_t engine, const struct primitive_spec *spec,
                           const_dnnl_primitive_attr_t attr, struct error *err);
/** A copy between two layouts or element types. */
bool compat_reorder_desc(dnnl_primitive_desc_t *out, dnnl_engine_t engine, const struct md *from, const struct md *to,
                         const_dnnl_primitive_attr_t attr, struct error *err);

/** dst = activation(result + dst): either part may be absent. */
bool compat_post_ops(dnnl_post_ops_t post_ops, bool sum, enum activation activation, struct error *err);

/**
 * An 8-bit convolution's way from the sum to dst, as struct conv2d_int8 orders it: factor and bias come with each execution,
 * under the numbers below.
 */
bool compat_int8_post_ops(dnnl_primitive_attr_t attr, dnnl_post_ops_t post_ops, const struct conv2d *conv2d, struct error *err);
/** A reorder multiplies by a factor. */
bool compat_reorder_factor(dnnl_primitive_attr_t attr, float factor, struct error *err);

/** Arguments beyond those of a primitive's description. 0: this version takes the thing otherwise. */
struct compat_numbers {
    int int8_factor;    /**< f32 (O) */
    int int8_bias;      /**< f32 (O); the description has no bias then */
    int reorder_factor; /**< f32 (1) */
};
extern const struct compat_numbers compat_numbers;

/** Whether oneDNN multiplies 8-bit integers without adding pairs of them in 16 bits. */
bool compat_int8_is_exact(void);

/* The version's own: called by compat.c. */


/** As compat_primitive_desc with the forward pass' description as hint (NULL in forward passes). */
dnnl_status_t version_primitive_desc(dnnl_primitive_desc_t *out, dnnl_engine_t engine, const struct primitive_spec *spec,
                                     const_dnnl_primitive_attr_t attr, const_dnnl_primitive_desc_t hint);
dnnl_status_t version_md(dnnl_memory_desc_t *out, dnnl_data_type_t type, int rank, const dnnl_dims_t dims,
                         dnnl_format_tag_t tag); /* dnnl_format_tag_undef: row-major */
dnnl_status_t version_append_sum(dnnl_post_ops_t post_ops);
dnnl_status_t version_append_scaled_sum(dnnl_post_ops_t post_ops, float factor, dnnl_data_type_t type);
/** x * factor[o] + bias[o]; weights in groups have a dimension more. */
dnnl_status_t version_int8_factor_and_bias(dnnl_primitive_attr_t attr, dnnl_post_ops_t post_ops, const struct conv2d *conv2d);
dnnl_status_t version_append_eltwise(dnnl_post_ops_t post_ops, dnnl_alg_kind_t algorithm, float alpha, float beta);
