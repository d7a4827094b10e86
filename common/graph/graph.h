#pragma once
#include "common/op/op.h"

enum { GRAPH_NAME_SIZE = 96 };

/** A learnt or running tensor of a node. Its name equals the key in a state_dict, e.g. "layer1.0.bn1.running_mean". */
struct graph_parameter {
    char name[GRAPH_NAME_SIZE];
    int node;
    struct op_parameter role;
};

/** One operation in a graph. Inputs are ids of earlier nodes, so the array is in topological order. */
struct graph_node {
    struct op op;
    char name[GRAPH_NAME_SIZE];
    int inputs[OP_MAX_INPUTS];
    int parameters[OP_MAX_PARAMETERS]; /**< ids into graph.parameters, in op_parameters' order */
    int parameter_count;
    struct shape output; /**< for a batch of 1: dims[0] is 1 and stands for the batch */
};

/**
 * A network as data: an array of nodes, the last of which is its output (the logits, (N, K), for a classifier).
 * Immutable once built.
 */
struct graph {
    struct graph_node *nodes;
    int node_count, node_capacity;
    struct graph_parameter *parameters;
    int parameter_count, parameter_capacity;
};

/** An empty graph. Returns owned; NULL where memory ends. */
struct graph *graph_create(void);
/** Takes NULL. */
void graph_destroy(struct graph *graph);

/**
 * Adds an operation and its parameters, named NAME.weight and so on. Returns the node's id, or -1 with an error that names
 * the node. `inputs` has op_input_count entries; an id of -1 (an earlier failure) is handed on without touching err,
 * so that a model is written down without a check on every line and looked at once at the end.
 */
int graph_add(struct graph *graph, const char *name, const struct op *op, const int *inputs, struct error *err);

/** As graph_add, for an input of (N, channels, height, width). */
int graph_add_input(struct graph *graph, int64_t channels, int64_t height, int64_t width, struct error *err);

/** The parameter of that name; -1 where there is none. */
int graph_find_parameter(const struct graph *graph, const char *name);

/** The parameter of a node that plays the role, or (diff) whose gradient does; -1 where there is none. */
int graph_parameter_in_role(const struct graph *graph, int node, enum arg arg, bool diff);

/** Shapes of a node's inputs for that batch size. */
void graph_input_shapes(const struct graph *graph, const struct graph_node *node, int64_t batch, struct shape *out);

/** Number of nodes that take `node` as an input. */
int graph_consumer_count(const struct graph *graph, int node);

/** Multiply-adds times two of a forward pass for one image. */
double graph_flops(const struct graph *graph);

/** Prints a table of the nodes, one line each, to an owned string; NULL where memory ends. */
char *graph_text(const struct graph *graph);
