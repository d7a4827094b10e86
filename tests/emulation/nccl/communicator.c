#include "tests/emulation/nccl/communicator.h"

#include "tests/emulation/nccl/address.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* The life of a communicator, as NCCL's non-blocking ones have it: no call but ncclCommAbort waits for anything. */

static const char KIND[] = "ncclComm_t";

bool communicator_check(ncclComm_t comm, const char *who) {
    return emulation_handle_check(KIND, comm, who);
}

bool communicator_fail(ncclComm_t comm, ncclResult_t error, const char *format, ...) {
    va_list arguments;
    pthread_mutex_lock(&comm->lock);
    if (comm->error == ncclSuccess && comm->state != ABORTED) {
        comm->error = error;
        va_start(arguments, format);
        vsnprintf(comm->text, sizeof comm->text, format, arguments);
        va_end(arguments);
    }
    pthread_mutex_unlock(&comm->lock);
    return false;
}

/* --- opening --- */

ncclResult_t ncclGetVersion(int *version) {
    *version = NCCL_VERSION_CODE;
    return ncclSuccess;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *id) {
    emulation_note(EMULATION_HANDLE, "ncclGetUniqueId");
    return root_start(id) ? ncclSuccess : ncclSystemError;
}

static void *opener_main(void *argument) {
    ncclComm_t comm = argument;
    bool met = bootstrap(comm);
    pthread_mutex_lock(&comm->lock);
    if (met && comm->state == OPENING)
        comm->state = READY;
    pthread_mutex_unlock(&comm->lock);
    return NULL;
}

/** The program's signals are for its own threads. */
static bool start_opener(ncclComm_t comm) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    bool ok = pthread_create(&comm->opener, NULL, opener_main, comm) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return ok;
}

static bool config_is_right(const ncclConfig_t *config, int rank, int ranks) {
    static const ncclConfig_t initial = NCCL_CONFIG_INITIALIZER;
    const char *wrong = !config                            ? "there is no configuration"
                        : config->magic != initial.magic   ? "the configuration is not from NCCL_CONFIG_INITIALIZER"
                        : config->blocking != 0            ? "only non-blocking communicators are emulated"
                        : ranks < 1 || ranks > MOST_RANKS  ? "so many ranks are not emulated"
                        : rank < 0 || rank >= ranks        ? "the rank is not one of them"
                                                           : NULL;
    if (wrong)
        emulation_finding("ncclCommInitRankConfig(rank %d of %d): %s", rank, ranks, wrong);
    return !wrong;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t *out, int ranks, ncclUniqueId id, int rank, ncclConfig_t *config) {
    emulation_note(EMULATION_HANDLE, "ncclCommInitRankConfig");
    *out = NULL;
    if (!config_is_right(config, rank, ranks))
        return ncclInvalidArgument;
    ncclComm_t comm = calloc(1, sizeof *comm);
    if (!comm)
        return ncclSystemError;
    *comm = (struct ncclComm){.id = id, .rank = rank, .ranks = ranks, .listener = -1};
    memset(comm->sockets, -1, sizeof comm->sockets);
    pthread_mutex_init(&comm->lock, NULL);
    pthread_cond_init(&comm->changed, NULL);
    comm->wake = eventfd(0, EFD_CLOEXEC);
    if (cudaGetDevice(&comm->device) != cudaSuccess || comm->wake < 0 || !start_opener(comm)) {
        free(comm);
        return ncclSystemError;
    }
    emulation_handle_add(KIND, comm);
    *out = comm;
    return ncclInProgress;
}

/* --- asking --- */

/** With the lock. */
static bool in_progress(const struct ncclComm *comm) {
    return comm->state == OPENING || comm->polls > 0 || (comm->state == FINALIZED && comm->done < comm->queued);
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *out) {
    emulation_note(EMULATION_QUERY, "ncclCommGetAsyncError");
    if (!communicator_check(comm, "ncclCommGetAsyncError"))
        return ncclInvalidArgument;
    pthread_mutex_lock(&comm->lock);
    if (comm->polls > 0 && --comm->polls == 0 && comm->error == ncclSuccess)
        comm->error = operation_enqueue(&comm->accepted);
    *out = comm->error != ncclSuccess ? comm->error : in_progress(comm) ? ncclInProgress : ncclSuccess;
    pthread_mutex_unlock(&comm->lock);
    return ncclSuccess;
}

const char *ncclGetErrorString(ncclResult_t result) {
    static const char *const texts[] = {
        [ncclSuccess] = "no error",
        [ncclUnhandledCudaError] = "unhandled cuda error (run with NCCL_DEBUG=INFO for details)",
        [ncclSystemError] = "unhandled system error (run with NCCL_DEBUG=INFO for details)",
        [ncclInternalError] = "internal error - please report this issue to the NCCL developers",
        [ncclInvalidArgument] = "invalid argument (run with NCCL_DEBUG=WARN for details)",
        [ncclInvalidUsage] = "invalid usage (run with NCCL_DEBUG=WARN for details)",
        [ncclRemoteError] = "remote process exited or there was a network error",
        [ncclInProgress] = "NCCL operation in progress",
    };
    return (unsigned)result < sizeof texts / sizeof *texts ? texts[result] : "unknown result code";
}

/* What stands there is never changed once it is set: the first error stays. */
const char *ncclGetLastError(ncclComm_t comm) {
    return comm && communicator_check(comm, "ncclGetLastError") ? comm->text : "";
}

/* --- ending --- */

static void release(ncclComm_t comm) {
    pthread_join(comm->opener, NULL);
    for (int peer = 0; peer < comm->ranks; peer++)
        if (comm->sockets[peer] >= 0)
            close(comm->sockets[peer]);
    if (comm->listener >= 0)
        close(comm->listener);
    close(comm->wake);
    memset(comm->sockets, -1, sizeof comm->sockets);
    comm->listener = -1;
}

ncclResult_t ncclCommFinalize(ncclComm_t comm) {
    emulation_note(EMULATION_HANDLE, "ncclCommFinalize");
    if (!communicator_check(comm, "ncclCommFinalize"))
        return ncclInvalidArgument;
    pthread_mutex_lock(&comm->lock);
    bool right = comm->state == READY && comm->polls == 0;
    ncclResult_t result = comm->error;
    if (right)
        comm->state = FINALIZED;
    if (right && result == ncclSuccess && in_progress(comm))
        result = ncclInProgress;
    pthread_mutex_unlock(&comm->lock);
    if (!right)
        emulation_finding("ncclCommFinalize: the communicator is not open, or still busy with an earlier call");
    return right ? result : ncclInvalidUsage;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm) {
    emulation_note(EMULATION_HANDLE, "ncclCommDestroy");
    if (!emulation_handle_remove(KIND, comm, "ncclCommDestroy"))
        return ncclInvalidArgument;
    pthread_mutex_lock(&comm->lock);
    bool right = comm->state == FINALIZED && !in_progress(comm);
    pthread_mutex_unlock(&comm->lock);
    if (!right)
        emulation_finding("ncclCommDestroy: the communicator was not finalized, or has work to do: this may wait for ever");
    else
        release(comm);
    return right ? ncclSuccess : ncclInvalidUsage;
}

/** What runs leaves its buffers first; what is still queued will find that it has nothing to do. */
ncclResult_t ncclCommAbort(ncclComm_t comm) {
    const uint64_t one = 1;
    emulation_note(EMULATION_HANDLE, "ncclCommAbort");
    if (!emulation_handle_remove(KIND, comm, "ncclCommAbort"))
        return ncclInvalidArgument;
    pthread_mutex_lock(&comm->lock);
    comm->state = ABORTED;
    bool woken = write(comm->wake, &one, sizeof one) == (ssize_t)sizeof one;
    pthread_cond_broadcast(&comm->changed);
    while (woken && comm->running)
        pthread_cond_wait(&comm->changed, &comm->lock);
    pthread_mutex_unlock(&comm->lock);
    release(comm);
    return woken ? ncclSuccess : ncclSystemError;
}
