#include "trainerd/cluster_verdict.h"

#include "trainerd/supervisor_worker.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

/** How much a rank's end explains. */
enum weight {
    WEIGHT_NONE,   /* it ended well, or by our hand */
    WEIGHT_VICTIM, /* failed because of a peer, or when told to stop */
    WEIGHT_FAILED, /* failed by itself */
    WEIGHT_KILLED, /* died of a signal */
};

enum { NAME_SIZE = 64 };

const char *cluster_rank_name(int rank, int node, int nodes, char *out, size_t size) {
    if (nodes > 1)
        snprintf(out, size, "rank %d on node %d", rank, node);
    else
        snprintf(out, size, "rank %d", rank);
    return out;
}

static const char *name_of(const struct cluster_case *judged, int rank, char out[NAME_SIZE]) {
    return cluster_rank_name(rank, judged->node_of[rank], judged->nodes, out, NAME_SIZE);
}

bool cluster_ended_well(const struct cluster_end *end) {
    int code = WIFEXITED(end->status) ? WEXITSTATUS(end->status) : -1;
    return code == 0 || code == WORKER_EXIT_STOPPED || code == WORKER_EXIT_REGROUP;
}

static enum weight weigh(const struct cluster_end *end) {
    if (WIFSIGNALED(end->status)) {
        int number = WTERMSIG(end->status);
        bool ours = (number == SIGTERM && end->told) || (number == SIGKILL && end->killed);
        return ours ? WEIGHT_NONE : WEIGHT_KILLED;
    }
    if (cluster_ended_well(end))
        return WEIGHT_NONE;
    bool victim = end->told || end->words.code == ERROR_PEER || end->words.code == ERROR_TIMEOUT;
    return victim ? WEIGHT_VICTIM : WEIGHT_FAILED;
}

static void describe(const struct cluster_case *judged, int rank, struct error *err) {
    const struct cluster_end *end = &judged->ends[rank];
    char heard[64] = "before it joined", name[NAME_SIZE];
    name_of(judged, rank, name);
    if (judged->heard_ago_ms[rank] >= 0)
        snprintf(heard, sizeof heard, "last heard of %.1f s ago", (double)judged->heard_ago_ms[rank] / 1000);
    if (WIFSIGNALED(end->status)) {
        int number = WTERMSIG(end->status);
        error_set(err, ERROR_PEER, "%s was killed by signal %d (%s), %s", name, number, strsignal(number), heard);
        if (number == SIGKILL)
            error_hint(err, "perhaps the system ran out of memory: its log says so");
    } else if (end->words.code != ERROR_NONE) {
        *err = end->words;
        error_prefix(err, "%s failed", name);
    } else {
        error_set(err, ERROR_PEER, "%s exited with code %d, %s", name, WEXITSTATUS(end->status), heard);
    }
}

/** What the others said of it is part of the story. */
static void name_suspect(const struct cluster_case *judged, struct error *cause) {
    struct error others = *cause;
    char name[NAME_SIZE];
    error_set(cause, ERROR_TIMEOUT, "%s hangs: no sign of life for %.1f s%s%.360s", name_of(judged, judged->suspect, name),
              (double)judged->suspect_silent_ms / 1000, others.code == ERROR_NONE ? "" : "; ", others.message);
}

/** The heaviest end, which is the cause's; of equals the first. Who only lost a peer is no culprit. */
static enum weight find_cause(const struct cluster_case *judged, int *culprit, struct error *cause) {
    enum weight heaviest = WEIGHT_NONE;
    for (int rank = 0; rank < judged->ranks; rank++) {
        enum weight weight = judged->ended[rank] ? weigh(&judged->ends[rank]) : WEIGHT_NONE;
        if (weight <= heaviest)
            continue;
        heaviest = weight;
        *culprit = weight > WEIGHT_VICTIM ? rank : -1;
        describe(judged, rank, cause);
    }
    return heaviest;
}

/** The first that had to be killed when it was told to stop; -1: none. */
static int find_stubborn(const struct cluster_case *judged) {
    for (int rank = 0; rank < judged->ranks; rank++) {
        const struct cluster_end *end = &judged->ends[rank];
        if (judged->ended[rank] && end->killed && WIFSIGNALED(end->status) && WTERMSIG(end->status) == SIGKILL)
            return rank;
    }
    return -1;
}

/** All ended well, and alike. */
static enum cluster_verdict read_ends(const struct cluster_case *judged) {
    bool regroups = false, stopped = judged->told;
    for (int rank = 0; rank < judged->ranks; rank++) {
        int code = WEXITSTATUS(judged->ends[rank].status);
        if (code == 0 && WIFEXITED(judged->ends[rank].status))
            return CLUSTER_VERDICT_FINISHED;
        regroups = regroups || code == WORKER_EXIT_REGROUP;
        stopped = stopped || code == WORKER_EXIT_STOPPED;
    }
    return regroups && !stopped ? CLUSTER_VERDICT_REGROUP : CLUSTER_VERDICT_STOPPED;
}

/** A device that was lost may work again in a fresh process; what a rank says of its work it would say again. */
static enum cluster_verdict grade(enum weight heaviest, enum error_code code) {
    bool again = heaviest != WEIGHT_FAILED || code == ERROR_LOST || code == ERROR_PEER;
    return again ? CLUSTER_VERDICT_LOST : CLUSTER_VERDICT_FAILED;
}

enum cluster_verdict cluster_judge(const struct cluster_case *judged, int *culprit, struct error *err) {
    struct error cause = {0};
    *culprit = -1;
    enum weight heaviest = find_cause(judged, culprit, &cause);
    int stubborn = find_stubborn(judged);
    enum cluster_verdict verdict = grade(heaviest, cause.code);
    if (judged->failure->code != ERROR_NONE) {
        cause = *judged->failure;
        *culprit = judged->failed_rank;
        verdict = judged->fatal ? CLUSTER_VERDICT_FAILED : CLUSTER_VERDICT_LOST;
    } else if (heaviest <= WEIGHT_VICTIM && judged->suspect >= 0) {
        name_suspect(judged, &cause);
        *culprit = judged->suspect;
    } else if (heaviest <= WEIGHT_VICTIM && judged->told && stubborn >= 0) {
        char name[NAME_SIZE];
        error_set(&cause, ERROR_TIMEOUT, "%s did not stop within %.1f s and was killed", name_of(judged, stubborn, name),
                  (double)judged->grace_ms / 1000);
        verdict = CLUSTER_VERDICT_FAILED;
    } else if (heaviest == WEIGHT_NONE || (heaviest == WEIGHT_VICTIM && judged->told)) {
        return read_ends(judged);
    }
    if (err)
        *err = cause;
    return judged->told && verdict == CLUSTER_VERDICT_LOST ? CLUSTER_VERDICT_FAILED : verdict;
}
