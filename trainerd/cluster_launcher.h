#pragma once
#include "trainerd/hostlist.h"

/** What a launcher's environment says of this process. */
struct cluster_task {
    int tasks, task;             /**< of the launcher: all of them; which this is */
    int local_tasks, local_task; /**< those on this node */
    bool several;                /**< some node has more than one, so that each is one rank */
    char host[HOSTLIST_HOST_SIZE]; /**< where task 0 runs */
    int port;                    /**< for the coordinator */
    const char *source;          /**< "Slurm" or "torchrun" */
    const char *local_tasks_name; /**< the variable that local_tasks is from */
};

/** Whether srun started this process. A batch script by itself is no task. */
bool cluster_slurm_present(void);
/** Reads Slurm's variables; ERROR_INVALID or ERROR_FORMAT names what is missing, wrong or contradicts. */
bool cluster_slurm_read(struct cluster_task *out, struct error *err);

/** Whether torchrun, or something that sets the same variables, started this process. */
bool cluster_torchrun_present(void);
/** Reads torchrun's variables; ERROR_INVALID or ERROR_FORMAT names what is missing, wrong or contradicts. */
bool cluster_torchrun_read(struct cluster_task *out, struct error *err);
