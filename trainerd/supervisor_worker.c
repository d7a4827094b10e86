#include "trainerd/supervisor_worker.h"

#include "common/base/file.h"
#include "common/base/text.h"
#include "trainerd/rendezvous.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char supervisor_words_name[] = "THORAX_ERROR_DESCRIPTOR";

/** The environment of a worker: numbers first, then texts. */
static const char *const names[SUPERVISOR_VARIABLES] = {
    "THORAX_WORLD_SIZE", "THORAX_LOCAL_RANK", "THORAX_LOCAL_RANKS", "THORAX_NODE",       "THORAX_DEVICE",  "THORAX_PARTS",
    "THORAX_RESUMES",    "THORAX_RUN",        "THORAX_GENERATION",  "THORAX_RENDEZVOUS", "THORAX_ADDRESS",
};
static const int64_t largest[SUPERVISOR_NUMBERS] = {RENDEZVOUS_RANKS_MAX, RENDEZVOUS_RANKS_MAX, RENDEZVOUS_RANKS_MAX,
                                                    CLUSTER_NODES_MAX,    1 << 20,              1 << 20,
                                                    1,                    INT64_MAX,            INT64_MAX};

void supervisor_worker_write(const struct supervisor_worker *worker, char values[SUPERVISOR_NUMBERS][24],
                             const char *(*variables)[2]) {
    const int64_t numbers[SUPERVISOR_NUMBERS] = {worker->world_size, worker->local_rank, worker->local_ranks,
                                                 worker->node,       worker->device,     worker->parts,
                                                 worker->resumes,    (int64_t)worker->run, (int64_t)worker->generation};
    for (int i = 0; i < SUPERVISOR_VARIABLES; i++)
        variables[i][0] = names[i];
    for (int i = 0; i < SUPERVISOR_NUMBERS; i++) {
        snprintf(values[i], sizeof values[i], "%" PRId64, numbers[i]);
        variables[i][1] = values[i];
    }
}

static bool read_number(const char *name, int64_t low, int64_t high, int64_t *out, struct error *err) {
    const char *text = getenv(name);
    if (!text)
        return error_set(err, ERROR_STATE, "%s is not set: a worker is started by its supervisor only", name);
    return text_to_int(text, low, high, out, err) || error_prefix(err, "%s", name);
}

static bool read_text(const char *name, char out[CLUSTER_ENDPOINT_SIZE], struct error *err) {
    const char *text = getenv(name);
    return (text && text_copy(out, CLUSTER_ENDPOINT_SIZE, text)) ||
           error_set(err, ERROR_STATE, "%s is not set or too long", name);
}

bool supervisor_worker_read(int rank, struct supervisor_worker *out, struct error *err) {
    int64_t numbers[SUPERVISOR_NUMBERS], descriptor;
    for (int i = 0; i < SUPERVISOR_NUMBERS; i++) {
        if (!read_number(names[i], 0, largest[i], &numbers[i], err))
            return false;
    }
    if (!read_number(supervisor_words_name, 3, 1 << 20, &descriptor, err))
        return false;
    *out = (struct supervisor_worker){.rank = rank,
                                      .world_size = (int)numbers[0],
                                      .local_rank = (int)numbers[1],
                                      .local_ranks = (int)numbers[2],
                                      .node = (int)numbers[3],
                                      .device = (int)numbers[4],
                                      .parts = (int)numbers[5],
                                      .resumes = numbers[6] != 0,
                                      .run = (uint64_t)numbers[7],
                                      .generation = (uint64_t)numbers[8],
                                      .error_descriptor = (int)descriptor};
    if (!read_text(names[SUPERVISOR_NUMBERS], out->endpoint, err) || !read_text(names[SUPERVISOR_NUMBERS + 1], out->address, err))
        return false;
    return (rank >= 0 && rank < out->world_size) || error_set(err, ERROR_INVALID, "rank %d of %d", rank, out->world_size);
}

void supervisor_worker_failed(const struct supervisor_worker *worker, const struct error *err) {
    /* A pipe takes this much in one piece; where nobody reads any more, nobody is told. */
    file_write_all(worker->error_descriptor, err, sizeof *err, NULL);
}
