/*
 * nccl_ranks [--ranks N] [--mib N]: one process a GPU, all GPUs unless fewer are asked for; each opens its
 * GPU and the collective nccl, as trainerd's workers do. Sums, broadcasts, gathers and barriers must give
 * what follows from arithmetic. Prints one object of JSON. Ends with 0 where all is right, 1 where something
 * is wrong, 2 on wrong usage, 77 where there is no GPU.
 */
#include "common/base/clock.h"
#include "common/base/text.h"
#include "common/device/device.h"
#include "common/tensor/element.h"
#include "tests/unit/trainerd/file_store.h"
#include "trainerd/collective/collective.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    EXIT_WRONG = 1,
    EXIT_USAGE = 2,
    EXIT_SKIPPED = 77,
    MOST_RANKS = 64,
    TIMEOUT_MS = 60000,
    BUCKETS = 24,
    ROUNDS = 5
};

/** What ranks tell the parent, in memory that all share. */
struct board {
    int devices; /* that a child counted */
    struct device_info info;
    struct error errors[MOST_RANKS];
    double all_reduce_ms[ROUNDS]; /* rank 0's, of all buckets */
};

struct rank {
    int rank, ranks;
    int64_t values; /* f32 of all buckets together */
    const char *folder;
    struct board *board;
    struct device *device;
    struct collective *collective;
    char *memory; /* on the device */
    char *host;
};

static bool open_rank(struct rank *rank, struct error *err) {
    struct device_spec device = {.name = "cuda", .index = rank->rank};
    struct collective_store store = file_store(rank->folder);
    struct collective_spec spec = {.name = "nccl",
                                   .rank = rank->rank,
                                   .world_size = rank->ranks,
                                   .store = &store,
                                   .timeout_ms = TIMEOUT_MS,
                                   .device_index = rank->rank};
    rank->device = device_open(&device, err);
    rank->collective = rank->device ? collective_open(&spec, err) : NULL;
    rank->memory =
        rank->collective ? rank->device->ops->alloc(rank->device, (size_t)rank->values * 4, err) : NULL;
    rank->host = rank->memory ? calloc((size_t)rank->values, 4) : NULL;
    return rank->host || (rank->memory && error_set(err, ERROR_MEMORY, "out of memory"));
}

static void close_rank(struct rank *rank) {
    free(rank->host);
    if (rank->memory)
        rank->device->ops->free(rank->device, rank->memory);
    collective_close(rank->collective);
    device_close(rank->device);
}

/* --- sums --- */

/* Small whole numbers, which every type holds exactly, and their sums too: value i of rank r is (i mod 7) (r
 * + 1). */
static double part_of(int64_t i, int rank) {
    return (double)(i % 7) * (rank + 1);
}

static double sum_of(int64_t i, int ranks) {
    return (double)(i % 7) * ranks * (ranks + 1) / 2;
}

static bool fill(struct rank *rank, enum dtype dtype, struct error *err) {
    for (int64_t i = 0; i < rank->values; i++)
        element_store(rank->host, dtype, i, part_of(i, rank->rank));
    return rank->device->ops->upload(rank->device, rank->memory, rank->host,
                                     (size_t)rank->values * dtype_size(dtype), NULL, err);
}

/* As a training step does: all buckets are started as soon as what is computed is ready, and waited for at
 * the end. */
static bool reduce(struct rank *rank, enum dtype dtype, struct event *ready, struct error *err) {
    int tickets[BUCKETS];
    int64_t count = rank->values / BUCKETS;
    if (!rank->device->ops->event_record(rank->device, ready, NULL, err))
        return false;
    for (int i = 0; i < BUCKETS; i++) {
        struct collective_piece piece = {.buffer = rank->memory + (size_t)(i * count) * dtype_size(dtype),
                                         .dtype = dtype,
                                         .count = i + 1 < BUCKETS ? count : rank->values - i * count,
                                         .ready = ready};
        if (!collective_start(rank->collective, &piece, &tickets[i], err))
            return false;
    }
    for (int i = 0; i < BUCKETS; i++)
        if (!collective_wait(rank->collective, tickets[i], -1, err))
            return false;
    return true;
}

static bool check_sums(struct rank *rank, enum dtype dtype, struct error *err) {
    size_t bytes = (size_t)rank->values * dtype_size(dtype);
    if (!rank->device->ops->download(rank->device, rank->host, rank->memory, bytes, NULL, err) ||
        !rank->device->ops->synchronise(rank->device, NULL, err))
        return false;
    for (int64_t i = 0; i < rank->values; i++) {
        double value = element_load(rank->host, dtype, i), expected = sum_of(i, rank->ranks);
        if (value != expected)
            return error_set(err, ERROR_INTERNAL, "the sum of %s number %lld is %g, not %g",
                             dtype_name(dtype), (long long)i, value, expected);
    }
    return true;
}

static bool sum_in(struct rank *rank, enum dtype dtype, struct error *err) {
    struct event *ready;
    if (!rank->device->ops->event_create(rank->device, &ready, err))
        return false;
    bool ok = fill(rank, dtype, err) && reduce(rank, dtype, ready, err) && check_sums(rank, dtype, err);
    for (int round = 0; round < ROUNDS && ok && dtype == DTYPE_F32; round++) {
        ok = collective_barrier(rank->collective, err);
        int64_t start_ns = clock_now_ns();
        ok = ok && reduce(rank, dtype, ready, err);
        if (rank->rank == 0)
            rank->board->all_reduce_ms[round] = (double)(clock_now_ns() - start_ns) * 1e-6;
    }
    rank->device->ops->event_destroy(rank->device, ready);
    return ok;
}

/* --- the other operations --- */

static bool broadcast_works(struct rank *rank, struct error *err) {
    int root = rank->ranks - 1;
    if (!fill(rank, DTYPE_F32, err) || !rank->device->ops->synchronise(rank->device, NULL, err) ||
        !collective_broadcast(rank->collective, rank->memory, (size_t)rank->values * 4, root, err) ||
        !rank->device->ops->download(rank->device, rank->host, rank->memory, (size_t)rank->values * 4, NULL,
                                     err) ||
        !rank->device->ops->synchronise(rank->device, NULL, err))
        return false;
    for (int64_t i = 0; i < rank->values; i++)
        if (element_load(rank->host, DTYPE_F32, i) != part_of(i, root))
            return error_set(err, ERROR_INTERNAL, "value %lld is not rank %d's after its broadcast",
                             (long long)i, root);
    return true;
}

static bool gather_works(struct rank *rank, struct error *err) {
    int32_t mine[3] = {rank->rank, 10 * rank->rank, -rank->rank}, all[3 * MOST_RANKS];
    if (!collective_allgather(rank->collective, mine, sizeof mine, all, err))
        return false;
    for (int i = 0; i < rank->ranks; i++)
        if (all[3 * i] != i || all[3 * i + 1] != 10 * i || all[3 * i + 2] != -i)
            return error_set(err, ERROR_INTERNAL, "what rank %d gave was not gathered", i);
    return true;
}

static bool run_rank(struct rank *rank, struct error *err) {
    return open_rank(rank, err) && sum_in(rank, DTYPE_F32, err) && sum_in(rank, DTYPE_BF16, err) &&
           broadcast_works(rank, err) && gather_works(rank, err) && collective_barrier(rank->collective, err);
}

/* --- processes: CUDA may be used in a child only, since it does not survive a fork --- */

static void count_devices(struct board *board) {
    for (struct device_spec spec = {.name = "cuda"}; spec.index < MOST_RANKS; spec.index++) {
        struct device *device = device_open(&spec, spec.index == 0 ? &board->errors[0] : NULL);
        if (!device)
            break;
        device->ops->info(device, &board->info);
        device_close(device);
        board->devices++;
    }
}

static pid_t start_rank(struct rank *rank) {
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    bool ok = run_rank(rank, &rank->board->errors[rank->rank]);
    close_rank(rank);
    exit(ok ? 0 : EXIT_WRONG);
}

/* True where all ranks ended well; says who did not. */
static bool run_ranks(struct board *board, const char *folder, int ranks, int64_t values) {
    pid_t children[MOST_RANKS];
    bool ok = true;
    for (int i = 0; i < ranks; i++)
        children[i] = start_rank(
            &(struct rank){.rank = i, .ranks = ranks, .values = values, .folder = folder, .board = board});
    for (int i = 0; i < ranks; i++) {
        int status = -1;
        if (children[i] < 0 || waitpid(children[i], &status, 0) < 0 || status == 0) {
            ok = ok && status == 0;
            continue;
        }
        ok = false;
        fprintf(stderr, "nccl_ranks: rank %d ended with %#x: %s\n", i, (unsigned)status,
                board->errors[i].message);
    }
    return ok;
}

/*
 * The bandwidth that NCCL's own tests call busbw: bytes x 2 (n - 1) / n over the time, 0 for one rank. The
 * best round. Where the GPU is a CPU's emulation (tests/emulation) its speed is no figure.
 */
static void print_result(const struct board *board, int ranks, int64_t values) {
    double best_ms = board->all_reduce_ms[0];
    for (int i = 1; i < ROUNDS; i++)
        best_ms = board->all_reduce_ms[i] < best_ms ? board->all_reduce_ms[i] : best_ms;
    double moved = (double)values * 4 * 2 * (ranks - 1) / ranks;
    printf("{\"device\": \"%s\", \"devices\": %d, \"ranks\": %d, \"bytes\": %lld, \"buckets\": %d",
           board->info.name, board->devices, ranks, (long long)values * 4, BUCKETS);
    if (!strstr(board->info.name, "CPU emulation"))
        printf(", \"all_reduce_ms\": %.4f, \"bus_gb_per_s\": %.2f", best_ms, moved / best_ms * 1e-6);
    printf("}\n");
}

static int run(struct board *board, int ranks, int64_t values) {
    pid_t counter = fork();
    if (counter == 0) {
        count_devices(board);
        exit(0);
    }
    if (counter < 0 || waitpid(counter, NULL, 0) < 0)
        return EXIT_WRONG;
    if (board->devices == 0) {
        fprintf(stderr, "nccl_ranks: no device: %s\n", board->errors[0].message);
        return EXIT_SKIPPED;
    }
    if (ranks > board->devices) {
        fprintf(stderr, "nccl_ranks: %d ranks, and %d GPUs: NCCL takes one rank a GPU\n", ranks,
                board->devices);
        return EXIT_USAGE;
    }
    ranks = ranks ? ranks : board->devices;
    char folder[] = "/tmp/thorax-nccl-XXXXXX";
    if (!mkdtemp(folder)) {
        perror("nccl_ranks: /tmp");
        return EXIT_WRONG;
    }
    bool ok = run_ranks(board, folder, ranks, values);
    file_remove_tree(folder, NULL);
    if (ok)
        print_result(board, ranks, values);
    return ok ? 0 : EXIT_WRONG;
}

int main(int argc, char **argv) {
    static const struct option options[] = {
        {"ranks", required_argument, NULL, 'r'}, {"mib", required_argument, NULL, 'm'}, {0}};
    int64_t ranks = 0, mib = 96; /* about the gradients of a ResNet-50 */
    bool ok = true;
    for (int c; ok && (c = getopt_long(argc, argv, "", options, NULL)) != -1;)
        ok = c == 'r' ? text_to_int(optarg, 1, MOST_RANKS, &ranks, NULL)
                      : c == 'm' && text_to_int(optarg, 1, 4096, &mib, NULL);
    if (!ok || optind != argc) {
        fprintf(stderr, "usage: nccl_ranks [--ranks N] [--mib N]\n");
        return EXIT_USAGE;
    }
    struct board *board =
        mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return board == MAP_FAILED ? EXIT_WRONG : run(board, (int)ranks, mib << 18);
}
