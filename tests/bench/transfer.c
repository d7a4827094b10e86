/*
 * transfer [--members N] [--megabytes N] [--rounds N] [--json]: how long a published model takes to all
 * members of a pool, over TCP on loopback, against what nobody can do without: one plain TCP copy of the same
 * bytes to as many receivers, one digest and one durable write each. Rounds are interleaved; the medians are
 * compared.
 */
#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/rng.h"
#include "common/base/text.h"
#include "inferd/subscriber.h"
#include "trainerd/publisher.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MEMBERS_MAX = 32, ROUNDS_MAX = 99, PIECE_BYTES = 1 << 18, PATIENCE_MS = 120000 };

struct bench {
    int64_t members, megabytes, rounds;
    bool json;
    char folder[64];
    uint8_t *data; /* one round's bytes */
    size_t size;
    struct publisher *publisher;
    struct subscriber *subscribers[MEMBERS_MAX];
    double ours_ms[ROUNDS_MAX], plain_ms[ROUNDS_MAX], unsynced_ms[ROUNDS_MAX];
};

static void fail(const char *what) {
    fprintf(stderr, "transfer: %s\n", what);
    _exit(2);
}

static double now_ms(void) {
    return (double)clock_now_ns() / 1e6;
}

static int rising(const void *a, const void *b) {
    double left = *(const double *)a, right = *(const double *)b;
    return (left > right) - (left < right);
}

static double median(const double *values, int count) {
    double sorted[ROUNDS_MAX];
    memcpy(sorted, values, (size_t)count * sizeof *sorted);
    qsort(sorted, (size_t)count, sizeof *sorted, rising);
    return sorted[count / 2];
}

/** Bytes that no earlier round had: nothing can be reused. */
static void fill(struct bench *bench, uint32_t round) {
    for (size_t i = 0; i + 16 <= bench->size; i += 16) {
        struct rng_block block = rng_philox(1000 + round, RNG_TEST, i);
        memcpy(bench->data + i, block.v, sizeof block.v);
    }
}

/* ---- what cannot be done without ---- */

struct receiver {
    const struct bench *bench;
    int socket;
    bool sync;
    char path[128];
    pthread_t thread;
};

static void *receive(void *context) {
    struct receiver *receiver = context;
    uint8_t *piece = malloc(PIECE_BYTES);
    struct digest_state state;
    int file = open(receiver->path, O_CREAT | O_TRUNC | O_WRONLY, 0600);
    digest_init(&state);
    for (ssize_t got; (got = recv(receiver->socket, piece, PIECE_BYTES, MSG_WAITALL)) > 0;) {
        digest_update(&state, piece, (size_t)got);
        if (!file_write_all(file, piece, (size_t)got, NULL))
            fail("cannot write");
    }
    struct digest found = digest_final(&state),
                  wanted = digest_of(receiver->bench->data, receiver->bench->size);
    if (receiver->sync && fsync(file) != 0)
        fail("cannot sync");
    close(file);
    if (!digest_equal(&found, &wanted))
        fail("the plain copy arrived damaged");
    free(piece);
    return NULL;
}

static void connect_pair(int pair[2]) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    pair[0] = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(listener, (struct sockaddr *)&address, size) != 0 || listen(listener, 1) != 0 ||
        getsockname(listener, (struct sockaddr *)&address, &size) != 0 ||
        connect(pair[0], (struct sockaddr *)&address, size) != 0 ||
        (pair[1] = accept(listener, NULL, NULL)) < 0)
        fail("no TCP on loopback");
    close(listener);
}

/** Milliseconds until all receivers have all bytes, digested and written. */
static double plain_copy(struct bench *bench, bool sync) {
    struct receiver receivers[MEMBERS_MAX];
    int senders[MEMBERS_MAX];
    for (int i = 0; i < bench->members; i++) {
        int pair[2];
        connect_pair(pair);
        senders[i] = pair[0];
        receivers[i] = (struct receiver){.bench = bench, .socket = pair[1], .sync = sync};
        snprintf(receivers[i].path, sizeof receivers[i].path, "%s/plain-%d", bench->folder, i);
    }
    double start = now_ms();
    for (int i = 0; i < bench->members; i++)
        pthread_create(&receivers[i].thread, NULL, receive, &receivers[i]);
    for (size_t at = 0; at < bench->size; at += PIECE_BYTES) {
        size_t size = bench->size - at < PIECE_BYTES ? bench->size - at : PIECE_BYTES;
        for (int i = 0; i < bench->members; i++) {
            if (!file_write_all(senders[i], bench->data + at, size, NULL))
                fail("cannot send");
        }
    }
    for (int i = 0; i < bench->members; i++)
        close(senders[i]);
    for (int i = 0; i < bench->members; i++)
        pthread_join(receivers[i].thread, NULL);
    double took = now_ms() - start;
    for (int i = 0; i < bench->members; i++) {
        close(receivers[i].socket);
        unlink(receivers[i].path);
    }
    return took;
}

/* ---- ours ---- */

static bool refuse_to_activate(void *context, const char *path, const struct digest *digest,
                               struct error *err) {
    (void)context, (void)path, (void)digest;
    return error_set(err, ERROR_STATE, "nothing is activated here");
}

static void start_pool(struct bench *bench) {
    struct error err = {0};
    char store[128], name[32];
    snprintf(store, sizeof store, "%s/publisher", bench->folder);
    struct publisher_spec spec = {.announce = "tcp://127.0.0.1:*",
                                  .control = "tcp://127.0.0.1:*",
                                  .blobs = "tcp://127.0.0.1:*",
                                  .store_folder = store,
                                  .activate = PUBLISHER_ACTIVATE_MANUAL};
    if (!(bench->publisher = publisher_create(&spec, &err)))
        fail(err.message);
    for (int i = 0; i < bench->members; i++) {
        snprintf(name, sizeof name, "member-%d", i);
        snprintf(store, sizeof store, "%s/%s", bench->folder, name);
        struct subscriber_spec member = {.announce = publisher_endpoint(bench->publisher, PUBLISHER_ANNOUNCE),
                                         .control = publisher_endpoint(bench->publisher, PUBLISHER_CONTROL),
                                         .blobs = publisher_endpoint(bench->publisher, PUBLISHER_BLOBS),
                                         .member = name,
                                         .store_folder = store,
                                         .activate = refuse_to_activate};
        bench->subscribers[i] = subscriber_create(&member, &err);
        if (!bench->subscribers[i] || !subscriber_start(bench->subscribers[i], &err))
            fail(err.message);
    }
    for (int i = 0; i < bench->members; i++) {
        struct subscriber_status status = {0};
        for (int64_t end = clock_now_ms() + PATIENCE_MS; !status.connected; clock_sleep_ms(5)) {
            subscriber_status(bench->subscribers[i], &status);
            if (clock_now_ms() > end)
                fail("a member does not connect");
        }
    }
}

static bool all_have(const struct bench *bench, const char *hex) {
    for (int i = 0; i < bench->members; i++) {
        char path[256];
        snprintf(path, sizeof path, "%s/member-%d/objects/%.2s/%s", bench->folder, i, hex, hex + 2);
        if (access(path, F_OK) != 0)
            return false;
    }
    return true;
}

/** Milliseconds from the announcement until every member has the model whole, checked and on disk. */
static double publish(struct bench *bench, int round) {
    char path[128], version[16], hex[DIGEST_HEX_SIZE];
    struct publisher_published published;
    struct error err = {0};
    snprintf(path, sizeof path, "%s/model", bench->folder);
    snprintf(version, sizeof version, "%d", round);
    if (!file_write_atomic(path, bench->data, bench->size, &err) ||
        !publisher_publish_file(bench->publisher, path, "bench", version, &published, &err))
        fail(err.message);
    double start = now_ms(); /* the announcement is on its way: publisher_publish_file has waited for it */
    digest_hex(&published.digest, hex);
    for (int64_t end = clock_now_ms() + PATIENCE_MS; !all_have(bench, hex);) {
        usleep(500);
        if (clock_now_ms() > end)
            fail("a model does not arrive");
    }
    return now_ms() - start;
}

static void measure(struct bench *bench) {
    for (int round = -1; round < bench->rounds; round++) { /* the first warms up */
        fill(bench, (uint32_t)(round + 1));
        double unsynced = plain_copy(bench, false), plain = plain_copy(bench, true);
        double ours = publish(bench, round + 1);
        if (round >= 0) {
            bench->unsynced_ms[round] = unsynced;
            bench->plain_ms[round] = plain;
            bench->ours_ms[round] = ours;
        }
    }
}

static void print(const struct bench *bench) {
    int rounds = (int)bench->rounds;
    double ours = median(bench->ours_ms, rounds), plain = median(bench->plain_ms, rounds);
    double unsynced = median(bench->unsynced_ms, rounds);
    if (bench->json) {
        printf("{\"ratio\": %.4f, \"measured_ms\": %.2f, \"limit_ms\": %.2f, \"unsynced_ms\": %.2f, "
               "\"members\": %d, "
               "\"megabytes\": %d, \"rounds\": %d}\n",
               ours / plain, ours, plain, unsynced, (int)bench->members, (int)bench->megabytes, rounds);
        return;
    }
    printf(
        "%d MB to %d members: %.0f ms; plain TCP, digest and durable write: %.0f ms (not synced: %.0f ms)\n",
        (int)bench->megabytes, (int)bench->members, ours, plain, unsynced);
    printf("ratio %.3f (not synced: %.3f)\n", ours / plain, ours / unsynced);
}

static bool parse(int argc, char **argv, struct bench *bench) {
    static const struct option options[] = {
        {"members", required_argument, NULL, 'm'},
        {"megabytes", required_argument, NULL, 's'},
        {"rounds", required_argument, NULL, 'r'},
        {"threads", required_argument, NULL, 't'}, /* bars gives it to all */
        {"json", no_argument, NULL, 'j'},
        {NULL, 0, NULL, 0}};
    bool ok = true;
    for (int letter; (letter = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (letter == 'm')
            ok = ok && text_to_int(optarg, 1, MEMBERS_MAX, &bench->members, NULL);
        else if (letter == 's')
            ok = ok && text_to_int(optarg, 1, 900, &bench->megabytes, NULL);
        else if (letter == 'r')
            ok = ok && text_to_int(optarg, 1, ROUNDS_MAX, &bench->rounds, NULL);
        else if (letter == 'j')
            bench->json = true;
        else
            ok = ok && letter == 't';
    }
    return ok && optind == argc;
}

int main(int argc, char **argv) {
    struct bench bench = {
        .members = 8, .megabytes = 45, .rounds = 7, .folder = "/tmp/thorax-transfer-XXXXXX"};
    if (!parse(argc, argv, &bench)) {
        fputs("usage: transfer [--members N] [--megabytes N] [--rounds N] [--json]\n", stderr);
        return 2;
    }
    log_init("transfer", LOG_ERROR, LOG_TEXT);
    bench.size = (size_t)bench.megabytes * 1000000;
    bench.data = malloc(bench.size + 16);
    if (!bench.data || !digest_start(NULL) || !mkdtemp(bench.folder))
        fail("no memory or no folder");
    start_pool(&bench);
    measure(&bench);
    for (int i = 0; i < bench.members; i++)
        subscriber_destroy(bench.subscribers[i]);
    publisher_destroy(bench.publisher);
    print(&bench);
    free(bench.data);
    return file_remove_tree(bench.folder, NULL) ? 0 : 2;
}
