#pragma once
#include "trainerd/registry.h"

/**
 * Whether a new model is good enough to be offered to the pool: none of the figures that the configuration
 * names may be worse than the stable model's by more than a tolerance. Plain logic over figures; no
 * comparison is no pass.
 */
enum { GATE_MAX_RULES = 32 };

/** "recall.NORMAL on validation within 0.01". */
struct gate_rule {
    char metric[REGISTRY_BY_SIZE]; /**< as manifests call it; a class after a dot: recall.NORMAL */
    char split[REGISTRY_BY_SIZE];
    double tolerance; /**< how much worse it may be, in the figure's own unit; at least 0 */
};

/** Reads a rule: METRIC [on SPLIT] within TOLERANCE; SPLIT is validation unless given. */
bool gate_parse(const char *text, struct gate_rule *out, struct error *err);

/** The figures of one model. */
struct gate_figures {
    const struct registry_metric *metrics;
    int count;
};

/** Judges a new model by the stable one. Writes what is against it, with both figures, or "". */
void gate_judge(const struct gate_rule *rules, int count, const struct gate_figures *fresh,
                const struct gate_figures *stable, char out[REGISTRY_TEXT_SIZE]);
