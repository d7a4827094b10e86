#include "common/metrics/bootstrap.h"

#include "common/base/rng.h"

#include <math.h>
#include <stdlib.h>

enum { DEFAULT_ROUNDS = 1000 };

struct member {
    int32_t group;
    int64_t index;
};

/* The samples ordered by group; offsets[g] to offsets[g + 1] are the g-th group's. */
struct clusters {
    struct member *members;
    int64_t *offsets;
    int64_t count, largest;
};

static int by_group(const void *left, const void *right) {
    const struct member *a = left, *b = right;
    if (a->group != b->group)
        return a->group < b->group ? -1 : 1;
    return (a->index > b->index) - (a->index < b->index);
}

static void clusters_fini(struct clusters *clusters) {
    free(clusters->members);
    free(clusters->offsets);
}

static bool clusters_init(struct clusters *clusters, const struct bootstrap_spec *spec) {
    *clusters = (struct clusters){.members = malloc((size_t)spec->count * sizeof *clusters->members),
                                  .offsets = malloc((size_t)(spec->count + 1) * sizeof *clusters->offsets)};
    if (!clusters->members || !clusters->offsets)
        return false;
    for (int64_t i = 0; i < spec->count; i++)
        clusters->members[i] = (struct member){spec->groups ? spec->groups[i] : (int32_t)i, i};
    qsort(clusters->members, (size_t)spec->count, sizeof *clusters->members, by_group);
    for (int64_t i = 0; i < spec->count; i++)
        if (i == 0 || clusters->members[i].group != clusters->members[i - 1].group)
            clusters->offsets[clusters->count++] = i;
    clusters->offsets[clusters->count] = spec->count;
    for (int64_t g = 0; g < clusters->count; g++) {
        int64_t size = clusters->offsets[g + 1] - clusters->offsets[g];
        clusters->largest = size > clusters->largest ? size : clusters->largest;
    }
    return true;
}

/* Draws as many groups as there are, with replacement. Returns how many samples that makes. */
static int64_t resample(const struct clusters *clusters, struct rng *rng, int64_t *indices) {
    int64_t length = 0;
    for (int64_t draw = 0; draw < clusters->count; draw++) {
        uint32_t group = rng_below(rng, (uint32_t)clusters->count);
        for (int64_t i = clusters->offsets[group]; i < clusters->offsets[group + 1]; i++)
            indices[length++] = clusters->members[i].index;
    }
    return length;
}

static int ascending(const void *left, const void *right) {
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

/* The quantile by linear interpolation, numpy's default. */
static double quantile(const double *sorted, int count, double where) {
    double position = where * (count - 1);
    int below = (int)position, above = below + 1 < count ? below + 1 : below;
    return sorted[below] + (sorted[above] - sorted[below]) * (position - below);
}

static struct interval percentile_interval(double *values, int rounds, double confidence) {
    int kept = 0;
    for (int i = 0; i < rounds; i++)
        if (!isnan(values[i]))
            values[kept++] = values[i];
    if (kept == 0 || kept < rounds / 2)
        return (struct interval){NAN, NAN};
    qsort(values, (size_t)kept, sizeof *values, ascending);
    double tail = (1.0 - confidence) / 2.0;
    return (struct interval){quantile(values, kept, tail), quantile(values, kept, 1.0 - tail)};
}

bool bootstrap_intervals(const struct bootstrap_spec *spec, const bootstrap_statistic *statistics,
                         int statistic_count, const void *context, struct interval *out, struct error *err) {
    int rounds = spec->rounds ? spec->rounds : DEFAULT_ROUNDS;
    double confidence = spec->confidence != 0.0 ? spec->confidence : 0.95;
    if (spec->count < 1 || spec->count > INT32_MAX || rounds < 1 || !(confidence > 0.0 && confidence < 1.0))
        return error_set(err, ERROR_INVALID, "bootstrap: %lld samples, %d rounds, confidence %g",
                         (long long)spec->count, rounds, confidence);
    struct clusters clusters;
    bool ok = clusters_init(&clusters, spec);
    int64_t *indices = ok ? malloc((size_t)(clusters.count * clusters.largest) * sizeof *indices) : NULL;
    double *values = malloc((size_t)rounds * (size_t)statistic_count * sizeof *values);
    ok = ok && indices && values;
    for (int round = 0; ok && round < rounds; round++) {
        struct rng rng;
        rng_init(&rng, spec->seed, RNG_SPLIT, (uint64_t)round, 0);
        int64_t length = resample(&clusters, &rng, indices);
        for (int i = 0; i < statistic_count; i++)
            values[i * rounds + round] = statistics[i](context, indices, length);
    }
    for (int i = 0; ok && i < statistic_count; i++)
        out[i] = percentile_interval(values + i * rounds, rounds, confidence);
    free(values);
    free(indices);
    clusters_fini(&clusters);
    return ok || error_set(err, ERROR_MEMORY, "bootstrap: out of memory");
}
