#pragma once
#include "common/base/error.h"
#include <stdint.h>

/** The most classes that metrics, reports and data sets count. */
enum { METRICS_MAX_CLASSES = 16 };

/** How often each class was taken for each: counts[truth][predicted]. */
struct confusion {
    int classes;
    int64_t counts[METRICS_MAX_CLASSES][METRICS_MAX_CLASSES];
};

/** One class against the rest. A ratio without a denominator is 0, as in scikit-learn. */
struct class_scores {
    double precision, recall, f1;
    int64_t support; /**< samples of the class */
};

/** The whole matrix in numbers. Means over classes leave out those that have no samples. */
struct confusion_summary {
    struct class_scores by_class[METRICS_MAX_CLASSES];
    struct class_scores macro;    /**< mean of the classes */
    struct class_scores weighted; /**< mean weighted by support */
    double accuracy, balanced_accuracy;
    int64_t total;
};

/** An empty matrix. An error where classes is not in [2, METRICS_MAX_CLASSES]. */
bool confusion_init(struct confusion *confusion, int classes, struct error *err);

/** Counts one sample; an error where truth or predicted is no class. */
bool confusion_add(struct confusion *confusion, int truth, int predicted, struct error *err);

/** Adds the counts of another rank's matrix of as many classes. */
void confusion_merge(struct confusion *into, const struct confusion *from);

/** Precision, recall, F1 and the means. */
struct confusion_summary confusion_summarise(const struct confusion *confusion);
