#pragma once
#include "common/base/error.h"

/** What a device is called: the name itself or, of "auto", the fastest that can be opened here. */
const char *engine_device(const char *name);

/** Whether several devices of that kind can share a model's weights. False also where there is no such device. */
bool engine_shares(const char *device);

/**
 * Makes sure that OpenMP's teams wait as a member's do: compute team, decoders and sockets share the processors, and idle threads
 * must not spin on them for long. What the environment says already stays. The program is started anew with these arguments where
 * something was missing (cpu_environment); false with an error where that failed.
 */
bool engine_wait_policy(char *const argv[], struct error *err);
