#include "tests/bench/crew.h"

#include "common/base/file.h"
#include "common/base/text.h"
#include "tests/bench/crew_rank.h"

#include <errno.h>
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

/* One report of each rank. The first error is told, the reports of all are taken. */
static bool gather(struct crew *crew, struct crew_report *reports, struct error *err) {
    for (int rank = 0; rank < crew->started; rank++) {
        struct crew_report *report = &reports[rank];
        bool came = crew_receive(crew->sockets[rank], report, sizeof *report);
        if (came && report->error.code == ERROR_NONE)
            continue;
        if (!crew->failed && came)
            error_set(err, report->error.code, "rank %d of %d: %s", rank, crew->spec.ranks, report->error.message);
        else if (!crew->failed)
            error_set(err, ERROR_PEER, "rank %d of %d ended", rank, crew->spec.ranks);
        crew->failed = true;
    }
    return !crew->failed;
}

static bool start(struct crew *crew, struct error *err) {
    const char *parent = getenv("TMPDIR");
    snprintf(crew->folder, sizeof crew->folder, "%s/crew-XXXXXX", parent ? parent : "/tmp");
    if (!mkdtemp(crew->folder)) {
        crew->folder[0] = '\0';
        return error_set_errno(err, "make a folder in %s", parent ? parent : "/tmp");
    }
    while (crew->started < crew->spec.ranks)
        if (!start_rank(crew, err))
            return false;
    struct crew_report *reports = calloc((size_t)crew->spec.ranks, sizeof *reports);
    bool ok = reports ? gather(crew, reports, err) : error_set(err, ERROR_MEMORY, "out of memory for reports");
    if (ok)
        (void)text_copy(crew->device, sizeof crew->device, reports[0].device);
    free(reports);
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
    if (crew->folder[0])
        (void)file_remove_tree(crew->folder, NULL);
    free(crew);
}

bool crew_tell(struct crew *crew, const struct crew_order *order, struct crew_report *reports, struct error *err) {
    if (order->count < 1 || order->count > CREW_MAX_VALUES)
        return error_set(err, ERROR_INVALID, "a crew does 1 to %d things at once, not %d", CREW_MAX_VALUES, order->count);
    for (int rank = 0; rank < crew->started; rank++)
        (void)crew_send(crew->sockets[rank], order, sizeof *order); /* who is gone is found when reports are gathered */
    return gather(crew, reports, err);
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
