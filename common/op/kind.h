#pragma once
#include "common/op/op.h"

/** What a mixed precision (precision.h) narrows: nothing, only the source and its gradient, all activations, weights too. */
enum narrow { NARROW_NONE, NARROW_SOURCE, NARROW_DATA, NARROW_DATA_AND_WEIGHT };

/**
 * Inside common/op: what a kind of operation is. One const row each, listed in op.c; the public functions of
 * op.h look the row up and call it. Shapes come in as inputs[0 .. op_input_count); attributes and shapes are
 * checked by output_shape.
 */
struct op_row {
    const char *name;
    bool chooses_layout;
    enum narrow narrow;
    int (*input_count)(const struct op *op); /**< NULL: 1 */
    /** NULL: the shape of the first input. Checks all attributes. */
    bool (*output_shape)(const struct op *op, const struct shape *inputs, struct shape *out,
                         struct error *err);
    /** NULL: none. */
    int (*parameters)(const struct op *op, const struct shape *inputs, struct op_parameter *out);
    /** One per pass, NULL where there is no such pass. dst is what output_shape gave; out is zeroed. */
    void (*arguments[PASS_COUNT])(const struct op *op, const struct shape *inputs, const struct shape *dst,
                                  struct op_args *out);
    bool (*is_int8)(const struct op *op); /**< NULL: never. As op_is_int8 */
    /** NULL: always. Whether this pass exists for these attributes. */
    bool (*has_pass)(const struct op *op, enum pass pass);
    bool (*backward_is_identity)(const struct op *op); /**< NULL: never */
    double (*flops)(const struct op *op, const struct shape *inputs, const struct shape *dst); /**< NULL: 0 */
    /** NULL: no attributes. Writes them with a leading space. */
    void (*text)(const struct op *op, char *out, size_t size);
};

extern const struct op_row op_row_conv2d, op_row_max_pool, op_row_global_average_pool; /* window.c */
extern const struct op_row op_row_input, op_row_batch_norm, op_row_batch_norm_sums, op_row_activation, op_row_add,
    op_row_linear, op_row_dropout, op_row_softmax_cross_entropy;                           /* network.c */
extern const struct op_row op_row_rescale;                                                 /* int8.c */
extern const struct op_row op_row_vary, op_row_reorder, op_row_gradient_norm, op_row_sgd, op_row_adamw; /* training.c */

/** The row of a kind. */
const struct op_row *op_row_of(enum op_kind kind);

/** Adds an argument: f32, dense. */
void args_put(struct op_args *args, enum arg arg, enum arg_direction direction, const struct shape *shape);
/** Adds an argument of another dtype and one dimension. */
void args_put_vector(struct op_args *args, enum arg arg, enum arg_direction direction, enum dtype dtype,
                     int64_t count);
/** Adds an output that may take over the buffer of an input. */
void args_put_in_place(struct op_args *args, enum arg arg, const struct shape *shape, enum arg over);

/** What an operation with weights computes with: the arguments of its passes follow from these. */
struct weighted {
    const struct shape *src, *weight, *dst;
    bool bias;
};
/** src, weight and bias in; the output is the caller's to add. */
void args_put_weighted_inputs(struct op_args *args, const struct weighted *shapes);
/** diff_dst and weight in, diff_src out. */
void args_put_weighted_backward_data(struct op_args *args, const struct weighted *shapes);
/** src and diff_dst in, diff_weight and diff_bias out. */
void args_put_weighted_backward_weight(struct op_args *args, const struct weighted *shapes);

/** Changes the dtype of an argument that is there. */
void args_set_dtype(struct op_args *args, enum arg arg, enum dtype dtype);

/* The 8-bit forms of kinds that have others too: int8.c */

/** ERROR_INVALID or ERROR_TOO_LARGE where the attributes make no sense or a sum may not fit into s32. */
bool op_check_int8(const struct conv2d *conv2d, const struct shape *weight, struct error *err);
/** ERROR_INVALID unless it is DTYPE_NONE, u8 or s8. */
bool op_check_pool_of(enum dtype dtype, struct error *err);
/** Adds the factors, and gives the arguments of an inference pass their dtypes. */
void args_make_int8(struct op_args *args, const struct conv2d *conv2d);
/** " u8>s8", and the residual's: with a leading space. */
int op_int8_text(const struct conv2d *conv2d, char *out, size_t size);

/** ERROR_SHAPE unless the shape has that rank and every dimension is at least 1. */
bool op_check_rank(const char *what, const struct shape *shape, int rank, struct error *err);
/** ERROR_INVALID unless it is one of enum activation. */
bool op_check_activation(enum activation activation, struct error *err);
/** ERROR_SHAPE unless the second input has the shape that it is added to. */
bool op_check_addend(const struct shape *addend, const struct shape *dst, struct error *err);
/** " relu", " relu6" or "". */
const char *op_activation_suffix(enum activation activation);
