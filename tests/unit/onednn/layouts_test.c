#include "common/device/onednn/kernel.h"
#include "common/device/onednn/onednn.h"

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

static const struct layout *tagged(struct device *device, const struct shape *shape, dnnl_format_tag_t tag) {
    struct error err = {0};
    const struct layout *layout = NULL;
    struct md md = {0};
    assert_true(md_tagged(&md, DTYPE_F32, shape, tag, &err));
    assert_true(layout_intern((struct onednn_device *)device, &md, &layout, &err));
    md_fini(&md);
    return layout;
}

static void equal_layouts_are_one_pointer(void **state) {
    struct device *device = open_device(1);
    struct shape shape = shape_of(4, (int64_t)2, (int64_t)24, (int64_t)3, (int64_t)5);
    (void)state;
    const struct layout *blocked = tagged(device, &shape, dnnl_aBcd16b);
    assert_non_null(blocked);
    assert_ptr_equal(tagged(device, &shape, dnnl_aBcd16b), blocked);
    assert_ptr_not_equal(tagged(device, &shape, dnnl_acdb), blocked);
    assert_null(tagged(device, &shape, dnnl_abcd));
    onednn_device_ops.close(device);
}

static void a_layout_says_how_it_blocks(void **state) {
    struct device *device = open_device(1);
    struct tensor_desc desc = {.dtype = DTYPE_F32, .shape = shape_of(4, (int64_t)2, (int64_t)24, (int64_t)3, (int64_t)5)};
    char text[96];
    (void)state;
    assert_string_equal(layout_text(device, &desc, text, sizeof text), "f32 (2, 24, 3, 5) dense");
    desc.layout = tagged(device, &desc.shape, dnnl_aBcd8b);
    assert_string_equal(layout_text(device, &desc, text, sizeof text), "f32 (2, 24, 3, 5) aBcd8b");
    desc.layout = tagged(device, &desc.shape, dnnl_acdb);
    assert_string_equal(layout_text(device, &desc, text, sizeof text), "f32 (2, 24, 3, 5) acdb");
    onednn_device_ops.close(device);
}

/* A kernel with buffers of its own. */
struct work {
    struct device *device;
    struct kernel *kernel;
    void *buffers[ARG_COUNT];
};

static struct work work_create(struct device *device, const struct op *op, enum pass pass, const struct shape *shape,
                               dnnl_format_tag_t tag) {
    struct error err = {0};
    struct kernel_request request = {.op = *op, .pass = pass};
    struct shape inputs[2] = {*shape, *shape};
    struct work work = {.device = device};
    assert_true(op_arguments(op, pass, inputs, &request.args, &err));
    for (int arg = 0; arg < ARG_COUNT; arg++)
        if (request.args.desc[arg].shape.rank == 4)
            request.args.desc[arg].layout = tagged(device, shape, tag);
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

/* Moves an argument between canonical host memory and the kernel's layout. */
static void transfer(struct work *work, enum arg arg, float *host, bool in) {
    struct error err = {0};
    struct kernel_request request = {.op.kind = OP_REORDER, .pass = PASS_FORWARD};
    struct tensor_desc there = work->kernel->args.desc[arg], here = tensor_desc_dense(there.dtype, &there.shape);
    assert_true(op_arguments(&request.op, request.pass, &there.shape, &request.args, &err));
    request.args.desc[ARG_SRC] = in ? here : there;
    request.args.desc[ARG_DST] = in ? there : here;
    struct kernel *kernel = onednn_device_ops.prepare(work->device, &request, &err);
    assert_non_null(kernel);
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

/* A batch norm with residual and ReLU, forward and backward. */
static void batch_norm(int threads, const struct shape *shape, dnnl_format_tag_t tag, const struct results *results) {
    const struct op op = {OP_BATCH_NORM, .batch_norm = {1e-5f, .1f, false, true, ACTIVATION_RELU}};
    struct device *device = open_device(threads);
    struct work forward = work_create(device, &op, PASS_FORWARD, shape, tag);
    struct work backward = work_create(device, &op, PASS_BACKWARD_DATA, shape, tag);
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

static void threads_do_not_change_a_bit(void **state) {
    static const dnnl_format_tag_t tags[] = {dnnl_abcd, dnnl_acdb, dnnl_aBcd8b, dnnl_aBcd16b};
    struct shape shape = shape_of(4, (int64_t)5, (int64_t)40, (int64_t)7, (int64_t)9);
    struct results one = make_results(&shape), many = make_results(&shape);
    size_t bytes = (size_t)shape_count(&shape) * sizeof(float);
    (void)state;
    for (size_t i = 0; i < sizeof tags / sizeof *tags; i++) {
        batch_norm(1, &shape, tags[i], &one);
        for (int threads = 2; threads < 8; threads++) {
            batch_norm(threads, &shape, tags[i], &many);
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

static void layouts_hold_the_same_numbers(void **state) {
    static const dnnl_format_tag_t tags[] = {dnnl_acdb, dnnl_aBcd8b, dnnl_aBcd16b};
    static const int64_t channels[] = {3, 16, 37, 40};
    (void)state;
    for (size_t c = 0; c < sizeof channels / sizeof *channels; c++) {
        struct shape shape = shape_of(4, (int64_t)3, channels[c], (int64_t)13, (int64_t)11);
        struct results plain = make_results(&shape), other = make_results(&shape);
        batch_norm(2, &shape, dnnl_abcd, &plain);
        for (size_t i = 0; i < sizeof tags / sizeof *tags; i++) {
            batch_norm(2, &shape, tags[i], &other);
            assert_close(other.dst, plain.dst, shape_count(&shape), 1e-5f);
            assert_close(other.diff_src, plain.diff_src, shape_count(&shape), 1e-5f);
            assert_close(other.diff_scale, plain.diff_scale, channels[c], 1e-4f);
        }
        free_results(&plain);
        free_results(&other);
    }
}

static void average(struct device *device, const struct shape *shape, dnnl_format_tag_t tag, float *out) {
    struct work work = work_create(device, &(struct op){.kind = OP_GLOBAL_AVERAGE_POOL}, PASS_FORWARD, shape, tag);
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
    struct shape shape = shape_of(4, (int64_t)2, (int64_t)20, (int64_t)3, (int64_t)3);
    const struct op op = {OP_BATCH_NORM, .batch_norm = {1e-5f, .1f, false, false, ACTIVATION_NONE}};
    struct work work = work_create(device, &op, PASS_FORWARD, &shape, dnnl_aBcd16b);
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
        cmocka_unit_test(threads_do_not_change_a_bit),
        cmocka_unit_test(layouts_hold_the_same_numbers),
        cmocka_unit_test(averages_are_the_same_in_any_layout),
        cmocka_unit_test(padding_stays_zero),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
