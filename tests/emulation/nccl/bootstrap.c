#include "tests/emulation/nccl/communicator.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* Ranks meet: each listens, calls those below it, and is called by those above. */

enum { RETRY_MS = 2, MAGIC = 0x6e63636c };

/** What ranks tell each other first. */
struct hello {
    uint32_t magic;
    int32_t rank, ranks, device;
};

/** An abstract address, which is no file. */
static socklen_t address_of(const ncclUniqueId *id, int rank, struct sockaddr_un *out) {
    enum { BYTES = 16 };
    int length = 1;
    *out = (struct sockaddr_un){.sun_family = AF_UNIX};
    length += snprintf(out->sun_path + 1, sizeof out->sun_path - 1, "thorax-emulated-nccl-");
    for (int i = 0; i < BYTES; i++)
        length += snprintf(out->sun_path + length, sizeof out->sun_path - (size_t)length, "%02x",
                           (unsigned char)id->internal[i]);
    length += snprintf(out->sun_path + length, sizeof out->sun_path - (size_t)length, "-%d", rank);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + (size_t)length);
}

static bool listen_for_peers(ncclComm_t comm) {
    struct sockaddr_un address;
    socklen_t length = address_of(&comm->id, comm->rank, &address);
    comm->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (comm->listener < 0)
        return communicator_fail(comm, ncclSystemError, "socket: %s", strerror(errno));
    if (bind(comm->listener, (struct sockaddr *)&address, length) == 0 && listen(comm->listener, MOST_RANKS) == 0)
        return true;
    if (errno == EADDRINUSE)
        emulation_finding("ncclCommInitRankConfig: there is a rank %d of this unique id already", comm->rank);
    return communicator_fail(comm, ncclSystemError, "bind: %s", strerror(errno));
}

/** Waits for the socket, or that long. False: aborted. */
static bool await(ncclComm_t comm, int socket, int timeout_ms) {
    struct pollfd polled[] = {{.fd = comm->wake, .events = POLLIN}, {.fd = socket, .events = POLLIN}};
    poll(polled, 2, timeout_ms);
    return !polled[0].revents;
}

/** A connection to a lower rank, which may not be there yet. */
static bool call(ncclComm_t comm, int peer) {
    struct sockaddr_un address;
    socklen_t length = address_of(&comm->id, peer, &address);
    comm->sockets[peer] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (comm->sockets[peer] < 0)
        return communicator_fail(comm, ncclSystemError, "socket: %s", strerror(errno));
    while (connect(comm->sockets[peer], (struct sockaddr *)&address, length) != 0)
        if (!await(comm, -1, RETRY_MS))
            return false;
    return true;
}

static struct hello hello_of(const struct ncclComm *comm) {
    return (struct hello){MAGIC, comm->rank, comm->ranks, comm->device};
}

/** Exchanges hellos with the peer at that place. Ranks that differ in their number would wait without end. */
static bool greet(ncclComm_t comm, int place, struct hello *theirs) {
    struct hello mine = hello_of(comm);
    struct transfer transfers[MOST_RANKS] = {[0] = {0}};
    transfers[place] = (struct transfer){&mine, sizeof mine, theirs, sizeof *theirs};
    if (!exchange(comm, transfers))
        return false;
    if (theirs->magic != MAGIC)
        return communicator_fail(comm, ncclSystemError, "a stranger called");
    if (theirs->ranks == comm->ranks)
        return true;
    emulation_finding("ncclCommInitRankConfig: rank %d says that there are %d ranks, and rank %d that there are %d", comm->rank,
                      comm->ranks, theirs->rank, theirs->ranks);
    return communicator_fail(comm, ncclInternalError, "ranks differ in their number");
}

/** Two ranks on one GPU are refused, as by NCCL. */
static bool has_own_device(ncclComm_t comm, const struct hello *theirs) {
    return theirs->device != comm->device ||
           communicator_fail(comm, ncclInvalidUsage, "Duplicate GPU detected : rank %d and rank %d both on CUDA device %x000",
                             comm->rank, theirs->rank, (unsigned)comm->device);
}

/** A higher rank calls; whose connection it is shows once it has said so. */
static bool answer(ncclComm_t comm, struct hello *theirs) {
    int place = comm->rank; /* its own, which is free */
    if (!await(comm, comm->listener, -1))
        return false;
    comm->sockets[place] = accept4(comm->listener, NULL, NULL, SOCK_CLOEXEC);
    if (comm->sockets[place] < 0)
        return communicator_fail(comm, ncclSystemError, "accept: %s", strerror(errno));
    if (!greet(comm, place, theirs))
        return false;
    if (theirs->rank <= comm->rank || theirs->rank >= comm->ranks || comm->sockets[theirs->rank] >= 0)
        return communicator_fail(comm, ncclInternalError, "rank %d called", theirs->rank);
    comm->sockets[theirs->rank] = comm->sockets[place];
    comm->sockets[place] = -1;
    return true;
}

bool bootstrap(ncclComm_t comm) {
    struct hello all[MOST_RANKS];
    if (!listen_for_peers(comm))
        return false;
    for (int peer = 0; peer < comm->rank; peer++)
        if (!call(comm, peer) || !greet(comm, peer, &all[peer]))
            return false;
    for (int peer = comm->rank + 1; peer < comm->ranks; peer++)
        if (!answer(comm, &all[peer]))
            return false;
    bool well = true;
    for (int peer = 0; peer < comm->ranks; peer++)
        well = (peer == comm->rank || has_own_device(comm, &all[peer])) && well;
    close(comm->listener);
    comm->listener = -1;
    return well;
}
