#pragma once
#include "common/weights/manifest.h"
#include "trainerd/evaluate.h"

#include <stdio.h>

enum { COMPARISON_WORST = 5 };

/** One of the two: what it says of itself, and its answers to the part. Borrowed. */
struct compared {
    const struct manifest *manifest;
    const struct evaluation *evaluation;
};

/** A model's answers beside another's, on the same pictures in the same order: [0] the one before, [1] the other. */
struct comparison {
    int64_t count;
    double accuracy[2], area[2], log_loss[2]; /**< by each model's own temperature; area: NaN where the data has no pair */
    int64_t disagree;     /**< decisions at the default operating points, as a member takes them, that differ */
    int64_t disagree_far; /**< those of them where the first model's probability was .01 or more from its threshold */
    double agreement;     /**< share of decisions that are the same */
    double mean_change;   /**< of the operating point's class' probability, absolute */
    struct comparison_change {
        int64_t image; /**< its place in the part */
        double before, after;
    } worst[COMPARISON_WORST]; /**< largest changes of that probability, largest first; fewer pictures: image -1 */
};

/**
 * Compares what two models answered. ERROR_INVALID where they have other classes, other pictures (told by their number and
 * labels), or one has no operating point. Nothing is to be freed.
 */
bool comparison_make(struct comparison *out, const struct compared models[2], struct error *err);

/** Prints a table for people, or JSON. `part` names the data. */
bool comparison_print(const struct comparison *comparison, const struct compared models[2], const char *part, bool json,
                      FILE *to, struct error *err);
