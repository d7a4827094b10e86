#pragma once
#include "common/base/error.h"
#include <stddef.h>
#include <stdint.h>

/**
 * The two compressed notations in which Slurm tells a task of the others. Thread-safe; text is hostile. Sources: srun(1), "OUTPUT
 * ENVIRONMENT VARIABLES", and slurm_hostlist_create(3).
 */
enum { HOSTLIST_HOST_SIZE = 254 }; /* a host name's 253 characters (RFC 1035, 2.3.4) and NUL */

/**
 * The first host of a list such as "gpu[003-010,12],login1" (gpu003) or "r[1-2]n[01-04]" (r1n01). What stands behind the first
 * host's name is not looked at.
 */
bool hostlist_first(const char *list, char out[HOSTLIST_HOST_SIZE], struct error *err);

/** How tasks lie on nodes. */
struct hostlist_tasks {
    int64_t nodes, tasks; /**< in all */
    int64_t most;         /**< on one node */
    int64_t here;         /**< on the node that was asked about */
};

/** Reads "2(x3),1": two tasks on each of three nodes, one on the fourth. node: from 0, and in the list, else an error. */
bool hostlist_tasks(const char *list, int64_t node, struct hostlist_tasks *out, struct error *err);
