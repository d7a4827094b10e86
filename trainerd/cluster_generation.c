#include "common/base/clock.h"
#include "trainerd/cluster_coordinator_internal.h"
#include "trainerd/cluster_verdict.h"

#include <string.h>

enum {
    SILENCE_MS = 3000,   /* a rank that waits for others says so more often */
    LAST_WORDS_MS = 2000, /* for ranks to say why a generation is lost, where only they know */
    MEMBERS_SHOWN = 200,
};

static int64_t saved_step(const struct coordinator *coordinator) {
    return coordinator->spec.saved_step ? coordinator->spec.saved_step(coordinator->spec.context) : -1;
}

static void enter(struct coordinator *coordinator, enum phase phase) {
    coordinator->phase = phase;
    coordinator->phase_ms = clock_now_ms();
    coordinator_send_orders(coordinator);
}

static void finish(struct coordinator *coordinator, enum cluster_outcome outcome, const struct error *reason) {
    coordinator->outcome = outcome;
    if (reason)
        coordinator->reason = *reason;
    coordinator->orders.order = CLUSTER_IDLE;
    enter(coordinator, PHASE_OVER);
}

static void order_stop(struct coordinator *coordinator, int64_t grace_ms, int kill_rank) {
    coordinator->orders.order = CLUSTER_STOP;
    coordinator->orders.grace_ms = grace_ms;
    coordinator->orders.kill_rank = kill_rank;
}

/**
 * Ranks that could go on stop in order, with a checkpoint. Where one is lost they cannot, and wait for nothing but sums that will
 * not come: they are killed, at once where it is known who was lost.
 */
static int64_t grace_of(const struct coordinator *coordinator, const struct error *cause, bool fatal) {
    int64_t most_ms = coordinator->spec.grace_ms;
    if (fatal)
        return most_ms;
    return cause ? 0 : most_ms < LAST_WORDS_MS ? most_ms : LAST_WORDS_MS;
}

void generation_end(struct coordinator *coordinator, const struct error *cause, bool fatal, int kill_rank) {
    if (cause && coordinator->failure.code == ERROR_NONE) {
        coordinator->failure = *cause;
        coordinator->fatal = fatal;
        coordinator->failed_rank = kill_rank;
    }
    if (coordinator->phase != PHASE_RUN)
        return;
    order_stop(coordinator, grace_of(coordinator, cause, fatal), kill_rank);
    enter(coordinator, PHASE_END);
}

/* --- a generation begins --- */

static bool ready_to_gather(const struct coordinator *coordinator) {
    int nodes;
    cluster_members_ranks(&coordinator->members, &nodes);
    return coordinator->orders.share.generation > 0 || nodes == coordinator->members.nodes;
}

/** How many ranks take part where so many are there; 0: fewer than the run may have. */
static int takers(const struct coordinator *coordinator, int available) {
    int ranks, parts;
    if (available < 1)
        return 0;
    cluster_shape(&coordinator->spec.batch, available, &ranks, &parts);
    return ranks >= coordinator->spec.min_ranks ? ranks : 0;
}

/** As configured is what the nodes brought to the first generation. */
static bool fix_batch(struct coordinator *coordinator, int available) {
    struct cluster_batch *batch = &coordinator->spec.batch;
    struct error cause;
    if (batch->ranks == 0)
        batch->ranks = available;
    if (available > RENDEZVOUS_RANKS_MAX)
        error_set(&cause, ERROR_INVALID, "%d ranks on all nodes together: at most %d", available, RENDEZVOUS_RANKS_MAX);
    else if (cluster_shape_check(batch, &cause))
        return true;
    finish(coordinator, CLUSTER_FAILED, &cause);
    return false;
}

static bool open_rendezvous(struct coordinator *coordinator, struct error *err) {
    const struct coordinator_spec *spec = &coordinator->spec;
    struct rendezvous_server_spec rendezvous = {.socket = spec->socket, .world_size = coordinator->orders.share.ranks,
                                                .generation = coordinator->orders.share.generation, .context = spec->context,
                                                .on_report = spec->on_report};
    rendezvous_server_close(coordinator->rendezvous);
    return (coordinator->rendezvous = rendezvous_server_open(&rendezvous, err)) != NULL;
}

static void note_places(struct coordinator *coordinator) {
    for (int node = 0; node < coordinator->members.nodes; node++) {
        const struct cluster_share *share = &coordinator->members.list[node].share;
        for (int i = 0; i < share->count; i++) {
            coordinator->node_of[share->first_rank + i] = node;
            coordinator->place_of[share->first_rank + i] = cluster_share_place(share, i);
        }
    }
}

static void start_generation(struct coordinator *coordinator, int available, int nodes) {
    struct cluster_share *share = &coordinator->orders.share;
    struct error cause;
    cluster_shape(&coordinator->spec.batch, available, &share->ranks, &share->parts);
    share->resumes = share->resumes || share->generation > 0;
    share->generation++;
    coordinator->orders.order = CLUSTER_RUN;
    coordinator->orders.kill_rank = coordinator->suspect = -1;
    coordinator->joined_ms = 0;
    coordinator->failure = (struct error){0};
    coordinator->failed_rank = -1;
    coordinator->saved_step = saved_step(coordinator);
    memset(coordinator->ended, 0, sizeof coordinator->ended);
    cluster_members_assign(&coordinator->members, share);
    note_places(coordinator);
    if (!open_rendezvous(coordinator, &cause)) {
        finish(coordinator, CLUSTER_FAILED, &cause);
        return;
    }
    struct metric metrics[] = {metric_integer("generation", (int64_t)share->generation), metric_integer("ranks", share->ranks),
                               metric_integer("nodes", nodes), metric_integer("parts", share->parts)};
    coordinator_tell(coordinator, "generation", metrics, 4);
    enter(coordinator, PHASE_RUN);
}

static void give_up_gathering(struct coordinator *coordinator, int available) {
    char missing[MEMBERS_SHOWN];
    struct error cause;
    cluster_members_missing(&coordinator->members, missing, sizeof missing);
    error_set(&cause, ERROR_TIMEOUT, "%s did not come within %.0f s; ranks that are here: %d, cluster.min_ranks: %d",
              *missing ? missing : "more ranks", (double)coordinator->spec.gather_timeout_ms / 1000, available,
              coordinator->spec.min_ranks);
    finish(coordinator, CLUSTER_FAILED, &cause);
}

void generation_gather(struct coordinator *coordinator, int64_t now_ms) {
    int nodes, available = cluster_members_ranks(&coordinator->members, &nodes);
    if (coordinator->told) {
        finish(coordinator, CLUSTER_STOPPED, NULL);
        return;
    }
    if (available > 0 && ready_to_gather(coordinator)) {
        if (!fix_batch(coordinator, available))
            return;
        if (takers(coordinator, available)) {
            start_generation(coordinator, available, nodes);
            return;
        }
    }
    if (coordinator->spec.gather_timeout_ms && now_ms - coordinator->phase_ms > coordinator->spec.gather_timeout_ms)
        give_up_gathering(coordinator, available);
}

/* --- a generation runs --- */

/** When the rank was heard of last, or could have begun to fall silent. */
static int64_t heard_ms_of(const struct coordinator *coordinator, int rank) {
    int64_t heard_ms = rendezvous_server_heard_ms(coordinator->rendezvous, rank);
    return heard_ms > coordinator->joined_ms ? heard_ms : coordinator->joined_ms;
}

/** The rank that lives and was heard of least lately; -1: none lives. */
static int quietest_of(const struct coordinator *coordinator) {
    int quietest = -1;
    for (int rank = 0; rank < coordinator->orders.share.ranks; rank++) {
        if (!coordinator->ended[rank] &&
            (quietest < 0 || heard_ms_of(coordinator, rank) < heard_ms_of(coordinator, quietest)))
            quietest = rank;
    }
    return quietest;
}

/**
 * A rank fails first where it waited for another one in vain. Those that wait say so; if one alone did not, it is the one that
 * was waited for, and as it hangs, it is not asked to stop.
 */
static void find_suspect(struct coordinator *coordinator, int64_t now_ms) {
    int quietest = quietest_of(coordinator);
    if (quietest < 0 || !coordinator->joined_ms || now_ms - heard_ms_of(coordinator, quietest) < SILENCE_MS)
        return;
    for (int rank = 0; rank < coordinator->orders.share.ranks; rank++) {
        if (rank != quietest && now_ms - heard_ms_of(coordinator, rank) >= SILENCE_MS)
            return;
    }
    coordinator->suspect = quietest;
    coordinator->suspect_silent_ms = now_ms - heard_ms_of(coordinator, quietest);
}

static const char *rank_name(const struct coordinator *coordinator, int rank, char *out, size_t size) {
    return cluster_rank_name(rank, coordinator->node_of[rank], coordinator->members.nodes, out, size);
}

static void check_hang(struct coordinator *coordinator, int64_t now_ms) {
    int quietest = quietest_of(coordinator);
    int64_t silent_ms = quietest < 0 ? 0 : now_ms - heard_ms_of(coordinator, quietest);
    struct error cause;
    char name[64];
    if (coordinator->spec.hang_timeout_ms == 0 || silent_ms <= coordinator->spec.hang_timeout_ms)
        return;
    error_set(&cause, ERROR_TIMEOUT, "%s hangs: no sign of life for %.1f s",
              rank_name(coordinator, quietest, name, sizeof name), (double)silent_ms / 1000);
    generation_end(coordinator, &cause, false, quietest);
}

static void check_join(struct coordinator *coordinator, int64_t now_ms) {
    int missing = rendezvous_server_missing(coordinator->rendezvous);
    struct error cause;
    char name[64];
    if (missing == coordinator->orders.share.ranks) {
        coordinator->joined_ms = now_ms;
        return;
    }
    if (coordinator->spec.join_timeout_ms == 0 || now_ms - coordinator->phase_ms <= coordinator->spec.join_timeout_ms)
        return;
    error_set(&cause, ERROR_TIMEOUT, "%s has not come to the rendezvous within %.1f s",
              rank_name(coordinator, missing, name, sizeof name), (double)coordinator->spec.join_timeout_ms / 1000);
    generation_end(coordinator, &cause, true, -1);
}

/** Where more ranks are there than take part, and could: those that run are to end at the next checkpoint. */
static void check_returns(struct coordinator *coordinator) {
    int nodes, ranks = takers(coordinator, cluster_members_ranks(&coordinator->members, &nodes));
    if (coordinator->orders.order != CLUSTER_RUN || !coordinator->joined_ms || ranks <= coordinator->orders.share.ranks)
        return;
    struct metric metric = metric_integer("ranks", ranks);
    coordinator->orders.order = CLUSTER_REGROUP;
    coordinator_tell(coordinator, "regroup", &metric, 1);
    coordinator_send_orders(coordinator);
}

static void check_stop(struct coordinator *coordinator) {
    if (!coordinator->told || coordinator->orders.order == CLUSTER_STOP)
        return;
    order_stop(coordinator, coordinator->spec.grace_ms, -1);
    coordinator_send_orders(coordinator);
}

/* --- a generation ends --- */

/** Whether every rank's process is gone, as far as the nodes that are here know. */
static bool all_ended(const struct coordinator *coordinator) {
    for (int node = 0; node < coordinator->members.nodes; node++) {
        const struct cluster_member *member = &coordinator->members.list[node];
        if (member->here && member->ended < member->share.count)
            return false;
    }
    return true;
}

static enum cluster_verdict judge(struct coordinator *coordinator, int *culprit, struct error *cause) {
    int64_t now_ms = clock_now_ms();
    int ranks = coordinator->orders.share.ranks;
    for (int rank = 0; rank < ranks; rank++) {
        int64_t heard_ms = rendezvous_server_heard_ms(coordinator->rendezvous, rank);
        coordinator->heard_ago_ms[rank] = heard_ms ? now_ms - heard_ms : -1;
    }
    struct cluster_case judged = {.ranks = ranks, .nodes = coordinator->members.nodes, .ends = coordinator->ends,
                                  .ended = coordinator->ended, .node_of = coordinator->node_of,
                                  .heard_ago_ms = coordinator->heard_ago_ms, .failure = &coordinator->failure,
                                  .fatal = coordinator->fatal, .failed_rank = coordinator->failed_rank,
                                  .suspect = coordinator->suspect,
                                  .suspect_silent_ms = coordinator->suspect_silent_ms, .told = coordinator->told,
                                  .grace_ms = coordinator->spec.grace_ms};
    return cluster_judge(&judged, culprit, cause);
}

/** Notes whose fault it was that the newest generation was lost, and whether all were since the last checkpoint. */
static void blame(struct coordinator *coordinator, int culprit) {
    const struct blamed *before = &coordinator->blamed;
    struct blamed now = {.node = -1};
    if (culprit >= 0)
        now = (struct blamed){.node = coordinator->node_of[culprit], .place = coordinator->place_of[culprit],
                              .instance = coordinator->members.list[coordinator->node_of[culprit]].instance};
    bool same = now.node == before->node && now.place == before->place && now.instance == before->instance;
    now.alone = culprit >= 0 && (coordinator->lost == 1 || (same && before->alone));
    coordinator->blamed = now;
}

/** Where one place alone is to blame for all that was lost, the others can do without it, if they are enough. */
static bool leave_out(struct coordinator *coordinator, const struct error *cause) {
    const struct blamed *blamed = &coordinator->blamed;
    int nodes, ranks = takers(coordinator, cluster_members_ranks(&coordinator->members, &nodes) - 1);
    if (coordinator->spec.restarts == 0 || !blamed->alone || !ranks ||
        !cluster_members_leave_out(&coordinator->members, blamed->node, blamed->place))
        return false;
    struct metric metrics[] = {metric_integer("node", blamed->node), metric_integer("place", blamed->place),
                               metric_integer("ranks", ranks), metric_text("reason", cause->message)};
    coordinator_tell(coordinator, "left_out", metrics, 4);
    coordinator->lost = 0;
    return true;
}

/** The others go on, unless that has been tried too often already. */
static void go_on(struct coordinator *coordinator, int culprit, const struct error *cause) {
    bool progress = saved_step(coordinator) > coordinator->saved_step;
    coordinator->lost = progress ? 1 : coordinator->lost + 1;
    blame(coordinator, culprit);
    if (coordinator->lost > coordinator->spec.restarts && !leave_out(coordinator, cause)) {
        finish(coordinator, CLUSTER_FAILED, cause);
        return;
    }
    struct metric metrics[] = {metric_integer("generation", (int64_t)coordinator->orders.share.generation),
                               metric_text("reason", cause->message)};
    coordinator_tell(coordinator, "lost", metrics, 2);
    enter(coordinator, PHASE_GATHER);
}

static void conclude(struct coordinator *coordinator) {
    struct error cause = {0};
    int culprit;
    enum cluster_verdict verdict = judge(coordinator, &culprit, &cause);
    rendezvous_server_close(coordinator->rendezvous);
    coordinator->rendezvous = NULL;
    coordinator->orders.order = CLUSTER_IDLE;
    switch (verdict) {
    case CLUSTER_VERDICT_FINISHED: finish(coordinator, CLUSTER_FINISHED, NULL); break;
    case CLUSTER_VERDICT_STOPPED: finish(coordinator, CLUSTER_STOPPED, NULL); break;
    case CLUSTER_VERDICT_FAILED: finish(coordinator, CLUSTER_FAILED, &cause); break;
    case CLUSTER_VERDICT_LOST: go_on(coordinator, culprit, &cause); break;
    case CLUSTER_VERDICT_REGROUP:
        coordinator->lost = 0;
        enter(coordinator, PHASE_GATHER);
        break;
    }
}

/** A rank that has ended badly is why the generation ends; whether it was the cause is asked once all have. */
void generation_note_end(struct coordinator *coordinator, const struct cluster_end *end) {
    if (coordinator->ended[end->rank])
        return;
    coordinator->ended[end->rank] = true;
    coordinator->ends[end->rank] = *end;
    if (cluster_ended_well(end) || coordinator->phase != PHASE_RUN)
        return;
    if (coordinator->orders.order != CLUSTER_STOP)
        find_suspect(coordinator, clock_now_ms());
    generation_end(coordinator, NULL, false, coordinator->suspect);
}

void generation_note_stopped(struct coordinator *coordinator, int rank) {
    struct error cause;
    char name[64];
    error_set(&cause, ERROR_TIMEOUT, "%s hangs: its process has been stopped from running for %.1f s",
              rank_name(coordinator, rank, name, sizeof name), (double)coordinator->spec.silence_ms / 1000);
    generation_end(coordinator, &cause, false, rank);
}

void generation_follow(struct coordinator *coordinator, int64_t now_ms) {
    check_stop(coordinator);
    if (coordinator->phase == PHASE_RUN && coordinator->joined_ms && !coordinator->told) {
        check_hang(coordinator, now_ms);
        check_returns(coordinator);
    } else if (coordinator->phase == PHASE_RUN && !coordinator->told) {
        check_join(coordinator, now_ms);
    }
    if (all_ended(coordinator))
        conclude(coordinator);
}
