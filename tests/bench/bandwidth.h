#pragma once
#include "common/base/error.h"

/** Two buffers of 1 GiB, to measure how fast this machine copies from memory to memory. */
struct bandwidth {
    float *from, *to;
    int threads;
};

bool bandwidth_init(struct bandwidth *bandwidth, int threads, struct error *err);
void bandwidth_fini(struct bandwidth *bandwidth);

/** Bytes read and written per second by one copy of all of it: the faster of ordinary and of streaming stores
 * (memcpy's). */
double bandwidth_measure(const struct bandwidth *bandwidth);
