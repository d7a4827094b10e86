#include "trainerd/cluster_message.h"

#include "trainerd/rendezvous.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Three fields an end and more, and room for those of later versions. */
static const struct message_limits limits = {
    .max_bytes = 2 * CLUSTER_FINGERPRINT_MAX + (RENDEZVOUS_RANKS_MAX << 10),
    .max_fields = 64 + 16 * RENDEZVOUS_RANKS_MAX,
    .max_depth = 3};

int cluster_share_place(const struct cluster_share *share, int local) {
    for (int place = 0;; place++) {
        bool left_out = place < CLUSTER_PLACES_MAX && share->left_out >> place & 1;
        if (!left_out && local-- == 0)
            return place;
    }
}

/* --- out --- */

static bool pack_from_node(Thorax__V1__FromNode *message, struct bytes *out, struct error *err) {
    message->protocol_version = MESSAGE_PROTOCOL_VERSION;
    return message_pack(&message->base, out, err);
}

static bool pack_to_node(Thorax__V1__ToNode *message, struct bytes *out, struct error *err) {
    message->protocol_version = MESSAGE_PROTOCOL_VERSION;
    return message_pack(&message->base, out, err);
}

/* protobuf-c's texts are not const, though packing does not write to them. */
static char *borrow(const char *text) {
    return (char *)(uintptr_t)text;
}

bool cluster_pack_hello(const struct cluster_hello *hello, struct bytes *out, struct error *err) {
    Thorax__V1__NodeHello body = THORAX__V1__NODE_HELLO__INIT;
    Thorax__V1__FromNode message = THORAX__V1__FROM_NODE__INIT;
    body.node = (uint32_t)hello->node;
    body.nodes = (uint32_t)hello->nodes;
    body.ranks = (uint32_t)hello->ranks;
    body.instance = hello->instance;
    body.name = borrow(hello->name);
    body.fingerprint = borrow(hello->fingerprint);
    message.body_case = THORAX__V1__FROM_NODE__BODY_HELLO;
    message.hello = &body;
    return pack_from_node(&message, out, err);
}

static void fill_end(const struct cluster_end *end, Thorax__V1__WorkerEnd *out) {
    thorax__v1__worker_end__init(out);
    out->rank = (uint32_t)end->rank;
    out->status = (uint32_t)end->status;
    out->told = end->told;
    out->killed = end->killed;
    out->code = (uint32_t)end->words.code;
    out->message = borrow(end->words.message);
    out->hint = borrow(end->words.hint);
}

bool cluster_pack_state(const struct cluster_state *state, struct bytes *out, struct error *err) {
    Thorax__V1__NodeState body = THORAX__V1__NODE_STATE__INIT;
    Thorax__V1__FromNode message = THORAX__V1__FROM_NODE__INIT;
    size_t count = (size_t)state->end_count;
    Thorax__V1__WorkerEnd *ends = calloc(count + 1, sizeof *ends), **list = calloc(count + 1, sizeof *list);
    bool ok = (ends && list) || error_set(err, ERROR_MEMORY, "out of memory");
    for (size_t i = 0; ok && i < count; i++) {
        fill_end(&state->ends[i], &ends[i]);
        list[i] = &ends[i];
    }
    body.instance = state->instance;
    body.generation = state->generation;
    body.n_ends = count;
    body.ends = list;
    body.stopped_rank = (uint32_t)(state->stopped_rank + 1);
    body.wants_stop = state->wants_stop;
    body.leaves = state->leaves;
    message.body_case = THORAX__V1__FROM_NODE__BODY_STATE;
    message.state = &body;
    ok = ok && pack_from_node(&message, out, err);
    free(ends);
    free(list);
    return ok;
}

bool cluster_pack_orders(const struct cluster_orders *orders, struct bytes *out, struct error *err) {
    Thorax__V1__NodeOrders body = THORAX__V1__NODE_ORDERS__INIT;
    Thorax__V1__ToNode message = THORAX__V1__TO_NODE__INIT;
    body.order = (Thorax__V1__NodeOrder)orders->order;
    body.generation = orders->share.generation;
    body.run = orders->share.run;
    body.ranks = (uint32_t)orders->share.ranks;
    body.parts = (uint32_t)orders->share.parts;
    body.first_rank = (uint32_t)orders->share.first_rank;
    body.count = (uint32_t)orders->share.count;
    body.resumes = orders->share.resumes;
    body.grace_ms = (uint32_t)orders->grace_ms;
    body.kill_rank = (uint32_t)(orders->kill_rank + 1);
    body.left_out = orders->share.left_out;
    message.body_case = THORAX__V1__TO_NODE__BODY_ORDERS;
    message.orders = &body;
    return pack_to_node(&message, out, err);
}

bool cluster_pack_refusal(const char *reason, bool later, struct bytes *out, struct error *err) {
    Thorax__V1__NodeRefusal body = THORAX__V1__NODE_REFUSAL__INIT;
    Thorax__V1__ToNode message = THORAX__V1__TO_NODE__INIT;
    body.reason = borrow(reason);
    body.later = later;
    message.body_case = THORAX__V1__TO_NODE__BODY_REFUSAL;
    message.refusal = &body;
    return pack_to_node(&message, out, err);
}

bool cluster_pack_result(enum cluster_outcome outcome, const char *reason, struct bytes *out, struct error *err) {
    Thorax__V1__RunResult body = THORAX__V1__RUN_RESULT__INIT;
    Thorax__V1__ToNode message = THORAX__V1__TO_NODE__INIT;
    body.outcome = (Thorax__V1__RunOutcome)outcome;
    body.reason = borrow(reason);
    message.body_case = THORAX__V1__TO_NODE__BODY_RESULT;
    message.result = &body;
    return pack_to_node(&message, out, err);
}

/* --- in --- */

static bool is_version(uint32_t version, struct error *err) {
    return version == MESSAGE_PROTOCOL_VERSION ||
           error_set(err, ERROR_UNSUPPORTED, "it speaks version %u of the protocol, this program version %d", version,
                     MESSAGE_PROTOCOL_VERSION);
}

static bool take_hello(const Thorax__V1__NodeHello *body, struct cluster_received *out, struct error *err) {
    if (body->nodes < 1 || body->nodes > CLUSTER_NODES_MAX || body->node >= body->nodes || body->ranks < 1 ||
        body->ranks > RENDEZVOUS_RANKS_MAX)
        return error_set(err, ERROR_INVALID, "node %u of %u with %u ranks", body->node, body->nodes, body->ranks);
    if (strlen(body->name) >= CLUSTER_NAME_SIZE || strlen(body->fingerprint) > CLUSTER_FINGERPRINT_MAX)
        return error_set(err, ERROR_TOO_LARGE, "node %u: its name or its fingerprint is too long", body->node);
    out->kind = CLUSTER_HELLO;
    out->hello = (struct cluster_hello){.node = (int)body->node, .nodes = (int)body->nodes, .ranks = (int)body->ranks,
                                        .instance = body->instance, .name = body->name, .fingerprint = body->fingerprint};
    return true;
}

static bool take_end(const Thorax__V1__WorkerEnd *body, struct cluster_end *out, struct error *err) {
    if (body->rank >= RENDEZVOUS_RANKS_MAX || body->code > ERROR_INTERNAL || body->status > 0xffff)
        return error_set(err, ERROR_INVALID, "rank %u ended with status %u and error %u", body->rank, body->status, body->code);
    *out = (struct cluster_end){.rank = (int)body->rank, .status = (int)body->status, .told = body->told, .killed = body->killed};
    out->words.code = (enum error_code)body->code;
    snprintf(out->words.message, sizeof out->words.message, "%s", body->message);
    snprintf(out->words.hint, sizeof out->words.hint, "%s", body->hint);
    return true;
}

static bool take_state(const Thorax__V1__NodeState *body, struct cluster_received *out, struct error *err) {
    if (body->n_ends > RENDEZVOUS_RANKS_MAX || body->stopped_rank > RENDEZVOUS_RANKS_MAX)
        return error_set(err, ERROR_INVALID, "a state of %zu ends, rank %u stopped", body->n_ends, body->stopped_rank);
    struct cluster_end *ends = calloc(body->n_ends + 1, sizeof *ends);
    out->ends = ends;
    if (!ends)
        return error_set(err, ERROR_MEMORY, "out of memory");
    for (size_t i = 0; i < body->n_ends; i++) {
        if (!take_end(body->ends[i], &ends[i], err))
            return false;
    }
    out->kind = CLUSTER_STATE;
    out->state = (struct cluster_state){.instance = body->instance, .generation = body->generation, .ends = ends,
                                        .end_count = (int)body->n_ends, .stopped_rank = (int)body->stopped_rank - 1,
                                        .wants_stop = body->wants_stop, .leaves = body->leaves};
    return true;
}

static bool take_orders(const Thorax__V1__NodeOrders *body, struct cluster_received *out, struct error *err) {
    if (body->order == THORAX__V1__NODE_ORDER__ORDER_UNSPECIFIED || body->ranks > RENDEZVOUS_RANKS_MAX ||
        body->first_rank > body->ranks || body->count > body->ranks - body->first_rank || body->parts > 1 << 20 ||
        body->grace_ms > INT32_MAX || body->kill_rank > RENDEZVOUS_RANKS_MAX)
        return error_set(err, ERROR_INVALID, "orders that cannot be: ranks %u to %u of %u", body->first_rank,
                         body->first_rank + body->count, body->ranks);
    out->kind = CLUSTER_ORDERS;
    out->orders = (struct cluster_orders){
        .order = (enum cluster_order)body->order,
        .share = {.generation = body->generation, .run = body->run, .ranks = (int)body->ranks, .parts = (int)body->parts,
                  .first_rank = (int)body->first_rank, .count = (int)body->count, .left_out = body->left_out,
                  .resumes = body->resumes},
        .grace_ms = body->grace_ms,
        .kill_rank = (int)body->kill_rank - 1};
    return true;
}

static bool take_result(const Thorax__V1__RunResult *body, struct cluster_received *out, struct error *err) {
    if (body->outcome == THORAX__V1__RUN_OUTCOME__RUN_UNSPECIFIED)
        return error_set(err, ERROR_INVALID, "a result without an outcome");
    out->kind = CLUSTER_RESULT;
    out->result = (struct cluster_result){(enum cluster_outcome)body->outcome, body->reason};
    return true;
}

static bool take_from_node(const Thorax__V1__FromNode *message, struct cluster_received *out, struct error *err) {
    if (!is_version(message->protocol_version, err))
        return false;
    switch (message->body_case) {
    case THORAX__V1__FROM_NODE__BODY_HELLO: return take_hello(message->hello, out, err);
    case THORAX__V1__FROM_NODE__BODY_STATE: return take_state(message->state, out, err);
    default: return error_set(err, ERROR_FORMAT, "a message without a body");
    }
}

static bool take_to_node(const Thorax__V1__ToNode *message, struct cluster_received *out, struct error *err) {
    if (!is_version(message->protocol_version, err))
        return false;
    switch (message->body_case) {
    case THORAX__V1__TO_NODE__BODY_ORDERS: return take_orders(message->orders, out, err);
    case THORAX__V1__TO_NODE__BODY_RESULT: return take_result(message->result, out, err);
    case THORAX__V1__TO_NODE__BODY_REFUSAL:
        out->kind = CLUSTER_REFUSAL;
        out->refusal = (struct cluster_refusal){message->refusal->reason, message->refusal->later};
        return true;
    default: return error_set(err, ERROR_FORMAT, "a message without a body");
    }
}

bool cluster_unpack_from_node(struct wire_frame frame, struct cluster_received *out, struct error *err) {
    *out = (struct cluster_received){0};
    out->message = message_unpack(&thorax__v1__from_node__descriptor, frame, &limits, err);
    return out->message && take_from_node(out->message, out, err);
}

bool cluster_unpack_to_node(struct wire_frame frame, struct cluster_received *out, struct error *err) {
    *out = (struct cluster_received){0};
    out->message = message_unpack(&thorax__v1__to_node__descriptor, frame, &limits, err);
    return out->message && take_to_node(out->message, out, err);
}

void cluster_received_fini(struct cluster_received *received) {
    message_free(received->message);
    free(received->ends);
    *received = (struct cluster_received){0};
}
