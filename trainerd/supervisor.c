#include "trainerd/supervisor.h"

#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/program.h"
#include "common/base/signals.h"
#include "common/base/text.h"
#include "trainerd/process.h"
#include "trainerd/rendezvous.h"
#include "trainerd/team.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static const char ENDPOINT_NAME[] = "THORAX_RENDEZVOUS";
static const char WORLD_NAME[] = "THORAX_WORLD_SIZE";
static const char GENERATION_NAME[] = "THORAX_GENERATION";
static const char WORDS_NAME[] = "THORAX_ERROR_DESCRIPTOR";
enum { STEP_MS = 100, ENDPOINT_MAX = 160, SOCKET_PATH_MAX = 100, SILENCE_MS = 3000 };

struct supervisor {
    struct supervisor_spec spec;
    char folder[SOCKET_PATH_MAX];
    char endpoint[ENDPOINT_MAX];
    struct wire_context *wire;
    struct rendezvous_server *server;
    int64_t started_ms, joined_ms; /* joined_ms 0: not all have */
    int64_t kill_ms;               /* when patience ends; 0: nobody was told to stop */
    bool failed;
    struct error failure; /* what the supervisor itself found wrong first */
    int suspect;          /* the one rank that was silent when a rank failed first; -1: none */
    int64_t suspect_silent_ms;
    int alive;
    struct process workers[];
};

/** A private folder for the rendezvous' socket: only its user can enter. */
static bool make_folder(struct supervisor *supervisor, struct error *err) {
    const char *candidates[] = {getenv("XDG_RUNTIME_DIR"), getenv("TMPDIR"), "/tmp"};
    for (int i = 0; i < 3; i++) {
        size_t size = sizeof supervisor->folder - sizeof "/rendezvous";
        if (!candidates[i] || !file_is_folder(candidates[i]) ||
            (size_t)snprintf(supervisor->folder, size, "%s/thorax-XXXXXX", candidates[i]) >= size)
            continue;
        if (mkdtemp(supervisor->folder)) {
            snprintf(supervisor->endpoint, sizeof supervisor->endpoint, "ipc://%s/rendezvous",
                     supervisor->folder);
            return true;
        }
    }
    supervisor->folder[0] = '\0';
    return error_set_errno(err, "no folder for the rendezvous: neither XDG_RUNTIME_DIR nor TMPDIR nor /tmp");
}

static bool open_rendezvous(struct supervisor *supervisor, struct error *err) {
    struct rendezvous_server_spec spec = {.endpoint = supervisor->endpoint,
                                          .world_size = supervisor->spec.ranks,
                                          .generation = supervisor->spec.generation,
                                          .context = supervisor->spec.context,
                                          .on_report = supervisor->spec.on_report};
    supervisor->wire = wire_context_create(1, err);
    if (!supervisor->wire)
        return false;
    spec.wire = supervisor->wire;
    supervisor->server = rendezvous_server_open(&spec, err);
    return supervisor->server != NULL;
}

/** The program's arguments with `--worker RANK` at the end; frees with free. Borrows the texts. */
static char **worker_arguments(char *const *arguments, char *rank) {
    static char option[] = "--worker";
    int count = 0;
    while (arguments[count])
        count++;
    char **out = calloc((size_t)count + 3, sizeof *out);
    if (!out)
        return NULL;
    memcpy(out, arguments, (size_t)count * sizeof *out);
    out[count] = option;
    out[count + 1] = rank;
    return out;
}

static bool start_worker(struct supervisor *supervisor, int rank, const struct cpu_set *available,
                         struct error *err) {
    const struct supervisor_spec *spec = &supervisor->spec;
    struct team_spec share = {spec->ranks, spec->threads_per_rank, spec->active_wait};
    struct team team;
    team_of_rank(available, &share, rank, &team);
    char rank_text[16], world[16], generation[24];
    snprintf(rank_text, sizeof rank_text, "%d", rank);
    snprintf(world, sizeof world, "%d", spec->ranks);
    snprintf(generation, sizeof generation, "%llu", (unsigned long long)spec->generation);
    const char *extra[TEAM_VARIABLES + 4][2] = {
        [TEAM_VARIABLES] = {ENDPOINT_NAME, supervisor->endpoint}, {WORLD_NAME, world}, {GENERATION_NAME, generation}};
    memcpy(extra, team.variables, sizeof team.variables);
    char **arguments = worker_arguments(spec->arguments, rank_text);
    if (!arguments)
        return error_set(err, ERROR_MEMORY, "supervisor: out of memory");
    struct process_spec process = {.program = spec->program ? spec->program : program_path(),
                                   .arguments = arguments,
                                   .extra = (const char *const (*)[2])extra, /* C has no such conversion by itself */
                                   .words_name = WORDS_NAME,
                                   .cores = &team.cores};
    bool ok = process_start(&process, &supervisor->workers[rank], err);
    free(arguments);
    supervisor->alive += ok;
    return ok || error_prefix(err, "rank %d", rank);
}

struct supervisor *supervisor_start(const struct supervisor_spec *spec, struct error *err) {
    struct cpu_set available;
    if (spec->ranks < 1 || spec->ranks > RENDEZVOUS_RANKS_MAX) {
        error_set(err, ERROR_INVALID, "supervisor: %d ranks: 1 to %d", spec->ranks, RENDEZVOUS_RANKS_MAX);
        return NULL;
    }
    struct supervisor *supervisor =
        calloc(1, sizeof *supervisor + (size_t)spec->ranks * sizeof supervisor->workers[0]);
    if (!supervisor) {
        error_set(err, ERROR_MEMORY, "supervisor: out of memory");
        return NULL;
    }
    supervisor->spec = *spec;
    supervisor->suspect = -1;
    supervisor->started_ms = clock_now_ms();
    for (int rank = 0; rank < spec->ranks; rank++)
        supervisor->workers[rank].words = -1;
    bool ok =
        make_folder(supervisor, err) && open_rendezvous(supervisor, err) && cpu_available(&available, err);
    for (int rank = 0; rank < spec->ranks && ok; rank++)
        ok = start_worker(supervisor, rank, &available, err);
    if (ok)
        return supervisor;
    supervisor_destroy(supervisor);
    return NULL;
}

void supervisor_destroy(struct supervisor *supervisor) {
    if (!supervisor)
        return;
    for (int rank = 0; rank < supervisor->spec.ranks; rank++)
        process_kill(&supervisor->workers[rank]);
    for (int rank = 0; rank < supervisor->spec.ranks; rank++)
        process_fini(&supervisor->workers[rank]);
    rendezvous_server_close(supervisor->server);
    wire_context_destroy(supervisor->wire);
    if (supervisor->folder[0])
        file_remove_tree(supervisor->folder, NULL);
    free(supervisor);
}

void supervisor_stop(struct supervisor *supervisor) {
    for (int rank = 0; rank < supervisor->spec.ranks; rank++)
        process_terminate(&supervisor->workers[rank]);
    if (supervisor->kill_ms == 0)
        supervisor->kill_ms = clock_now_ms() + supervisor->spec.grace_ms;
}

/** Records the first thing that is wrong and stops everyone. */
static void fail(struct supervisor *supervisor, const struct error *cause) {
    if (!supervisor->failed)
        supervisor->failure = *cause;
    supervisor->failed = true;
    supervisor_stop(supervisor);
}

/** When the rank was heard of last, or could have begun to fall silent. */
static int64_t heard_ms_of(const struct supervisor *supervisor, int rank) {
    int64_t heard_ms = rendezvous_server_heard_ms(supervisor->server, rank);
    return heard_ms > supervisor->joined_ms ? heard_ms : supervisor->joined_ms;
}

/** The rank that lives and was heard of least lately; -1: none lives. */
static int quietest_of(const struct supervisor *supervisor) {
    int quietest = -1;
    for (int rank = 0; rank < supervisor->spec.ranks; rank++) {
        bool alive = supervisor->workers[rank].pid != 0;
        if (alive && (quietest < 0 || heard_ms_of(supervisor, rank) < heard_ms_of(supervisor, quietest)))
            quietest = rank;
    }
    return quietest;
}

/**
 * A rank fails first where it waited for another one in vain. Those that wait say so; if one alone did not, it is the one that
 * was waited for, and as it hangs, it is not asked to stop.
 */
static void find_suspect(struct supervisor *supervisor) {
    int64_t now_ms = clock_now_ms();
    int quietest = quietest_of(supervisor);
    if (quietest < 0 || !supervisor->joined_ms || now_ms - heard_ms_of(supervisor, quietest) < SILENCE_MS)
        return;
    for (int rank = 0; rank < supervisor->spec.ranks; rank++) {
        if (rank != quietest && now_ms - heard_ms_of(supervisor, rank) >= SILENCE_MS)
            return;
    }
    supervisor->suspect = quietest;
    supervisor->suspect_silent_ms = now_ms - heard_ms_of(supervisor, quietest);
    process_kill(&supervisor->workers[quietest]);
}

static bool ended_well(const struct process *worker) {
    int code = WIFEXITED(worker->status) ? WEXITSTATUS(worker->status) : WORKER_EXIT_FAILED;
    return code == WORKER_EXIT_FINISHED || code == WORKER_EXIT_STOPPED;
}

static void reap(struct supervisor *supervisor) {
    bool someone_failed = false;
    for (int rank = 0; rank < supervisor->spec.ranks; rank++) {
        struct process *worker = &supervisor->workers[rank];
        if (worker->pid == 0 || !process_ended(worker))
            continue;
        supervisor->alive--;
        someone_failed |= !ended_well(worker);
    }
    if (!someone_failed)
        return;
    if (supervisor->kill_ms == 0)
        find_suspect(supervisor);
    supervisor_stop(supervisor);
}

static void check_hang(struct supervisor *supervisor, int64_t now_ms) {
    int quietest = quietest_of(supervisor);
    int64_t silent_ms = quietest < 0 ? 0 : now_ms - heard_ms_of(supervisor, quietest);
    if (supervisor->spec.hang_timeout_ms == 0 || silent_ms <= supervisor->spec.hang_timeout_ms)
        return;
    struct error cause;
    error_set(&cause, ERROR_TIMEOUT, "rank %d hangs: no sign of life for %.1f s", quietest,
              (double)silent_ms / 1000);
    fail(supervisor, &cause);
}

static void check_join(struct supervisor *supervisor, int64_t now_ms) {
    int missing = rendezvous_server_missing(supervisor->server);
    if (missing == supervisor->spec.ranks) {
        supervisor->joined_ms = now_ms;
        return;
    }
    if (supervisor->spec.join_timeout_ms == 0 ||
        now_ms - supervisor->started_ms <= supervisor->spec.join_timeout_ms)
        return;
    struct error cause;
    error_set(&cause, ERROR_TIMEOUT, "rank %d has not come to the rendezvous within %.1f s", missing,
              (double)supervisor->spec.join_timeout_ms / 1000);
    fail(supervisor, &cause);
}

/** Passes a stop on, and ends patience. */
static void check_stop(struct supervisor *supervisor, int64_t now_ms) {
    if (signals_stop > 0)
        supervisor_stop(supervisor);
    if (signals_stop > 1)
        supervisor->kill_ms = now_ms;
    if (supervisor->kill_ms == 0 || now_ms < supervisor->kill_ms)
        return;
    for (int rank = 0; rank < supervisor->spec.ranks; rank++)
        process_kill(&supervisor->workers[rank]);
}

/**
 * How much a worker's end explains: 3 died of a signal, 2 failed by itself, 1 failed because of a peer or
 * when told to stop, 0 ended well or by our hand.
 */
static int weigh(const struct process *worker, const struct error *words) {
    if (WIFSIGNALED(worker->status)) {
        int number = WTERMSIG(worker->status);
        return (number == SIGTERM && worker->sent_term) || (number == SIGKILL && worker->sent_kill) ? 0 : 3;
    }
    if (ended_well(worker))
        return 0;
    return worker->sent_term || words->code == ERROR_PEER || words->code == ERROR_TIMEOUT ? 1 : 2;
}

static void describe(const struct supervisor *supervisor, int rank, const struct error *words,
                     struct error *err) {
    const struct process *worker = &supervisor->workers[rank];
    int64_t heard_ms = rendezvous_server_heard_ms(supervisor->server, rank);
    char heard[64] = "before it joined";
    if (heard_ms)
        snprintf(heard, sizeof heard, "last heard of %.1f s ago", (double)(clock_now_ms() - heard_ms) / 1000);
    if (WIFSIGNALED(worker->status)) {
        int number = WTERMSIG(worker->status);
        error_set(err, ERROR_PEER, "rank %d was killed by signal %d (%s), %s", rank, number,
                  strsignal(number), heard);
        if (number == SIGKILL)
            error_hint(err, "perhaps the system ran out of memory: its log says so");
    } else if (words->code != ERROR_NONE) {
        *err = *words;
        error_prefix(err, "rank %d failed", rank);
    } else {
        error_set(err, ERROR_PEER, "rank %d exited with code %d, %s", rank, WEXITSTATUS(worker->status),
                  heard);
    }
}

/** What the others said of it is part of the story. */
static void name_suspect(const struct supervisor *supervisor, struct error *cause) {
    struct error others = *cause;
    error_set(cause, ERROR_TIMEOUT, "rank %d hangs: no sign of life for %.1f s%s%.360s", supervisor->suspect,
              (double)supervisor->suspect_silent_ms / 1000, others.code == ERROR_NONE ? "" : "; ", others.message);
}

/** Once all are gone: who was the cause? Every rank's failure counts, for the first to be noticed may be a
 * victim. */
static bool verdict(struct supervisor *supervisor, struct error *err) {
    int heaviest = 0, stubborn = -1;
    struct error cause = {0};
    for (int rank = 0; rank < supervisor->spec.ranks; rank++) {
        struct process *worker = &supervisor->workers[rank];
        struct error words = {0};
        process_last_words(worker, &words);
        int weight = weigh(worker, &words);
        if (weight > heaviest) {
            heaviest = weight;
            describe(supervisor, rank, &words, &cause);
        }
        if (worker->sent_kill && WIFSIGNALED(worker->status) && WTERMSIG(worker->status) == SIGKILL &&
            stubborn < 0)
            stubborn = rank;
    }
    if (supervisor->failed)
        cause = supervisor->failure;
    else if (heaviest <= 1 && supervisor->suspect >= 0)
        name_suspect(supervisor, &cause);
    else if (heaviest == 0 && stubborn >= 0)
        error_set(&cause, ERROR_TIMEOUT, "rank %d did not stop within %.1f s and was killed", stubborn,
                  (double)supervisor->spec.grace_ms / 1000);
    if (cause.code == ERROR_NONE)
        return true;
    if (err)
        *err = cause;
    return false;
}

bool supervisor_step(struct supervisor *supervisor, int64_t timeout_ms, bool *running, struct error *err) {
    struct wire_poll_item item = {.socket = rendezvous_server_socket(supervisor->server)};
    struct error cause = {0};
    if (wire_poll(&item, 1, timeout_ms < STEP_MS ? timeout_ms : STEP_MS, &cause) < 0 ||
        !rendezvous_server_serve(supervisor->server, &cause))
        fail(supervisor, &cause);
    /* What the dead have said is served before they are counted. */
    reap(supervisor);
    int64_t now_ms = clock_now_ms();
    check_stop(supervisor, now_ms);
    if (supervisor->kill_ms == 0 && supervisor->joined_ms)
        check_hang(supervisor, now_ms);
    else if (supervisor->kill_ms == 0)
        check_join(supervisor, now_ms);
    *running = supervisor->alive > 0;
    if (*running)
        return true;
    if (!rendezvous_server_serve(supervisor->server, &cause))
        fail(supervisor, &cause);
    return verdict(supervisor, err);
}

bool supervisor_run(const struct supervisor_spec *spec, struct error *err) {
    struct supervisor *supervisor = supervisor_start(spec, err);
    bool running = supervisor != NULL, ok = running;
    while (running)
        ok = supervisor_step(supervisor, STEP_MS, &running, err);
    supervisor_destroy(supervisor);
    return ok;
}

static bool read_number(const char *name, int64_t low, int64_t high, int64_t *out, struct error *err) {
    const char *text = getenv(name);
    if (!text)
        return error_set(err, ERROR_STATE, "%s is not set: a worker is started by its supervisor only", name);
    return text_to_int(text, low, high, out, err) || error_prefix(err, "%s", name);
}

bool supervisor_worker_read(int rank, struct supervisor_worker *out, struct error *err) {
    const char *endpoint = getenv(ENDPOINT_NAME);
    int64_t world, generation, descriptor;
    if (!read_number(WORLD_NAME, 1, RENDEZVOUS_RANKS_MAX, &world, err) ||
        !read_number(GENERATION_NAME, 0, INT64_MAX, &generation, err) ||
        !read_number(WORDS_NAME, 3, 1 << 20, &descriptor, err))
        return false;
    *out = (struct supervisor_worker){.rank = rank,
                                      .world_size = (int)world,
                                      .local_rank = rank,
                                      .local_ranks = (int)world,
                                      .generation = (uint64_t)generation,
                                      .error_descriptor = (int)descriptor};
    if (!endpoint || !text_copy(out->endpoint, sizeof out->endpoint, endpoint))
        return error_set(err, ERROR_STATE, "%s is not set or too long", ENDPOINT_NAME);
    if (rank < 0 || rank >= world)
        return error_set(err, ERROR_INVALID, "rank %d of %d", rank, (int)world);
    return true;
}

void supervisor_worker_failed(const struct supervisor_worker *worker, const struct error *err) {
    /* A pipe takes this much in one piece; where nobody reads any more, nobody is told. */
    file_write_all(worker->error_descriptor, err, sizeof *err, NULL);
}
