#pragma once
#include "common/wire/message.h"
#include "proto/cluster.pb-c.h"
#include "trainerd/cluster_place.h"

/**
 * What nodes of a training run and their coordinator say to each other (proto/cluster.proto), as plain structs. What comes in is
 * hostile: sizes and counts are limited before it is parsed, and what is handed out has known enums and texts that are short.
 */
enum {
    CLUSTER_NAME_SIZE = 128,
    CLUSTER_FINGERPRINT_MAX = 128 << 10, /**< bytes */
    CLUSTER_PLACES_MAX = 64,             /**< of a node that can be left out: bits of a mask */
};

/** A node's NodeHello. Texts are borrowed. */
struct cluster_hello {
    int node, nodes, ranks;
    uint64_t instance;
    const char *name, *fingerprint;
};

/** How a rank's process ended. */
struct cluster_end {
    int rank;
    int status;        /**< waitpid's */
    bool told, killed; /**< it had been sent SIGTERM, SIGKILL */
    struct error words; /**< its last ones; code ERROR_NONE: none */
};

/** A node's NodeState. */
struct cluster_state {
    uint64_t instance, generation;
    const struct cluster_end *ends; /**< borrowed */
    int end_count;
    int stopped_rank; /**< -1: none */
    bool wants_stop, leaves;
};

enum cluster_order { CLUSTER_IDLE = 1, CLUSTER_RUN, CLUSTER_REGROUP, CLUSTER_STOP };

/** A node's part of a generation. */
struct cluster_share {
    uint64_t generation, run;
    int ranks, parts;      /**< of the generation */
    int first_rank, count; /**< of this node */
    uint64_t left_out;     /**< of this node's places, bit 0 the first: those that get no rank */
    bool resumes;
};

/** Of the node's places (it brought as many as ranks) the one where its local-th rank is. */
int cluster_share_place(const struct cluster_share *share, int local);

struct cluster_orders {
    enum cluster_order order;
    struct cluster_share share;
    int64_t grace_ms; /**< with CLUSTER_STOP, from SIGTERM to SIGKILL */
    int kill_rank;    /**< with CLUSTER_STOP; -1: none */
};

enum cluster_outcome { CLUSTER_FINISHED = 1, CLUSTER_STOPPED, CLUSTER_FAILED };

/** Each packs into owned bytes (free(out->data)). */
bool cluster_pack_hello(const struct cluster_hello *hello, struct bytes *out, struct error *err);
bool cluster_pack_state(const struct cluster_state *state, struct bytes *out, struct error *err);
bool cluster_pack_orders(const struct cluster_orders *orders, struct bytes *out, struct error *err);
bool cluster_pack_refusal(const char *reason, bool later, struct bytes *out, struct error *err);
bool cluster_pack_result(enum cluster_outcome outcome, const char *reason, struct bytes *out, struct error *err);

struct cluster_refusal {
    const char *reason;
    bool later;
};

struct cluster_result {
    enum cluster_outcome outcome;
    const char *reason;
};

enum cluster_kind { CLUSTER_HELLO = 1, CLUSTER_STATE, CLUSTER_ORDERS, CLUSTER_REFUSAL, CLUSTER_RESULT };

/** A message that came in. Texts and ends live until cluster_received_fini. */
struct cluster_received {
    enum cluster_kind kind;
    union {
        struct cluster_hello hello;
        struct cluster_state state;
        struct cluster_orders orders;
        struct cluster_refusal refusal;
        struct cluster_result result;
    };
    void *message, *ends; /* owned */
};

/**
 * Reads a frame from a node: a hello or a state. out is to be finished after an error too: ERROR_TOO_LARGE, ERROR_FORMAT,
 * ERROR_INVALID, ERROR_UNSUPPORTED (another version).
 */
bool cluster_unpack_from_node(struct wire_frame frame, struct cluster_received *out, struct error *err);
/** Reads a frame from the coordinator: orders, a refusal or a result. Errors as above. */
bool cluster_unpack_to_node(struct wire_frame frame, struct cluster_received *out, struct error *err);
/** Takes a zeroed one. */
void cluster_received_fini(struct cluster_received *received);
