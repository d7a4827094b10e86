#pragma once
#include "common/base/cpu.h"

enum { TEAM_VARIABLES = 4 };

/** The threads that compute in one rank: on which cores, how many, and how they wait. */
struct team {
    struct cpu_set cores;
    char threads[16];
    const char *variables[TEAM_VARIABLES][2]; /**< name, value: what OpenMP reads before main; some point into the team */
};

/** How the ranks of one machine share it. */
struct team_spec {
    int ranks;
    int threads;      /**< of each rank; 0: as many as its share of the cores has */
    bool active_wait; /**< spin between kernels; only where a rank owns its cores, else ignored */
};

/** The team of one rank, out of the processors that all ranks have together. */
void team_of_rank(const struct cpu_set *available, const struct team_spec *spec, int rank, struct team *out);

/**
 * Makes this process compute as rank 0 would, in a run of that many ranks: on the same cores, with the same OpenMP settings
 * whatever the environment says. It starts the program anew with the same arguments, once, and then returns true; false with an
 * error where that failed. Before any thread is started.
 */
bool team_enter(char *const argv[], const struct team_spec *spec, struct error *err);
