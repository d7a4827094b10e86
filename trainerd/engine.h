#pragma once
#include "common/graph/plan.h"
#include "common/models/registry.h"
#include "trainerd/config.h"
#include "trainerd/loader.h"

/*
 * What a rank computes with, as the configuration says: here, so that a profile is of what training runs.
 */

/** Whether each rank has a GPU. */
bool engine_on_gpus(const struct trainer_config *config);

/** Opens a rank's device; "auto" is oneDNN, and of GPUs the i-th rank of a machine has the i-th. NULL on error. */
struct device *engine_open_device(const struct trainer_config *config, int local_rank, struct error *err);

/**
 * Ranks of this machine, and of all nodes, as configured (device.ranks 0: one), for what is planned before a run: in a run the
 * coordinator says.
 */
int engine_local_ranks(const struct trainer_config *config);
int engine_ranks(const struct trainer_config *config);

/** The name of the collective; "auto" is what fits the device and the number of ranks. */
const char *engine_collective(const struct trainer_config *config, int ranks);

/** For batches that the device uploads without a wait. Borrows the device. */
struct loader_memory engine_batch_memory(struct device *device);

/** The network, for that many classes. Texts are borrowed from the configuration. */
struct model_spec engine_model(const struct trainer_config *config, int classes);

/** The training plan of one rank of so many. Graph, parameters, device and class weights are left to the caller. */
struct plan_spec engine_plan(const struct trainer_config *config, int ranks);
