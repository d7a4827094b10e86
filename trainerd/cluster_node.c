#include "trainerd/cluster_node.h"

#include "common/base/clock.h"
#include "common/base/digest.h"
#include "common/base/signals.h"
#include "trainerd/cluster_address.h"
#include "trainerd/rendezvous.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SAY_MS = 500, STALL_MS = 500, SERVE_AT_MOST = 100, PATIENCE = 3 };

struct cluster_node {
    struct cluster_node_spec spec;
    struct wire_socket *socket, *watch;
    char name[CLUSTER_NAME_SIZE], address[CLUSTER_ENDPOINT_SIZE];
    uint64_t instance;
    bool joined;                   /* there were orders, and the coordinator is not lost */
    bool refused_key;              /* the handshake failed */
    int64_t heard_ms;              /* the coordinator; when this node began to look for it, where it was not */
    int64_t said_ms, stepped_ms;   /* a message was sent last; cluster_node_step was called last */
    int64_t turned_away_ms;        /* since when another node stands in this one's place; 0: none does */
    struct crew *crew;             /* NULL: no ranks were started yet, or since the coordinator was lost */
    uint64_t generation;           /* the crew's */
    struct cluster_orders orders;  /* the last ones */
    int64_t kill_ms;               /* when the ranks' patience ends; 0: they were not told to end */
    int reaped;                    /* ends of ranks that were told to the coordinator */
    bool over, leaves;
    enum cluster_outcome outcome;
    struct error reason;
};

static bool open_socket(struct cluster_node *node, struct error *err) {
    const char *const endpoints[] = {node->spec.crew.endpoint, NULL};
    struct wire_socket_spec socket = {.kind = WIRE_DEALER, .connect = endpoints, .linger_ms = 200,
                                      .max_frame_bytes = RENDEZVOUS_VALUE_MAX, .security = node->spec.security,
                                      .server_key = node->spec.server_key, .watch = &node->watch};
    wire_socket_close(node->watch);
    wire_socket_close(node->socket);
    node->watch = NULL;
    return (node->socket = wire_socket_open(node->spec.wire, &socket, err)) != NULL;
}

struct cluster_node *cluster_node_open(const struct cluster_node_spec *spec, struct error *err) {
    struct cluster_node *node = calloc(1, sizeof *node);
    char host[80] = "";
    if (!node) {
        error_set(err, ERROR_MEMORY, "out of memory");
        return NULL;
    }
    node->spec = *spec;
    node->spec.crew.address = node->address;
    node->heard_ms = node->stepped_ms = clock_now_ms();
    gethostname(host, sizeof host - 1);
    snprintf(node->name, sizeof node->name, "%s/%d", host, (int)getpid());
    node->instance = digest_random_u64();
    if (open_socket(node, err))
        return node;
    cluster_node_close(node);
    return NULL;
}

void cluster_node_close(struct cluster_node *node) {
    if (!node)
        return;
    crew_destroy(node->crew);
    wire_socket_close(node->watch);
    wire_socket_close(node->socket);
    free(node);
}

struct wire_socket *cluster_node_socket(struct cluster_node *node) {
    return node->socket;
}

/* --- what it says --- */

static void send_packed(struct cluster_node *node, struct bytes *packed) {
    struct wire_frame frame = {packed->data, packed->size};
    wire_send(node->socket, &frame, 1, 0, NULL); /* what is lost is said again */
    node->said_ms = clock_now_ms();
    free(packed->data);
}

static void say_hello(struct cluster_node *node) {
    struct cluster_hello hello = {.node = node->spec.crew.node, .nodes = node->spec.nodes, .ranks = node->spec.crew.slots,
                                  .instance = node->instance, .name = node->name, .fingerprint = node->spec.fingerprint};
    struct bytes packed;
    if (cluster_pack_hello(&hello, &packed, NULL))
        send_packed(node, &packed);
}

static void say_state(struct cluster_node *node) {
    struct cluster_state state = {.instance = node->instance, .stopped_rank = -1, .wants_stop = signals_stop > 0,
                                  .leaves = node->leaves};
    struct bytes packed;
    if (node->crew) {
        state.generation = node->generation;
        state.end_count = node->reaped = crew_reap(node->crew);
        state.ends = crew_ends(node->crew);
        state.stopped_rank = crew_stopped_rank(node->crew, node->spec.silence_ms);
    }
    if (cluster_pack_state(&state, &packed, NULL))
        send_packed(node, &packed);
}

/* --- what it is told --- */

static void finish(struct cluster_node *node, enum cluster_outcome outcome, const struct error *reason) {
    node->over = true;
    node->outcome = outcome;
    if (reason)
        node->reason = *reason;
}

static void tell(const struct cluster_node *node, const char *event, const char *name, const char *text) {
    struct metric metric = metric_text(name, text);
    if (node->spec.on_event)
        node->spec.on_event(node->spec.context, event, &metric, 1);
}

/** Only now: before, the coordinator's name may not have been known here yet. */
static bool find_address(struct cluster_node *node, struct error *err) {
    bool alone = strncmp(node->spec.crew.endpoint, "tcp://", 6) != 0;
    return alone || *node->address ||
           cluster_address_towards(node->spec.crew.endpoint, node->address, sizeof node->address, err);
}

static bool start_crew(struct cluster_node *node, const struct cluster_orders *orders, struct error *err) {
    crew_destroy(node->crew);
    node->crew = NULL;
    if (!find_address(node, err))
        return false;
    node->kill_ms = 0;
    node->reaped = 0;
    node->generation = orders->share.generation;
    node->crew = crew_start(&node->spec.crew, &orders->share, err);
    return node->crew;
}

static bool on_orders(struct cluster_node *node, const struct cluster_orders *orders, struct error *err) {
    bool fresh = !node->crew || orders->share.generation != node->generation;
    if (orders->share.count > node->spec.crew.slots - __builtin_popcountll(orders->share.left_out))
        return error_set(err, ERROR_INVALID, "the coordinator asks for %d ranks, this node has %d", orders->share.count,
                         node->spec.crew.slots);
    if (!node->joined)
        tell(node, "joined", "coordinator", node->spec.crew.endpoint);
    node->joined = true;
    node->turned_away_ms = 0;
    bool runs = orders->order == CLUSTER_RUN || orders->order == CLUSTER_REGROUP;
    if (runs && fresh && !start_crew(node, orders, err))
        return false;
    node->orders = *orders;
    if (!node->crew || orders->share.generation != node->generation)
        return true; /* it was not told to start those ranks */
    if (orders->order == CLUSTER_REGROUP)
        crew_regroup(node->crew);
    if (orders->order == CLUSTER_STOP && node->kill_ms == 0) {
        crew_terminate(node->crew);
        node->kill_ms = clock_now_ms() + orders->grace_ms;
    }
    if (orders->order == CLUSTER_STOP)
        crew_kill_rank(node->crew, orders->kill_rank);
    return true;
}

/** The ranks of a run that this node is not part of any more are of no use. */
static void drop_crew(struct cluster_node *node) {
    crew_destroy(node->crew);
    node->crew = NULL;
    node->kill_ms = 0;
    node->orders = (struct cluster_orders){0};
    node->joined = false;
}

/** Who stands in this node's place may be its own shadow, which is gone once it has been silent for long enough. */
static bool on_refusal(struct cluster_node *node, const struct cluster_refusal *refusal, struct error *err) {
    int64_t now_ms = clock_now_ms();
    if (!refusal->later)
        return error_set(err, ERROR_INVALID, "the coordinator %s refuses %s", node->spec.crew.endpoint, refusal->reason);
    if (node->joined) {
        drop_crew(node);
        say_hello(node);
        return true;
    }
    if (!node->turned_away_ms)
        node->turned_away_ms = now_ms;
    return now_ms - node->turned_away_ms < PATIENCE * node->spec.silence_ms ||
           error_set(err, ERROR_INVALID, "the coordinator %s refuses %s", node->spec.crew.endpoint, refusal->reason);
}

static void on_result(struct cluster_node *node, const struct cluster_result *result) {
    struct error reason = {0};
    if (result->outcome == CLUSTER_FAILED)
        error_set(&reason, ERROR_PEER, "%s", result->reason);
    finish(node, result->outcome, &reason);
    node->leaves = true;
    say_state(node);
}

static bool take(struct cluster_node *node, const struct cluster_received *message, struct error *err) {
    node->heard_ms = clock_now_ms();
    switch (message->kind) {
    case CLUSTER_ORDERS: return on_orders(node, &message->orders, err);
    case CLUSTER_REFUSAL: return on_refusal(node, &message->refusal, err);
    case CLUSTER_RESULT: on_result(node, &message->result); return true;
    default: return true;
    }
}

static bool serve(struct cluster_node *node, struct error *err) {
    for (int i = 0; i < SERVE_AT_MOST && !node->over; i++) {
        struct wire_message received = {0};
        struct cluster_received message = {0};
        struct error cause = {0};
        if (!wire_receive(node->socket, &received, 0, &cause)) {
            if (cause.code == ERROR_TOO_LARGE || cause.code == ERROR_BUSY)
                continue;
            if (cause.code != ERROR_TIMEOUT && err)
                *err = cause;
            return cause.code == ERROR_TIMEOUT;
        }
        bool understood = received.count == 1 && cluster_unpack_to_node(received.frames[0], &message, &cause);
        bool ok = understood ? take(node, &message, &cause) : cause.code != ERROR_UNSUPPORTED;
        cluster_received_fini(&message);
        wire_message_fini(&received);
        if (!ok) {
            if (err)
                *err = cause;
            return false;
        }
    }
    return true;
}

/* --- what it sees by itself --- */

static void watch_connection(struct cluster_node *node) {
    enum wire_event event;
    while (node->watch && wire_watch_next(node->watch, &event)) {
        if (event == WIRE_HANDSHAKE_FAILED)
            node->refused_key = true;
        else if (event == WIRE_CONNECTED)
            node->refused_key = false;
    }
}

static bool lose_coordinator(struct cluster_node *node, int64_t silent_ms, struct error *err) {
    char reason[200];
    snprintf(reason, sizeof reason, "has not been heard of for %.1f s", (double)silent_ms / 1000);
    drop_crew(node);
    tell(node, "coordinator_lost", "reason", reason);
    return open_socket(node, err);
}

static bool hint_silence(const struct cluster_node *node, struct error *err) {
    if (node->refused_key)
        return error_hint(err, "someone is there, but the handshake fails: is cluster.secret (or cluster.server_key) the same?");
    return error_hint(err, "is trainerd running there, with cluster.node 0 and the same cluster.coordinator?");
}

/** The coordinator is silent: first its ranks are ended, later the node gives up. */
static bool check_coordinator(struct cluster_node *node, int64_t now_ms, struct error *err) {
    int64_t silent_ms = now_ms - node->heard_ms;
    if (node->joined && silent_ms > 2 * node->spec.silence_ms && !lose_coordinator(node, silent_ms, err))
        return false;
    if (node->joined || node->spec.join_timeout_ms == 0 || silent_ms <= node->spec.join_timeout_ms)
        return true;
    error_set(err, ERROR_TIMEOUT, "the coordinator %s has not been heard of for %.0f s", node->spec.crew.endpoint,
              (double)silent_ms / 1000);
    return hint_silence(node, err);
}

/** Passes a signal on, and ends patience. */
static void check_signals(struct cluster_node *node, int64_t now_ms) {
    if (signals_stop > 0 && !node->joined && !node->over)
        finish(node, CLUSTER_STOPPED, NULL);
    if (!node->crew)
        return;
    if (signals_stop > 1 || (node->kill_ms && now_ms >= node->kill_ms))
        crew_kill(node->crew);
}

/** Twice a second, and at once where there is something to say. */
static void say(struct cluster_node *node, int64_t now_ms) {
    bool news = node->crew && crew_reap(node->crew) != node->reaped;
    bool wish = signals_stop > 0 && node->orders.order != CLUSTER_STOP && now_ms - node->said_ms >= 100;
    if (!news && !wish && now_ms - node->said_ms < SAY_MS)
        return;
    if (node->joined)
        say_state(node);
    else
        say_hello(node);
}

bool cluster_node_step(struct cluster_node *node, struct error *err) {
    int64_t now_ms = clock_now_ms(), stall_ms = now_ms - node->stepped_ms;
    node->stepped_ms = now_ms;
    if (stall_ms > STALL_MS && node->joined)
        node->heard_ms += stall_ms; /* this process did not look */
    watch_connection(node);
    if (!serve(node, err))
        return false;
    now_ms = clock_now_ms();
    if (node->over)
        return true;
    if (!check_coordinator(node, now_ms, err))
        return false;
    check_signals(node, now_ms);
    say(node, now_ms);
    return true;
}

bool cluster_node_is_over(const struct cluster_node *node, enum cluster_outcome *outcome, struct error *err) {
    if (!node->over)
        return false;
    *outcome = node->outcome;
    if (err && node->outcome == CLUSTER_FAILED)
        *err = node->reason;
    return true;
}
