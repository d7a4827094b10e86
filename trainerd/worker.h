#pragma once
#include "trainerd/config.h"

/**
 * A worker process: one rank of one generation, from joining the rendezvous to the end of training; resumes: from the run's
 * newest checkpoint, if there is one, whether its supervisor says so or not. Returns true where training ended, was stopped or
 * makes room for other ranks, in order (then a checkpoint is there): *exit_code, of enum worker_exit
 * (trainerd/supervisor_worker.h), says which. Errors are also told to the supervisor.
 */
bool worker_run(const struct trainer_config *config, int rank, bool resumes, int *exit_code, struct error *err);
