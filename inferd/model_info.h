#pragma once
#include "common/weights/manifest.h"
#include "inferd/model.h"

/** Added to a model's operating points where it has "rule_in" and "rule_out" for one class: both thresholds
 * at once. */
#define MODEL_INFO_TRIAGE "triage"

/**
 * What a manifest says, as the daemon needs it (all but the digest of the file). A manifest's operating point
 * has one threshold, so it rules in or out and leaves nothing uncertain; the points "rule_in" and "rule_out"
 * of one class also make up "triage", with the uncertain between them. ERROR_INVALID: no operating point,
 * more classes than fit, a recipe that is none.
 */
bool model_info_from_manifest(const struct manifest *manifest, struct model_info *out, struct error *err);
