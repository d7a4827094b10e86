#include "trainerd/trainctl/calibrate.h"

#include "common/graph/plan.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A choice that changes the loss by less than this part of it is noise. */
static const double WORTH = 0.005;

struct calibrator {
    const struct calibrate_spec *spec;
    struct calibration *out;
    struct range *ranges; /* by row of the table */
    int *nodes;           /* by row: the folded graph's node */
    int classes;
    float *truth;   /* (search_count, classes) logits in f32, less their mean */
    float *answers; /* likewise, with the table as it stands */
    struct error *err;
};

/* --- what was seen --- */

/** A row for every tensor that a convolution writes, and for the pictures. */
static bool make_rows(struct calibrator *c) {
    const struct graph *graph = c->spec->folded;
    size_t most = (size_t)graph->node_count + 1;
    c->out->table.rows = calloc(most, sizeof *c->out->table.rows);
    c->out->methods = calloc(most, sizeof *c->out->methods);
    c->ranges = calloc(most, sizeof *c->ranges);
    c->nodes = calloc(most, sizeof *c->nodes);
    if (!c->out->table.rows || !c->out->methods || !c->ranges || !c->nodes)
        return error_set(c->err, ERROR_MEMORY, "calibration: out of memory");
    for (int i = 0; i < graph->node_count; i++) {
        if (!quantisation_has_row(&graph->nodes[i]))
            continue;
        struct quantisation_row *row = &c->out->table.rows[c->out->table.count];
        snprintf(row->node, sizeof row->node, "%s", graph->nodes[i].name);
        row->int8 = graph->nodes[i].op.kind == OP_CONV2D;
        c->nodes[c->out->table.count++] = i;
    }
    return true;
}

/** Reads what each row's node gave in the plan's last run, and widens its range or counts into it. */
static bool observe_run(struct calibrator *c, struct plan *plan, bool counting) {
    bool ok = true;
    for (int row = 0; ok && row < c->out->table.count; row++) {
        int64_t count = c->spec->batch * shape_count(&c->spec->folded->nodes[c->nodes[row]].output);
        float *values = malloc((size_t)count * sizeof *values);
        ok = values || error_set(c->err, ERROR_MEMORY, "calibration: out of memory");
        ok = ok && plan_read_output(plan, c->nodes[row], values, c->err);
        if (ok && counting)
            range_count(&c->ranges[row], values, count);
        else if (ok)
            range_widen(&c->ranges[row], values, count);
        free(values);
    }
    return ok;
}

static const float *batch_at(const struct calibrator *c, int first) {
    int64_t each = shape_count(&c->spec->folded->nodes[0].output);
    return c->spec->images + first * each;
}

/** Each picture's logits less their mean: softmax sees no more of them. */
static void centre(float *logits, int count, int classes) {
    for (int i = 0; i < count; i++) {
        float mean = 0;
        for (int k = 0; k < classes; k++)
            mean += logits[i * classes + k] / (float)classes;
        for (int k = 0; k < classes; k++)
            logits[i * classes + k] -= mean;
    }
}

/** A plan folds its graph: one that is folded must come out as it went in, or outputs would be those of other nodes. */
static bool same_nodes(const struct calibrator *c, const struct plan *plan) {
    for (int row = 0; row < c->out->table.count; row++) {
        const struct graph_node *node = plan_node(plan, c->nodes[row]);
        if (!node || strcmp(node->name, c->out->table.rows[row].node) != 0)
            return error_set(c->err, ERROR_INTERNAL, "calibration: the plan has another node in the place of %s",
                             c->out->table.rows[row].node);
    }
    return true;
}

static bool observe(struct calibrator *c) {
    const struct calibrate_spec *spec = c->spec;
    struct plan_spec plan_spec = {.graph = spec->folded,
                                  .parameters = spec->parameters,
                                  .device = spec->device,
                                  .mode = PLAN_INFER,
                                  .batch = spec->batch,
                                  .keep_outputs = true};
    struct plan *plan = plan_create(&plan_spec, c->err);
    bool ok = plan && same_nodes(c, plan);
    for (int counting = 0; ok && counting < 2; counting++) {
        for (int first = 0; ok && first < spec->count; first += spec->batch) {
            ok = plan_set_images(plan, batch_at(c, first), c->err) && plan_run(plan, c->err) &&
                 observe_run(c, plan, counting);
            if (ok && counting && first < spec->search_count)
                ok = plan_read_logits(plan, c->truth + first * c->classes, c->err);
        }
    }
    plan_destroy(plan);
    centre(c->truth, spec->search_count, c->classes);
    return ok;
}

/* --- what a choice costs --- */

static struct quantisation_row row_by(const struct calibrator *c, int row, enum range_method method) {
    return quantisation_row_of(&c->spec->folded->nodes[c->nodes[row]], &c->ranges[row], method);
}

/** Leaves alone whether the node computes in 8 bits: that is the stem's question. */
static void choose(struct calibrator *c, int row, enum range_method method) {
    struct quantisation_row by = row_by(c, row, method);
    c->out->methods[row] = method;
    c->out->table.rows[row].dtype = by.dtype;
    c->out->table.rows[row].scale = by.scale;
}

static bool answer(struct calibrator *c, const struct graph *graph, const struct parameters *parameters) {
    const struct calibrate_spec *spec = c->spec;
    struct plan_spec plan_spec = {
        .graph = graph, .parameters = parameters, .device = spec->device, .mode = PLAN_INFER, .batch = spec->batch};
    struct plan *plan = plan_create(&plan_spec, c->err);
    bool ok = plan;
    for (int first = 0; ok && first < spec->search_count; first += spec->batch)
        ok = plan_set_images(plan, batch_at(c, first), c->err) && plan_run(plan, c->err) &&
             plan_read_logits(plan, c->answers + first * c->classes, c->err);
    plan_destroy(plan);
    return ok;
}

/** How far the answers with the table as it stands are from those in f32. */
static bool measure(struct calibrator *c, double *loss) {
    const struct calibrate_spec *spec = c->spec;
    struct graph *graph = graph_quantise(spec->folded, &c->out->table, c->err);
    struct parameters *parameters =
        graph ? quantise_parameters(spec->folded, spec->parameters, &c->out->table, graph, spec->weight_bits, c->err) : NULL;
    bool ok = parameters && answer(c, graph, parameters);
    parameters_destroy(parameters);
    graph_destroy(graph);
    centre(c->answers, spec->search_count, c->classes);
    *loss = 0;
    for (int i = 0; i < spec->search_count * c->classes; i++) {
        double off = (double)c->answers[i] - (double)c->truth[i];
        *loss += off * off / (spec->search_count * c->classes);
    }
    return ok;
}

/* --- choosing --- */

/** Tries the other methods on a row; keeps the best. */
static bool search_row(struct calibrator *c, int row) {
    enum range_method best = c->out->methods[row];
    for (enum range_method method = 0; method < RANGE_METHOD_COUNT; method++) {
        double loss;
        float now = c->out->table.rows[row].scale, other = row_by(c, row, method).scale;
        if (fabsf(other - now) < 0.01f * now)
            continue; /* the same range by another name */
        choose(c, row, method);
        if (!measure(c, &loss))
            return false;
        if (loss < c->out->loss * (1 - WORTH)) {
            c->out->loss = loss;
            best = method;
        }
        choose(c, row, best);
    }
    return true;
}

/** The first convolution of the graph. */
static int stem_row(const struct calibrator *c) {
    int row = 0;
    while (row < c->out->table.count && !c->out->table.rows[row].int8)
        row++;
    return row;
}

/** Lets the stem compute in f32 where that halves the loss: it reads pictures, whose integers are all the precision there is. */
static bool search_stem(struct calibrator *c) {
    struct quantisation_row *row = &c->out->table.rows[stem_row(c)];
    double loss;
    row->int8 = false;
    if (!measure(c, &loss))
        return false;
    c->out->stem_in_f32 = loss < c->out->loss / 2;
    row->int8 = !c->out->stem_in_f32;
    c->out->loss = c->out->stem_in_f32 ? loss : c->out->loss;
    return true;
}

static bool search(struct calibrator *c) {
    const struct calibrate_spec *spec = c->spec;
    int total = c->out->table.count;
    bool fixed = spec->method != RANGE_METHOD_COUNT;
    for (int row = 0; row < total; row++)
        choose(c, row, fixed ? spec->method : RANGE_MSE);
    if (!measure(c, &c->out->loss))
        return false;
    c->out->first_loss = c->out->loss;
    if (!spec->stem_too && !search_stem(c))
        return false;
    for (int row = 0; row < total && !fixed; row++) {
        if (!search_row(c, row))
            return false;
        if (spec->progress)
            spec->progress(spec->context, row + 1, total, c->out->loss);
    }
    return true;
}

static double power_of(const struct calibrator *c) {
    double sum = 0;
    int count = c->spec->search_count * c->classes;
    for (int i = 0; i < count; i++)
        sum += (double)c->truth[i] * (double)c->truth[i] / count;
    return sum;
}

bool calibrate(const struct calibrate_spec *spec, struct calibration *out, struct error *err) {
    struct error local = {0};
    struct calibrator c = {.spec = spec, .out = out, .err = err ? err : &local};
    const struct graph_node *last = &spec->folded->nodes[spec->folded->node_count - 1];
    *out = (struct calibration){0};
    c.classes = (int)shape_count(&last->output);
    size_t values = (size_t)spec->search_count * (size_t)c.classes;
    c.truth = calloc(values, sizeof *c.truth);
    c.answers = calloc(values, sizeof *c.answers);
    bool ok = (c.truth && c.answers) || error_set(c.err, ERROR_MEMORY, "calibration: out of memory");
    ok = ok && make_rows(&c) && observe(&c) && search(&c);
    out->logit_power = ok ? power_of(&c) : 0;
    free(c.truth);
    free(c.answers);
    free(c.ranges);
    free(c.nodes);
    if (!ok)
        calibration_fini(out);
    return ok;
}

void calibration_fini(struct calibration *calibration) {
    free(calibration->table.rows);
    free(calibration->methods);
    *calibration = (struct calibration){0};
}
