#include "common/graph/plan_internal.h"

#include <stdlib.h>

enum { ALIGNMENT = 64 };

static int root_of(struct plan *plan, int value) {
    while (plan->values[value].root != value)
        value = plan->values[value].root;
    return value;
}

/** Lets an output take over the memory of an input that nobody reads after this step. */
static void overlay(struct plan *plan, int step, int input, int output) {
    struct value *in = &plan->values[input], *out = &plan->values[output];
    struct value *root = &plan->values[root_of(plan, input)];
    bool dies = in->last == step && root->last == step;
    bool fits = in->storage == STORAGE_ARENA && out->storage == STORAGE_ARENA && in->desc.bytes == out->desc.bytes &&
                in->desc.layout == out->desc.layout && out->root == output && out->first == step;
    if (!dies || !fits)
        return;
    out->root = root_of(plan, input);
    root->last = out->last;
}

/** Whether the step reads that memory by another argument too: a convolution whose residual is its own input, say. */
static bool read_twice(struct plan *plan, const struct step *step, enum arg source) {
    int root = root_of(plan, step->values[source]);
    for (int arg = 0; arg < ARG_COUNT; arg++) {
        bool reads = step->kernel->args.direction[arg] == ARG_IN || step->kernel->args.direction[arg] == ARG_INOUT;
        if (arg != (int)source && reads && step->values[arg] >= 0 && root_of(plan, step->values[arg]) == root)
            return true;
    }
    return false;
}

/** A plan that keeps outputs lets nothing take over their memory. */
static void keep_outputs(struct plan *plan) {
    for (int i = 0; plan->outputs && i < plan->graph->node_count; i++)
        plan->values[plan->outputs[i]].last = plan->step_count;
}

static void find_in_place(struct plan *plan) {
    for (int s = 0; s < plan->step_count; s++) {
        const struct step *step = &plan->steps[s];
        for (int arg = 0; arg < ARG_COUNT; arg++) {
            enum arg source = step->kernel->args.in_place[arg];
            if (source != ARG_NONE && step->values[arg] >= 0 && step->values[source] >= 0 && !read_twice(plan, step, source))
                overlay(plan, s, step->values[source], step->values[arg]);
        }
    }
}

struct block {
    int value;
    size_t bytes;
};

static size_t aligned_bytes(const struct value *value) {
    return (value->desc.bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static bool takes_arena(const struct plan *plan, int value) {
    const struct value *row = &plan->values[value];
    return row->storage == STORAGE_ARENA && row->root == value && row->first >= 0;
}

/** The most bytes that are alive at any one step. */
static bool measure_live(struct plan *plan, struct error *err) {
    size_t steps = (size_t)plan->step_count + 2, live = 0;
    size_t *born = calloc(2 * steps, sizeof *born), *died = born ? born + steps : NULL;
    if (!born)
        return error_set(err, ERROR_MEMORY, "plan: out of memory");
    for (int i = 0; i < plan->value_count; i++) {
        if (takes_arena(plan, i)) {
            born[plan->values[i].first] += aligned_bytes(&plan->values[i]);
            died[plan->values[i].last + 1] += aligned_bytes(&plan->values[i]);
        }
    }
    for (size_t s = 0; s < steps; s++) {
        live = live + born[s] - died[s];
        plan->arena_live_bytes = live > plan->arena_live_bytes ? live : plan->arena_live_bytes;
    }
    free(born);
    return true;
}

/** Largest first, then oldest first: the greedy order that packs well (Pisarchyk & Lee 2020, "greedy by size"). */
static int compare_blocks(const void *a, const void *b) {
    const struct block *left = a, *right = b;
    if (left->bytes != right->bytes)
        return left->bytes < right->bytes ? 1 : -1;
    return left->value - right->value;
}

static bool lives_overlap(const struct value *a, const struct value *b) {
    return a->first <= b->last && b->first <= a->last;
}

/** The lowest offset at which a block clashes with none that is placed already; placed is sorted by offset. */
static size_t lowest_offset(const struct plan *plan, const int *placed, int count, const struct value *value, size_t bytes) {
    size_t offset = 0;
    for (int i = 0; i < count; i++) {
        const struct value *other = &plan->values[placed[i]];
        if (!lives_overlap(value, other))
            continue;
        if (other->offset >= offset + bytes)
            return offset;
        size_t end = other->offset + aligned_bytes(other);
        offset = end > offset ? end : offset;
    }
    return offset;
}

static void insert_by_offset(const struct plan *plan, int *placed, int count, int value) {
    int i = count;
    for (; i > 0 && plan->values[placed[i - 1]].offset > plan->values[value].offset; i--)
        placed[i] = placed[i - 1];
    placed[i] = value;
}

static bool place_values(struct plan *plan, struct error *err) {
    struct block *blocks = malloc(((size_t)plan->value_count + 1) * sizeof *blocks);
    int *placed = malloc(((size_t)plan->value_count + 1) * sizeof *placed);
    bool ok = blocks && placed;
    int count = 0;
    for (int i = 0; ok && i < plan->value_count; i++) {
        if (takes_arena(plan, i))
            blocks[count++] = (struct block){i, aligned_bytes(&plan->values[i])};
    }
    if (ok)
        qsort(blocks, (size_t)count, sizeof *blocks, compare_blocks);
    for (int i = 0; ok && i < count; i++) {
        struct value *value = &plan->values[blocks[i].value];
        value->offset = lowest_offset(plan, placed, i, value, blocks[i].bytes);
        insert_by_offset(plan, placed, i, blocks[i].value);
        plan->arena_sum_bytes += blocks[i].bytes;
        if (value->offset + blocks[i].bytes > plan->arena_bytes)
            plan->arena_bytes = value->offset + blocks[i].bytes;
    }
    free(blocks);
    free(placed);
    return ok || error_set(err, ERROR_MEMORY, "plan: out of memory");
}

static bool allocate_fixed(struct plan *plan, struct error *err) {
    for (int i = 0; i < plan->value_count; i++) {
        struct value *value = &plan->values[i];
        if (value->storage != STORAGE_FIXED)
            continue;
        value->memory = plan->device->ops->alloc(plan->device, value->desc.bytes, err);
        if (!value->memory)
            return false;
    }
    return true;
}

bool plan_place(struct plan *plan, struct error *err) {
    keep_outputs(plan);
    find_in_place(plan);
    if (!place_values(plan, err) || !measure_live(plan, err) || !allocate_fixed(plan, err))
        return false;
    if (plan->arena_bytes && !(plan->arena = plan->device->ops->alloc(plan->device, plan->arena_bytes, err)))
        return error_prefix(err, "the plan's arena for a batch of %lld", (long long)plan->batch);
    for (int i = 0; i < plan->value_count; i++) {
        struct value *value = &plan->values[i];
        if (value->storage == STORAGE_ARENA && value->first >= 0)
            value->memory = (char *)plan->arena + plan->values[root_of(plan, i)].offset;
    }
    for (int s = 0; s < plan->step_count; s++) {
        struct step *step = &plan->steps[s];
        for (int arg = 0; arg < ARG_COUNT; arg++)
            step->buffers[arg] = step->values[arg] >= 0 ? plan->values[step->values[arg]].memory : NULL;
    }
    return true;
}
