#pragma once
#include "common/base/cpu.h"

/** How many there may be, and about what the buffers of one take for a model, beside the weights that all read. */
enum { INSTANCES_MAX = 64, INSTANCE_BYTES = 64 << 20 };

/**
 * The instances of a member: threads that compute different batches at the same time, each leading a team on processors of its
 * own. Every model that serves has buffers and prepared kernels for each of them, and its weights once. Plain data.
 */
struct instances {
    int count;                 /**< 1..INSTANCES_MAX */
    int threads;               /**< of each team, on a CPU */
    struct cpu_set processors; /**< of all of them together; none: threads run wherever they may */
};

/** What is wanted. */
struct instances_spec {
    int count;   /**< 0: as many as there are processors for */
    int threads; /**< of each; 0: an even share of the processors, and one where count is 0 too */
    bool shares; /**< the device can share memory with another one of its kind; else there is one instance */
};

/**
 * Divides the processors of the calling thread. ERROR_INVALID where several instances would not have processors of their own,
 * ERROR_UNSUPPORTED where the device has no place for more than one.
 */
bool instances_plan(const struct instances_spec *spec, struct instances *out, struct error *err);

/** Pins the calling thread, and the team that it will lead, to an instance's share. Where that fails it runs on unpinned, and
 * the log says so. instances NULL: nothing to do. */
void instances_enter(const struct instances *instances, int instance);
