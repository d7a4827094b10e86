#include "common/device/onednn/kernel.h"
#include "common/device/onednn/onednn.h"
#include "common/op/precision.h"
#include "common/tensor/element.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* Layouts, and that what our own loops compute depends neither on them nor on the number of threads. */

static struct device *open_device(int threads) {
    struct error err = {0};
    struct device *device = onednn_device_ops.open(&(struct device_spec){.name = "onednn", .threads = threads}, &err);
    if (!device)
        fail_msg("%s", err.message);
    return device;
}

static const struct layout *tagged(struct device *device, enum dtype dtype, const struct shape *shape, dnnl_format_tag_t tag) {
    struct error err = {0};
    const struct layout *layout = NULL;
    struct md md = {0};
    assert_true(md_tagged(&md, dtype, shape, tag, &err));
    assert_true(layout_intern((struct onednn_device *)device, &md, &layout, &err));
    md_fini(&md);
    return layout;
}

static void equal_layouts_are_one_pointer(void **state) {
    struct device *device = open_device(1);
    struct shape shape = shape_of(4, (int64_t)2, (int64_t)24, (int64_t)3, (int64_t)5);
    (void)state;
    const struct layout *blocked = tagged(device, DTYPE_F32, &shape, dnnl_aBcd16b);
    assert_non_null(blocked);
    assert_ptr_equal(tagged(device, DTYPE_F32, &shape, dnnl_aBcd16b), blocked);
    assert_ptr_not_equal(tagged(device, DTYPE_F32, &shape, dnnl_acdb), blocked);
    assert_null(tagged(device, DTYPE_F32, &shape, dnnl_abcd));
    onednn_device_ops.close(device);
}

static void a_layout_says_how_it_blocks(void **state) {
    struct device *device = open_device(1);
    struct tensor_desc desc = {.dtype = DTYPE_F32, .shape = shape_of(4, (int64_t)2, (int64_t)24, (int64_t)3, (int64_t)5)};
    char text[96];
    (void)state;
    assert_string_equal(layout_text(device, &desc, text, sizeof text), "f32 (2, 24, 3, 5) dense");
    desc.layout = tagged(device, DTYPE_F32, &desc.shape, dnnl_aBcd8b);
    assert_string_equal(layout_text(device, &desc, text, sizeof text), "f32 (2, 24, 3, 5) aBcd8b");
    desc.layout = tagged(device, DTYPE_F32, &desc.shape, dnnl_acdb);
    assert_string_equal(layout_text(device, &desc, text, sizeof text), "f32 (2, 24, 3, 5) acdb");
    onednn_device_ops.close(device);
}

static struct kernel *reorder(struct device *device, const struct tensor_desc *from, const struct tensor_desc *to,
                              struct error *err) {
    struct kernel_request request = {.op.kind = OP_REORDER, .pass = PASS_FORWARD};
    assert_true(op_arguments(&request.op, request.pass, &from->shape, &request.args, err));
    request.args.desc[ARG_SRC] = *from;
    request.args.desc[ARG_DST] = *to;
    return onednn_device_ops.prepare(device, &request, err);
}

static void a_layout_is_of_one_dtype(void **state) {
    struct device *device = open_device(1);
    struct error err = {0};
    struct shape shape = shape_of(4, (int64_t)2, (int64_t)24, (int64_t)3, (int64_t)5);
    struct tensor_desc dense = tensor_desc_dense(DTYPE_F32, &shape), wrong = tensor_desc_dense(DTYPE_BF16, &shape);
    (void)state;
    wrong.layout = tagged(device, DTYPE_F32, &shape, dnnl_aBcd16b);
    assert_ptr_not_equal(tagged(device, DTYPE_BF16, &shape, dnnl_aBcd16b), wrong.layout);
    assert_null(reorder(device, &dense, &wrong, &err));
    assert_int_equal(err.code, ERROR_INVALID);
    onednn_device_ops.close(device);
}

/* Where oneDNN makes up for a source of s8 by sums behind the weights, those are of another layout, and say so. */
static void weights_with_something_behind_them_are_told_apart(void **state) {
    struct device *device = open_device(1);
    const struct layout *layouts[2];
    char texts[2][96];
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct kernel_request request = {.op = {.kind = OP_CONV2D}, .pass = PASS_INFER};
        struct shape shape = shape_of(4, (int64_t)1, (int64_t)32, (int64_t)9, (int64_t)9);
        struct error err = {0};
        request.op.conv2d = (struct conv2d){.channels_out = 32, .window = {{3, 3}, {1, 1}, {1, 1}, {1, 1}}, .groups = 1};
        request.op.conv2d.int8 = (struct conv2d_int8){.src = i ? DTYPE_S8 : DTYPE_U8, .dst = DTYPE_U8};
        assert_true(op_arguments(&request.op, request.pass, &shape, &request.args, &err));
        request.args.desc[ARG_WEIGHT].layout = LAYOUT_ANY;
        struct kernel *kernel = onednn_device_ops.prepare(device, &request, &err);
        if (!kernel)
            fail_msg("%s", err.message);
        const struct tensor_desc *weight = &kernel->args.desc[ARG_WEIGHT];
        layouts[i] = weight->layout;
        layout_text(device, weight, texts[i], sizeof texts[i]);
        assert_int_equal(weight->bytes > 32 * 32 * 9, strstr(texts[i], " +") != NULL);
        onednn_device_ops.release(kernel);
    }
    assert_int_equal(strcmp(texts[0], texts[1]) == 0, layouts[0] == layouts[1]);
    onednn_device_ops.close(device);
}

/* A kernel with buffers of its own. */
struct work {
    struct device *device;
    struct kernel *kernel;
    void *buffers[ARG_COUNT];
};

/* What is worked on, and how it is kept. */
struct kept {
    struct shape shape;
    enum precision precision;
    dnnl_format_tag_t tag;
};

static struct work work_create(struct device *device, const struct op *op, enum pass pass, const struct kept *kept) {
    struct error err = {0};
    struct kernel_request request = {.op = *op, .pass = pass};
    struct shape inputs[2] = {kept->shape, kept->shape};
    struct work work = {.device = device};
    assert_true(op_arguments(op, pass, inputs, &request.args, &err));
    precision_apply(kept->precision, op, &request.args);
    for (int arg = 0; arg < ARG_COUNT; arg++)
        if (request.args.desc[arg].shape.rank == 4)
            request.args.desc[arg].layout = tagged(device, request.args.desc[arg].dtype, &kept->shape, kept->tag);
    work.kernel = onednn_device_ops.prepare(device, &request, &err);
    if (!work.kernel)
        fail_msg("%s", err.message);
    for (int arg = 0; arg < ARG_COUNT; arg++)
        if (work.kernel->args.direction[arg] != ARG_ABSENT)
            work.buffers[arg] = onednn_device_ops.alloc(device, work.kernel->args.desc[arg].bytes, &err);
    return work;
}

static void work_destroy(struct work *work) {
    for (int arg = 0; arg < ARG_COUNT; arg++)
        onednn_device_ops.free(work->device, work->buffers[arg]);
    onednn_device_ops.release(work->kernel);
}

/* Moves an argument between canonical f32 host memory and the kernel's layout and dtype. */
static void transfer(struct work *work, enum arg arg, float *host, bool in) {
    struct error err = {0};
    struct tensor_desc there = work->kernel->args.desc[arg], here = tensor_desc_dense(DTYPE_F32, &there.shape);
    struct kernel *kernel = reorder(work->device, in ? &here : &there, in ? &there : &here, &err);
    if (!kernel)
        fail_msg("%s", err.message);
    void *scratch = onednn_device_ops.alloc(work->device, kernel->args.desc[ARG_SCRATCH].bytes, &err);
    void *buffers[ARG_COUNT] = {[ARG_SRC] = in ? (void *)host : work->buffers[arg],
                                [ARG_DST] = in ? work->buffers[arg] : (void *)host,
                                [ARG_SCRATCH] = scratch};
    assert_true(onednn_device_ops.run(kernel, buffers, NULL, &err));
    onednn_device_ops.free(work->device, scratch);
    onednn_device_ops.release(kernel);
}

static void fill(struct work *work, enum arg arg, uint32_t seed, float lowest) {
    int64_t count = shape_count(&work->kernel->args.desc[arg].shape);
    float *host = malloc((size_t)count * sizeof *host);
    assert_non_null(host);
    for (int64_t i = 0; i < count; i++) {
        seed = seed * 1664525u + 1013904223u;
        host[i] = lowest + (float)(seed >> 8) / (float)(1 << 24);
    }
    transfer(work, arg, host, true);
    free(host);
}

static void run(struct work *work) {
    struct error err = {0};
    assert_true(onednn_device_ops.run(work->kernel, work->buffers, NULL, &err));
}

struct results {
    float *dst, *diff_src, *diff_scale;
};

/* A batch norm with residual, forward and backward. */
static void batch_norm(int threads, enum activation activation, const struct kept *kept, const struct results *results) {
    const struct op op = {
        OP_BATCH_NORM, .batch_norm = {.epsilon = 1e-5f, .momentum = .1f, .residual = true, .activation = activation}};
    struct device *device = open_device(threads);
    struct work forward = work_create(device, &op, PASS_FORWARD, kept);
    struct work backward = work_create(device, &op, PASS_BACKWARD_DATA, kept);
    static const enum arg handed[] = {ARG_SAVED_MEAN, ARG_SAVED_VARIANCE, ARG_WORKSPACE};
    fill(&forward, ARG_SRC, 1, 2);
    fill(&forward, ARG_SRC2, 2, -.5f);
    fill(&forward, ARG_SCALE, 3, .5f);
    fill(&forward, ARG_SHIFT, 4, -.5f);
    run(&forward);
    transfer(&forward, ARG_DST, results->dst, false);
    fill(&backward, ARG_SRC, 1, 2);
    fill(&backward, ARG_DIFF_DST, 5, -.5f);
    fill(&backward, ARG_SCALE, 3, .5f);
    for (size_t i = 0; i < sizeof handed / sizeof *handed; i++) {
        assert_int_equal(forward.kernel->args.desc[handed[i]].bytes, backward.kernel->args.desc[handed[i]].bytes);
        if (forward.buffers[handed[i]]) /* without an activation there is no mask */
            memcpy(backward.buffers[handed[i]], forward.buffers[handed[i]], forward.kernel->args.desc[handed[i]].bytes);
    }
    run(&backward);
    transfer(&backward, ARG_DIFF_SRC, results->diff_src, false);
    transfer(&backward, ARG_DIFF_SCALE, results->diff_scale, false);
    work_destroy(&forward);
    work_destroy(&backward);
    onednn_device_ops.close(device);
}

static struct results make_results(const struct shape *shape) {
    size_t bytes = (size_t)shape_count(shape) * sizeof(float);
    return (struct results){malloc(bytes), malloc(bytes), malloc((size_t)shape->dims[1] * sizeof(float))};
}

static void free_results(const struct results *r) {
    free(r->dst);
    free(r->diff_src);
    free(r->diff_scale);
}

/* Where the machine has no bf16, its tests pass over f32 alone. */
static bool has(enum precision precision) {
    return precision == PRECISION_F32 || compat_has_bf16();
}

static void threads_do_not_change_a_bit(void **state) {
    static const dnnl_format_tag_t tags[] = {dnnl_abcd, dnnl_acdb, dnnl_aBcd8b, dnnl_aBcd16b};
    struct kept kept = {.shape = shape_of(4, (int64_t)5, (int64_t)40, (int64_t)7, (int64_t)9)};
    struct results one = make_results(&kept.shape), many = make_results(&kept.shape);
    size_t bytes = (size_t)shape_count(&kept.shape) * sizeof(float);
    (void)state;
    for (kept.precision = PRECISION_F32; kept.precision <= PRECISION_BF16 && has(kept.precision); kept.precision++)
        for (size_t i = 0; i < sizeof tags / sizeof *tags; i++) {
            kept.tag = tags[i];
            batch_norm(1, ACTIVATION_RELU, &kept, &one);
            for (int threads = 2; threads < 8; threads++) {
                batch_norm(threads, ACTIVATION_RELU, &kept, &many);
                assert_memory_equal(one.dst, many.dst, bytes);
                assert_memory_equal(one.diff_src, many.diff_src, bytes);
                assert_memory_equal(one.diff_scale, many.diff_scale, 40 * sizeof(float));
            }
        }
    free_results(&one);
    free_results(&many);
}

static void assert_close(const float *a, const float *b, int64_t count, float tolerance) {
    for (int64_t i = 0; i < count; i++)
        if (!(a[i] - b[i] <= tolerance && b[i] - a[i] <= tolerance))
            fail_msg("element %lld: %g should be %g", (long long)i, (double)a[i], (double)b[i]);
}

/* The tolerance is for the elements: those of bf16 may be rounded either way, and are less than 4. */
static void compare_layouts(const struct shape *shape, enum precision precision, enum activation activation) {
    static const dnnl_format_tag_t tags[] = {dnnl_acdb, dnnl_aBcd8b, dnnl_aBcd16b};
    struct kept kept = {*shape, precision, dnnl_abcd};
    struct results plain = make_results(shape), other = make_results(shape);
    float tolerance = precision == PRECISION_BF16 ? 4.f / 256 : 1e-5f;
    batch_norm(2, activation, &kept, &plain);
    for (size_t i = 0; i < sizeof tags / sizeof *tags; i++) {
        kept.tag = tags[i];
        batch_norm(2, activation, &kept, &other);
        assert_close(other.dst, plain.dst, shape_count(shape), tolerance);
        assert_close(other.diff_src, plain.diff_src, shape_count(shape), tolerance);
        assert_close(other.diff_scale, plain.diff_scale, shape->dims[1], 1e-4f);
    }
    free_results(&plain);
    free_results(&other);
}

static void layouts_hold_the_same_numbers(void **state) {
    static const int64_t channels[] = {3, 16, 37, 40};
    (void)state;
    for (size_t c = 0; c < sizeof channels / sizeof *channels; c++) {
        struct shape shape = shape_of(4, (int64_t)3, channels[c], (int64_t)13, (int64_t)11);
        compare_layouts(&shape, PRECISION_F32, ACTIVATION_RELU);
    }
}

/* Large enough to be written past the cache. Without an activation, since among so many some lie at its edge. */
static void large_tensors_hold_the_same_numbers(void **state) {
    struct shape shape = shape_of(4, (int64_t)3, (int64_t)64, (int64_t)120, (int64_t)121);
    (void)state;
    compare_layouts(&shape, PRECISION_F32, ACTIVATION_NONE);
    if (has(PRECISION_BF16))
        compare_layouts(&shape, PRECISION_BF16, ACTIVATION_NONE);
}

/* --- dtypes --- */

static void convert(struct device *device, const struct tensor_desc *from, void *src, const struct tensor_desc *to, void *dst) {
    struct error err = {0};
    struct kernel *kernel = reorder(device, from, to, &err);
    if (!kernel)
        fail_msg("%s", err.message);
    void *scratch = onednn_device_ops.alloc(device, kernel->args.desc[ARG_SCRATCH].bytes, &err);
    void *buffers[ARG_COUNT] = {[ARG_SRC] = src, [ARG_DST] = dst, [ARG_SCRATCH] = scratch};
    assert_true(onednn_device_ops.run(kernel, buffers, NULL, &err));
    onednn_device_ops.free(device, scratch);
    onednn_device_ops.release(kernel);
}

static struct tensor_desc described(struct device *device, enum dtype dtype, const struct shape *shape, dnnl_format_tag_t tag) {
    struct tensor_desc desc = tensor_desc_dense(dtype, shape);
    desc.layout = tagged(device, dtype, shape, tag);
    if (desc.layout)
        desc.bytes = md_bytes(&desc.layout->md);
    return desc;
}

/* From canonical f32 to `from` in f32, to `to` in bf16, and back to canonical f32. */
static void round_trip(struct device *device, const struct shape *shape, dnnl_format_tag_t from, dnnl_format_tag_t to) {
    struct error err = {0};
    struct tensor_desc dense = tensor_desc_dense(DTYPE_F32, shape), wide = described(device, DTYPE_F32, shape, from);
    struct tensor_desc narrow = described(device, DTYPE_BF16, shape, to);
    float *values = onednn_device_ops.alloc(device, dense.bytes, &err);
    void *kept = onednn_device_ops.alloc(device, wide.bytes, &err), *half = onednn_device_ops.alloc(device, narrow.bytes, &err);
    assert_true(values && kept && half);
    for (int64_t i = 0; i < shape_count(shape); i++)
        values[i] = (float)(i - 300) * 1.2345678f;
    convert(device, &dense, values, &wide, kept);
    convert(device, &wide, kept, &narrow, half);
    convert(device, &narrow, half, &wide, kept);
    convert(device, &wide, kept, &dense, values);
    for (int64_t i = 0; i < shape_count(shape); i++) {
        uint16_t rounded;
        element_store(&rounded, DTYPE_BF16, 0, (double)((float)(i - 300) * 1.2345678f));
        assert_true((double)values[i] == element_load(&rounded, DTYPE_BF16, 0));
    }
    onednn_device_ops.free(device, values);
    onednn_device_ops.free(device, kept);
    onednn_device_ops.free(device, half);
}

static void reorders_convert_between_any_layouts(void **state) {
    static const dnnl_format_tag_t tags[] = {dnnl_abcd, dnnl_acdb, dnnl_aBcd8b, dnnl_aBcd16b, dnnl_ABcd16b16a};
    struct device *device = open_device(2);
    struct shape shape = shape_of(4, (int64_t)3, (int64_t)21, (int64_t)5, (int64_t)7);
    (void)state;
    for (size_t i = 0; i < sizeof tags / sizeof *tags; i++)
        for (size_t k = 0; k < sizeof tags / sizeof *tags; k++)
            round_trip(device, &shape, tags[i], tags[k]);
    onednn_device_ops.close(device);
}

static void average(struct device *device, const struct shape *shape, dnnl_format_tag_t tag, float *out) {
    const struct kept kept = {*shape, PRECISION_F32, tag};
    struct work work = work_create(device, &(struct op){.kind = OP_GLOBAL_AVERAGE_POOL}, PASS_FORWARD, &kept);
    fill(&work, ARG_SRC, 1, 2);
    run(&work);
    memcpy(out, work.buffers[ARG_DST], work.kernel->args.desc[ARG_DST].bytes);
    work_destroy(&work);
}

static void averages_are_the_same_in_any_layout(void **state) {
    struct device *device = open_device(2);
    struct shape shape = shape_of(4, (int64_t)2, (int64_t)21, (int64_t)5, (int64_t)7);
    float plain[42], other[42];
    (void)state;
    average(device, &shape, dnnl_abcd, plain);
    average(device, &shape, dnnl_acdb, other);
    assert_close(other, plain, 42, 1e-6f);
    average(device, &shape, dnnl_aBcd8b, other);
    assert_close(other, plain, 42, 1e-6f);
    average(device, &shape, dnnl_aBcd16b, other);
    assert_close(other, plain, 42, 1e-6f);
    onednn_device_ops.close(device);
}

static void padding_stays_zero(void **state) {
    struct device *device = open_device(2);
    const struct kept kept = {shape_of(4, (int64_t)2, (int64_t)20, (int64_t)3, (int64_t)3), PRECISION_F32, dnnl_aBcd16b};
    const struct op op = {OP_BATCH_NORM, .batch_norm = {.epsilon = 1e-5f, .momentum = .1f}};
    struct work work = work_create(device, &op, PASS_FORWARD, &kept);
    (void)state;
    fill(&work, ARG_SRC, 1, 2);
    fill(&work, ARG_SCALE, 3, .5f);
    fill(&work, ARG_SHIFT, 4, .5f);
    run(&work);
    const float *dst = work.buffers[ARG_DST];
    for (int image = 0; image < 2; image++)
        for (int pixel = 0; pixel < 9; pixel++)
            for (int lane = 4; lane < 16; lane++)
                assert_true(dst[((image * 2 + 1) * 9 + pixel) * 16 + lane] == 0);
    work_destroy(&work);
    onednn_device_ops.close(device);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_layouts_are_one_pointer),
        cmocka_unit_test(a_layout_says_how_it_blocks),
        cmocka_unit_test(a_layout_is_of_one_dtype),
        cmocka_unit_test(weights_with_something_behind_them_are_told_apart),
        cmocka_unit_test(threads_do_not_change_a_bit),
        cmocka_unit_test(layouts_hold_the_same_numbers),
        cmocka_unit_test(large_tensors_hold_the_same_numbers),
        cmocka_unit_test(reorders_convert_between_any_layouts),
        cmocka_unit_test(averages_are_the_same_in_any_layout),
        cmocka_unit_test(padding_stays_zero),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
