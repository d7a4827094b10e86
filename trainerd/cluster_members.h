#pragma once
#include "trainerd/cluster_message.h"

enum { CLUSTER_IDENTITY_MAX = 255, CLUSTER_REASON_SIZE = 480 };

/** A node, as the coordinator knows it. */
struct cluster_member {
    bool here;
    int ranks;
    uint64_t instance;
    char name[CLUSTER_NAME_SIZE];
    uint8_t identity[CLUSTER_IDENTITY_MAX]; /**< of its connection */
    size_t identity_size;
    int64_t heard_ms;
    struct cluster_share share; /**< its part of the generation that is running, or ran last */
    int ended;                  /**< of its ranks in that */
    uint64_t left_out;          /**< its places that get no ranks any more, bit 0 the first */
    bool leaves;                /**< it knows the result */
};

/** The nodes of a run: who is here, and who may come. Plain logic: the time is an argument. */
struct cluster_members {
    int nodes;
    int64_t silence_ms;      /**< after which a node is lost */
    const char *fingerprint; /**< the coordinator's own: "key=value" lines, then YAML; borrowed */
    struct cluster_member *list; /**< (nodes) owned */
};

bool cluster_members_init(struct cluster_members *members, int nodes, int64_t silence_ms, const char *fingerprint,
                          struct error *err);
void cluster_members_fini(struct cluster_members *members);

enum cluster_admission {
    CLUSTER_ADMITTED, /**< it is new here, or came back */
    CLUSTER_KNOWN,    /**< it was here already, perhaps over another connection */
    CLUSTER_LATER,    /**< another node stands in its place, and may be gone soon */
    CLUSTER_REFUSED,
};

/**
 * Whether the node may take part; where not, reason (CLUSTER_REASON_SIZE) says what is different here and there. identity is its
 * connection's.
 */
enum cluster_admission cluster_members_admit(struct cluster_members *members, const struct cluster_hello *hello,
                                             struct wire_frame identity, int64_t now_ms, char *reason);

/** The node of that instance, if it is here: notes that it was heard of, and its connection. -1: none. */
int cluster_members_hear(struct cluster_members *members, uint64_t instance, struct wire_frame identity, int64_t now_ms);

/** A node that has been silent for too long; -1: none. */
int cluster_members_silent(const struct cluster_members *members, int64_t now_ms);

/** The place gets no rank any more, until its node comes anew. False: it is none that can be left out. */
bool cluster_members_leave_out(struct cluster_members *members, int node, int place);

/** Ranks of all nodes that are here, less what is left out, and the number of those. */
int cluster_members_ranks(const struct cluster_members *members, int *nodes);

/** Gives the ranks of a generation to the nodes that are here, in their order; what share says of all is the same for each. */
void cluster_members_assign(struct cluster_members *members, const struct cluster_share *share);

/** "node 1, node 3": those that are not here. Returns out. */
const char *cluster_members_missing(const struct cluster_members *members, char *out, size_t size);
