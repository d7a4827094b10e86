#include "tests/emulation/runtime/kernel_ranges.h"

/* `count` is the number of elements of the launch; kernels_body.h says what an element is. */

#define READS(memory, elements)     declare_range(out, (memory), (elements), sizeof *(memory), false, true)
#define MAY_READ(memory, elements)  declare_range(out, (memory), (elements), sizeof *(memory), false, false)
#define WRITES(memory, elements)    declare_range(out, (memory), (elements), sizeof *(memory), true, true)
#define MAY_WRITE(memory, elements) declare_range(out, (memory), (elements), sizeof *(memory), true, false)

void declare_range(struct declaration *out, const void *memory, int64_t count, size_t size, bool written, bool required) {
    size_t alignment = size > 8 ? 8 : size; /* structs are of doubles */
    if (!memory && !required)
        return;
    out->right = emulation_check_alignment(out->kernel, memory, alignment) && out->right;
    if (out->count == MOST_RANGES || count < 0) {
        emulation_finding("%s: more than %d ranges, or %lld elements", out->kernel, MOST_RANGES, (long long)count);
        out->right = false;
        return;
    }
    out->ranges[out->count++] = (struct emulation_range){memory, (size_t)count * size, written};
}

/* --- elementwise --- */

void pointwise_ranges(const struct pointwise *k, int64_t count, struct declaration *out) {
    READS(k->a, count);
    MAY_READ(k->b, count);
    WRITES(k->dst, count);
}

void gate_ranges(const struct gate *k, int64_t count, struct declaration *out) {
    MAY_READ(k->dst, count);
    READS(k->diff_dst, count);
    WRITES(k->diff_src, count);
}

void drop_ranges(const struct drop *k, int64_t count, struct declaration *out) {
    READS(k->src, count);
    READS(k->seed, 3);
    WRITES(k->dst, count);
}

void cast_ranges(const struct cast *k, int64_t count, struct declaration *out) {
    declare_range(out, k->src, count, dtype_size(k->from), false, true);
    declare_range(out, k->dst, count, dtype_size(k->to), true, true);
}

void shift_planes_ranges(const struct shift_planes *k, int64_t count, struct declaration *out) {
    READS(k->src, count / (k->dst_size[0] * k->dst_size[1]) * k->src_size[0] * k->src_size[1]);
    WRITES(k->dst, count);
}

void epilogue_ranges(const struct epilogue *k, int64_t count, struct declaration *out) {
    MAY_READ(k->bias, k->channels);
    MAY_READ(k->residual, count);
    WRITES(k->dst, count);
}

/* --- sums --- */

void channel_sum_ranges(const struct channel_sum *k, int64_t count, struct declaration *out) {
    READS(k->src, k->batch * k->channels * k->plane);
    WRITES(k->sum, count);
}

void fold_pairs_ranges(const struct fold_pairs *k, int64_t count, struct declaration *out) {
    READS(k->from, k->from_count);
    WRITES(k->to, count);
}

void sum_squares_ranges(const struct sum_squares *k, int64_t count, struct declaration *out) {
    READS(k->gradient, k->count);
    WRITES(k->sums, count);
}

/* --- batch norm --- */

static int64_t elements_of(const struct channels *shape) {
    return shape->batch * shape->count * shape->plane;
}

void channel_moments_ranges(const struct channel_moments *k, int64_t count, struct declaration *out) {
    READS(k->src, elements_of(&k->shape));
    WRITES(k->sums, count);
}

void publish_sums_ranges(const struct publish_sums *k, int64_t count, struct declaration *out) {
    READS(k->sums, count);
    WRITES(k->all, 3 * k->channels);
    MAY_READ(k->variance, count);
}

void finish_moments_ranges(const struct finish_moments *k, int64_t count, struct declaration *out) {
    if (!k->all)
        READS(k->sums, count);
    MAY_READ(k->all, 3 * k->channels);
    WRITES(k->mean, count);
    WRITES(k->variance, count);
    WRITES(k->running_mean, count);
    WRITES(k->running_variance, count);
}

void normalise_ranges(const struct normalise *k, int64_t count, struct declaration *out) {
    READS(k->src, count);
    MAY_READ(k->residual, count);
    READS(k->scale, k->shape.count);
    READS(k->shift, k->shape.count);
    READS(k->mean, k->shape.count);
    READS(k->variance, k->shape.count);
    WRITES(k->dst, count);
    MAY_WRITE(k->mask, count);
}

static void norm_backward_ranges(const struct norm_backward *in, struct declaration *out) {
    READS(in->src, elements_of(&in->shape));
    READS(in->diff_dst, elements_of(&in->shape));
    MAY_READ(in->mask, elements_of(&in->shape));
    READS(in->mean, in->shape.count);
    READS(in->variance, in->shape.count);
}

void norm_gradient_sums_ranges(const struct norm_gradient_sums *k, int64_t count, struct declaration *out) {
    norm_backward_ranges(&k->in, out);
    WRITES(k->sums, count);
}

void finish_norm_gradient_ranges(const struct finish_norm_gradient *k, int64_t count, struct declaration *out) {
    READS(k->sums, count);
    WRITES(k->diff_shift, count);
    WRITES(k->diff_scale, count);
}

void norm_gradient_ranges(const struct norm_gradient *k, int64_t count, struct declaration *out) {
    norm_backward_ranges(&k->in, out);
    READS(k->in.scale, k->in.shape.count);
    if (!k->all) {
        READS(k->diff_shift, k->in.shape.count);
        READS(k->diff_scale, k->in.shape.count);
    }
    MAY_READ(k->all, 3 * k->in.shape.count);
    WRITES(k->diff_src, count);
    MAY_WRITE(k->diff_residual, count);
}

/* --- pooling --- */

static int64_t area(const int64_t size[2]) {
    return size[0] * size[1];
}

void max_pool_ranges(const struct max_pool *k, int64_t count, struct declaration *out) {
    READS(k->src, count / area(k->dst_size) * area(k->src_size));
    WRITES(k->dst, count);
    MAY_WRITE(k->winners, count);
}

void max_pool_gradient_ranges(const struct max_pool_gradient *k, int64_t count, struct declaration *out) {
    READS(k->diff_dst, count / area(k->src_size) * area(k->dst_size));
    READS(k->winners, count / area(k->src_size) * area(k->dst_size));
    WRITES(k->diff_src, count);
}

void plane_average_ranges(const struct plane_average *k, int64_t count, struct declaration *out) {
    READS(k->src, count * k->plane);
    WRITES(k->dst, count);
}

void plane_spread_ranges(const struct plane_spread *k, int64_t count, struct declaration *out) {
    READS(k->diff_dst, count / k->plane);
    WRITES(k->diff_src, count);
}

/* --- 8-bit integers --- */

static int64_t image_of(const struct int8_images *shape) {
    return shape->channels * shape->height * shape->width;
}

static void result_ranges(const struct int8_result *k, int64_t count, struct declaration *out) {
    READS(k->factor, k->shape.channels);
    MAY_READ(k->bias, k->shape.channels);
    declare_range(out, k->residual, count, 1, false, false);
    declare_range(out, k->dst, count, dtype_size(k->dtype), true, true);
}

void patches_ranges(const struct patches *k, int64_t count, struct declaration *out) {
    int64_t rows = count * INT8_PATCH_BYTES / k->depth;
    declare_range(out, k->src, rows / area(k->to_size) * image_of(&k->from), 1, false, true);
    WRITES(k->dst, rows * k->depth);
}

void pack_weight_ranges(const struct pack_weight *k, int64_t count, struct declaration *out) {
    READS(k->src, k->channels_out * k->channels_in * k->taps);
    WRITES(k->dst, count);
}

void sum_weight_ranges(const struct sum_weight *k, int64_t count, struct declaration *out) {
    READS(k->packed, count * k->depth);
    WRITES(k->sums, count);
}

void requantise_ranges(const struct requantise *k, int64_t count, struct declaration *out) {
    READS(k->sums, count / k->result.shape.channels * k->rows);
    MAY_READ(k->lacking, k->rows);
    result_ranges(&k->result, count, out);
}

void group_convolution_ranges(const struct group_convolution *k, int64_t count, struct declaration *out) {
    int64_t taps = (int64_t)k->window.kernel[0] * k->window.kernel[1];
    declare_range(out, k->src, count / image_of(&k->result.shape) * image_of(&k->from), 1, false, true);
    READS(k->weight, k->result.shape.channels * k->group_in * taps);
    result_ranges(&k->result, count, out);
}

void int8_max_pool_ranges(const struct int8_max_pool *k, int64_t count, struct declaration *out) {
    declare_range(out, k->src, count / image_of(&k->to) * image_of(&k->from), 1, false, true);
    declare_range(out, k->dst, count, 1, true, true);
}

void int8_average_ranges(const struct int8_average *k, int64_t count, struct declaration *out) {
    declare_range(out, k->src, count * k->from.height * k->from.width, 1, false, true);
    WRITES(k->dst, count);
}

void int8_rescale_ranges(const struct int8_rescale *k, int64_t count, struct declaration *out) {
    declare_range(out, k->src, count, dtype_size(k->from_dtype), false, true);
    declare_range(out, k->dst, count, dtype_size(k->to_dtype), true, true);
}

/* --- loss --- */

static void target_ranges(const struct target *target, int64_t rows, struct declaration *out) {
    READS(target->label, rows);
    READS(target->class_weight, target->classes);
}

void softmax_loss_ranges(const struct softmax_loss *k, int64_t count, struct declaration *out) {
    READS(k->src, count * k->target.classes);
    WRITES(k->dst, count * k->target.classes);
    MAY_WRITE(k->losses, count);
    if (k->losses)
        target_ranges(&k->target, count, out);
}

void finish_loss_ranges(const struct finish_loss *k, int64_t count, struct declaration *out) {
    READS(k->losses, k->rows);
    WRITES(k->loss, count);
}

void softmax_gradient_ranges(const struct softmax_gradient *k, int64_t count, struct declaration *out) {
    READS(k->probabilities, count * k->target.classes);
    target_ranges(&k->target, count, out);
    WRITES(k->diff_src, count * k->target.classes);
}

/* --- optimisers --- */

static void flat_ranges(const struct flat_buffers *flat, int64_t count, struct declaration *out) {
    WRITES(flat->parameter, count);
    WRITES(flat->state, count);
    MAY_WRITE(flat->ema, count);
    READS(flat->gradient, count);
    READS(flat->decay, (count + OPTIMIZER_BLOCK - 1) / OPTIMIZER_BLOCK);
    READS(flat->hyper, HYPER_COUNT);
    READS(flat->norm, 1);
}

void sgd_ranges(const struct sgd *k, int64_t count, struct declaration *out) {
    flat_ranges(&k->flat, count, out);
}

void adamw_ranges(const struct adamw *k, int64_t count, struct declaration *out) {
    flat_ranges(&k->flat, count, out);
    WRITES(k->flat.state2, count);
}
