#pragma once
#include "common/base/rng.h"
#include <stdbool.h>
#include <stdint.h>

/**
 * When the requests of a load are to be sent. Open loop: at the points of a Poisson process, whatever became
 * of the requests before; one that cannot be sent in time keeps its intended time, so that a latency counted
 * from there leaves nothing out ("coordinated omission", Gil Tene). Closed loop: the next one when one of the
 * clients is free. Plain logic over a clock that the caller hands in (monotonic nanoseconds). One thread.
 */
struct bench_pacer_spec {
    double rate;         /**< open loop: requests a second; 0: closed loop */
    int outstanding;     /**< closed loop: clients; open loop: the most that may be outstanding */
    int64_t requests;    /**< ends after so many; 0: by time */
    int64_t duration_ns; /**< ends after so long; 0: by number */
    uint64_t seed;       /**< of the arrivals */
};

struct bench_pacer {
    struct bench_pacer_spec spec;
    struct rng rng;
    int64_t start_ns;
    double next_ns; /**< open loop: the next arrival, from start_ns */
    int64_t begun;  /**< requests taken so far */
    int64_t held;   /**< requests that were due and had to wait, because too many were outstanding */
    bool holding;   /**< the next one is counted in held already */
    bool stopped;
};

void bench_pacer_start(struct bench_pacer *pacer, const struct bench_pacer_spec *spec, int64_t now_ns);
/** True where a request is to be sent now; *intended_ns: when it should have been, at most now_ns. */
bool bench_pacer_take(struct bench_pacer *pacer, int64_t now_ns, int outstanding, int64_t *intended_ns);
/** Until when nothing is to be sent unless a request ends; INT64_MAX: for ever. */
int64_t bench_pacer_due_ns(const struct bench_pacer *pacer);
/** True where nothing is to be sent any more. */
bool bench_pacer_done(const struct bench_pacer *pacer, int64_t now_ns);
/** Ends it early. */
void bench_pacer_stop(struct bench_pacer *pacer);
