#pragma once
#include "proto/diagnosis.pb-c.h"
#include <stdatomic.h>
#include <stdint.h>

enum { COUNTERS_STATUSES = THORAX__V1__STATUS__STATUS_INTERNAL + 1 };

/** What the daemon counts, for status replies. Any thread; zeroed at the start. */
struct counters {
    _Atomic uint64_t by_status[COUNTERS_STATUSES];
    _Atomic uint64_t batches, images, compute_us;
    _Atomic uint64_t undelivered;
};
