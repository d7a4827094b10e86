#pragma once
#include "trainerd/config.h"

/**
 * Where this process stands among the trainerd of a run: from the section `cluster`, else from the environment of Slurm or
 * torchrun, else alone. Environment variables are hostile: each is checked, alone and against the others, and what is missing or
 * contradicts another is an error that names it.
 */
enum { CLUSTER_ENDPOINT_SIZE = 300, CLUSTER_NODES_MAX = 1024 };

struct cluster_place {
    int nodes, node;  /**< trainerd that train together; which of them this is, 0 coordinates */
    int slots;        /**< ranks that it starts here */
    int first_device; /**< index, among those visible, of the first GPU for them */
    int share, shares; /**< this task is one of `shares` on its machine that may run on the same cores, and takes that share of
                          them; 0 of 1 where it has its own */
    char coordinator[CLUSTER_ENDPOINT_SIZE]; /**< tcp://HOST:PORT, for connecting; "": this machine alone */
    const char *source; /**< for logs: "cluster.coordinator", "Slurm", "torchrun", "this machine"; static */
};

/**
 * visible_devices: GPUs that this process sees; 0 where it computes on CPUs. Of several tasks on one node each is one rank,
 * with a GPU of its own; a task that is alone on its node, and whoever no launcher started, starts device.ranks of them.
 *
 * cluster.coordinator comes first, and nodes and node then are the configuration's; where cluster.launcher names a launcher, they
 * are the launcher's, and cluster.coordinator says no more than where its tasks meet.
 *
 * The port under Slurm, and under torchrun where MASTER_PORT is its own, follows from the job's identity (a hash, 15000 to 31999:
 * below the ports that Linux hands out by itself), so that two jobs that share a node differ. Once in 17000 they do not: then the
 * port is taken, and cluster.coordinator (with cluster.launcher) has to say another.
 */
bool cluster_place_find(const struct trainer_config *config, int visible_devices, struct cluster_place *out, struct error *err);

/**
 * tcp://HOST:PORT from HOST:PORT, where HOST is a name, an IPv4 address, or an IPv6 address in brackets; local (may be NULL):
 * whether it is loopback. ERROR_INVALID where it is none of these.
 */
bool cluster_endpoint(const char *address, char out[CLUSTER_ENDPOINT_SIZE], bool *local, struct error *err);

/**
 * What the coordinator binds so that others reach it at that endpoint (of cluster_endpoint). A numeric address is bound as it is.
 * A name cannot be: ZeroMQ binds none, and /etc/hosts often has a machine's own name on loopback, where no other could reach it.
 * It means all interfaces; localhost means 127.0.0.1.
 */
void cluster_bind_endpoint(const char *endpoint, char out[CLUSTER_ENDPOINT_SIZE]);
