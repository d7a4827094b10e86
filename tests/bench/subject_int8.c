#include "tests/bench/subject.h"

#include "common/graph/passes.h"
#include "common/graph/quantise.h"

#include <stdlib.h>

/*
 * For speed any ranges would do; those that the made-up pictures show keep the answers near the f32 ones, so that it can be seen
 * that the right thing is timed.
 */

static bool observe_node(struct plan *plan, int node, int64_t batch, struct quantisation_row *row, struct error *err) {
    const struct graph_node *of = plan_node(plan, node);
    int64_t count = batch * shape_count(&of->output);
    float *values = malloc((size_t)count * sizeof *values);
    struct range *range = calloc(1, sizeof *range);
    bool good = (values && range) || error_set(err, ERROR_MEMORY, "out of memory for an activation");
    good = good && plan_read_output(plan, node, values, err);
    if (good) {
        range_widen(range, values, count);
        range_count(range, values, count);
        *row = quantisation_row_of(of, range, RANGE_MIN_MAX);
    }
    free(values);
    free(range);
    return good;
}

static bool observe(struct subject *subject, struct quantisation *table, struct error *err) {
    const struct graph_node *node;
    bool good = plan_run(subject->plan, err);
    for (int i = 0; good && (node = plan_node(subject->plan, i)) != NULL; i++) {
        if (quantisation_has_row(node))
            good = observe_node(subject->plan, i, subject->options.batch, &table->rows[table->count++], err);
    }
    return good;
}

/* The folded network and what it shows on a few pictures. */
static bool calibrate(struct subject *subject, const struct graph *folded, const struct parameters *parameters,
                      struct quantisation *table, struct error *err) {
    enum { PICTURES = 2 };
    struct subject few = *subject;
    few.options.batch = PICTURES;
    struct plan_spec spec = {.graph = folded,
                             .parameters = parameters,
                             .device = subject->device,
                             .mode = PLAN_INFER,
                             .batch = PICTURES,
                             .keep_outputs = true};
    few.plan = plan_create(&spec, err);
    bool good = few.plan && subject_fill(&few, err) && observe(&few, table, err);
    plan_destroy(few.plan);
    return good;
}

bool subject_quantise(struct subject *subject, struct error *err) {
    struct parameters *parameters = NULL;
    struct graph *folded =
        graph_fold_for_inference(subject->graph, subject->parameters, NULL, PRECISION_F32, &parameters, err);
    struct quantisation table = {0};
    struct graph *graph = NULL;
    struct parameters *integers = NULL;
    struct device_info info;
    subject->device->ops->info(subject->device, &info);
    table.rows = folded ? calloc((size_t)folded->node_count + 1, sizeof *table.rows) : NULL;
    bool good = table.rows || (folded && error_set(err, ERROR_MEMORY, "out of memory for a quantisation"));
    good = good && calibrate(subject, folded, parameters, &table, err) && (graph = graph_quantise(folded, &table, err)) &&
           (integers = quantise_parameters(folded, parameters, &table, graph, info.int8_weight_bits, err));
    parameters_destroy(parameters);
    graph_destroy(folded);
    free(table.rows);
    if (!good) {
        graph_destroy(graph);
        return false;
    }
    parameters_destroy(subject->parameters);
    graph_destroy(subject->graph);
    subject->graph = graph;
    subject->parameters = integers;
    return true;
}
