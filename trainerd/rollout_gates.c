#include "common/metrics/interval.h"
#include "trainerd/rollout_internal.h"

#include <math.h>

/* A gate is past its limit, or within it, only where the whole confidence interval is. */

static const double DEFAULT_CONFIDENCE = .95, P99 = .99;

enum {
    SHADOW = 1 << THORAX__V1__ROLLOUT_STEP_KIND__STEP_SHADOW,
    SERVING = 1 << THORAX__V1__ROLLOUT_STEP_KIND__STEP_CANARY | 1 << THORAX__V1__ROLLOUT_STEP_KIND__STEP_WAVE
};

static bool in_shadow(const struct rollout *rollout) {
    return rollout_step(rollout)->kind == THORAX__V1__ROLLOUT_STEP_KIND__STEP_SHADOW;
}

static Thorax__V1__GateVerdict verdict(bool passes, bool fails) {
    return fails    ? THORAX__V1__GATE_VERDICT__GATE_FAILED
           : passes ? THORAX__V1__GATE_VERDICT__GATE_PASSED
                    : THORAX__V1__GATE_VERDICT__GATE_INCONCLUSIVE;
}

static void fill(struct rollout_gate *gate, double value, struct interval bounds, uint64_t samples) {
    gate->value = value;
    gate->low = bounds.low;
    gate->high = bounds.high;
    gate->samples = samples;
}

static void judge_errors(const struct rollout *rollout, double confidence, struct rollout_gate *gate) {
    const struct member_stats *stats = &rollout->totals;
    uint64_t failed = in_shadow(rollout) ? stats->shadow_failed : stats->failed;
    uint64_t count = in_shadow(rollout) ? stats->compared : stats->failed + stats->answered;
    failed = failed < count ? failed : count;
    struct interval bounds = interval_proportion(failed, count, confidence);
    fill(gate, count ? (double)failed / (double)count : 0, bounds, count);
    gate->verdict = verdict(count && bounds.high <= gate->limit, bounds.low > gate->limit);
}

/** Each quantile's interval errs with half of what the ratio's may. */
static void judge_latency(const struct rollout *rollout, double confidence, struct rollout_gate *gate) {
    const struct histogram *mine = &rollout->totals.latency, *theirs = &rollout->others.latency;
    if (theirs->total == 0 && rollout_for_all(rollout))
        theirs = &rollout->reference.latency;
    double each = (1 + confidence) / 2;
    struct interval a = interval_quantile_us(mine, P99, each), b = interval_quantile_us(theirs, P99, each);
    struct interval bounds = {isinf(b.high) ? 0 : a.low / fmax(b.high, 1),
                              b.low > 0 ? a.high / b.low : INFINITY};
    uint64_t fewer = mine->total < theirs->total ? mine->total : theirs->total;
    double value =
        (double)histogram_quantile_us(mine, P99) / fmax(1, (double)histogram_quantile_us(theirs, P99));
    fill(gate, fewer ? value : 0, bounds, fewer);
    gate->verdict = verdict(bounds.high <= gate->limit, bounds.low > gate->limit);
}

static uint64_t computed(const struct rollout *rollout) {
    const struct member_stats *stats = &rollout->totals;
    return stats->compared > stats->shadow_failed ? stats->compared - stats->shadow_failed : 0;
}

static void judge_agreement(const struct rollout *rollout, double confidence, struct rollout_gate *gate) {
    uint64_t count = computed(rollout), agreed = rollout->totals.agreed;
    agreed = agreed < count ? agreed : count;
    struct interval bounds = interval_proportion(agreed, count, confidence);
    fill(gate, count ? (double)agreed / (double)count : 0, bounds, count);
    gate->verdict = verdict(count && bounds.low >= gate->limit, bounds.high < gate->limit);
}

static void judge_drift(const struct rollout *rollout, double confidence, struct rollout_gate *gate) {
    uint64_t count = computed(rollout);
    const struct member_stats *stats = &rollout->totals;
    struct interval bounds = interval_mean(count, stats->drift_sum, stats->drift_square_sum, confidence);
    fill(gate, count ? stats->drift_sum / (double)count : 0, bounds, count);
    gate->verdict = verdict(bounds.low >= -gate->limit && bounds.high <= gate->limit,
                            bounds.low > gate->limit || bounds.high < -gate->limit);
}

static double error_rate(const Thorax__V1__RolloutGates *gates) {
    return gates->error_rate;
}

static double p99_ratio(const Thorax__V1__RolloutGates *gates) {
    return gates->p99_ratio;
}

static double agreement(const Thorax__V1__RolloutGates *gates) {
    return gates->agreement;
}

static double score_drift(const Thorax__V1__RolloutGates *gates) {
    return gates->score_drift;
}

/* One row a gate. */
static const struct gate {
    const char *name;
    unsigned steps; /* bits: kinds of steps that it judges */
    bool compares;  /* with the incumbent: not judged where there is none */
    double (*limit)(const Thorax__V1__RolloutGates *gates); /* 0: not judged */
    void (*judge)(const struct rollout *rollout, double confidence, struct rollout_gate *gate);
} GATES[ROLLOUT_GATES_MAX] = {
    {"error_rate", SHADOW | SERVING, false, error_rate, judge_errors},
    {"p99_ratio", SERVING, true, p99_ratio, judge_latency},
    {"agreement", SHADOW, true, agreement, judge_agreement},
    {"score_drift", SHADOW, true, score_drift, judge_drift},
};

uint64_t rollout_samples(const struct rollout *rollout) {
    const struct member_stats *stats = &rollout->totals;
    return in_shadow(rollout) ? stats->compared : stats->answered + stats->failed;
}

Thorax__V1__GateVerdict rollout_judge(struct rollout *rollout) {
    const Thorax__V1__RolloutGates *limits = rollout->plan->gates;
    double confidence = limits && limits->confidence > 0 ? limits->confidence : DEFAULT_CONFIDENCE;
    bool all_pass = true, any_fails = false;
    rollout->gate_count = 0;
    for (int i = 0; limits && i < ROLLOUT_GATES_MAX; i++) {
        const struct gate *row = &GATES[i];
        bool judged = row->steps >> rollout_step(rollout)->kind & 1 && row->limit(limits) > 0 &&
                      (rollout->has_incumbent || !row->compares);
        if (!judged)
            continue;
        struct rollout_gate *gate = &rollout->gates[rollout->gate_count++];
        *gate = (struct rollout_gate){.name = row->name, .limit = row->limit(limits)};
        row->judge(rollout, confidence, gate);
        all_pass = all_pass && gate->verdict == THORAX__V1__GATE_VERDICT__GATE_PASSED;
        any_fails = any_fails || gate->verdict == THORAX__V1__GATE_VERDICT__GATE_FAILED;
    }
    return verdict(all_pass, any_fails);
}
