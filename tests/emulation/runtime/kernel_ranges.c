#include "tests/emulation/runtime/kernel_ranges.h"

/* `count` is the number of elements of the launch; kernels_body.h says what an element is. */

#define READS(memory, elements)     declare_range(out, (memory), (elements), sizeof *(memory), false, true)
#define MAY_READ(memory, elements)  declare_range(out, (memory), (elements), sizeof *(memory), false, false)
#define WRITES(memory, elements)    declare_range(out, (memory), (elements), sizeof *(memory), true, true)
#define MAY_WRITE(memory, elements) declare_range(out, (memory), (elements), sizeof *(memory), true, false)

static void declare_aligned(struct declaration *out, const void *memory, int64_t count, size_t size, size_t alignment,
                            bool written, bool required) {
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

void declare_range(struct declaration *out, const void *memory, int64_t count, size_t size, bool written, bool required) {
    declare_aligned(out, memory, count, size, size > 8 ? 8 : size, written, required); /* structs are of doubles */
}

/** `count` elements of a dtype, taken `width` at a time. */
static void declare_lanes(struct declaration *out, const void *memory, int64_t count, enum dtype dtype, int width, bool written,
                          bool required) {
    size_t size = dtype_size(dtype);
    if (width != 1 && width != LANES) {
        emulation_finding("%s: takes %d elements at a time", out->kernel, width);
        out->right = false;
    }
    declare_aligned(out, memory, count, size, width == 1 ? size : LANES_ALIGNMENT, written, required);
}

/** The same of a kernel that is told of each tensor's dtype. */
static void reads(struct declaration *out, const void *memory, int64_t count, enum dtype dtype) {
    declare_lanes(out, memory, count, dtype, 1, false, true);
}

static void writes(struct declaration *out, const void *memory, int64_t count, enum dtype dtype) {
    declare_lanes(out, memory, count, dtype, 1, true, true);
}

static int64_t elements_of(const struct channels *shape) {
    return shape->batch * shape->count * shape->plane;
}

static int64_t image_elements(const struct images *shape) {
    return shape->channels * shape->height * shape->width;
}

/** A vector of f32 with one for each channel, taken as many at a time as there are channels side by side. */
static void reads_channels(struct declaration *out, const float *vector, const struct channels *shape, int64_t rows, int width,
                           bool required) {
    declare_lanes(out, vector, rows * shape->count, DTYPE_F32, shape->last ? width : 1, false, required);
}

/* --- elementwise --- */

void pointwise_ranges(const struct pointwise *k, int64_t count, struct declaration *out) {
    declare_lanes(out, k->a, count * k->width, k->dtype, k->width, false, true);
    declare_lanes(out, k->b, count * k->width, k->dtype, k->width, false, false);
    declare_lanes(out, k->dst, count * k->width, k->dtype, k->width, true, true);
}

void gate_ranges(const struct gate *k, int64_t count, struct declaration *out) {
    declare_lanes(out, k->dst, count * k->width, k->dtype, k->width, false, false);
    declare_lanes(out, k->diff_dst, count * k->width, k->dtype, k->width, false, true);
    declare_lanes(out, k->diff_src, count * k->width, k->dtype, k->width, true, true);
}

void drop_ranges(const struct drop *k, int64_t count, struct declaration *out) {
    reads(out, k->src, count, k->dtype);
    READS(k->seed, 3);
    writes(out, k->dst, count, k->dtype);
}

void cast_ranges(const struct cast *k, int64_t count, struct declaration *out) {
    declare_lanes(out, k->src, count * k->width, k->from, k->width, false, true);
    declare_lanes(out, k->dst, count * k->width, k->to, k->width, true, true);
}

void permute_ranges(const struct permute *k, int64_t count, struct declaration *out) {
    reads(out, k->src, count, k->from_dtype);
    writes(out, k->dst, count, k->to_dtype);
}

void shift_planes_ranges(const struct shift_planes *k, int64_t count, struct declaration *out) {
    reads(out, k->src, count / image_elements(&k->to) * image_elements(&k->from), k->dtype);
    writes(out, k->dst, count, k->dtype);
}

void epilogue_ranges(const struct epilogue *k, int64_t count, struct declaration *out) {
    reads_channels(out, k->bias, &k->shape, 1, k->width, false);
    declare_lanes(out, k->residual, count * k->width, k->dtype, k->width, false, false);
    declare_lanes(out, k->dst, count * k->width, k->dtype, k->width, true, true);
}

/* --- pooling --- */

void max_pool_ranges(const struct max_pool *k, int64_t count, struct declaration *out) {
    int64_t results = count * k->width;
    declare_lanes(out, k->src, results / image_elements(&k->to) * image_elements(&k->from), k->dtype, k->width, false, true);
    declare_lanes(out, k->dst, results, k->dtype, k->width, true, true);
    MAY_WRITE(k->winners, results);
}

void max_pool_gradient_ranges(const struct max_pool_gradient *k, int64_t count, struct declaration *out) {
    int64_t pixels = count * k->width, windows = pixels / image_elements(&k->from) * image_elements(&k->to);
    declare_lanes(out, k->diff_dst, windows, k->dtype, k->width, false, true);
    READS(k->winners, windows);
    declare_lanes(out, k->diff_src, pixels, k->dtype, k->width, true, true);
}

void plane_average_ranges(const struct plane_average *k, int64_t count, struct declaration *out) {
    reads(out, k->src, count * k->shape.plane, k->src_dtype);
    writes(out, k->dst, count, k->dst_dtype);
}

void plane_spread_ranges(const struct plane_spread *k, int64_t count, struct declaration *out) {
    reads(out, k->diff_dst, count / k->shape.plane, k->dst_dtype);
    writes(out, k->diff_src, count, k->src_dtype);
}

/* --- sums --- */

void fold_pairs_ranges(const struct fold_pairs *k, int64_t count, struct declaration *out) {
    READS(k->from, k->from_count);
    WRITES(k->to, count);
}

void sum_squares_ranges(const struct sum_squares *k, int64_t count, struct declaration *out) {
    declare_lanes(out, k->gradient, k->count, DTYPE_F32, LANES, false, true);
    WRITES(k->sums, count);
}

void channel_moments_ranges(const struct channel_moments *k, int64_t count, struct declaration *out) {
    (void)count;
    declare_lanes(out, k->src, elements_of(&k->cut.shape), k->dtype, k->cut.width, false, true);
    WRITES(k->sums, k->cut.slices * k->cut.shape.count);
}

static void column_ranges(const struct channel_pairs *sums, struct declaration *out) {
    READS(sums->pairs, sums->rows * sums->channels);
}

void finish_channel_sum_ranges(const struct finish_channel_sum *k, int64_t count, struct declaration *out) {
    column_ranges(&k->sums, out);
    WRITES(k->sum, count);
}

/* --- batch norm --- */

void publish_sums_ranges(const struct publish_sums *k, int64_t count, struct declaration *out) {
    column_ranges(&k->sums, out);
    WRITES(k->all, 3 * k->sums.channels);
    MAY_READ(k->variance, count);
}

void norm_terms_ranges(const struct norm_terms *k, int64_t count, struct declaration *out) {
    READS(k->scale, count);
    READS(k->variance, count);
    WRITES(k->terms, count);
}

void finish_moments_ranges(const struct finish_moments *k, int64_t count, struct declaration *out) {
    if (!k->all)
        column_ranges(&k->sums, out);
    MAY_READ(k->all, 3 * k->sums.channels);
    READS(k->scale, count);
    WRITES(k->mean, count);
    WRITES(k->variance, count);
    WRITES(k->running_mean, count);
    WRITES(k->running_variance, count);
    WRITES(k->terms, count);
}

void normalise_ranges(const struct normalise *k, int64_t count, struct declaration *out) {
    declare_lanes(out, k->src, count * k->width, k->dtype, k->width, false, true);
    declare_lanes(out, k->residual, count * k->width, k->dtype, k->width, false, false);
    reads_channels(out, k->shift, &k->shape, 1, k->width, true);
    reads_channels(out, k->mean, &k->shape, 1, k->width, true);
    reads_channels(out, k->terms, &k->shape, 1, k->width, true);
    declare_lanes(out, k->dst, count * k->width, k->dtype, k->width, true, true);
    MAY_WRITE(k->mask, count);
}

static void norm_backward_ranges(const struct norm_backward *in, const struct channels *shape, int width,
                                 struct declaration *out) {
    declare_lanes(out, in->src, elements_of(shape), in->dtype, width, false, true);
    declare_lanes(out, in->diff_dst, elements_of(shape), in->dtype, width, false, true);
    reads_channels(out, in->mean, shape, 1, width, true);
    MAY_READ(in->mask, elements_of(shape) / width);
}

void norm_gradient_sums_ranges(const struct norm_gradient_sums *k, int64_t count, struct declaration *out) {
    (void)count;
    norm_backward_ranges(&k->in, &k->cut.shape, k->cut.width, out);
    reads_channels(out, k->variance, &k->cut.shape, 1, k->cut.width, true);
    WRITES(k->sums, k->cut.slices * k->cut.shape.count);
}

static void gradient_terms_ranges(const struct gradient_terms *terms, struct declaration *out) {
    if (!terms->terms)
        return;
    READS(terms->scale, terms->channels);
    READS(terms->variance, terms->channels);
    WRITES(terms->terms, 3 * terms->channels);
}

void finish_norm_gradient_ranges(const struct finish_norm_gradient *k, int64_t count, struct declaration *out) {
    column_ranges(&k->sums, out);
    WRITES(k->diff_shift, count);
    WRITES(k->diff_scale, count);
    gradient_terms_ranges(&k->out, out);
}

void total_norm_gradient_ranges(const struct total_norm_gradient *k, int64_t count, struct declaration *out) {
    (void)count;
    READS(k->all, 3 * k->out.channels);
    gradient_terms_ranges(&k->out, out);
}

void norm_gradient_ranges(const struct norm_gradient *k, int64_t count, struct declaration *out) {
    norm_backward_ranges(&k->in, &k->shape, k->width, out);
    reads_channels(out, k->terms, &k->shape, 3, k->width, true);
    declare_lanes(out, k->diff_src, count * k->width, k->in.dtype, k->width, true, true);
    declare_lanes(out, k->diff_residual, count * k->width, k->in.dtype, k->width, true, false);
}

/* --- 8-bit integers --- */

static void result_ranges(const struct int8_result *k, int64_t count, struct declaration *out) {
    READS(k->factor, k->shape.channels);
    MAY_READ(k->bias, k->shape.channels);
    declare_range(out, k->residual, count, 1, false, false);
    declare_range(out, k->dst, count, dtype_size(k->dtype), true, true);
}

void patches_ranges(const struct patches *k, int64_t count, struct declaration *out) {
    int64_t rows = count * INT8_PATCH_BYTES / k->depth;
    declare_range(out, k->src, rows / (k->to_size[0] * k->to_size[1]) * image_elements(&k->from), 1, false, true);
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
    declare_range(out, k->src, count / image_elements(&k->result.shape) * image_elements(&k->from), 1, false, true);
    READS(k->weight, k->result.shape.channels * k->group_in * taps);
    result_ranges(&k->result, count, out);
}

void int8_max_pool_ranges(const struct int8_max_pool *k, int64_t count, struct declaration *out) {
    declare_range(out, k->src, count / image_elements(&k->to) * image_elements(&k->from), 1, false, true);
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

/* --- pictures with their variations --- */

/** `pixels` of all pictures. */
static void varied_ranges(const struct varied *in, int64_t pixels, struct declaration *out) {
    declare_aligned(out, in->rows, pixels / varied_pixels(in) * in->row_bytes, 1, sizeof(double), false, true);
}

void vary_warp_ranges(const struct vary_warp *k, int64_t count, struct declaration *out) {
    varied_ranges(&k->in, count, out);
    WRITES(k->dst, count);
}

void vary_blur_ranges(const struct vary_blur *k, int64_t count, struct declaration *out) {
    varied_ranges(&k->in, count, out);
    READS(k->warped, count);
    WRITES(k->dst, count);
}

void vary_finish_ranges(const struct vary_finish *k, int64_t count, struct declaration *out) {
    int64_t pixels = count / vary_finish_count(&k->in) * varied_pixels(&k->in);
    varied_ranges(&k->in, pixels, out);
    READS(k->warped, pixels);
    READS(k->blurred, pixels);
    writes(out, k->dst, pixels * k->to.channels, k->dtype);
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
