#include "tests/emulation/nccl/communicator.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>

/** After a call on a peer's socket: how many bytes were moved, -1 where the peer is gone. */
static ssize_t moved(ssize_t result) {
    bool later = result < 0 && (errno == EAGAIN || errno == EINTR);
    return later ? 0 : result;
}

static bool receive(int socket, struct transfer *transfer) {
    ssize_t got = recv(socket, transfer->in, transfer->in_bytes, MSG_DONTWAIT);
    if (got == 0)
        return false;
    if ((got = moved(got)) < 0)
        return false;
    transfer->in = (char *)transfer->in + got;
    transfer->in_bytes -= (size_t)got;
    return true;
}

static bool send_on(int socket, struct transfer *transfer) {
    ssize_t put = moved(send(socket, transfer->out, transfer->out_bytes, MSG_DONTWAIT | MSG_NOSIGNAL));
    if (put < 0)
        return false;
    transfer->out = (const char *)transfer->out + put;
    transfer->out_bytes -= (size_t)put;
    return true;
}

static short wanted(const struct transfer *transfer) {
    return (short)((transfer->in_bytes ? POLLIN : 0) | (transfer->out_bytes ? POLLOUT : 0));
}

static bool serve(int socket, short events, struct transfer *transfer) {
    enum { GONE = POLLHUP | POLLERR };
    return (!transfer->in_bytes || !(events & (POLLIN | GONE)) || receive(socket, transfer)) &&
           (!transfer->out_bytes || !(events & (POLLOUT | GONE)) || send_on(socket, transfer));
}

bool exchange(ncclComm_t comm, struct transfer transfers[MOST_RANKS]) {
    for (;;) {
        struct pollfd polled[MOST_RANKS + 1];
        bool busy = false;
        for (int peer = 0; peer < comm->ranks; peer++) {
            short events = wanted(&transfers[peer]);
            polled[peer] = (struct pollfd){.fd = events ? comm->sockets[peer] : -1, .events = events};
            busy |= events != 0;
        }
        polled[comm->ranks] = (struct pollfd){.fd = comm->wake, .events = POLLIN};
        if (!busy)
            return true;
        if (poll(polled, (nfds_t)comm->ranks + 1, -1) < 0 && errno != EINTR)
            return communicator_fail(comm, ncclSystemError, "poll failed");
        if (polled[comm->ranks].revents)
            return false;
        for (int peer = 0; peer < comm->ranks; peer++)
            if (!serve(comm->sockets[peer], polled[peer].revents, &transfers[peer]))
                return communicator_fail(comm, ncclRemoteError, "Connection closed by remote peer");
    }
}
