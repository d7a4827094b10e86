#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/signals.h"
#include "inferd/inferctl/bench_report.h"
#include "inferd/inferctl/commands.h"
#include "inferd/inferctl/options.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { IMAGE_MAX_BYTES = 256 << 20, FIRST_CAPACITY = 1024 };

/** A closed loop: every asker sends its next request when the last one is answered. SIGINT and SIGTERM end it
 * early, with its report. */
struct bench {
    const struct options *options;
    struct bytes *images; /* (options->file_count) */
    atomic_llong next;    /* requests begun */
    int64_t until_ns;     /* INT64_MAX: by number */
};

struct asker {
    struct bench *bench;
    pthread_t thread;
    struct bench_result result;
    size_t capacity;
    struct error error; /* of the first failure */
};

static bool record(struct asker *asker, int64_t latency_us) {
    struct bench_result *result = &asker->result;
    if (result->answered == asker->capacity) {
        size_t capacity = asker->capacity ? 2 * asker->capacity : FIRST_CAPACITY;
        int64_t *grown = realloc(result->latencies_us, capacity * sizeof *grown);
        if (!grown) {
            return error_set(&asker->error, ERROR_MEMORY, "no memory for latencies");
        }
        result->latencies_us = grown;
        asker->capacity = capacity;
    }
    result->latencies_us[result->answered++] = latency_us;
    return true;
}

static void count_model(struct asker *asker, const Thorax__V1__ModelIdentity *model) {
    char name[BENCH_MODEL_SIZE];
    snprintf(name, sizeof name, "%s:%s", model->name, model->version);
    bench_count_model(&asker->result, name, 1);
}

static void ask_once(struct asker *asker, struct client *client, const struct bytes *image) {
    struct client_reply reply;
    struct error err = {0};
    const struct options *options = asker->bench->options;
    struct client_request request = {.image = image->data,
                                     .image_size = image->size,
                                     .operating_point = options->operating_point,
                                     .stat = options->stat,
                                     .timeout_ms = options->timeout_ms};
    if (client_diagnose(client, &request, &reply, &err)) {
        if (reply.diagnosis->status == THORAX__V1__STATUS__STATUS_OK) {
            record(asker, reply.elapsed_us);
            count_model(asker, reply.diagnosis->model);
        } else {
            asker->result.refused++;
        }
        client_reply_fini(&reply);
        return;
    }
    *(err.code == ERROR_TIMEOUT ? &asker->result.lost : &asker->result.wrong) += 1;
    if (asker->error.code == ERROR_NONE) {
        asker->error = err;
    }
}

static void *run(void *argument) {
    struct asker *asker = argument;
    struct bench *bench = asker->bench;
    struct client *client = client_open(bench->options->endpoint, &asker->error);
    int64_t limit = bench->options->requests ? bench->options->requests : INT64_MAX;
    while (client && !signals_stop && clock_now_ns() < bench->until_ns) {
        int64_t turn = atomic_fetch_add(&bench->next, 1);
        if (turn >= limit) {
            break;
        }
        ask_once(asker, client, &bench->images[turn % bench->options->file_count]);
    }
    client_close(client);
    return NULL;
}

static bool merge(struct bench_result *total, const struct bench_result *part) {
    total->refused += part->refused;
    total->lost += part->lost;
    total->wrong += part->wrong;
    for (int i = 0; i < part->model_count; i++) {
        bench_count_model(total, part->models[i].name, part->models[i].answers);
    }
    if (part->answered == 0) {
        return true;
    }
    int64_t *grown = realloc(total->latencies_us, (total->answered + part->answered) * sizeof *grown);
    if (!grown) {
        return false;
    }
    memcpy(grown + total->answered, part->latencies_us, part->answered * sizeof *grown);
    total->latencies_us = grown;
    total->answered += part->answered;
    return true;
}

/** Starts the askers, waits for them, adds up. */
static bool run_all(struct bench *bench, struct asker *askers, struct bench_result *total,
                    struct error *err) {
    int started = 0;
    bool ok = true;
    int64_t start = clock_now_ns();
    bench->until_ns = bench->options->seconds ? start + bench->options->seconds * 1000000000 : INT64_MAX;
    for (; started < bench->options->closed; started++) {
        askers[started].bench = bench;
        if (pthread_create(&askers[started].thread, NULL, run, &askers[started]) != 0) {
            ok = error_set(err, ERROR_IO, "cannot start %d threads", bench->options->closed);
            break;
        }
    }
    for (int i = 0; i < started; i++) {
        pthread_join(askers[i].thread, NULL);
        ok = ok &&
             (merge(total, &askers[i].result) || error_set(err, ERROR_MEMORY, "no memory for latencies"));
        if (ok && askers[i].error.code != ERROR_NONE && err->code == ERROR_NONE) {
            *err = askers[i].error;
        }
        free(askers[i].result.latencies_us);
    }
    total->seconds = (double)(clock_now_ns() - start) / 1e9;
    total->askers = bench->options->closed;
    return ok;
}

static bool read_images(const struct options *options, struct bytes *images, struct error *err) {
    for (int i = 0; i < options->file_count; i++) {
        if (!file_read(options->files[i], IMAGE_MAX_BYTES, &images[i], err)) {
            return false;
        }
    }
    return true;
}

static int bench(const struct options *options) {
    struct error err = {0};
    struct bench_result total = {0};
    struct bench bench = {.options = options,
                          .images = calloc((size_t)options->file_count, sizeof *bench.images)};
    struct asker *askers = calloc((size_t)options->closed, sizeof *askers);
    bool ok = (bench.images && askers) || error_set(&err, ERROR_MEMORY, "no memory");
    ok = ok && signals_install(&err) && read_images(options, bench.images, &err) && run_all(&bench, askers, &total, &err);
    if (ok) {
        bench_report(&total, options->json);
    }
    for (int i = 0; bench.images && i < options->file_count; i++) {
        free(bench.images[i].data);
    }
    free(bench.images);
    free(askers);
    free(total.latencies_us);
    return err.code == ERROR_NONE ? 0 : options_fail(&err, INFERCTL_FAILED);
}

int command_bench(int argc, char **argv) {
    struct options options;
    struct error err = {0};
    if (!options_parse(argc, argv, &options, &err)) {
        return options_fail(&err, INFERCTL_USAGE);
    }
    if (options.file_count == 0 || options.closed == 0 || (options.seconds == 0) == (options.requests == 0)) {
        error_set(&err, ERROR_INVALID,
                  "bench: expected image files, --closed N, and --seconds S or --requests N");
        return options_fail(&err, INFERCTL_USAGE);
    }
    return bench(&options);
}
