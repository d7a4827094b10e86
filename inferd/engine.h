#pragma once
#include "common/device/device.h"
#include "common/op/precision.h"
#include "inferd/instances.h"

/** What a device is called: the name itself or, of "auto", the fastest that can be opened here. */
const char *engine_device(const char *name);

/** Whether several devices of that kind can share a model's weights. False also where there is no such device. */
bool engine_shares(const char *device);

/**
 * Which GPUs are meant by `items`: "all", or their indices. Those of a CPU are none, and naming any there is ERROR_INVALID;
 * ERROR_NOT_FOUND says how many there are where one is not.
 */
bool engine_gpus(const char *device, const char *const *items, int count, struct gpus *out, struct error *err);

/** What a member computes on, beyond its names. */
struct engine_facts {
    bool computes[PRECISION_COUNT]; /**< by precision: every one of its devices does */
    size_t gpu_bytes; /**< memory of the smallest GPU; 0: a CPU */
};

/** Opens each device of the instances once: writes what it is called into `instances`. False where one cannot be opened. */
bool engine_describe(const struct device_spec *spec, struct instances *instances, struct engine_facts *out, struct error *err);

/**
 * Makes sure that OpenMP's teams wait as a member's do: compute team, decoders and sockets share the processors, and idle threads
 * must not spin on them for long. What the environment says already stays. The program is started anew with these arguments where
 * something was missing (cpu_environment); false with an error where that failed.
 */
bool engine_wait_policy(char *const argv[], struct error *err);
