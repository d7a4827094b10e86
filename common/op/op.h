#pragma once
#include "common/tensor/tensor.h"

/**
 * Operations as plain data. A kind has one row in op.c: its name, its arguments in each pass, its shape rule, its
 * parameters. Devices implement kinds; graphs and plans are built from them; nothing else lists them.
 */
enum op_kind {
    OP_NONE,
    OP_INPUT, /**< a graph's input; no kernel */
    OP_CONV2D,
    OP_BATCH_NORM,
    OP_ACTIVATION,
    OP_ADD,
    OP_MAX_POOL,
    OP_GLOBAL_AVERAGE_POOL,
    OP_LINEAR,
    OP_DROPOUT,
    OP_SOFTMAX_CROSS_ENTROPY,
    OP_RESCALE, /**< quantises, dequantises: between layers of different precision. PASS_INFER only */
    /* Below: what plans and training add; they do not stand in a model's graph. PASS_FORWARD only, but for the first. */
    OP_BATCH_NORM_SUMS, /**< what a synchronised batch norm sums over all ranks; PASS_BACKWARD_DATA too */
    OP_VARY,          /**< pictures of bytes with their variations -> images */
    OP_REORDER,       /**< copies into another layout or dtype */
    OP_GRADIENT_NORM, /**< sum of squares of the finite values, and the count of the others */
    OP_SGD,
    OP_ADAMW,
    OP_KIND_COUNT
};

enum activation { ACTIVATION_NONE, ACTIVATION_RELU, ACTIVATION_RELU6 };

/**
 * A window that slides over H and W; [0] is vertical, [1] horizontal. Padding may differ before and after (TensorFlow's
 * SAME) and is less than the kernel, so that every window sees some of the image.
 */
struct window {
    int kernel[2], stride[2], pad_before[2], pad_after[2];
};

/**
 * The 8-bit form of a convolution, PASS_INFER only:
 * dst = convert(activation(factor[o] * sum + bias[o] + residual_factor * residual)), where sum is the exact s32 sum of
 * src * weight (s8), padding counts as 0, and the activation is none or ReLU. All scales of tensors have gone into factor
 * (O, f32, a parameter), bias (in units of dst) and residual_factor. Bit for bit, each line rounded to f32 (to nearest, ties
 * to even):
 *     x = sum            (from s32)
 *     x = x * factor[o]
 *     x = x + bias[o]
 *     x = x + residual_factor * residual   (one rounding: a fused multiply-add)
 *     dst = activation(x), stored as element_store does: ties to even, saturating
 */
struct conv2d_int8 {
    enum dtype src;      /**< u8 or s8; DTYPE_NONE: the convolution is not an 8-bit one */
    enum dtype dst;      /**< u8, s8, f32 or bf16 */
    enum dtype residual; /**< u8 or s8 where the convolution has a residual, else DTYPE_NONE */
    float residual_factor;
};

/**
 * dst (N, O, H', W') = activation(conv(src (N, I, H, W), weight (O, I/groups, KH, KW)) + bias (O) + residual).
 * H' = (H + pad_before + pad_after - KH) / stride + 1, rounded down. A cross-correlation, as everywhere in the field.
 * `residual` (an addend like dst, as second input) and `activation` are only set by the inference passes.
 */
struct conv2d {
    int64_t channels_out;
    struct window window;
    int groups;
    bool bias, residual;
    enum activation activation;
    struct conv2d_int8 int8;
};

/**
 * Ioffe & Szegedy 2015. Training: normalises with the batch's biased variance and updates the running statistics with
 * `momentum` (running = (1 - momentum) * running + momentum * batch; the running variance is unbiased), as PyTorch does.
 * Inference, or `frozen`: normalises with the running statistics and leaves them alone.
 * `synchronised` (and not frozen): the batch is that of all ranks, as in PyTorch's SyncBatchNorm. OP_BATCH_NORM_SUMS, with the
 * same attributes, gathers a rank's ARG_SUMS; ranks add theirs up; the batch norm takes the total instead of gathering itself:
 * mean = sum x / n, variance = sum x^2 / n - mean^2. The gradients of scale and shift stay a rank's own, since buckets sum them.
 * dst = activation(scale * (src - mean) / sqrt(variance + epsilon) + shift + residual).
 */
struct batch_norm {
    float epsilon, momentum;
    bool frozen, synchronised, residual;
    enum activation activation;
};

/** dst (N, O) = src (N, F) * weight (O, F)^T + bias (O). */
struct linear {
    int64_t features_out;
    bool bias;
};

/**
 * loss = 1/N sum_n [(1 - s) w(y_n) (-log p_n(y_n)) + s/K sum_k w(k) (-log p_n(k))], with s the label smoothing and w the
 * class weights (PyTorch's cross_entropy with reduction "sum", over N: weighting does not change the divisor, so that the
 * mean over ranks is the mean over the global batch). dst (N, K) = the probabilities p. A row whose label is outside
 * [0, K) does not count: it adds nothing to the loss and its gradient is zero (the padding of a last, short batch).
 */
struct softmax_cross_entropy {
    float label_smoothing;
};

/**
 * Drops each element with probability `rate` and divides the others by 1 - rate (Srivastava et al. 2014, in the inverted
 * form). dropout_keeps in common/op/dropout.h decides, the same on every device; nothing is kept for the backward pass.
 */
struct dropout {
    float rate;
    uint32_t salt; /**< tells the dropouts of one network apart */
};

/** dst = convert(src * factor), as element_store does, of the product rounded to f32. */
struct rescale {
    enum dtype src, dst; /**< f32, bf16, u8 or s8 */
    float factor;
};

/**
 * dst (N, C, H, W) of src (N, variation_bytes(H, W)) u8, whose rows are a struct variation (common/op/variation.h) and the grey
 * picture behind it: varied, then (shade / 255 - mean[c]) / stddev[c] in every channel. What common/image/augment.h does on the
 * host, bit for bit in f32. What stands in a row is trusted.
 */
struct vary {
    int channels, height, width; /**< 1 to 3 channels */
    float mean[3], stddev[3];
};

/** OP_SGD and OP_ADAMW; their numbers come with each run, in ARG_HYPER. */
struct optimizer {
    bool ema; /**< ARG_EMA is there too */
};

struct op {
    enum op_kind kind;
    union {
        struct shape input; /**< OP_INPUT: the shape of one batch element set, dims[0] = 1 */
        struct conv2d conv2d;
        struct batch_norm batch_norm; /**< OP_BATCH_NORM_SUMS too */
        enum activation activation; /**< OP_ACTIVATION; OP_ADD: applied to the sum */
        struct {
            struct window max_pool; /**< padding counts as minus infinity */
            enum dtype max_pool_of; /**< u8 or s8: of these, PASS_INFER only; DTYPE_NONE: of floats */
        };
        enum dtype global_average_pool_of; /**< as max_pool_of; the averages of integers are f32 */
        struct linear linear;
        struct dropout dropout;
        struct rescale rescale;
        struct softmax_cross_entropy softmax_cross_entropy;
        struct vary vary;
        struct optimizer optimizer;
    };
};

/** What a kernel computes. */
enum pass {
    PASS_INFER,           /**< forward, for an answer */
    PASS_FORWARD,         /**< forward, keeping what the backward passes need */
    PASS_BACKWARD_DATA,   /**< gradients of the inputs (batch norm: of scale and shift too) */
    PASS_BACKWARD_WEIGHT, /**< gradients of the parameters (convolution, linear) */
    PASS_COUNT
};

/** The roles that a kernel's buffers play. One fixed table for all kinds, indexed by role. */
enum arg {
    ARG_NONE,
    ARG_SRC,
    ARG_SRC2, /**< second addend, residual */
    ARG_WEIGHT,
    ARG_BIAS,
    ARG_SCALE,
    ARG_SHIFT,
    ARG_RUNNING_MEAN,
    ARG_RUNNING_VARIANCE,
    ARG_DST,
    ARG_SAVED_MEAN,     /**< (C) batch mean */
    ARG_SAVED_VARIANCE, /**< (C) biased batch variance */
    ARG_SUMS,           /**< f64 (3, C): n, sum x, sum x^2; backward n, sum g, sum g (x - mean). Ranks may add theirs up */
    ARG_WORKSPACE,      /**< device-private bytes from forward to backward (masks, arg-max) */
    ARG_SCRATCH,        /**< device-private bytes during one run */
    ARG_LABEL,          /**< s32 (N) */
    ARG_CLASS_WEIGHT,   /**< f32 (K) */
    ARG_LOSS,           /**< f32 (1) */
    ARG_DIFF_DST,
    ARG_DIFF_SRC,
    ARG_DIFF_SRC2,
    ARG_DIFF_WEIGHT,
    ARG_DIFF_BIAS,
    ARG_DIFF_SCALE,
    ARG_DIFF_SHIFT,
    ARG_SEED,      /**< s64 (3): seed, step, global index of the batch's first sample */
    ARG_PARAMETER, /**< f32 (n): the flat buffers of the optimiser from here on */
    ARG_GRADIENT,
    ARG_STATE,  /**< momentum, or AdamW's first moment */
    ARG_STATE2, /**< AdamW's second moment */
    ARG_EMA,
    ARG_DECAY, /**< f32 (n / OPTIMIZER_BLOCK): factor on weight decay for each block of elements (0 or 1) */
    ARG_HYPER, /**< f32 (HYPER_COUNT) */
    ARG_NORM,  /**< f64 (2): as OP_GRADIENT_NORM gives them; of gradients before HYPER_GRADIENT_SCALE */
    ARG_COUNT
};

enum arg_direction { ARG_ABSENT, ARG_IN, ARG_OUT, ARG_INOUT };

/**
 * The optimiser's buffers are flat: all trainable parameters behind one another, each padded to a multiple of
 * OPTIMIZER_BLOCK elements, in whatever layout the plan chose for it (elementwise updates do not care).
 * Where ARG_NORM counts a non-finite value an optimiser changes nothing at all.
 */
enum { OPTIMIZER_BLOCK = 64 };

/** Indices into ARG_HYPER, which is uploaded each step so that a captured GPU graph need not change. */
enum hyper {
    HYPER_LEARNING_RATE,
    HYPER_WEIGHT_DECAY,
    HYPER_MOMENTUM,       /**< SGD; buf = momentum * buf + g; p -= lr * buf (PyTorch's form, no dampening) */
    HYPER_BETA1,          /**< AdamW (Loshchilov & Hutter 2019, PyTorch's form: decoupled decay p *= 1 - lr * wd) */
    HYPER_BETA2,
    HYPER_EPSILON,
    HYPER_BIAS1,          /**< 1 - beta1^t */
    HYPER_BIAS2,          /**< 1 - beta2^t */
    HYPER_EMA_DECAY,      /**< ema = d * ema + (1 - d) * p, after the update */
    HYPER_GRADIENT_SCALE, /**< multiplies every gradient first: 1 / ranks, 1 / loss scale */
    HYPER_CLIP_NORM,      /**< c > 0: scaled gradients of 2-norm n > c shrink by c / (n + 1e-6), as PyTorch's; 0: off */
    HYPER_COUNT = 16
};

/** The arguments of one (operation, pass): zeroed entries are absent. */
struct op_args {
    struct tensor_desc desc[ARG_COUNT]; /**< dense; ARG_WORKSPACE and ARG_SCRATCH: u8 (0), sized by the device */
    enum arg_direction direction[ARG_COUNT];
    enum arg in_place[ARG_COUNT]; /**< for an output: the input whose buffer it may take over, or ARG_NONE */
};

/** A learnt or running tensor of an operation. */
struct op_parameter {
    enum arg arg, diff; /**< its role forward, and its gradient's; diff ARG_NONE: not learnt (running statistics) */
    const char *suffix; /**< as in a state_dict: "weight", "bias", "running_mean", "running_var" */
    enum dtype dtype;   /**< f32; of a convolution's 8-bit weights s8 */
    struct shape shape;
    bool decay; /**< weight decay applies: not on norm and bias */
};
enum { OP_MAX_INPUTS = 2, OP_MAX_PARAMETERS = 4 };

/** Stable lower-case names for messages, profiles and conformance reports. */
const char *op_kind_name(enum op_kind kind);
const char *pass_name(enum pass pass);
const char *arg_name(enum arg arg);

/** One line such as "conv2d 64 3x3/2 pad 1 groups 1 +bias". Returns out. */
const char *op_text(const struct op *op, char *out, size_t size);

/** How many inputs it has in a graph. */
int op_input_count(const struct op *op);

/** True for kinds whose kernels pick the layout of their inputs (convolution, linear); the others take what comes. */
bool op_chooses_layout(const struct op *op);

/** The shape of the output for inputs of these shapes. ERROR_SHAPE or ERROR_INVALID says what does not fit. */
bool op_output_shape(const struct op *op, const struct shape *inputs, struct shape *out, struct error *err);

/** True for the operations on integers: 8-bit convolutions and pools, and rescaling. */
bool op_is_int8(const struct op *op);

/** Fills in parameters (OP_MAX_PARAMETERS of them at most) and returns their number; inputs have been checked. */
int op_parameters(const struct op *op, const struct shape *inputs, struct op_parameter *out);

/**
 * The arguments of one pass, with dense f32 descriptions (labels s32, seed s64; in operations on integers what they say). False
 * without error text in err->message never happens: a kind that has no such pass is ERROR_UNSUPPORTED. For OP_REORDER,
 * OP_GRADIENT_NORM and the optimisers, inputs[0] is the shape of the (first) buffer.
 */
bool op_arguments(const struct op *op, enum pass pass, const struct shape *inputs, struct op_args *out, struct error *err);

/** True where the kind has a backward pass that is just "hand the gradient on": an add without activation, a
 * dropout of rate 0. */
bool op_backward_is_identity(const struct op *op);

/** Multiply-adds times two of one run; 0 for kinds whose cost is memory traffic. */
double op_flops(const struct op *op, enum pass pass, const struct shape *inputs);
