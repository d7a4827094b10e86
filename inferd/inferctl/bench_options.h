#pragma once
#include "common/base/error.h"
#include "inferd/inferctl/bench_load.h"
#include "inferd/inferctl/options.h"

/** What `inferctl bench` is told. */
struct bench_options {
    const char *endpoints[BENCH_MAX_ENDPOINTS];
    int endpoint_count;
    struct key_options keys;
    const char *operating_point; /**< NULL: the default */
    int64_t timeout_ms;
    bool json, stat, saturation;
    int closed;  /**< clients; 0: not given */
    double open; /**< requests a second; 0: not given */
    int outstanding;
    int64_t seconds, requests; /**< 0: not given */
    int64_t seed;
    int file_count;
    char **files; /**< inside argv */
};

/** Reads and checks the flags; argv[0] is not looked at. */
bool bench_options_parse(int argc, char **argv, struct bench_options *out, struct error *err);
