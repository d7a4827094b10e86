#include "trainerd/evaluate.h"

#include "common/graph/plan.h"
#include "trainerd/engine.h"
#include "trainerd/loader.h"

#include <stdlib.h>
#include <string.h>

/** One rank's shard under way. */
struct shard {
    int64_t begin, end; /* of the part's samples */
    int32_t *indices;   /* (all samples of the part) their place in the cache */
    int32_t *labels;    /* likewise */
    float *padded;      /* (room, classes) this rank's logits; room is the largest shard's */
    int64_t room;
};

static void shard_fini(struct shard *shard) {
    free(shard->indices);
    free(shard->labels);
    free(shard->padded);
}

static int rank_of(const struct evaluate_spec *spec) {
    return spec->collective ? spec->collective->rank : 0;
}

static int ranks_of(const struct evaluate_spec *spec) {
    return spec->collective ? spec->collective->world_size : 1;
}

/** Lists the part's samples and makes room for the answers. */
static bool prepare(const struct evaluate_spec *spec, struct shard *shard, struct evaluation *out, struct error *err) {
    size_t room = (size_t)spec->dataset->count + 1;
    if (!(shard->indices = malloc(room * sizeof(int32_t))) || !(shard->labels = malloc(room * sizeof(int32_t))))
        return error_set(err, ERROR_MEMORY, "evaluation: out of memory");
    out->count = image_cache_part(spec->cache, spec->dataset, spec->part, shard->indices);
    if (out->count == 0)
        return error_set(err, ERROR_INVALID, "the data set has no %s part to evaluate", dataset_part_name(spec->part));
    int ranks = ranks_of(spec);
    shard->room = (out->count + ranks - 1) / ranks;
    sampler_shard(out->count, rank_of(spec), ranks, &shard->begin, &shard->end);
    size_t count = (size_t)out->count, classes = (size_t)out->classes;
    shard->padded = calloc((size_t)shard->room * classes, sizeof(float));
    out->logits = malloc(count * classes * sizeof(float));
    out->labels = malloc(count * sizeof(int32_t));
    out->groups = malloc(count * sizeof(int32_t));
    if (!shard->padded || !out->logits || !out->labels || !out->groups)
        return error_set(err, ERROR_MEMORY, "evaluation: out of memory");
    for (int64_t i = 0; i < out->count; i++) {
        const struct dataset_sample *sample = &spec->dataset->samples[shard->indices[i]];
        shard->labels[i] = out->labels[i] = sample->label;
        out->groups[i] = sample->group;
    }
    return true;
}

static bool answer_batches(const struct evaluate_spec *spec, struct plan *plan, struct loader *loader, struct shard *shard,
                           int classes, struct error *err) {
    float *logits = malloc((size_t)spec->batch_size * (size_t)classes * sizeof *logits);
    bool ok = logits || error_set(err, ERROR_MEMORY, "evaluation: out of memory");
    struct batch batch = {0};
    for (int64_t done = 0; ok; done += batch.count) {
        ok = loader_next(loader, &batch, err);
        if (!ok || batch.count == 0)
            break;
        ok = plan_set_images(plan, batch.images, err) && plan_run(plan, err) && plan_read_logits(plan, logits, err);
        if (ok)
            loader_release(loader); /* else it may still be on its way to the device */
        if (ok && done + batch.count > shard->room)
            ok = error_set(err, ERROR_INTERNAL, "evaluation: more images than the shard has");
        if (ok)
            memcpy(shard->padded + done * classes, logits, (size_t)batch.count * (size_t)classes * sizeof *logits);
        if (spec->rendezvous)
            rendezvous_heartbeat(spec->rendezvous);
    }
    free(logits);
    return ok;
}

static bool answer_shard(const struct evaluate_spec *spec, struct shard *shard, const struct evaluation *out, struct error *err) {
    struct plan_spec plan_spec = {.graph = spec->graph, .parameters = spec->parameters, .device = spec->device,
                                  .mode = PLAN_INFER, .precision = spec->precision, .batch = spec->batch_size};
    struct loader_spec loader_spec = {.cache = spec->cache, .recipe = spec->recipe, .labels = shard->labels,
                                      .indices = shard->indices, .count = out->count, .rank = rank_of(spec),
                                      .ranks = ranks_of(spec), .batch_size = spec->batch_size,
                                      .threads = spec->loader_threads, .prefetch = 2, .nice = 5,
                                      .memory = engine_batch_memory(spec->device)};
    struct plan *plan = plan_create(&plan_spec, err);
    struct loader *loader = plan ? loader_create(&loader_spec, err) : NULL;
    bool ok = loader && answer_batches(spec, plan, loader, shard, out->classes, err);
    loader_destroy(loader);
    plan_destroy(plan);
    return ok;
}

/** Gathers the padded shards piece by piece and puts each rank's rows where they belong. */
static bool gather(const struct evaluate_spec *spec, const struct shard *shard, struct evaluation *out, struct error *err) {
    int ranks = ranks_of(spec);
    size_t row = (size_t)out->classes * sizeof(float);
    if (ranks == 1) {
        memcpy(out->logits, shard->padded, (size_t)out->count * row);
        return true;
    }
    int64_t piece = COLLECTIVE_ALLGATHER_MAX / (int64_t)row;
    piece = piece < shard->room ? piece : shard->room;
    char *all = malloc((size_t)ranks * (size_t)piece * row);
    if (!all)
        return error_set(err, ERROR_MEMORY, "evaluation: out of memory");
    bool ok = true;
    for (int64_t first = 0; ok && first < shard->room; first += piece) {
        int64_t rows = shard->room - first < piece ? shard->room - first : piece;
        ok = collective_allgather(spec->collective, shard->padded + first * out->classes, (size_t)rows * row, all, err);
        for (int rank = 0; ok && rank < ranks; rank++) {
            int64_t begin, end;
            sampler_shard(out->count, rank, ranks, &begin, &end);
            int64_t kept = end - begin - first < rows ? end - begin - first : rows;
            if (kept > 0)
                memcpy(out->logits + (begin + first) * out->classes, all + (size_t)rank * (size_t)rows * row, (size_t)kept * row);
        }
    }
    free(all);
    return ok;
}

bool evaluate_part(const struct evaluate_spec *spec, struct evaluation *out, struct error *err) {
    struct shard shard = {0};
    *out = (struct evaluation){.classes = (int)spec->graph->nodes[spec->graph->node_count - 1].output.dims[1]};
    bool ok = prepare(spec, &shard, out, err) && answer_shard(spec, &shard, out, err) && gather(spec, &shard, out, err);
    shard_fini(&shard);
    if (!ok)
        evaluation_fini(out);
    return ok;
}

void evaluation_fini(struct evaluation *evaluation) {
    free(evaluation->logits);
    free(evaluation->labels);
    free(evaluation->groups);
    *evaluation = (struct evaluation){0};
}

struct predictions evaluation_predictions(const struct evaluation *evaluation, double temperature, double *probabilities) {
    calibration_softmax(evaluation->logits, evaluation->count, evaluation->classes, temperature, probabilities);
    return (struct predictions){.classes = evaluation->classes, .count = evaluation->count, .probabilities = probabilities,
                                .labels = evaluation->labels, .groups = evaluation->groups};
}
