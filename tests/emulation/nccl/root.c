#include "tests/emulation/nccl/address.h"
#include "tests/emulation/nccl/communicator.h"

#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

/* Where ranks hear of each other: a thread of the process that drew the unique id. */

struct root {
    uint64_t magic;
    int listener, ranks, count; /* ranks: what the first says; count: those that are here */
    int sockets[MOST_RANKS];    /* by rank; -1: not here */
    struct hello hellos[MOST_RANKS];
};

static void answer(int socket, const struct verdict *verdict) {
    send(socket, verdict, sizeof *verdict, MSG_NOSIGNAL);
}

/** Those that are here hear what the last one said. */
static void answer_all(const struct root *root, const struct verdict *verdict) {
    for (int rank = 0; rank < MOST_RANKS; rank++)
        if (root->sockets[rank] >= 0)
            answer(root->sockets[rank], verdict);
}

static int lowest_here(const struct root *root) {
    int rank = 0;
    while (root->sockets[rank] < 0)
        rank++;
    return rank;
}

/** Whether the caller is one that is waited for; else it has heard why not. */
static bool is_welcome(const struct root *root, int socket, const struct hello *hello) {
    if (hello->magic != root->magic || hello->rank < 0 || hello->rank >= hello->ranks || hello->ranks > MOST_RANKS)
        return false;
    if (root->count > 0 && hello->ranks != root->ranks) {
        answer_all(root, &(struct verdict){DIFFERENT, hello->rank, hello->ranks});
        answer(socket, &(struct verdict){DIFFERENT, lowest_here(root), root->ranks});
        return false;
    }
    bool taken = root->sockets[hello->rank] >= 0;
    if (taken)
        answer(socket, &(struct verdict){.kind = TAKEN});
    return !taken;
}

static void take(struct root *root, int socket, const struct hello *hello) {
    root->ranks = hello->ranks;
    root->hellos[hello->rank] = *hello;
    root->sockets[hello->rank] = socket;
    root->count++;
}

/** The next call; it may take for ever. -1: it was none. */
static int next_call(const struct root *root) {
    struct pollfd polled = {.fd = root->listener, .events = POLLIN};
    return poll(&polled, 1, -1) == 1 ? accept4(root->listener, NULL, NULL, SOCK_CLOEXEC) : -1;
}

static void *root_main(void *argument) {
    struct root *root = argument;
    static const struct verdict come = {.kind = COME};
    while (root->count == 0 || root->count < root->ranks) {
        struct hello hello;
        int socket = next_call(root);
        bool said = socket >= 0 && recv(socket, &hello, sizeof hello, MSG_WAITALL) == (ssize_t)sizeof hello;
        if (said && is_welcome(root, socket, &hello))
            take(root, socket, &hello);
        else if (socket >= 0)
            close(socket);
    }
    answer_all(root, &come);
    for (int rank = 0; rank < root->ranks; rank++) {
        send(root->sockets[rank], root->hellos, (size_t)root->ranks * sizeof root->hellos[0], MSG_NOSIGNAL);
        close(root->sockets[rank]);
    }
    close(root->listener);
    free(root);
    return NULL;
}

/** The program's signals are for its own threads. */
static bool start_thread(struct root *root) {
    sigset_t all, before;
    pthread_t thread;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    bool ok = pthread_create(&thread, NULL, root_main, root) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return ok && pthread_detach(thread) == 0;
}

bool root_start(ncclUniqueId *id) {
    struct rendezvous_point point = {0};
    struct root *root = calloc(1, sizeof *root);
    if (!root || getrandom(&point.magic, sizeof point.magic, 0) != (ssize_t)sizeof point.magic) {
        free(root);
        return false;
    }
    root->magic = point.magic;
    memset(root->sockets, -1, sizeof root->sockets);
    root->listener = address_listen(&point.root);
    if (root->listener >= 0 && start_thread(root)) {
        memset(id, 0, sizeof *id);
        memcpy(id, &point, sizeof point);
        return true;
    }
    if (root->listener >= 0)
        close(root->listener);
    free(root);
    return false;
}
