#pragma once
#include "common/graph/plan.h"
#include "common/models/registry.h"
#include "trainerd/config.h"

/*
 * What a rank computes with, as the configuration says: here, so that a profile is of what training runs.
 */

/** Opens the device; "auto" is oneDNN. NULL on error. */
struct device *engine_open_device(const struct trainer_config *config, struct error *err);

/** The network, for that many classes. Texts are borrowed from the configuration. */
struct model_spec engine_model(const struct trainer_config *config, int classes);

/** The training plan of one rank of so many. Graph, parameters, device and class weights are left to the caller. */
struct plan_spec engine_plan(const struct trainer_config *config, int ranks);
