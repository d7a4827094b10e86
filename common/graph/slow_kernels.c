#include "common/graph/slow_kernels.h"

#include "common/base/log.h"
#include "common/graph/plan_internal.h"

#include <string.h>

static bool alike(const struct kernel *a, const struct kernel *b) {
    return b->reference_fallback && a->op.kind == b->op.kind && a->pass == b->pass &&
           strcmp(a->implementation, b->implementation) == 0;
}

/** Steps from `step` on that are like it; 0 where one before is, or where it is none of those. */
static int count_alike(const struct plan *plan, int step) {
    const struct kernel *kernel = plan->steps[step].kernel;
    int count = 0;
    for (int i = 0; i < step; i++) {
        if (alike(kernel, plan->steps[i].kernel))
            return 0;
    }
    for (int i = step; i < plan->step_count; i++)
        count += alike(kernel, plan->steps[i].kernel);
    return kernel->reference_fallback ? count : 0;
}

static int say(const struct plan *plan, const char *node, const struct kernel *kernel, int steps) {
    if (steps > 0)
        log_event(LOG_WARNING, "engine_slow_kernel", "node=%s kind=%s pass=%s implementation=\"%s\" steps=%d batch=%lld", node,
                  op_kind_name(kernel->op.kind), pass_name(kernel->pass), kernel->implementation, steps,
                  (long long)plan->batch);
    return steps;
}

int slow_kernels_log(const struct plan *plan) {
    const struct kernel *update[] = {plan->widening, plan->norm_kernel, plan->optimizer_kernel};
    int slow = 0;
    if (plan_unrecorded(plan))
        log_event(LOG_WARNING, "engine_not_recorded", "batch=%lld reason=\"%s\"", (long long)plan->batch, plan_unrecorded(plan));
    for (int i = 0; i < plan->step_count; i++)
        slow += say(plan, plan->graph->nodes[plan->steps[i].node].name, plan->steps[i].kernel, count_alike(plan, i));
    for (size_t i = 0; i < sizeof update / sizeof *update; i++)
        slow += update[i] ? say(plan, "weights", update[i], update[i]->reference_fallback) : 0;
    return slow;
}
