#include "trainerd/crew.h"

#include "common/base/clock.h"
#include "common/base/program.h"
#include "trainerd/supervisor_worker.h"
#include "trainerd/team.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct crew {
    struct crew_spec spec;
    struct cluster_share share;
    bool regroups;
    int ended;
    struct cluster_end *ends; /* (count) */
    struct process workers[];
};

/** The program's arguments with `--worker RANK` at the end; frees with free. Borrows the texts. */
static char **worker_arguments(char *const *arguments, char *rank) {
    static char option[] = "--worker";
    int count = 0;
    while (arguments[count])
        count++;
    char **out = calloc((size_t)count + 3, sizeof *out);
    if (!out)
        return NULL;
    memcpy(out, arguments, (size_t)count * sizeof *out);
    out[count] = option;
    out[count + 1] = rank;
    return out;
}

/** Part of the environment is the team's, part says what the worker is. */
struct worker_environment {
    struct team team;
    char values[SUPERVISOR_NUMBERS][24];
    const char *variables[TEAM_VARIABLES + SUPERVISOR_VARIABLES + 1][2];
};

static void describe_worker(const struct crew *crew, int local, const struct cpu_set *cores, struct worker_environment *out) {
    const struct crew_spec *spec = &crew->spec;
    const struct cluster_share *share = &crew->share;
    struct team_spec team = {spec->slots, spec->threads, spec->active_wait};
    int place = cluster_share_place(share, local);
    *out = (struct worker_environment){0};
    team_of_rank(cores, &team, place, &out->team);
    memcpy(out->variables, out->team.variables, sizeof out->team.variables);
    struct supervisor_worker worker = {.rank = share->first_rank + local, .world_size = share->ranks, .local_rank = local,
                                       .local_ranks = share->count, .node = spec->node, .device = spec->first_device + place,
                                       .parts = share->parts, .resumes = share->resumes, .run = share->run,
                                       .generation = share->generation};
    supervisor_worker_write(&worker, out->values, &out->variables[TEAM_VARIABLES]);
    const char *const texts[SUPERVISOR_TEXTS] = {spec->endpoint, spec->address};
    for (int i = 0; i < SUPERVISOR_TEXTS; i++)
        out->variables[TEAM_VARIABLES + SUPERVISOR_NUMBERS + i][1] = texts[i];
}

static bool start_worker(struct crew *crew, int local, const struct cpu_set *cores, struct error *err) {
    struct worker_environment environment;
    char rank[16];
    describe_worker(crew, local, cores, &environment);
    snprintf(rank, sizeof rank, "%d", crew->share.first_rank + local);
    char **arguments = worker_arguments(crew->spec.arguments, rank);
    if (!arguments)
        return error_set(err, ERROR_MEMORY, "starting ranks: out of memory");
    struct process_spec process = {.program = crew->spec.program ? crew->spec.program : program_path(),
                                   .arguments = arguments,
                                   /* C has no such conversion by itself */
                                   .extra = (const char *const (*)[2])environment.variables,
                                   .words_name = supervisor_words_name,
                                   .cores = &environment.team.cores};
    bool ok = process_start(&process, &crew->workers[local], err);
    free(arguments);
    return ok || error_prefix(err, "rank %s", rank);
}

struct crew *crew_start(const struct crew_spec *spec, const struct cluster_share *share, struct error *err) {
    struct cpu_set available, cores;
    if (!cpu_available(&available, err))
        return NULL;
    cpu_share(&available, spec->share, spec->shares, &cores);
    struct crew *crew = calloc(1, sizeof *crew + (size_t)share->count * sizeof crew->workers[0]);
    struct cluster_end *ends = calloc((size_t)share->count + 1, sizeof *ends);
    if (!crew || !ends) {
        free(crew);
        free(ends);
        error_set(err, ERROR_MEMORY, "starting ranks: out of memory");
        return NULL;
    }
    crew->spec = *spec;
    crew->share = *share;
    crew->ends = ends;
    for (int i = 0; i < share->count; i++)
        crew->workers[i].words = -1;
    for (int i = 0; i < share->count; i++) {
        if (!start_worker(crew, i, &cores, err)) {
            crew_destroy(crew);
            return NULL;
        }
    }
    return crew;
}

void crew_destroy(struct crew *crew) {
    if (!crew)
        return;
    crew_kill(crew);
    for (int i = 0; i < crew->share.count; i++)
        process_fini(&crew->workers[i]);
    free(crew->ends);
    free(crew);
}

int crew_reap(struct crew *crew) {
    for (int i = 0; i < crew->share.count; i++) {
        struct process *worker = &crew->workers[i];
        if (worker->pid == 0 || !process_ended(worker))
            continue;
        struct cluster_end *end = &crew->ends[crew->ended++];
        *end = (struct cluster_end){.rank = crew->share.first_rank + i, .status = worker->status, .told = worker->sent_term,
                                    .killed = worker->sent_kill};
        process_last_words(worker, &end->words);
    }
    return crew->ended;
}

const struct cluster_end *crew_ends(const struct crew *crew) {
    return crew->ends;
}

int crew_stopped_rank(const struct crew *crew, int64_t at_least_ms) {
    for (int i = 0; i < crew->share.count; i++) {
        const struct process *worker = &crew->workers[i];
        if (worker->pid != 0 && worker->stopped_ms && clock_now_ms() - worker->stopped_ms >= at_least_ms)
            return crew->share.first_rank + i;
    }
    return -1;
}

void crew_terminate(struct crew *crew) {
    for (int i = 0; i < crew->share.count; i++)
        process_terminate(&crew->workers[i]);
}

void crew_regroup(struct crew *crew) {
    for (int i = 0; i < crew->share.count && !crew->regroups; i++)
        process_signal(&crew->workers[i], SIGUSR2);
    crew->regroups = true;
}

void crew_kill_rank(struct crew *crew, int rank) {
    int local = rank - crew->share.first_rank;
    if (local >= 0 && local < crew->share.count)
        process_kill(&crew->workers[local]);
}

void crew_kill(struct crew *crew) {
    for (int i = 0; i < crew->share.count; i++)
        process_kill(&crew->workers[i]);
}
