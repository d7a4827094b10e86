#include "trainerd/team.h"

#include "common/base/program.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/** Says that the process is what team_enter makes of it. */
static const char ENTERED_NAME[] = "THORAX_TEAM";

/**
 * A team that spins while it waits is only good on cores that nothing else wants: several ranks on one core
 * would spend their time slices waiting for each other.
 */
void team_of_rank(const struct cpu_set *available, const struct team_spec *spec, int rank, struct team *out) {
    bool active = spec->active_wait && available->count >= spec->ranks;
    *out = (struct team){0};
    cpu_share(available, rank, spec->ranks, &out->cores);
    snprintf(out->threads, sizeof out->threads, "%d", spec->threads ? spec->threads : out->cores.count);
    const char *const variables[TEAM_VARIABLES][2] = {
        {"OMP_NUM_THREADS", out->threads},
        {"OMP_DYNAMIC", "false"},
        {"OMP_WAIT_POLICY", active ? "active" : "passive"},
        {"GOMP_SPINCOUNT", active ? "100000" : "0"}, /* spin for a kernel's length, then sleep */
    };
    memcpy(out->variables, variables, sizeof variables);
}

bool team_enter(char *const argv[], const struct team_spec *spec, struct error *err) {
    struct cpu_set available;
    struct team team;
    if (getenv(ENTERED_NAME))
        return true;
    if (!cpu_available(&available, err))
        return false;
    team_of_rank(&available, spec, 0, &team);
    for (int i = 0; i < TEAM_VARIABLES; i++)
        setenv(team.variables[i][0], team.variables[i][1], 1);
    setenv(ENTERED_NAME, "1", 1);
    if (!cpu_pin(&team.cores, err))
        return false;
    execv(program_path(), argv);
    return error_set_errno(err, "%s: exec", program_path());
}
