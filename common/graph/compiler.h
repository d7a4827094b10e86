#pragma once
#include "common/graph/plan_internal.h"

/** What compiling knows of a node: the values of its forward arguments, and its output's gradient. */
struct node_state {
    int args[ARG_COUNT]; /**< values that the forward kernel was bound to; -1: absent */
    int output;          /**< what is read for it; another one once it was recomputed */
    int diff;            /**< gradient of the output, -1 while none has arrived */
};

/** A plan in the making: plan_compile.c drives, plan_recompute.c emits some of the forward pass once more. */
struct compiler {
    struct plan *plan;
    const struct plan_spec *spec;
    struct node_state *nodes;
    int *parameter_values; /**< by parameter: its value, -1 while no kernel has fixed its layout */
    int *stretch_first;    /**< by node: where the stretch begins that is computed again before the node's backward pass, or -1 */
    bool recomputing;
    struct error *err;
};

/** Prepares a kernel for a node's pass, emits it and what it needs before it; `values` are its arguments. */
bool compiler_emit(struct compiler *compiler, int node, enum pass pass, int values[ARG_COUNT]);

/** Emits a step of a kernel (taken) that makes one value of another. */
bool compiler_emit_between(struct compiler *compiler, int node, struct kernel *kernel, int from, int to);

/** The plan's images, as what the node of the graph's input gives; where the plan makes them itself, with the step that does. */
bool compiler_emit_input(struct compiler *compiler, int node);

/** Chooses what is kept and what is computed again. Without spec->recompute: everything is kept. */
bool recompute_choose(struct compiler *compiler);
/** To be called before a node's backward pass is emitted: emits what it needs and nobody kept. */
bool recompute_for(struct compiler *compiler, int node);
