#include "common/graph/compiler.h"

#include <math.h>
#include <stdlib.h>

/*
 * Chen et al., "Training deep nets with sublinear memory cost", 2016: the graph is cut where a single tensor is all that goes on;
 * only those are kept for the backward pass, and each stretch between two of them is computed once more when the backward
 * pass arrives at its end. Batch norm then normalises with the statistics that it saved, and moves no running ones; the bits of
 * its mask are kept. What comes last is needed at once and not computed twice.
 */

/** By node: whether what follows needs nothing from before it. */
static void find_cuts(const struct graph *graph, bool *cut) {
    int reach = 0; /* the farthest reader of any node before */
    for (int i = 0; i < graph->node_count; i++) {
        cut[i] = reach <= i;
        for (int j = i + 1; j < graph->node_count; j++) {
            for (int k = 0; k < op_input_count(&graph->nodes[j].op); k++) {
                if (graph->nodes[j].inputs[k] == i && j > reach)
                    reach = j;
            }
        }
    }
}

/** About as many stretches as the square root of what could be one, of equal size in elements. */
static double stretch_elements(const struct graph *graph, const bool *cut) {
    double elements = 0, cuts = 0;
    for (int i = 0; i < graph->node_count; i++) {
        elements += (double)shape_count(&graph->nodes[i].output);
        cuts += cut[i];
    }
    return elements / sqrt(cuts > 0 ? cuts : 1);
}

bool recompute_choose(struct compiler *compiler) {
    const struct graph *graph = compiler->plan->graph;
    bool *cut = calloc((size_t)graph->node_count, sizeof *cut);
    if (!cut)
        return error_set(compiler->err, ERROR_MEMORY, "plan: out of memory");
    find_cuts(graph, cut);
    double enough = stretch_elements(graph, cut), elements = 0;
    int last = -1;
    for (int i = 0, first = 0; i < graph->node_count; i++) {
        compiler->stretch_first[i] = -1;
        elements += (double)shape_count(&graph->nodes[i].output);
        if (!compiler->spec->recompute || !cut[i] || elements < enough)
            continue;
        compiler->stretch_first[i] = first;
        first = i + 1;
        last = i;
        elements = 0;
    }
    if (last >= 0 && elements < enough / 2) /* too little is left behind it to count as the last stretch */
        compiler->stretch_first[last] = -1;
    free(cut);
    return true;
}

/** How a node is computed again: kinds that would note or change something beside their output answer as for an inference. */
static enum pass pass_again(enum op_kind kind) {
    return kind == OP_BATCH_NORM || kind == OP_MAX_POOL ? PASS_INFER : PASS_FORWARD;
}

bool recompute_for(struct compiler *compiler, int node) {
    int values[ARG_COUNT];
    bool ok = true;
    compiler->recomputing = true;
    for (int i = compiler->stretch_first[node]; ok && i >= 0 && i < node; i++) {
        enum op_kind kind = compiler->plan->graph->nodes[i].op.kind;
        if (kind == OP_INPUT)
            continue;
        ok = compiler_emit(compiler, i, pass_again(kind), values);
        compiler->nodes[i].output = values[ARG_DST];
    }
    compiler->recomputing = false;
    return ok;
}
