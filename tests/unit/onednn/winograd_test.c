#include "common/device/onednn/onednn.h"

#include <dnnl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

/* Which convolutions go by Winograd's filtering. tests/conformance looks at what they compute. */

/* The last oneDNN with such kernels is 3.1, and they are for AVX-512. */
static bool library_has_them(void) {
    const dnnl_version_t *version = dnnl_version();
    bool avx512 = (dnnl_get_effective_cpu_isa() & dnnl_cpu_isa_avx512_core) == dnnl_cpu_isa_avx512_core;
    return avx512 && (version->major < 3 || (version->major == 3 && version->minor <= 1));
}

struct layer {
    int64_t images, channels_in, channels_out, side;
    struct window window;
    int groups;
};

static const struct window plain = {.kernel = {3, 3}, .stride = {1, 1}, .pad_before = {1, 1}, .pad_after = {1, 1}};

static struct kernel *prepare(struct device *device, const struct layer *layer, enum pass pass) {
    static const enum arg args[] = {ARG_SRC, ARG_WEIGHT, ARG_DST, ARG_DIFF_SRC, ARG_DIFF_WEIGHT, ARG_DIFF_DST};
    struct kernel_request request = {
        .op = {.kind = OP_CONV2D,
               .conv2d = {.channels_out = layer->channels_out, .window = layer->window, .groups = layer->groups}},
        .pass = pass};
    struct shape src = shape_of(4, layer->images, layer->channels_in, layer->side, layer->side);
    struct error err = {0};
    assert_true(op_arguments(&request.op, pass, &src, &request.args, &err));
    for (size_t i = 0; i < sizeof args / sizeof *args; i++)
        request.args.desc[args[i]].layout = LAYOUT_ANY;
    struct kernel *kernel = onednn_device_ops.prepare(device, &request, &err);
    if (!kernel)
        fail_msg("%s", err.message);
    return kernel;
}

static bool goes_by_it(const struct layer *layer, enum pass pass, bool direct) {
    struct device_spec spec = {.name = "onednn", .threads = 1, .direct_convolutions = direct};
    struct device *device = onednn_device_ops.open(&spec, NULL);
    assert_non_null(device);
    struct kernel *kernel = prepare(device, layer, pass);
    bool winograd = strstr(kernel->implementation, "wino") != NULL;
    onednn_device_ops.release(kernel);
    onednn_device_ops.close(device);
    return winograd;
}

static const enum pass passes[] = {PASS_INFER, PASS_FORWARD, PASS_BACKWARD_DATA, PASS_BACKWARD_WEIGHT};
enum { TRIED = sizeof passes / sizeof *passes };

static void where_enough_tiles_share_the_weights(void **state) {
    const struct layer enough = {3, 64, 48, 15, plain, 1}, too_few = {3, 64, 48, 12, plain, 1};
    (void)state;
    for (int i = 0; i < TRIED; i++) {
        assert_int_equal(goes_by_it(&enough, passes[i], false), library_has_them());
        assert_false(goes_by_it(&too_few, passes[i], false));
    }
}

static void never_where_it_is_switched_off(void **state) {
    const struct layer enough = {3, 64, 48, 15, plain, 1};
    (void)state;
    for (int i = 0; i < TRIED; i++)
        assert_false(goes_by_it(&enough, passes[i], true));
}

/* oneDNN computes wrong gradients of the source for the third of these. */
static void only_for_plain_windows(void **state) {
    const struct layer layers[] = {
        {3, 64, 48, 30, {{3, 3}, {2, 2}, {1, 1}, {1, 1}}, 1},
        {3, 64, 48, 15, {{5, 5}, {1, 1}, {2, 2}, {2, 2}}, 1},
        {3, 64, 48, 15, {{3, 3}, {1, 1}, {0, 0}, {1, 1}}, 1},
        {3, 64, 64, 15, plain, 2},
        {3, 16, 64, 15, plain, 1},
    };
    (void)state;
    for (size_t i = 0; i < sizeof layers / sizeof *layers; i++)
        for (int pass = 0; pass < TRIED; pass++)
            assert_false(goes_by_it(&layers[i], passes[pass], false));
}

/* Plans for several sizes of batches share one copy of the weights, whichever way each takes: nothing is kept transformed. */
static void weights_lie_as_in_direct_kernels(void **state) {
    const struct layer layer = {3, 64, 64, 15, plain, 1};
    struct device_spec spec = {.name = "onednn", .threads = 1}, direct_spec = spec;
    (void)state;
    struct device *device = onednn_device_ops.open(&spec, NULL);
    assert_non_null(device);
    direct_spec.share = device;
    direct_spec.direct_convolutions = true;
    struct device *direct = onednn_device_ops.open(&direct_spec, NULL);
    assert_non_null(direct);
    struct kernel *kernels[] = {prepare(device, &layer, PASS_FORWARD), prepare(direct, &layer, PASS_FORWARD)};
    assert_ptr_equal(kernels[0]->args.desc[ARG_WEIGHT].layout, kernels[1]->args.desc[ARG_WEIGHT].layout);
    for (int i = 0; i < 2; i++)
        onednn_device_ops.release(kernels[i]);
    onednn_device_ops.close(direct);
    onednn_device_ops.close(device);
}

static void the_device_says_when_it_does_without(void **state) {
    struct device_info info;
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct device_spec spec = {.name = "onednn", .threads = 1, .direct_convolutions = i};
        struct device *device = onednn_device_ops.open(&spec, NULL);
        assert_non_null(device);
        onednn_device_ops.info(device, &info);
        assert_int_equal(strstr(info.name, ", no winograd") != NULL, i);
        onednn_device_ops.close(device);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(where_enough_tiles_share_the_weights), cmocka_unit_test(never_where_it_is_switched_off),
        cmocka_unit_test(only_for_plain_windows),               cmocka_unit_test(weights_lie_as_in_direct_kernels),
        cmocka_unit_test(the_device_says_when_it_does_without),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
