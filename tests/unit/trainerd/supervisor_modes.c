#include "tests/unit/trainerd/supervisor_modes.h"

#include "common/base/clock.h"
#include "common/base/cpu.h"
#include "common/base/file.h"
#include "common/base/signals.h"
#include "common/base/text.h"
#include "trainerd/rendezvous.h"
#include "trainerd/supervisor_worker.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct worker {
    struct supervisor_worker identity;
    struct wire_context *wire;
    struct rendezvous *rendezvous;
    int exit_code; /* where it does not fail */
};

static bool join(struct worker *worker, const char *fingerprint, struct error *err) {
    struct rendezvous_spec spec = {.endpoint = worker->identity.endpoint,
                                   .rank = worker->identity.rank,
                                   .world_size = worker->identity.world_size,
                                   .generation = worker->identity.generation,
                                   .fingerprint = fingerprint,
                                   .timeout_ms = 20000};
    spec.wire = worker->wire = wire_context_create(1, err);
    worker->rendezvous = worker->wire ? rendezvous_join(&spec, err) : NULL;
    return worker->rendezvous != NULL;
}

static bool beat_until_stopped(struct worker *worker) {
    while (!signals_stop) {
        rendezvous_heartbeat(worker->rendezvous);
        clock_sleep_ms(20);
    }
    return true;
}

static bool mode_report(struct worker *worker, struct error *err) {
    char text[128];
    struct cpu_set cores;
    if (!join(worker, "same", err) || !cpu_available(&cores, err))
        return false;
    snprintf(text, sizeof text, "%s %s %d:%d", getenv("OMP_NUM_THREADS"), getenv("OMP_WAIT_POLICY"),
             cores.count, cores.ids[0]);
    return rendezvous_report(worker->rendezvous, "budget", text, strlen(text), err);
}

static bool mode_killed(struct worker *worker, struct error *err) {
    if (!join(worker, "same", err))
        return false;
    if (worker->identity.rank == 1)
        raise(SIGKILL);
    return beat_until_stopped(worker);
}

/** Rank 0 is the victim and fails first, once rank 1 takes no SIGTERM; rank 1 is the cause. */
static bool mode_error(struct worker *worker, struct error *err) {
    struct bytes ready = {0};
    if (!join(worker, "same", err))
        return false;
    if (worker->identity.rank == 0) {
        bool ok = rendezvous_get(worker->rendezvous, "ready", clock_now_ms() + 20000, &ready, err);
        free(ready.data);
        return ok && error_set(err, ERROR_PEER, "rank 1 is gone");
    }
    signal(SIGTERM, SIG_IGN);
    if (!rendezvous_set(worker->rendezvous, "ready", "", 0, err))
        return false;
    clock_sleep_ms(300);
    raise(SIGABRT);
    return true;
}

static bool mode_early(struct worker *worker, struct error *err) {
    if (worker->identity.rank == 1)
        return error_set(err, ERROR_NOT_FOUND, "data: /nowhere: no such folder") ||
               error_hint(err, "set data.directory");
    return join(worker, "same", err);
}

static bool mode_stop(struct worker *worker, struct error *err) {
    if (!join(worker, "same", err) || !rendezvous_report(worker->rendezvous, "up", "", 0, err))
        return false;
    beat_until_stopped(worker);
    clock_sleep_ms(300); /* a second signal would show by now */
    char text[16];
    snprintf(text, sizeof text, "%d", (int)signals_stop);
    return rendezvous_report(worker->rendezvous, "signals", text, strlen(text), err);
}

static bool mode_stubborn(struct worker *worker, struct error *err) {
    if (worker->identity.rank == 1)
        signal(SIGTERM, SIG_IGN);
    if (!join(worker, "same", err) || !rendezvous_report(worker->rendezvous, "up", "", 0, err))
        return false;
    while (worker->identity.rank == 1 || !signals_stop)
        clock_sleep_ms(20);
    return true;
}

static bool mode_hang(struct worker *worker, struct error *err) {
    if (!join(worker, "same", err))
        return false;
    if (worker->identity.rank == 1)
        for (;;)
            pause();
    return beat_until_stopped(worker);
}

/** Rank 1 hangs and cannot be asked to stop; rank 0 says that it lives, and gives up waiting. */
static bool mode_waiting(struct worker *worker, struct error *err) {
    enum { PATIENCE_MS = 4000 };
    if (!join(worker, "same", err))
        return false;
    if (worker->identity.rank == 1)
        raise(SIGSTOP);
    for (int64_t end_ms = clock_now_ms() + PATIENCE_MS; clock_left_ms(end_ms) > 0; clock_sleep_ms(20))
        rendezvous_heartbeat(worker->rendezvous);
    return error_set(err, ERROR_TIMEOUT, "all-reduce: the other ranks did not answer");
}

static bool mode_differ(struct worker *worker, struct error *err) {
    return join(worker, worker->identity.rank == 1 ? "lr=1" : "lr=2", err) && beat_until_stopped(worker);
}

/** Never joins. Writes its process id into the folder that the test names, where it names one. */
static bool mode_orphan(struct worker *worker, struct error *err) {
    const char *folder = getenv("ORPHAN_FOLDER");
    char path[256], text[16];
    snprintf(path, sizeof path, "%s/pid.%d", folder ? folder : "", worker->identity.rank);
    snprintf(text, sizeof text, "%d", (int)getpid());
    if (folder && !file_write_atomic(path, text, strlen(text), err))
        return false;
    for (;;)
        pause();
}

/** In the first generation rank 1 is lost; in the next one all ends well. */
static bool mode_lost_once(struct worker *worker, struct error *err) {
    if (!join(worker, "same", err))
        return false;
    if (worker->identity.generation == 1 && worker->identity.rank == 1)
        raise(SIGKILL);
    if (worker->identity.generation == 1)
        return beat_until_stopped(worker);
    return rendezvous_report(worker->rendezvous, worker->identity.resumes ? "resumes" : "anew", "", 0, err);
}

/** Whoever is on the first place is lost, always; who is there without it ends well. */
static bool mode_broken_place(struct worker *worker, struct error *err) {
    char text[16];
    if (!join(worker, "same", err))
        return false;
    if (worker->identity.device == 0)
        raise(SIGKILL);
    if (worker->identity.world_size == SUPERVISOR_MODE_RANKS)
        return beat_until_stopped(worker);
    snprintf(text, sizeof text, "%d", worker->identity.device);
    return rendezvous_report(worker->rendezvous, "place", text, strlen(text), err);
}

/** In the first generation rank 1 is not let run; in the next one all ends well. */
static bool mode_stopped_once(struct worker *worker, struct error *err) {
    if (!join(worker, "same", err))
        return false;
    if (worker->identity.generation == 1 && worker->identity.rank == 1)
        raise(SIGSTOP);
    return worker->identity.generation > 1 || beat_until_stopped(worker);
}

/** All end at a checkpoint, which they were asked to, and once more when they were not. */
static bool mode_regroup(struct worker *worker, struct error *err) {
    if (!join(worker, "same", err))
        return false;
    worker->exit_code = worker->identity.generation == 1 ? WORKER_EXIT_REGROUP : WORKER_EXIT_STOPPED;
    return true;
}

static const struct mode {
    const char *name;
    bool (*run)(struct worker *worker, struct error *err);
} modes[] = {
    {"report", mode_report}, {"killed", mode_killed},     {"error", mode_error},
    {"early", mode_early},   {"stop", mode_stop},         {"hang", mode_hang},
    {"differ", mode_differ}, {"stubborn", mode_stubborn}, {"orphan", mode_orphan},
    {"waiting", mode_waiting}, {"lost_once", mode_lost_once}, {"stopped_once", mode_stopped_once},
    {"regroup", mode_regroup}, {"broken_place", mode_broken_place},
};

int supervisor_mode_run(const char *mode, const char *rank_text) {
    struct worker worker = {0};
    struct error err = {0};
    int64_t rank;
    bool ok = signals_install(&err) && text_to_int(rank_text, 0, SUPERVISOR_MODE_RANKS, &rank, &err) &&
              supervisor_worker_read((int)rank, &worker.identity, &err);
    for (size_t i = 0; ok && i < sizeof modes / sizeof *modes; i++) {
        if (strcmp(modes[i].name, mode) == 0)
            ok = modes[i].run(&worker, &err);
    }
    if (!ok)
        supervisor_worker_failed(&worker.identity, &err);
    rendezvous_leave(worker.rendezvous);
    wire_context_destroy(worker.wire);
    return ok ? worker.exit_code : 1;
}
