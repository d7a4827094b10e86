#include "ranks.h"

#include "file_store.h"

#include "common/base/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <cmocka.h>

static const char *engine = "gloo";

void ranks_use(const char *name) {
    engine = name;
}

struct collective *open_rank_as(struct job *job, struct collective_spec spec, struct error *err) {
    struct collective_store store = file_store(job->folder);
    spec.name = engine;
    spec.rank = job->rank;
    spec.world_size = job->world_size;
    spec.store = &store;
    spec.timeout_ms = job->timeout_ms;
    return collective_open(&spec, err);
}

struct collective *open_rank(struct job *job, struct error *err) {
    return open_rank_as(job, (struct collective_spec){.device_index = job->rank}, err);
}

void *abort_soon(void *collective) {
    clock_sleep_ms(200);
    collective_abort(collective);
    return NULL;
}

static void run_rank(struct job *job) {
    struct error err = {0};
    struct collective *collective = job->opens ? NULL : open_rank(job, &err);
    if (!collective && !job->opens)
        fprintf(stderr, "rank %d: %s\n", job->rank, err.message);
    CHECK(collective || job->opens);
    job->body(job, collective);
    collective_close(collective);
    exit(0);
}

bool start(struct collective *collective, void *buffer, enum dtype dtype, int64_t count, int *ticket,
           struct error *err) {
    struct collective_piece piece = {.buffer = buffer, .dtype = dtype, .count = count};
    return collective_start(collective, &piece, ticket, err);
}

struct board *board_create(void) {
    struct board *board =
        mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(board != MAP_FAILED);
    return board;
}

/** Runs the body in world_size processes and returns their exit statuses; the board is the caller's. */
void run_ranks(struct job *job, int statuses[RANKS_MAX]) {
    pid_t children[RANKS_MAX];
    snprintf(job->folder, sizeof job->folder, "/tmp/thorax-test-XXXXXX");
    assert_non_null(mkdtemp(job->folder));
    fflush(NULL);
    for (job->rank = 0; job->rank < job->world_size; job->rank++) {
        children[job->rank] = fork();
        assert_true(children[job->rank] >= 0);
        if (children[job->rank] == 0)
            run_rank(job);
    }
    for (int i = 0; i < job->world_size; i++)
        assert_int_equal(waitpid(children[i], &statuses[i], 0), children[i]);
    assert_true(file_remove_tree(job->folder, NULL));
}

struct board *run_well(int world_size, void (*body)(struct job *job, struct collective *collective)) {
    struct job job = {
        .world_size = world_size, .timeout_ms = TIMEOUT_MS, .board = board_create(), .body = body};
    int statuses[RANKS_MAX];
    run_ranks(&job, statuses);
    for (int i = 0; i < world_size; i++)
        assert_int_equal(statuses[i], 0);
    return job.board;
}

void board_destroy(struct board *board) {
    munmap(board, sizeof *board);
}
