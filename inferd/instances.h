#pragma once
#include "common/base/cpu.h"

/** How many there may be, and about what the buffers of one take for a model, beside the weights that all read. */
enum { INSTANCES_MAX = 64, INSTANCE_BYTES = 64 << 20, GPUS_MAX = 16, DEVICE_TEXT_SIZE = 80 };

/** GPUs by index, each once; none: a CPU computes. */
struct gpus {
    int count;
    int index[GPUS_MAX];
};

/**
 * The instances of a member: threads that compute different batches at the same time. On a CPU each leads a team on processors
 * of its own; on GPUs each queues its work on streams of its own, and instance i is on the (i modulo count)-th of them. Every
 * model that serves has buffers and prepared kernels for each of them, and its weights once, or once a GPU. Plain data.
 */
struct instances {
    int count;                 /**< 1..INSTANCES_MAX */
    int threads;               /**< of each team, on a CPU */
    struct cpu_set processors; /**< of all of them together; none: threads run wherever they may */
    struct gpus gpus;
    char device[GPUS_MAX][DEVICE_TEXT_SIZE]; /**< what each of the GPUs is called, or [0] the CPU; for people */
};

/** What is wanted. */
struct instances_spec {
    int count;   /**< 0: as many as there are processors for. On GPUs: of each, and 0 is 1 */
    int threads; /**< of each; 0: an even share of the processors, and one where count is 0 too */
    bool shares; /**< the device can share memory with another one of its kind; else there is one instance */
    struct gpus gpus;
};

/**
 * Divides the processors of the calling thread, or the GPUs. ERROR_INVALID where several instances would not have processors of
 * their own, or are more than INSTANCES_MAX; ERROR_UNSUPPORTED where the device has no place for more than one.
 */
bool instances_plan(const struct instances_spec *spec, struct instances *out, struct error *err);

/** The index of the instance's GPU; `otherwise` on a CPU, or where instances is NULL. */
int instances_gpu(const struct instances *instances, int instance, int otherwise);
/** What the instance computes on, for people; "" where that is not known. */
const char *instances_device(const struct instances *instances, int instance);
/** How many instances there are on one device. */
int instances_each(const struct instances *instances);

/** Pins the calling thread, and the team that it will lead, to an instance's share. Where that fails it runs on unpinned, and
 * the log says so. instances NULL: nothing to do. */
void instances_enter(const struct instances *instances, int instance);
