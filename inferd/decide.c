#include "inferd/decide.h"
#include <math.h>
#include <stdio.h>

bool decide_probabilities(const float *logits, int count, double temperature, double *out,
                          struct error *err) {
    double largest = -INFINITY, sum = 0;
    for (int i = 0; i < count; i++) {
        if (!isfinite(logits[i])) {
            return error_set(err, ERROR_INTERNAL, "the network's output is not finite");
        }
        largest = fmax(largest, (double)logits[i]);
    }
    for (int i = 0; i < count; i++) {
        out[i] = exp(((double)logits[i] - largest) / temperature);
        sum += out[i];
    }
    for (int i = 0; i < count; i++) {
        out[i] /= sum;
    }
    return true;
}

static int most_probable(const double *probabilities, int count) {
    int best = 0;
    for (int i = 1; i < count; i++) {
        best = probabilities[i] > probabilities[best] ? i : best;
    }
    return best;
}

Thorax__V1__Decision decide_outcome(const struct model_info *info, const struct decision_point *point,
                                    const double *probabilities) {
    double probability = probabilities[point->class_index];
    if (most_probable(probabilities, info->class_count) == info->invalid_class) {
        return THORAX__V1__DECISION__DECISION_INVALID;
    }
    return probability >= point->rule_in   ? THORAX__V1__DECISION__DECISION_RULE_IN
           : probability < point->rule_out ? THORAX__V1__DECISION__DECISION_RULE_OUT
                                           : THORAX__V1__DECISION__DECISION_UNCERTAIN;
}

/** The decision in words. */
static void explain(const struct model_info *info, const struct decision_point *point, struct verdict *out) {
    double probability = out->probabilities[point->class_index];
    const char *label = info->classes[point->class_index];
    if (out->decision == THORAX__V1__DECISION__DECISION_INVALID) {
        snprintf(out->reason, sizeof out->reason,
                 "%s %.4f is the most probable class: not a picture to be judged",
                 info->classes[info->invalid_class], out->probabilities[info->invalid_class]);
    } else if (out->decision == THORAX__V1__DECISION__DECISION_RULE_IN) {
        snprintf(out->reason, sizeof out->reason, "%s %.4f is at or above %.4f", label, probability,
                 point->rule_in);
    } else if (out->decision == THORAX__V1__DECISION__DECISION_RULE_OUT) {
        snprintf(out->reason, sizeof out->reason, "%s %.4f is below %.4f", label, probability,
                 point->rule_out);
    } else {
        snprintf(out->reason, sizeof out->reason, "%s %.4f is between %.4f and %.4f", label, probability,
                 point->rule_out, point->rule_in);
    }
}

bool decide(const struct model_info *info, const struct decision_point *point, const float *logits,
            struct verdict *out, struct error *err) {
    if (!decide_probabilities(logits, info->class_count, info->temperature, out->probabilities, err)) {
        return false;
    }
    out->decision = decide_outcome(info, point, out->probabilities);
    explain(info, point, out);
    return true;
}

void decide_warn_changed(struct verdict *out) {
    struct verdict_warning *warning = &out->warnings[out->warning_count++];
    warning->code = THORAX__V1__WARNING_CODE__WARNING_MODEL_CHANGED;
    snprintf(warning->message, sizeof warning->message,
             "another model, which is no longer here, answered for this routing key before");
}

void decide_warn(const struct model_info *info, const float *age_years, Thorax__V1__View view,
                 struct verdict *out) {
    if (age_years && info->age_max_years > 0 &&
        ((double)*age_years < info->age_min_years || (double)*age_years > info->age_max_years)) {
        struct verdict_warning *warning = &out->warnings[out->warning_count++];
        warning->code = THORAX__V1__WARNING_CODE__WARNING_AGE_OUTSIDE_INTENDED_USE;
        snprintf(warning->message, sizeof warning->message, "the model is meant for ages of %g to %g years",
                 info->age_min_years, info->age_max_years);
    }
    if (view != THORAX__V1__VIEW__VIEW_UNSPECIFIED && info->views && !(info->views >> view & 1)) {
        struct verdict_warning *warning = &out->warnings[out->warning_count++];
        warning->code = THORAX__V1__WARNING_CODE__WARNING_VIEW_OUTSIDE_INTENDED_USE;
        snprintf(warning->message, sizeof warning->message, "the model is not meant for this view");
    }
}
