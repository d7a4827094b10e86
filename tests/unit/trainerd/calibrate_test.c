/* Ranges and precisions are chosen by what they cost: on a small network, on the reference device. */
#include "trainerd/trainctl/calibrate.h"
#include "common/graph/passes.h"
#include "common/graph/quantise.h"
#include "tests/unit/graph/network.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { COUNT = 160, SEARCH = 16, BATCH = 8 };
static const float OUTLIER = 60;

struct fixture {
    struct device *device;
    struct graph *folded;
    struct parameters *parameters;
    float *images;
    struct calibrate_spec spec;
};

static int setup(void **state) {
    struct fixture *fixture = calloc(1, sizeof *fixture);
    struct graph *graph = network_graph(0);
    struct parameters *parameters = network_parameters(graph, 3);
    fixture->device = network_device();
    fixture->folded = graph_fold_for_inference(graph, parameters, NULL, PRECISION_F32, &fixture->parameters, NULL);
    assert_non_null(fixture->folded);
    fixture->images = network_images(COUNT);
    fixture->spec = (struct calibrate_spec){.folded = fixture->folded,
                                            .parameters = fixture->parameters,
                                            .device = fixture->device,
                                            .images = fixture->images,
                                            .count = COUNT,
                                            .search_count = SEARCH,
                                            .batch = BATCH,
                                            .weight_bits = 8,
                                            .method = RANGE_METHOD_COUNT};
    parameters_destroy(parameters);
    graph_destroy(graph);
    *state = fixture;
    return 0;
}

static int teardown(void **state) {
    struct fixture *fixture = *state;
    free(fixture->images);
    parameters_destroy(fixture->parameters);
    graph_destroy(fixture->folded);
    device_close(fixture->device);
    free(fixture);
    return 0;
}

static struct calibration calibrated(const struct fixture *fixture) {
    struct calibration calibration;
    struct error err = {0};
    if (!calibrate(&fixture->spec, &calibration, &err))
        fail_msg("%s", err.message);
    return calibration;
}

static int row_of(const struct calibration *calibration, const char *node) {
    int row = 0;
    while (row < calibration->table.count && strcmp(calibration->table.rows[row].node, node) != 0)
        row++;
    assert_true(row < calibration->table.count);
    return row;
}

/** Logits of the searched pictures, each less its picture's mean. */
static void answer(const struct fixture *fixture, const struct graph *graph, const struct parameters *parameters,
                   float *out) {
    struct plan_spec spec = {.graph = graph, .parameters = parameters, .device = fixture->device, .batch = SEARCH};
    struct plan *plan = network_plan(&spec);
    assert_true(plan_set_images(plan, fixture->images, NULL) && plan_run(plan, NULL) && plan_read_logits(plan, out, NULL));
    plan_destroy(plan);
    for (int i = 0; i < SEARCH; i++) {
        float mean = (out[3 * i] + out[3 * i + 1] + out[3 * i + 2]) / 3;
        for (int k = 0; k < NETWORK_CLASSES; k++)
            out[NETWORK_CLASSES * i + k] -= mean;
    }
}

/** What a table costs, worked out once more: the mean squared difference of those logits from the f32 network's. */
static double cost_of(const struct fixture *fixture, const struct quantisation *table) {
    float truth[SEARCH * NETWORK_CLASSES], found[SEARCH * NETWORK_CLASSES];
    struct graph *graph = graph_quantise(fixture->folded, table, NULL);
    struct parameters *parameters = quantise_parameters(fixture->folded, fixture->parameters, table, graph, 8, NULL);
    answer(fixture, fixture->folded, fixture->parameters, truth);
    answer(fixture, graph, parameters, found);
    parameters_destroy(parameters);
    graph_destroy(graph);
    double sum = 0;
    for (int i = 0; i < SEARCH * NETWORK_CLASSES; i++)
        sum += ((double)found[i] - (double)truth[i]) * ((double)found[i] - (double)truth[i]);
    return sum / (SEARCH * NETWORK_CLASSES);
}

static void assert_loss_is_the_tables(const struct fixture *fixture, const struct calibration *calibration) {
    double cost = cost_of(fixture, &calibration->table);
    if (!(fabs(cost - calibration->loss) <= 1e-4 * cost))
        fail_msg("the table costs %g, %g was said", cost, calibration->loss);
}

static int reported, reported_total;
static double last_reported;

static void note_progress(void *context, int done, int total, double loss) {
    (void)context;
    assert_int_equal(done, reported + 1);
    assert_true(reported == 0 || loss <= last_reported);
    reported = done;
    reported_total = total;
    last_reported = loss;
}

static void the_loss_only_falls(void **state) {
    struct fixture *fixture = *state;
    reported = 0;
    fixture->spec.progress = note_progress;
    struct calibration calibration = calibrated(fixture);
    assert_int_equal(calibration.table.count, 5); /* the pictures and four convolutions */
    assert_int_equal(reported, reported_total);
    assert_int_equal(reported_total, calibration.table.count);
    assert_true(calibration.loss > 0 && calibration.loss <= calibration.first_loss);
    assert_true(last_reported == calibration.loss);
    assert_true(calibration.logit_power > 100 * calibration.loss); /* and what is lost is little */
    assert_loss_is_the_tables(fixture, &calibration);
    calibration_fini(&calibration);
}

static void a_method_that_is_asked_for_is_everyones(void **state) {
    struct fixture *fixture = *state;
    for (int method = 0; method < RANGE_METHOD_COUNT; method++) {
        fixture->spec.method = (enum range_method)method;
        fixture->spec.stem_too = true;
        struct calibration calibration = calibrated(fixture);
        for (int i = 0; i < calibration.table.count; i++)
            assert_int_equal(calibration.methods[i], method);
        assert_true(calibration.loss == calibration.first_loss);
        assert_loss_is_the_tables(fixture, &calibration);
        calibration_fini(&calibration);
    }
}

/* One pixel of 20,480, in a picture that is observed and not among those that are answered again: min_max would spread the
 * integers over it. */
static void an_outlier_gets_no_range(void **state) {
    struct fixture *fixture = *state;
    fixture->images[(SEARCH + 5) * NETWORK_PIXELS + 9] = OUTLIER;
    fixture->spec.stem_too = true; /* in f32 nobody would read the range */
    fixture->spec.method = RANGE_MIN_MAX;
    struct calibration all = calibrated(fixture);
    fixture->spec.method = RANGE_METHOD_COUNT;
    struct calibration chosen = calibrated(fixture);
    int row = row_of(&all, "input");
    assert_true(fabs((double)all.table.rows[row].scale * 127 - (double)OUTLIER) < 1e-3);
    assert_true(chosen.table.rows[row].scale * 127 < OUTLIER / 6); /* the others are normal values, within 5 */
    assert_true(chosen.methods[row] != RANGE_MIN_MAX);
    assert_true(chosen.loss < all.loss);
    assert_loss_is_the_tables(fixture, &chosen);
    calibration_fini(&all);
    calibration_fini(&chosen);
}

/* One weight of each of the stem's channels is a thousand times the others, and meets only zeros: in f32 it does nothing, in
 * 8 bits the others vanish beside it. */
static void the_stem_stays_in_f32_where_that_pays(void **state) {
    struct fixture *fixture = *state;
    struct tensor *weight = &fixture->parameters->tensors[graph_find_parameter(fixture->folded, "conv1.weight")];
    int64_t each = shape_count(&weight->shape) / weight->shape.dims[0], pixels = NETWORK_SIDE * NETWORK_SIDE;
    for (int64_t c = 0; c < weight->shape.dims[0]; c++)
        ((float *)weight->data)[c * each + each / 2] = 1000; /* of the second input channel */
    for (int i = 0; i < COUNT; i++)
        memset(fixture->images + i * NETWORK_PIXELS + pixels, 0, (size_t)pixels * sizeof(float));
    struct calibration calibration = calibrated(fixture);
    assert_true(calibration.stem_in_f32);
    assert_false(calibration.table.rows[row_of(&calibration, "conv1")].int8);
    assert_true(calibration.loss < calibration.first_loss / 2);
    assert_loss_is_the_tables(fixture, &calibration);
    calibration_fini(&calibration);
    fixture->spec.stem_too = true;
    calibration = calibrated(fixture);
    assert_false(calibration.stem_in_f32);
    assert_true(calibration.table.rows[row_of(&calibration, "conv1")].int8);
    calibration_fini(&calibration);
}

#define WITH(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH(the_loss_only_falls),
        WITH(a_method_that_is_asked_for_is_everyones),
        WITH(an_outlier_gets_no_range),
        WITH(the_stem_stays_in_f32_where_that_pays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
