/* A folded network into one that computes in 8 bits, on the reference device. */
#include "common/graph/passes.h"
#include "common/graph/quantise.h"
#include "common/graph/range.h"
#include "tests/unit/graph/network.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH = 6, ROWS = 16 };

struct fixture {
    struct device *device;
    struct graph *folded;
    struct parameters *parameters;
    struct quantisation_row rows[ROWS];
    struct quantisation table;
    float logits[BATCH * NETWORK_CLASSES]; /* in f32 */
};

/** A row for every node whose output may be wanted in integers, with the range that the plan's run showed. */
static void observe(struct fixture *fixture, struct plan *plan) {
    const struct graph_node *node;
    for (int i = 0; (node = plan_node(plan, i)) != NULL; i++) {
        int64_t count = BATCH * shape_count(&node->output);
        bool convolution = node->op.kind == OP_CONV2D;
        if (!convolution && node->op.kind != OP_INPUT)
            continue;
        float *values = malloc((size_t)count * sizeof *values);
        struct range *range = calloc(1, sizeof *range);
        assert_true(plan_read_output(plan, i, values, NULL));
        range_widen(range, values, count);
        range_count(range, values, count);
        struct quantisation_row *row = &fixture->rows[fixture->table.count++];
        *row = (struct quantisation_row){"", convolution, range_dtype(range), range_scale(range, RANGE_MIN_MAX)};
        snprintf(row->node, sizeof row->node, "%s", node->name);
        free(range);
        free(values);
    }
}

static int setup(void **state) {
    struct fixture *fixture = calloc(1, sizeof *fixture);
    struct error err = {0};
    struct graph *graph = network_graph(0.5);
    struct parameters *parameters = network_parameters(graph, 3);
    fixture->device = network_device();
    fixture->folded = graph_fold_for_inference(graph, parameters, NULL, PRECISION_F32, &fixture->parameters, &err);
    struct plan_spec spec = {
        .graph = graph, .parameters = parameters, .device = fixture->device, .batch = BATCH, .keep_outputs = true};
    struct plan *plan = network_plan(&spec);
    network_answer(plan, BATCH, fixture->logits);
    fixture->table.rows = fixture->rows;
    observe(fixture, plan);
    plan_destroy(plan);
    parameters_destroy(parameters);
    graph_destroy(graph);
    *state = fixture;
    return 0;
}

static int teardown(void **state) {
    struct fixture *fixture = *state;
    parameters_destroy(fixture->parameters);
    graph_destroy(fixture->folded);
    device_close(fixture->device);
    free(fixture);
    return 0;
}

/** The largest difference of the quantised network's logits from those in f32, over the largest of these. */
static double answer_apart(const struct fixture *fixture, int weight_bits, struct graph **graph) {
    struct error err = {0};
    float logits[BATCH * NETWORK_CLASSES];
    *graph = graph_quantise(fixture->folded, &fixture->table, &err);
    if (!*graph)
        fail_msg("%s", err.message);
    struct parameters *parameters =
        quantise_parameters(fixture->folded, fixture->parameters, &fixture->table, *graph, weight_bits, &err);
    assert_non_null(parameters);
    struct plan_spec spec = {.graph = *graph, .parameters = parameters, .device = fixture->device, .batch = BATCH};
    struct plan *plan = network_plan(&spec);
    network_answer(plan, BATCH, logits);
    plan_destroy(plan);
    parameters_destroy(parameters);
    double worst = 0, most = 0;
    for (int i = 0; i < BATCH * NETWORK_CLASSES; i++) {
        worst = fmax(worst, fabs((double)logits[i] - (double)fixture->logits[i]));
        most = fmax(most, fabs((double)fixture->logits[i]));
    }
    return worst / most;
}

static int nodes_of(const struct graph *graph, enum op_kind kind) {
    int found = 0;
    for (int i = 0; i < graph->node_count; i++)
        found += graph->nodes[i].op.kind == kind;
    return found;
}

/* Steps of 1/255 or 1/127 of each range, in five layers whose errors are independent: a hundredth or two in the end. */
static void answers_stay_near(void **state) {
    struct graph *graph;
    double eight = answer_apart(*state, 8, &graph);
    assert_true(eight > 0 && eight < 0.03);
    assert_int_equal(nodes_of(graph, OP_RESCALE), 1); /* the image; all else goes from integers to integers */
    graph_destroy(graph);
    double seven = answer_apart(*state, 7, &graph);
    assert_true(seven < 0.05);
    graph_destroy(graph);
}

static struct quantisation_row *row_of(struct fixture *fixture, const char *node) {
    return (struct quantisation_row *)quantisation_find(&fixture->table, node);
}

/* A layer that stays in f32 reads real values and hands them on; its neighbours go on in integers. */
static void any_layer_may_stay_in_f32(void **state) {
    struct fixture *fixture = *state;
    for (int i = 0; i < fixture->table.count; i++) {
        struct graph *graph;
        if (!fixture->rows[i].int8)
            continue;
        fixture->rows[i].int8 = false;
        double apart = answer_apart(fixture, 8, &graph);
        assert_true(apart > 0 && apart < 0.03);
        graph_destroy(graph);
        fixture->rows[i].int8 = true;
    }
}

static void nothing_quantised_is_the_network_itself(void **state) {
    struct fixture *fixture = *state;
    struct graph *graph;
    for (int i = 0; i < fixture->table.count; i++)
        fixture->rows[i].int8 = false;
    assert_true(answer_apart(fixture, 8, &graph) == 0);
    assert_int_equal(graph->node_count, fixture->folded->node_count);
    graph_destroy(graph);
}

/* ReLU6 ends at 6 because its u8 does: a scale beyond 6 / 255 would let more pass, and is refused. */
static void relu6_is_the_end_of_its_integers(void **state) {
    struct fixture *fixture = *state;
    struct graph *graph = graph_quantise(fixture->folded, &fixture->table, NULL);
    for (int i = 0; i < graph->node_count; i++)
        assert_true(graph->nodes[i].op.kind != OP_CONV2D || graph->nodes[i].op.conv2d.activation != ACTIVATION_RELU6);
    graph_destroy(graph);
    row_of(fixture, "conv3")->scale = 7.0f / 255; /* which has taken in the last sum and its ReLU6 */
    struct error err = {0};
    assert_null(graph_quantise(fixture->folded, &fixture->table, &err));
    assert_non_null(strstr(err.message, "conv3"));
}

static void tables_that_do_not_fit_are_refused(void **state) {
    struct fixture *fixture = *state;
    struct quantisation_row kept = fixture->rows[1];
    struct error err = {0};
    snprintf(fixture->rows[1].node, GRAPH_NAME_SIZE, "conv99");
    assert_null(graph_quantise(fixture->folded, &fixture->table, &err));
    assert_non_null(strstr(err.message, "conv99"));
    fixture->rows[1] = kept;
    fixture->rows[1].scale = 0;
    assert_null(graph_quantise(fixture->folded, &fixture->table, &err));
    fixture->rows[1].scale = NAN;
    assert_null(graph_quantise(fixture->folded, &fixture->table, &err));
    fixture->rows[1] = kept;
    fixture->rows[1].dtype = DTYPE_F32;
    assert_null(graph_quantise(fixture->folded, &fixture->table, &err));
    fixture->rows[1] = fixture->rows[2];
    assert_null(graph_quantise(fixture->folded, &fixture->table, &err));
    assert_non_null(strstr(err.message, "stands twice"));
    fixture->rows[1] = kept;
    fixture->rows[0].int8 = true;
    assert_null(graph_quantise(fixture->folded, &fixture->table, &err));
    assert_non_null(strstr(err.message, "is no convolution"));
    fixture->rows[0] = fixture->rows[--fixture->table.count]; /* the image has no scale now */
    assert_null(graph_quantise(fixture->folded, &fixture->table, &err));
    assert_non_null(strstr(err.message, "no scale"));
}

/** Each channel's weights are within half a step of the real ones, its largest is `most`, and all are multiples of `step`. */
static void assert_rounded(struct fixture *fixture, const char *node, int weight_bits, int most, int step) {
    char name[3][GRAPH_NAME_SIZE];
    struct graph *graph = graph_quantise(fixture->folded, &fixture->table, NULL);
    struct parameters *parameters =
        quantise_parameters(fixture->folded, fixture->parameters, &fixture->table, graph, weight_bits, NULL);
    snprintf(name[0], sizeof name[0], "%s.weight", node);
    snprintf(name[1], sizeof name[1], "%s.factor", node);
    int old = graph_find_parameter(fixture->folded, name[0]), new = graph_find_parameter(graph, name[0]);
    const float *weight = fixture->parameters->tensors[old].data;
    const float *factors = parameters->tensors[graph_find_parameter(graph, name[1])].data;
    const int8_t *integers = parameters->tensors[new].data;
    int64_t channels = parameters->tensors[new].shape.dims[0], each = shape_count(&parameters->tensors[new].shape) / channels;
    int first = strcmp(node, "conv1") == 0 ? 0 : 1; /* the row of what it reads: the pictures, or conv1's output */
    float source = fixture->rows[first].scale, target = row_of(fixture, node)->scale;
    for (int64_t c = 0; c < channels; c++) {
        float scale = factors[c] * target / source; /* of this channel's weights */
        int largest = 0;
        for (int64_t i = c * each; i < (c + 1) * each; i++) {
            largest = abs(integers[i]) > largest ? abs(integers[i]) : largest;
            assert_int_equal(integers[i] % step, 0);
            assert_true(fabsf((float)integers[i] * scale - weight[i]) <= 0.5001f * scale * (float)step);
        }
        assert_int_equal(largest, most);
    }
    parameters_destroy(parameters);
    graph_destroy(graph);
}

static void weights_are_rounded_by_channel(void **state) {
    assert_rounded(*state, "conv1", 8, 127, 1);
    assert_rounded(*state, "conv2", 8, 127, 1);
}

/* Where products are added in pairs in 16 bits: 255 * 63 * 2 fits, and beside a source of s8 the kernel halves the weights. */
static void weights_for_16_bit_sums_are_small_or_even(void **state) {
    struct fixture *fixture = *state;
    assert_int_equal(fixture->rows[0].dtype, DTYPE_S8); /* conv1 reads normalised pictures, conv2 what a ReLU let pass */
    assert_int_equal(row_of(fixture, "conv1")->dtype, DTYPE_U8);
    assert_rounded(fixture, "conv1", 7, 126, 2);
    assert_rounded(fixture, "conv2", 7, 63, 1);
}

#define WITH(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH(answers_stay_near),
        WITH(any_layer_may_stay_in_f32),
        WITH(nothing_quantised_is_the_network_itself),
        WITH(relu6_is_the_end_of_its_integers),
        WITH(tables_that_do_not_fit_are_refused),
        WITH(weights_are_rounded_by_channel),
        WITH(weights_for_16_bit_sums_are_small_or_even),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
