#pragma once
#include "common/metrics/report.h"

/** Draws the confusion matrix, counts and shares of each true class, as a PNG file (written atomically). */
bool plot_confusion(const struct report *report, const char *path, struct error *err);

/** Draws the ROC curves, each class against the rest and the pair, with their areas, as a PNG file (written
 * atomically). */
bool plot_roc(const struct report *report, const char *path, struct error *err);
