#include "tests/bench/crew.h"

#include "common/base/file.h"
#include "common/base/text.h"
#include "tests/bench/crew_rank.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

struct crew {
    struct crew_spec spec;
    char folder[128]; /* where the ranks meet */
    pid_t pids[CREW_MAX_RANKS];
    int sockets[CREW_MAX_RANKS];
    int started;
    bool failed;
    char device[64];
};

bool crew_send(int socket, const void *data, size_t size) {
    for (const char *at = data; size;) {
        ssize_t sent = send(socket, at, size, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent <= 0)
            return false;
        at += sent;
        size -= (size_t)sent;
    }
    return true;
}

bool crew_receive(int socket, void *data, size_t size) {
    for (char *at = data; size;) {
        ssize_t got = recv(socket, at, size, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return false;
        at += got;
        size -= (size_t)got;
    }
    return true;
}

/* In the child; the ends of the ranks before are theirs. */
_Noreturn static void become_rank(const struct crew *crew, int rank, int socket, pid_t parent) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
    for (int i = 0; i < rank; i++)
        close(crew->sockets[i]);
    crew_rank_run(&crew->spec, rank, crew->folder, socket);
}

static bool start_rank(struct crew *crew, struct error *err) {
    int ends[2], rank = crew->started;
    pid_t parent = getpid();
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
        return error_set_errno(err, "socketpair");
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        close(ends[0]);
        become_rank(crew, rank, ends[1], parent);
    }
    close(ends[1]);
    if (pid < 0) {
        close(ends[0]);
        return error_set_errno(err, "fork");
    }
    crew->pids[rank] = pid;
    crew->sockets[rank] = ends[0];
    crew->started++;
    return true;
}

static bool take_report(struct crew *crew, int rank, struct crew_report *report, struct error *err) {
    if (!crew_receive(crew->sockets[rank], report, sizeof *report))
        return error_set(err, ERROR_PEER, "rank %d of %d ended", rank, crew->spec.ranks);
    return report->error.code == ERROR_NONE ||
           error_set(err, report->error.code, "rank %d of %d: %s", rank, crew->spec.ranks, report->error.message);
}

/* One report of each rank; at the first that fails all is over, for others may wait for it. */
static bool gather(struct crew *crew, struct crew_report *reports, struct error *err) {
    struct pollfd waiting[CREW_MAX_RANKS];
    for (int rank = 0; rank < crew->started; rank++)
        waiting[rank] = (struct pollfd){crew->sockets[rank], POLLIN, 0};
    for (int left = crew->started; left > 0;) {
        if (poll(waiting, (nfds_t)crew->started, -1) < 0 && errno != EINTR)
            return error_set_errno(err, "poll");
        for (int rank = 0; rank < crew->started; rank++) {
            if (waiting[rank].fd < 0 || !waiting[rank].revents)
                continue;
            if (!take_report(crew, rank, &reports[rank], err))
                return false;
            waiting[rank].fd = -1;
            left--;
        }
    }
    return true;
}

static bool start(struct crew *crew, struct error *err) {
    const char *parent = getenv("TMPDIR");
    snprintf(crew->folder, sizeof crew->folder, "%s/crew-XXXXXX", parent ? parent : "/tmp");
    struct crew_report *reports = calloc((size_t)crew->spec.ranks, sizeof *reports);
    if (!reports)
        return error_set(err, ERROR_MEMORY, "out of memory for reports");
    bool ok = mkdtemp(crew->folder) || error_set_errno(err, "make a folder in %s", parent ? parent : "/tmp");
    while (ok && crew->started < crew->spec.ranks)
        ok = start_rank(crew, err);
    ok = ok && gather(crew, reports, err);
    if (ok)
        (void)text_copy(crew->device, sizeof crew->device, reports[0].device);
    free(reports);
    (void)file_remove_tree(crew->folder, NULL); /* they have met */
    return ok;
}

struct crew *crew_open(const struct crew_spec *spec, struct error *err) {
    if (spec->ranks < 1 || spec->ranks > CREW_MAX_RANKS) {
        error_set(err, ERROR_INVALID, "a crew has 1 to %d ranks, not %d", CREW_MAX_RANKS, spec->ranks);
        return NULL;
    }
    struct crew *crew = calloc(1, sizeof *crew);
    if (!crew) {
        error_set(err, ERROR_MEMORY, "out of memory for a crew");
        return NULL;
    }
    crew->spec = *spec;
    crew->failed = !start(crew, err);
    if (!crew->failed)
        return crew;
    crew_close(crew);
    return NULL;
}

/* Ranks end when their sockets do; those of a crew that failed may wait for each other. */
void crew_close(struct crew *crew) {
    if (!crew)
        return;
    for (int rank = 0; rank < crew->started; rank++) {
        close(crew->sockets[rank]);
        if (crew->failed)
            kill(crew->pids[rank], SIGKILL);
    }
    for (int rank = 0; rank < crew->started; rank++)
        while (waitpid(crew->pids[rank], NULL, 0) < 0 && errno == EINTR)
            continue;
    free(crew);
}

bool crew_tell(struct crew *crew, const struct crew_order *order, struct crew_report *reports, struct error *err) {
    if (order->count < 1 || order->count > CREW_MAX_VALUES)
        return error_set(err, ERROR_INVALID, "a crew does 1 to %d things at once, not %d", CREW_MAX_VALUES, order->count);
    for (int rank = 0; rank < crew->started; rank++)
        (void)crew_send(crew->sockets[rank], order, sizeof *order); /* who is gone is found when reports are gathered */
    crew->failed = !gather(crew, reports, err);
    return !crew->failed;
}

struct machine crew_machine(const struct crew *crew) {
    return machine_of(crew->device);
}

bool crew_take_option(struct subject_options *options, int option, const char *value) {
    int bytes;
    switch (option) {
    case 'X':
        if (!subject_take_number(value, 1 << 30, &bytes))
            return false;
        options->bucket_bytes = (size_t)bytes;
        return true;
    case 'Y':
        return options->bf16_gradients = true;
    default:
        return subject_take_option(options, option, value);
    }
}

double crew_mean_ms(const struct crew_report *report) {
    double sum = 0;
    for (int i = 0; i < report->count; i++)
        sum += report->ms[i];
    return sum / report->count;
}
