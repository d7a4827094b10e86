#pragma once
#include "trainerd/config.h"

/**
 * A worker process: one rank of one generation, from joining the rendezvous to the end of training; resumes: from the run's
 * newest checkpoint, if there is one. Returns true where the run ended or
 * was stopped in order (then a checkpoint is there). Errors are also told to the supervisor.
 */
bool worker_run(const struct trainer_config *config, int rank, bool resumes, struct error *err);
