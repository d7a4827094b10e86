#include "common/graph/plan_internal.h"

#include "common/base/text.h"

/*
 * Recordings: where the device takes down what a stream does, each segment's steps and the update become one launch. A plan
 * is run once before, as it will be ever after, so that libraries have what they need. The sums of parts, whose operands
 * differ from part to part, and what passes between host and device stay outside: a few calls a step.
 */

/** One step on zeroes. What it leaves in the flat buffers is taken out; plan_load_values brings weights and statistics. */
static bool warm_up(struct plan *plan, struct error *err) {
    const struct device_ops *ops = plan->device->ops;
    size_t bytes = (size_t)plan->flat_count * sizeof(float);
    for (int i = 0; i < plan->segment_count; i++) {
        if (!plan_run_steps(plan, i, err))
            return false;
    }
    bool ok = plan->mode == PLAN_INFER || plan_run_update(plan, 0, err);
    for (int i = 0; ok && i < PLAN_BUFFER_COUNT; i++)
        ok = !plan->flat[i] || ops->zero(plan->device, plan->flat[i], bytes, NULL, err);
    return ok && ops->synchronise(plan->device, NULL, err);
}

/** Takes down what `run` does with the segment. NULL on error. */
static struct recording *record(struct plan *plan, bool (*run)(struct plan *, int, struct error *), int segment,
                                struct error *err) {
    const struct device_ops *ops = plan->device->ops;
    struct error ending = {0};
    if (!ops->record_begin(plan->device, NULL, err))
        return NULL;
    bool ran = run(plan, segment, err);
    struct recording *recording = ops->record_end(plan->device, NULL, ran ? err : &ending);
    if (ran || !recording)
        return recording;
    ops->recording_destroy(plan->device, recording);
    return NULL;
}

static bool record_all(struct plan *plan, struct error *err) {
    for (int i = 0; i < plan->segment_count; i++) {
        struct segment *segment = &plan->segments[i];
        if (segment->step_count && !(segment->recording = record(plan, plan_run_steps, i, err)))
            return error_prefix(err, "segment %d", i);
    }
    if (plan->mode == PLAN_TRAIN && !(plan->update = record(plan, plan_run_update, 0, err)))
        return error_prefix(err, "the update");
    return true;
}

/** What cannot be recorded is no reason not to compute: the plan then runs kernel by kernel, and says so. */
bool plan_record(struct plan *plan, struct error *err) {
    struct device_info info = {0};
    struct error why = {0};
    plan->device->ops->info(plan->device, &info);
    if (!info.records)
        return true;
    if (!warm_up(plan, err))
        return error_prefix(err, "the first run");
    if (!record_all(plan, &why)) {
        plan_free_recordings(plan);
        (void)text_copy(plan->unrecorded, sizeof plan->unrecorded, why.message);
    }
    return true;
}

void plan_free_recordings(struct plan *plan) {
    const struct device_ops *ops = plan->device->ops;
    struct recording **update = &plan->update;
    if (ops->recording_destroy)
        ops->synchronise(plan->device, NULL, NULL);
    for (int i = 0; i <= plan->segment_count; i++) {
        struct recording **recording = i < plan->segment_count ? &plan->segments[i].recording : update;
        if (*recording)
            ops->recording_destroy(plan->device, *recording);
        *recording = NULL;
    }
}

const char *plan_unrecorded(const struct plan *plan) {
    return plan->unrecorded[0] ? plan->unrecorded : NULL;
}
