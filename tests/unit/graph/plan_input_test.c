/* Plans that make their images themselves, of pictures with their variations, on the reference device. */
#include "common/op/variation.h"
#include "tests/unit/graph/network.h"

#include <stdlib.h>
#include <string.h>

enum { BATCH = 3, PIXELS = NETWORK_SIDE * NETWORK_SIDE, ROW = (sizeof(struct variation) + PIXELS + 7) / 8 * 8 };

static const struct vary vary = {
    .channels = NETWORK_CHANNELS, .height = NETWORK_SIDE, .width = NETWORK_SIDE, .mean = {.5f, .25f}, .stddev = {.25f, .5f}};

/* Mirrored, with inverted shades; the first row of pixels is erased. */
static void fill_variation(struct variation *v) {
    *v = (struct variation){.cosine = 1, .down = 1, .step = {-VARIATION_ONE}};
    v->origin[0] = NETWORK_SIDE - 1;
    v->origin[1] = 0.5 * NETWORK_SIDE - 0.5;
    v->erase_width = NETWORK_SIDE;
    v->erase_height = 1;
    v->erase_shade = 200;
    for (int i = 0; i < 256; i++)
        v->table[i] = (uint8_t)(255 - i);
}

static int shade_of(int image, int y, int x) {
    return (image * 71 + y * 31 + x * 7) % 256;
}

/* Pictures with their variations, and the images that they stand for. */
static void fill(void *rows, float *images) {
    for (int n = 0; n < BATCH; n++) {
        uint8_t *row = (uint8_t *)rows + n * ROW;
        fill_variation((struct variation *)(void *)row);
        for (int y = 0; y < NETWORK_SIDE; y++) {
            for (int x = 0; x < NETWORK_SIDE; x++) {
                int shade = y == 0 ? 200 : 255 - shade_of(n, y, NETWORK_SIDE - 1 - x);
                row[sizeof(struct variation) + (size_t)(y * NETWORK_SIDE + x)] = (uint8_t)shade_of(n, y, x);
                for (int c = 0; c < NETWORK_CHANNELS; c++)
                    images[(n * NETWORK_CHANNELS + c) * PIXELS + y * NETWORK_SIDE + x] =
                        ((float)shade / 255.0f - vary.mean[c]) / vary.stddev[c];
            }
        }
    }
}

struct fixture {
    struct device *device;
    struct graph *graph;
    struct parameters *parameters, *gradients;
    void *rows;
    float *images;
    struct plan_spec spec;
};

static int setup(void **state) {
    struct fixture *fixture = calloc(1, sizeof *fixture);
    fixture->device = network_device();
    fixture->graph = network_graph(0.2);
    fixture->parameters = network_parameters(fixture->graph, 5);
    fixture->gradients = parameters_create(fixture->graph, NULL);
    fixture->rows = calloc(BATCH, ROW);
    fixture->images = calloc(BATCH * NETWORK_PIXELS, sizeof(float));
    assert_true(fixture->gradients && fixture->rows && fixture->images);
    fill(fixture->rows, fixture->images);
    fixture->spec = (struct plan_spec){.graph = fixture->graph, .parameters = fixture->parameters, .device = fixture->device,
                                       .mode = PLAN_TRAIN, .batch = BATCH, .optimizer = OP_SGD, .vary = vary};
    *state = fixture;
    return 0;
}

static int teardown(void **state) {
    struct fixture *fixture = *state;
    parameters_destroy(fixture->gradients);
    parameters_destroy(fixture->parameters);
    graph_destroy(fixture->graph);
    device_close(fixture->device);
    free(fixture->rows);
    free(fixture->images);
    free(fixture);
    return 0;
}

/* One step; the gradients go to the fixture. Returns the loss. */
static float step(struct fixture *fixture, const struct plan_spec *spec, bool varies) {
    static const int32_t labels[BATCH] = {0, 2, 1};
    static const int64_t seed[3] = {1, 0, 0};
    struct plan *plan = network_plan(spec);
    struct plan_shape shape;
    float loss = 0;
    plan_shape(plan, &shape);
    assert_int_equal(plan_varies(plan), varies);
    assert_int_equal(shape.image_bytes, varies ? ROW : NETWORK_PIXELS * sizeof(float));
    assert_true(plan_set_images(plan, varies ? fixture->rows : fixture->images, NULL));
    assert_true(plan_set_targets(plan, labels, seed, NULL) && plan_run(plan, NULL) && plan_read_loss(plan, &loss, NULL));
    assert_true(plan_export(plan, PLAN_GRADIENTS, fixture->gradients, NULL));
    plan_destroy(plan);
    return loss;
}

static void same_step(struct fixture *fixture, bool recompute) {
    struct plan_spec spec = fixture->spec;
    struct parameters *first = fixture->gradients;
    spec.recompute = recompute;
    float loss = step(fixture, &spec, true);
    fixture->gradients = parameters_create(fixture->graph, NULL);
    spec.vary.channels = 0;
    assert_true(step(fixture, &spec, false) == loss && loss > 0);
    for (int i = 0; i < first->count; i++)
        assert_memory_equal(first->tensors[i].data, fixture->gradients->tensors[i].data, tensor_bytes(&first->tensors[i]));
    parameters_destroy(first);
}

static void a_step_is_the_same_as_with_images(void **state) {
    same_step(*state, false);
    same_step(*state, true);
}

static bool (*reference_supports)(struct device *device, const struct kernel_request *request);

static bool supports_no_vary(struct device *device, const struct kernel_request *request) {
    return request->op.kind != OP_VARY && reference_supports(device, request);
}

static void a_device_without_it_takes_images(void **state) {
    struct fixture *fixture = *state;
    const struct device_ops *own = fixture->device->ops;
    struct device_ops ops = *own;
    reference_supports = ops.supports;
    ops.supports = supports_no_vary;
    fixture->device->ops = &ops;
    step(fixture, &fixture->spec, false);
    fixture->device->ops = own;
}

static void answers_are_of_images(void **state) {
    struct fixture *fixture = *state;
    fixture->spec.mode = PLAN_INFER;
    struct plan *plan = network_plan(&fixture->spec);
    assert_false(plan_varies(plan));
    plan_destroy(plan);
}

static void pictures_of_another_size_are_refused(void **state) {
    struct fixture *fixture = *state;
    struct error err = {0};
    fixture->spec.vary.width++;
    assert_null(plan_create(&fixture->spec, &err));
    assert_int_equal(err.code, ERROR_SHAPE);
    assert_non_null(strstr(err.message, "another size"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_step_is_the_same_as_with_images, setup, teardown),
        cmocka_unit_test_setup_teardown(a_device_without_it_takes_images, setup, teardown),
        cmocka_unit_test_setup_teardown(answers_are_of_images, setup, teardown),
        cmocka_unit_test_setup_teardown(pictures_of_another_size_are_refused, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
