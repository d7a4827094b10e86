#pragma once
#include "common/wire/security.h"
#include "trainerd/config.h"

/** The keys by which nodes and ranks of a run speak to their coordinator; security NULL: in the clear. */
struct cluster_keys {
    struct wire_security *security;
    char server_key[CURVE_TEXT_SIZE]; /**< the coordinator's */
    bool owns;                        /* security was made here */
};

/**
 * From cluster.secret, or cluster.server_key and the section `security`, whose keys are `own` (borrowed; NULL: they are read
 * where they are needed). Where neither is given there are none.
 */
bool cluster_keys_open(const struct trainer_config *config, struct wire_security *own, struct cluster_keys *out,
                       struct error *err);
/** Takes a zeroed one. After all sockets that use it. */
void cluster_keys_close(struct cluster_keys *keys);
