#include "common/graph/graph.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct graph *graph_create(void) {
    return calloc(1, sizeof(struct graph));
}

void graph_destroy(struct graph *graph) {
    if (!graph)
        return;
    free(graph->nodes);
    free(graph->parameters);
    free(graph);
}

/** Makes room for `more` entries of that size in an array that doubles. */
static bool grow(void **array, int *capacity, int needed, size_t size, struct error *err) {
    if (needed <= *capacity)
        return true;
    int wanted = *capacity ? *capacity * 2 : 64;
    wanted = wanted < needed ? needed : wanted;
    void *grown = realloc(*array, (size_t)wanted * size);
    if (!grown)
        return error_set(err, ERROR_MEMORY, "graph: out of memory");
    *array = grown;
    *capacity = wanted;
    return true;
}

void graph_input_shapes(const struct graph *graph, const struct graph_node *node, int64_t batch, struct shape *out) {
    for (int i = 0; i < op_input_count(&node->op); i++) {
        out[i] = graph->nodes[node->inputs[i]].output;
        out[i].dims[0] = batch;
    }
}

static bool add_parameters(struct graph *graph, struct graph_node *node, const struct shape *shapes, struct error *err) {
    struct op_parameter roles[OP_MAX_PARAMETERS];
    int count = op_parameters(&node->op, shapes, roles);
    if (!grow((void **)&graph->parameters, &graph->parameter_capacity, graph->parameter_count + count,
              sizeof *graph->parameters, err))
        return false;
    for (int i = 0; i < count; i++) {
        struct graph_parameter *parameter = &graph->parameters[graph->parameter_count];
        *parameter = (struct graph_parameter){.node = graph->node_count, .role = roles[i]};
        int used = snprintf(parameter->name, sizeof parameter->name, "%s.%s", node->name, roles[i].suffix);
        if (used < 0 || (size_t)used >= sizeof parameter->name)
            return error_set(err, ERROR_TOO_LARGE, "node %s: its parameters' names are too long", node->name);
        node->parameters[i] = graph->parameter_count++;
    }
    node->parameter_count = count;
    return true;
}

int graph_add(struct graph *graph, const char *name, const struct op *op, const int *inputs, struct error *err) {
    struct graph_node node = {.op = *op};
    struct shape shapes[OP_MAX_INPUTS] = {0};
    snprintf(node.name, sizeof node.name, "%s", name);
    for (int i = 0; i < op_input_count(op); i++) {
        if (inputs[i] < 0)
            return -1;
        node.inputs[i] = inputs[i];
    }
    graph_input_shapes(graph, &node, 1, shapes);
    if (!op_output_shape(op, shapes, &node.output, err)) {
        error_prefix(err, "node %s", name);
        return -1;
    }
    if (!add_parameters(graph, &node, shapes, err))
        return -1;
    if (!grow((void **)&graph->nodes, &graph->node_capacity, graph->node_count + 1, sizeof *graph->nodes, err))
        return -1;
    graph->nodes[graph->node_count] = node;
    return graph->node_count++;
}

int graph_add_input(struct graph *graph, int64_t channels, int64_t height, int64_t width, struct error *err) {
    struct op op = {.kind = OP_INPUT, .input = shape_of(4, (int64_t)1, channels, height, width)};
    return graph_add(graph, "input", &op, NULL, err);
}

int graph_find_parameter(const struct graph *graph, const char *name) {
    for (int i = 0; i < graph->parameter_count; i++) {
        if (strcmp(graph->parameters[i].name, name) == 0)
            return i;
    }
    return -1;
}

int graph_parameter_in_role(const struct graph *graph, int node, enum arg arg, bool diff) {
    const struct graph_node *row = &graph->nodes[node];
    for (int i = 0; i < row->parameter_count; i++) {
        const struct op_parameter *role = &graph->parameters[row->parameters[i]].role;
        if ((diff ? role->diff : role->arg) == arg)
            return row->parameters[i];
    }
    return -1;
}

int graph_consumer_count(const struct graph *graph, int node) {
    int count = 0;
    for (int i = node + 1; i < graph->node_count; i++) {
        for (int j = 0; j < op_input_count(&graph->nodes[i].op); j++)
            count += graph->nodes[i].inputs[j] == node;
    }
    return count;
}

double graph_flops(const struct graph *graph) {
    double flops = 0;
    for (int i = 0; i < graph->node_count; i++) {
        struct shape shapes[OP_MAX_INPUTS] = {0};
        graph_input_shapes(graph, &graph->nodes[i], 1, shapes);
        flops += op_flops(&graph->nodes[i].op, PASS_INFER, shapes);
    }
    return flops;
}

char *graph_text(const struct graph *graph) {
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (!out)
        return NULL;
    for (int i = 0; i < graph->node_count; i++) {
        const struct graph_node *node = &graph->nodes[i];
        char operation[128], shape[SHAPE_TEXT_SIZE];
        fprintf(out, "%4d  %-32s %-52s %-20s", i, node->name, op_text(&node->op, operation, sizeof operation),
                shape_text(&node->output, shape));
        for (int j = 0; j < op_input_count(&node->op); j++)
            fprintf(out, " %d", node->inputs[j]);
        fputc('\n', out);
    }
    fclose(out);
    return text;
}
