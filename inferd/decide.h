#pragma once
#include "inferd/model.h"
#include "proto/diagnosis.pb-c.h"

enum { VERDICT_REASON_SIZE = 200, VERDICT_MAX_WARNINGS = 3, WARNING_TEXT_SIZE = 160 };

struct verdict_warning {
    Thorax__V1__WarningCode code;
    char message[WARNING_TEXT_SIZE];
};

/** What the logits of one picture come to. Plain data. */
struct verdict {
    double probabilities[MODEL_MAX_CLASSES]; /**< (K), adding up to 1 */
    Thorax__V1__Decision decision;
    char reason[VERDICT_REASON_SIZE];
    int warning_count;
    struct verdict_warning warnings[VERDICT_MAX_WARNINGS];
};

/**
 * softmax(logits / temperature) in double. False with ERROR_INTERNAL where a logit is not finite: a broken
 * computation must not become a diagnosis. logits, out: (count). Source: Guo et al., "On Calibration of
 * Modern Neural Networks", ICML 2017.
 */
bool decide_probabilities(const float *logits, int count, double temperature, double *out, struct error *err);

/**
 * What the operating point makes of the probabilities. Where the INVALID class is the most probable one, that is INVALID
 * whatever the finding's probability: thresholds were fitted on pictures that can be judged.
 */
Thorax__V1__Decision decide_outcome(const struct model_info *info, const struct decision_point *point,
                                    const double *probabilities);

/** Probabilities, decision and reason. Errors as decide_probabilities. */
bool decide(const struct model_info *info, const struct decision_point *point, const float *logits,
            struct verdict *out, struct error *err);

/** Adds the warning that another model answered for this routing key before. */
void decide_warn_changed(struct verdict *out);

/** Adds warnings where age (NULL: unknown) or view lie outside the model's intended use. */
void decide_warn(const struct model_info *info, const float *age_years, Thorax__V1__View view,
                 struct verdict *out);
