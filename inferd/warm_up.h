#pragma once
#include "inferd/instances.h"
#include "inferd/model.h"

/**
 * Computes an even picture in every batch size of the model's ladder, on all instances at the same time, each on a thread
 * that is pinned as the one that will serve: the first requests shall not pay for what a first run costs. Notes in the ladder
 * what each batch size costs beside the others, since that is how it will serve. on_host: the device is the CPU, where the
 * time in which others had the processor does not count. instances NULL: one, not pinned. Nobody else uses the model yet.
 */
bool warm_up_run(struct model *model, const struct instances *instances, bool on_host, struct error *err);
