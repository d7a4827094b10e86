#pragma once
#include <nccl.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

/** What a unique id holds, as NCCL's own do: whom to call, and what to say. */
struct rendezvous_point {
    uint64_t magic; /**< random: which communicator is meant */
    struct sockaddr_in root;
};
_Static_assert(sizeof(struct rendezvous_point) <= sizeof(ncclUniqueId), "it fits");

/** What a rank says of itself. */
struct hello {
    uint64_t magic, host; /**< host: hash of what names the machine, NCCL_HOSTID or its name */
    int32_t rank, ranks, device;
    struct sockaddr_in address; /**< where it listens */
};

/** What the root answers. All ranks but with COME the hellos of all ranks follow. */
struct verdict {
    enum { COME, TAKEN, DIFFERENT } kind;
    int32_t rank, ranks; /**< DIFFERENT: what another rank said */
};

/** A TCP socket that neither waits nor gathers small messages; -1: none. Those that it accepts do not gather either. */
int address_socket(void);

/**
 * Listens at a free TCP port of the interface that NCCL_SOCKET_IFNAME names (prefixes, or after `=` whole names, separated by
 * commas), else of the first that is up and not loopback, else of loopback. Returns the socket, with its address in *out; -1:
 * there is none.
 */
int address_listen(struct sockaddr_in *out);

/** Has a thread of this process bring the ranks of a unique id together, whenever they call: as NCCL, for ever. */
bool root_start(ncclUniqueId *id);
