#include "tests/emulation/nccl/address.h"
#include "tests/emulation/nccl/communicator.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Ranks meet: each tells the root where it listens and hears where others do, calls those below it, and answers those above. */

enum { RETRY_MS = 2 };

/** What names this machine, which has each of its GPUs once. FNV-1a. */
static uint64_t host_hash(void) {
    char name[256] = "";
    const char *given = getenv("NCCL_HOSTID");
    uint64_t hash = 0xcbf29ce484222325u;
    gethostname(name, sizeof name - 1);
    for (const char *at = given && *given ? given : name; *at; at++)
        hash = (hash ^ (unsigned char)*at) * 0x100000001b3u;
    return hash;
}

/** Waits for the socket, or that long. False: aborted. */
static bool await(ncclComm_t comm, int socket, short events, int timeout_ms) {
    struct pollfd polled[] = {{.fd = comm->wake, .events = POLLIN}, {.fd = socket, .events = events}};
    poll(polled, 2, timeout_ms);
    return !polled[0].revents;
}

/** Whether the call was answered; it is made anew where it was refused. */
static bool connected(int socket, const struct sockaddr_in *address) {
    return connect(socket, (const struct sockaddr *)address, sizeof *address) == 0 || errno == EISCONN;
}

/** A connection to that address at that place, where nobody may be listening yet. False: aborted. */
static bool call(ncclComm_t comm, int place, const struct sockaddr_in *address) {
    int caller = address_socket();
    comm->sockets[place] = caller;
    if (caller < 0)
        return communicator_fail(comm, ncclSystemError, "socket: %s", strerror(errno));
    while (!connected(caller, address)) {
        bool under_way = errno == EINPROGRESS || errno == EALREADY;
        if (!await(comm, under_way ? caller : -1, POLLOUT, under_way ? -1 : RETRY_MS))
            return false;
    }
    return true;
}

/** Moves bytes both ways with whom the socket at that place leads to. */
static bool talk(ncclComm_t comm, int place, struct transfer transfer) {
    struct transfer transfers[MOST_RANKS] = {[0] = {0}};
    transfers[place] = transfer;
    return exchange(comm, transfers);
}

/** Ranks that differ in their number would wait without end. */
static bool is_welcome(ncclComm_t comm, const struct verdict *verdict) {
    if (verdict->kind == COME)
        return true;
    if (verdict->kind == TAKEN) {
        emulation_finding("ncclCommInitRankConfig: there is a rank %d of this unique id already", comm->rank);
        return communicator_fail(comm, ncclSystemError, "two ranks are the same");
    }
    emulation_finding("ncclCommInitRankConfig: rank %d says that there are %d ranks, and rank %d that there are %d", comm->rank,
                      comm->ranks, verdict->rank, verdict->ranks);
    return communicator_fail(comm, ncclInternalError, "ranks differ in their number");
}

/** all: (ranks) what they say of themselves. */
static bool ask_root(ncclComm_t comm, const struct rendezvous_point *point, const struct hello *mine, struct hello *all) {
    struct verdict verdict;
    int place = comm->rank; /* its own, which is free */
    bool ok = call(comm, place, &point->root) &&
              talk(comm, place, (struct transfer){mine, sizeof *mine, &verdict, sizeof verdict}) && is_welcome(comm, &verdict) &&
              talk(comm, place, (struct transfer){.in = all, .in_bytes = (size_t)comm->ranks * sizeof *all});
    if (comm->sockets[place] >= 0)
        close(comm->sockets[place]);
    comm->sockets[place] = -1;
    return ok;
}

/** Two ranks on one GPU are refused, as by NCCL. */
static bool has_own_device(ncclComm_t comm, const struct hello *mine, const struct hello *theirs) {
    return theirs->device != mine->device || theirs->host != mine->host ||
           communicator_fail(comm, ncclInvalidUsage, "Duplicate GPU detected : rank %d and rank %d both on CUDA device %x000",
                             comm->rank, theirs->rank, (unsigned)comm->device);
}

/** A higher rank calls; whose connection it is shows once it has said so. */
static bool answer(ncclComm_t comm, uint64_t magic) {
    struct hello theirs;
    int place = comm->rank; /* its own, which is free */
    if (!await(comm, comm->listener, POLLIN, -1))
        return false;
    comm->sockets[place] = accept4(comm->listener, NULL, NULL, SOCK_CLOEXEC);
    if (comm->sockets[place] < 0)
        return communicator_fail(comm, ncclSystemError, "accept: %s", strerror(errno));
    if (!talk(comm, place, (struct transfer){.in = &theirs, .in_bytes = sizeof theirs}))
        return false;
    if (theirs.magic != magic || theirs.rank <= comm->rank || theirs.rank >= comm->ranks || comm->sockets[theirs.rank] >= 0)
        return communicator_fail(comm, ncclInternalError, "a stranger called");
    comm->sockets[theirs.rank] = comm->sockets[place];
    comm->sockets[place] = -1;
    return true;
}

static bool connect_all(ncclComm_t comm, const struct hello *mine, const struct hello *all) {
    for (int peer = 0; peer < comm->rank; peer++)
        if (!call(comm, peer, &all[peer].address) || !talk(comm, peer, (struct transfer){.out = mine, .out_bytes = sizeof *mine}))
            return false;
    for (int peer = comm->rank + 1; peer < comm->ranks; peer++)
        if (!answer(comm, mine->magic))
            return false;
    return true;
}

bool bootstrap(ncclComm_t comm) {
    struct rendezvous_point point;
    struct hello mine, all[MOST_RANKS];
    memcpy(&point, &comm->id, sizeof point);
    mine = (struct hello){point.magic, host_hash(), comm->rank, comm->ranks, comm->device, {0}};
    comm->listener = address_listen(&mine.address);
    if (comm->listener < 0)
        return communicator_fail(comm, ncclInternalError, "no socket interface found");
    if (!ask_root(comm, &point, &mine, all) || !connect_all(comm, &mine, all))
        return false;
    bool well = true;
    for (int peer = 0; peer < comm->ranks; peer++)
        well = (peer == comm->rank || has_own_device(comm, &mine, &all[peer])) && well;
    close(comm->listener);
    comm->listener = -1;
    return well;
}
