#include "trainerd/cluster_coordinator.h"

#include "common/base/clock.h"
#include "trainerd/cluster_coordinator_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    FAREWELL_MS = 3000,   /* for nodes to say that they know the result */
    STALL_MS = 500,       /* this process did not look: what it did not hear was not silence */
    SERVE_AT_MOST = 1000,
};

void coordinator_tell(const struct coordinator *coordinator, const char *event, const struct metric *metrics, int count) {
    if (coordinator->spec.on_event)
        coordinator->spec.on_event(coordinator->spec.context, event, metrics, count);
}

struct coordinator *coordinator_create(const struct coordinator_spec *spec, struct error *err) {
    struct coordinator *coordinator = calloc(1, sizeof *coordinator);
    if (!coordinator) {
        error_set(err, ERROR_MEMORY, "out of memory");
        return NULL;
    }
    coordinator->spec = *spec;
    coordinator->phase_ms = coordinator->stepped_ms = clock_now_ms();
    coordinator->suspect = -1;
    coordinator->orders = (struct cluster_orders){.order = CLUSTER_IDLE, .kill_rank = -1,
                                                  .share = {.run = spec->run, .resumes = spec->resumes}};
    if (cluster_members_init(&coordinator->members, spec->nodes, spec->silence_ms, spec->fingerprint, err))
        return coordinator;
    coordinator_destroy(coordinator);
    return NULL;
}

void coordinator_destroy(struct coordinator *coordinator) {
    if (!coordinator)
        return;
    rendezvous_server_close(coordinator->rendezvous);
    cluster_members_fini(&coordinator->members);
    free(coordinator);
}

/* --- what nodes are told --- */

/** Never waits: what is lost is said again. */
static void send_to(struct coordinator *coordinator, struct wire_frame identity, struct bytes *packed) {
    struct wire_frame frames[] = {identity, {packed->data, packed->size}};
    wire_send(coordinator->spec.socket, frames, 2, 0, NULL);
    free(packed->data);
}

static struct wire_frame identity_of(const struct cluster_member *member) {
    return (struct wire_frame){member->identity, member->identity_size};
}

static void send_orders(struct coordinator *coordinator, const struct cluster_member *member) {
    struct cluster_orders orders = coordinator->orders;
    struct bytes packed;
    orders.share = member->share;
    bool ok = coordinator->phase == PHASE_OVER
                  ? cluster_pack_result(coordinator->outcome, coordinator->reason.message, &packed, NULL)
                  : cluster_pack_orders(&orders, &packed, NULL);
    if (ok)
        send_to(coordinator, identity_of(member), &packed);
}

void coordinator_send_orders(struct coordinator *coordinator) {
    for (int node = 0; node < coordinator->members.nodes; node++) {
        if (coordinator->members.list[node].here)
            send_orders(coordinator, &coordinator->members.list[node]);
    }
}

static void refuse(struct coordinator *coordinator, struct wire_frame identity, const char *reason, bool later) {
    struct bytes packed;
    if (cluster_pack_refusal(reason, later, &packed, NULL))
        send_to(coordinator, identity, &packed);
}

/* --- what nodes say --- */

static void lose_node(struct coordinator *coordinator, int node, const char *reason) {
    struct cluster_member *member = &coordinator->members.list[node];
    struct metric metrics[] = {metric_integer("node", node), metric_text("reason", reason)};
    bool had_ranks = member->share.count > member->ended;
    struct error cause;
    error_set(&cause, ERROR_PEER, "node %d (%s) %s", node, member->name, reason);
    member->here = false;
    coordinator_tell(coordinator, "node_lost", metrics, 2);
    if (had_ranks)
        generation_end(coordinator, &cause, false, -1);
}

static void check_silence(struct coordinator *coordinator, int64_t now_ms) {
    char reason[80];
    int node;
    while ((node = cluster_members_silent(&coordinator->members, now_ms)) >= 0) {
        snprintf(reason, sizeof reason, "has not been heard of for %.1f s",
                 (double)(now_ms - coordinator->members.list[node].heard_ms) / 1000);
        lose_node(coordinator, node, reason);
    }
}

static void on_hello(struct coordinator *coordinator, struct wire_frame from, const struct cluster_hello *hello) {
    char reason[CLUSTER_REASON_SIZE], told[CLUSTER_REASON_SIZE + 64];
    enum cluster_admission admission =
        cluster_members_admit(&coordinator->members, hello, from, clock_now_ms(), reason);
    if (admission == CLUSTER_LATER || admission == CLUSTER_REFUSED) {
        struct metric metrics[] = {metric_integer("node", hello->node), metric_text("name", hello->name),
                                   metric_text("reason", reason)};
        if (admission == CLUSTER_REFUSED)
            coordinator_tell(coordinator, "node_refused", metrics, 3);
        snprintf(told, sizeof told, "node %d (%s): %s", hello->node, hello->name, reason);
        refuse(coordinator, from, told, admission == CLUSTER_LATER);
        return;
    }
    struct cluster_member *member = &coordinator->members.list[hello->node];
    if (admission == CLUSTER_ADMITTED && coordinator->members.nodes > 1) {
        struct metric metrics[] = {metric_integer("node", hello->node), metric_text("name", hello->name),
                                   metric_integer("ranks", hello->ranks)};
        coordinator_tell(coordinator, "node_joined", metrics, 3);
    }
    send_orders(coordinator, member);
}

static void on_state(struct coordinator *coordinator, struct wire_frame from, const struct cluster_state *state) {
    int node = cluster_members_hear(&coordinator->members, state->instance, from, clock_now_ms());
    if (node < 0) {
        refuse(coordinator, from, "the coordinator does not know this node any more", true);
        return;
    }
    struct cluster_member *member = &coordinator->members.list[node];
    const struct cluster_share *share = &member->share;
    bool current = state->generation == share->generation && coordinator->rendezvous;
    coordinator->told = coordinator->told || state->wants_stop;
    member->leaves = state->leaves;
    for (int i = 0; current && i < state->end_count; i++) {
        int rank = state->ends[i].rank;
        if (rank >= share->first_rank && rank < share->first_rank + share->count)
            generation_note_end(coordinator, &state->ends[i]);
    }
    if (current)
        member->ended = state->end_count;
    else if (coordinator->phase == PHASE_END)
        member->ended = share->count; /* they were not started, and will not be */
    if (current && state->stopped_rank >= share->first_rank && state->stopped_rank < share->first_rank + share->count)
        generation_note_stopped(coordinator, state->stopped_rank);
    send_orders(coordinator, member);
}

static bool take_message(struct coordinator *coordinator, const struct wire_message *received, struct error *err) {
    struct cluster_received message = {0};
    if (rendezvous_server_is_for(received))
        return !coordinator->rendezvous || rendezvous_server_take(coordinator->rendezvous, received, err);
    if (received->count == 2 && cluster_unpack_from_node(received->frames[1], &message, NULL)) {
        if (message.kind == CLUSTER_HELLO)
            on_hello(coordinator, received->frames[0], &message.hello);
        else
            on_state(coordinator, received->frames[0], &message.state);
    }
    cluster_received_fini(&message);
    return true;
}

/** Takes all that has arrived. A generation that cannot go on ends; false: the socket fails. */
static bool serve(struct coordinator *coordinator, struct error *err) {
    for (int i = 0; i < SERVE_AT_MOST; i++) {
        struct wire_message received = {0};
        struct error cause = {0};
        if (!wire_receive(coordinator->spec.socket, &received, 0, &cause)) {
            if (cause.code == ERROR_TOO_LARGE || cause.code == ERROR_BUSY)
                continue; /* dropped, as anything else that is malformed */
            if (cause.code != ERROR_TIMEOUT && err)
                *err = cause;
            return cause.code == ERROR_TIMEOUT;
        }
        if (!take_message(coordinator, &received, &cause))
            generation_end(coordinator, &cause, true, -1);
        wire_message_fini(&received);
    }
    return true;
}

/** What was not heard of while this process was held up was not silence. */
static void forgive_stall(struct coordinator *coordinator, int64_t now_ms) {
    int64_t stall_ms = now_ms - coordinator->stepped_ms;
    coordinator->stepped_ms = now_ms;
    for (int node = 0; stall_ms > STALL_MS && node < coordinator->members.nodes; node++)
        coordinator->members.list[node].heard_ms += stall_ms;
}

bool coordinator_step(struct coordinator *coordinator, struct error *err) {
    forgive_stall(coordinator, clock_now_ms());
    if (!serve(coordinator, err))
        return false;
    int64_t now_ms = clock_now_ms();
    check_silence(coordinator, now_ms);
    switch (coordinator->phase) {
    case PHASE_GATHER: generation_gather(coordinator, now_ms); break;
    case PHASE_RUN:
    case PHASE_END: generation_follow(coordinator, now_ms); break;
    case PHASE_OVER: break;
    }
    return true;
}

bool coordinator_is_over(const struct coordinator *coordinator, enum cluster_outcome *outcome, struct error *err) {
    bool all_know = true;
    for (int node = 0; node < coordinator->members.nodes; node++)
        all_know = all_know && (!coordinator->members.list[node].here || coordinator->members.list[node].leaves);
    if (coordinator->phase != PHASE_OVER || (!all_know && clock_now_ms() - coordinator->phase_ms < FAREWELL_MS))
        return false;
    *outcome = coordinator->outcome;
    if (err && coordinator->outcome == CLUSTER_FAILED)
        *err = coordinator->reason;
    return true;
}
