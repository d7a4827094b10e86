#include "common/graph/profile.h"

#include "common/base/clock.h"
#include "common/base/rng.h"
#include "common/graph/plan_internal.h"
#include "common/graph/profile_internal.h"
#include "common/op/variation.h"

#include <stdlib.h>
#include <string.h>

/** A profile under way: what create needs and the result does not. */
struct measurement {
    struct profile *profile;
    const struct profile_options *options;
    double *whole_ms; /* (runs) */
    int64_t start_ns; /* of the first event */
    int next_event, next_step;
};

/* --- what is timed --- */

static bool finishes_buckets(const struct plan *plan, const struct segment *segment) {
    return (plan->parts > 1 || plan->narrow) && segment_has_buckets(segment);
}

static int count_steps(const struct plan *plan) {
    int count = plan->step_count + (plan->mode == PLAN_TRAIN ? 1 : 0);
    for (int i = 0; i < plan->segment_count; i++)
        count += finishes_buckets(plan, &plan->segments[i]);
    return count;
}

static void describe_step(const struct plan *plan, int step, struct profile_step *out) {
    struct plan_step described;
    plan_describe_step(plan, step, &described);
    const struct kernel *kernel = described.kernel;
    *out = (struct profile_step){.name = described.name, .kind = op_kind_name(kernel->op.kind), .pass = pass_name(kernel->pass),
                                 .kernel = kernel, .fallbacks = kernel->reference_fallback,
                                 .flops = described.flops * plan->parts, .bytes = (double)described.bytes * plan->parts};
}

/**
 * Kernels of the forward pass run among those of the backward one, too: what is computed again, sums of a value's gradients,
 * reorders. Tells them apart from what is computed for the first time. *backward: whether the backward pass has begun.
 */
static void name_pass(const struct plan *plan, int step, bool *backward, struct profile_step *out) {
    const struct graph_node *node = &plan->graph->nodes[plan->steps[step].node];
    enum op_kind kind = out->kernel->op.kind;
    enum pass pass = out->kernel->pass;
    *backward = *backward || pass == PASS_BACKWARD_DATA || pass == PASS_BACKWARD_WEIGHT;
    if (!*backward || (pass != PASS_FORWARD && pass != PASS_INFER))
        return;
    out->pass = kind == OP_REORDER ? "backward" : kind == node->op.kind ? "recompute" : "sum_gradients";
}

static double bytes_of(const struct kernel *kernel) {
    double bytes = 0;
    for (int arg = 0; arg < ARG_COUNT; arg++) {
        if (arg != ARG_SCRATCH && kernel->args.direction[arg] != ARG_ABSENT)
            bytes += (double)kernel->args.desc[arg].bytes;
    }
    return bytes;
}

/**
 * Behind each part but the first a bucket is added to the sum of those before; behind the first it is copied; and behind the
 * last it is rounded, where the ranks add in bf16.
 */
static void describe_buckets(const struct plan *plan, const struct segment *segment, struct profile_step *out) {
    struct kernel *const *kernels = plan->sums ? plan->sums : plan->narrowings;
    const struct kernel *first = kernels[segment->first_bucket];
    *out = (struct profile_step){.name = "buckets", .kind = op_kind_name(first->op.kind),
                                 .pass = plan->sums ? "sum_parts" : "narrow", .kernel = first};
    for (int i = segment->first_bucket; i < segment->first_reduction + segment->reduction_count; i++) {
        const struct kernel *sum = plan->sums ? plan->sums[i] : NULL, *narrowing = plan->narrow ? plan->narrowings[i] : NULL;
        if (sum)
            out->bytes += (plan->parts - 1) * bytes_of(sum) + 2 * (double)sum->args.desc[ARG_DST].bytes;
        if (narrowing)
            out->bytes += bytes_of(narrowing);
        out->fallbacks += (sum && sum->reference_fallback) + (narrowing && narrowing->reference_fallback);
    }
}

static void describe_update(const struct plan *plan, struct profile_step *out) {
    const struct kernel *norm = plan->norm_kernel, *optimizer = plan->optimizer_kernel;
    *out = (struct profile_step){.name = "weights", .kind = op_kind_name(optimizer->op.kind), .pass = "update",
                                 .kernel = optimizer,
                                 .fallbacks = norm->reference_fallback + optimizer->reference_fallback,
                                 .bytes = bytes_of(norm) + bytes_of(optimizer)};
    if (plan->widening) {
        out->bytes += bytes_of(plan->widening);
        out->fallbacks += plan->widening->reference_fallback;
    }
}

/** In the order in which a run has them. */
static void describe(struct profile *profile) {
    const struct plan *plan = profile->plan;
    struct profile_step *next = profile->steps;
    bool backward = false;
    for (int i = 0; i < plan->segment_count; i++) {
        const struct segment *segment = &plan->segments[i];
        for (int k = 0; k < segment->step_count; k++, next++) {
            describe_step(plan, segment->first_step + k, next);
            name_pass(plan, segment->first_step + k, &backward, next);
        }
        if (finishes_buckets(plan, segment))
            describe_buckets(plan, segment, next++);
    }
    if (plan->mode == PLAN_TRAIN)
        describe_update(plan, next++);
    profile->step_count = (int)(next - profile->steps);
}

/* --- inputs --- */

/** As by default: all pictures are noisy, about every third is blurred. */
static void fill_variations(const struct plan_shape *shape, void *rows) {
    for (int64_t i = 0; i < shape->batch; i++) {
        struct variation *v = (struct variation *)(void *)((char *)rows + (size_t)i * shape->image_bytes);
        *v = (struct variation){.cosine = 1, .down = 1, .step = {VARIATION_ONE}, .noise_scale = VARIATION_ONE / 8};
        v->blur_radius = i % 3 ? 0 : 2;
        v->blur[0] = 256;
    }
}

/** Noise: what a kernel takes does not depend on it, as long as nothing is denormal or not finite. */
static bool fill(struct plan *plan, struct error *err) {
    struct plan_shape shape;
    plan_shape(plan, &shape);
    size_t count = plan_varies(plan) ? 0 : (size_t)shape.batch * shape.image_bytes / sizeof(float);
    float *images = calloc((size_t)shape.batch, shape.image_bytes);
    int32_t *labels = malloc((size_t)shape.batch * sizeof *labels);
    const int64_t seed[3] = {1, 0, 0}, classes = plan->values[plan->logits].desc.shape.dims[1];
    struct rng rng;
    rng_init(&rng, 1, RNG_LOAD, 0, 0);
    bool ok = (images && labels) || error_set(err, ERROR_MEMORY, "out of memory for a batch of made-up images");
    if (ok && plan_varies(plan))
        fill_variations(&shape, images);
    for (size_t i = 0; ok && i < count; i++)
        images[i] = rng_uniform(&rng, -1, 1);
    for (int64_t i = 0; ok && i < shape.batch; i++)
        labels[i] = (int32_t)(i % classes);
    ok = ok && plan_set_images(plan, images, err) && (plan->mode == PLAN_INFER || plan_set_targets(plan, labels, seed, err));
    free(images);
    free(labels);
    return ok;
}

/* --- runs --- */

static bool synchronise(const struct plan *plan, struct error *err) {
    return plan->device->ops->synchronise(plan->device, NULL, err);
}

static bool update(const struct measurement *m, struct error *err) {
    return m->profile->mode == PLAN_INFER || plan_update(m->profile->plan, m->options->hyper, err);
}

/** A training step, or a run, as it is without a profile. */
static bool run_whole(const struct measurement *m, double *ms, struct error *err) {
    struct plan *plan = m->profile->plan;
    int64_t start_ns = clock_now_ns();
    for (int part = 0; part < plan->parts; part++) {
        plan_set_part(plan, part);
        if (!plan_run(plan, err))
            return false;
    }
    if (!update(m, err) || !synchronise(plan, err))
        return false;
    *ms = (double)(clock_now_ns() - start_ns) * 1e-6;
    return true;
}

static void begin_event(struct measurement *m) {
    struct profile_event *event = &m->profile->events[m->next_event];
    *event = (struct profile_event){.step = m->next_step, .start_ns = clock_now_ns() - m->start_ns};
}

static bool end_event(struct measurement *m, struct error *err) {
    struct profile_event *event = &m->profile->events[m->next_event];
    if (!synchronise(m->profile->plan, err))
        return false;
    event->duration_ns = clock_now_ns() - m->start_ns - event->start_ns;
    m->next_event++;
    m->next_step++;
    return true;
}

static bool run_segment(struct measurement *m, const struct segment *segment, struct error *err) {
    struct plan *plan = m->profile->plan;
    for (int i = 0; i < segment->step_count; i++) {
        begin_event(m);
        if (!plan_run_step(plan, segment->first_step + i, err) || !end_event(m, err))
            return false;
    }
    if (!finishes_buckets(plan, segment))
        return true;
    begin_event(m);
    return plan_finish_buckets(plan, segment, err) && end_event(m, err);
}

static bool run_timed(struct measurement *m, struct error *err) {
    struct plan *plan = m->profile->plan;
    for (int part = 0; part < plan->parts; part++) {
        plan_set_part(plan, part);
        m->next_step = 0;
        for (int i = 0; i < plan->segment_count; i++) {
            if (!run_segment(m, &plan->segments[i], err))
                return false;
        }
    }
    if (plan->mode == PLAN_INFER)
        return true;
    begin_event(m);
    return update(m, err) && end_event(m, err);
}

static bool run_all(struct measurement *m, struct error *err) {
    const volatile sig_atomic_t *stop = m->options->stop;
    if (!fill(m->profile->plan, err) || !run_whole(m, &m->whole_ms[0], err))
        return false;
    m->start_ns = clock_now_ns();
    for (int run = 0; run < m->profile->runs; run++) {
        if (stop && *stop)
            return error_set(err, ERROR_STATE, "stopped after %d of %d runs", run, m->profile->runs);
        if (!run_whole(m, &m->whole_ms[run], err) || !run_timed(m, err))
            return false;
    }
    m->profile->whole_ms = profile_median(m->whole_ms, m->profile->runs);
    return true;
}

/* --- the whole of it --- */

static bool check(const struct plan *plan, const struct profile_options *options, struct error *err) {
    if (options->runs < 1 || options->runs > PROFILE_MAX_RUNS)
        return error_set(err, ERROR_INVALID, "a profile has 1 to %d runs, not %d", PROFILE_MAX_RUNS, options->runs);
    return plan->mode == PLAN_INFER || options->hyper ||
           error_set(err, ERROR_INVALID, "the profile of a training plan needs what its update is to do");
}

static struct profile *allocate(struct plan *plan, const struct profile_options *options) {
    struct profile *profile = calloc(1, sizeof *profile);
    if (!profile)
        return NULL;
    int steps = count_steps(plan), updates = plan->mode == PLAN_TRAIN;
    *profile = (struct profile){.plan = plan, .network = options->network ? options->network : "network", .mode = plan->mode,
                                .precision = plan->precision, .batch = plan->batch, .parts = plan->parts, .runs = options->runs,
                                .events_per_run = (steps - updates) * plan->parts + updates};
    plan->device->ops->info(plan->device, &profile->device);
    profile->steps = calloc((size_t)steps + 1, sizeof *profile->steps);
    profile->events = calloc((size_t)profile->runs * (size_t)profile->events_per_run + 1, sizeof *profile->events);
    if (profile->steps && profile->events)
        return profile;
    profile_destroy(profile);
    return NULL;
}

struct profile *profile_create(struct plan *plan, const struct profile_options *options, struct error *err) {
    if (!check(plan, options, err))
        return NULL;
    struct measurement m = {.options = options, .profile = allocate(plan, options)};
    m.whole_ms = calloc((size_t)options->runs, sizeof *m.whole_ms);
    bool ok = (m.profile && m.whole_ms) || error_set(err, ERROR_MEMORY, "out of memory for a profile");
    if (ok)
        describe(m.profile);
    ok = ok && run_all(&m, err) && profile_make_rows(m.profile, err);
    free(m.whole_ms);
    if (ok)
        return m.profile;
    profile_destroy(m.profile);
    return NULL;
}

void profile_destroy(struct profile *profile) {
    if (!profile)
        return;
    free(profile->steps);
    free(profile->events);
    free(profile);
}
