#include "common/graph/range.h"

#include <math.h>
#include <string.h>

static const char *const names[RANGE_METHOD_COUNT] = {
    [RANGE_MIN_MAX] = "min_max", [RANGE_PERCENTILE] = "percentile", [RANGE_MSE] = "mse", [RANGE_ENTROPY] = "entropy"};

const char *range_method_name(enum range_method method) {
    return names[method];
}

void range_widen(struct range *range, const float *values, int64_t count) {
    for (int64_t i = 0; i < count; i++) {
        range->low = fminf(range->low, values[i]);
        range->high = fmaxf(range->high, values[i]);
    }
}

static float largest(const struct range *range) {
    return fmaxf(range->high, -range->low);
}

void range_count(struct range *range, const float *values, int64_t count) {
    float per_bin = RANGE_BINS / fmaxf(largest(range), 1e-30f);
    for (int64_t i = 0; i < count; i++) {
        int bin = (int)(fabsf(values[i]) * per_bin);
        range->bins[bin < RANGE_BINS ? bin : RANGE_BINS - 1]++;
    }
    range->count += count;
}

enum dtype range_dtype(const struct range *range) {
    return range->low < 0 ? DTYPE_S8 : DTYPE_U8;
}

static int levels_of(const struct range *range) {
    return range_dtype(range) == DTYPE_S8 ? INT8_MAX : UINT8_MAX;
}

/* --- the methods: each gives the number of bins that the integers are spread over --- */

static int bins_min_max(const struct range *range) {
    (void)range;
    return RANGE_BINS;
}

static int bins_percentile(const struct range *range) {
    int64_t out = range->count / 10000, seen = 0;
    int bins = RANGE_BINS;
    while (bins > 1 && seen + range->bins[bins - 1] <= out)
        seen += range->bins[--bins];
    return bins;
}

/** The squared error of values in the middle of their bins, in units of a bin: rounding within, saturating beyond. */
static double squared_error(const struct range *range, int bins) {
    double step = (double)bins / levels_of(range), error = 0;
    for (int i = 0; i < RANGE_BINS; i++) {
        double value = i + 0.5, end = fmin(value, bins);
        double off = value > bins ? value - end : 0;
        error += (double)range->bins[i] * (off * off + step * step / 12);
    }
    return error;
}

static int bins_mse(const struct range *range) {
    int best = RANGE_BINS;
    double least = squared_error(range, best);
    for (int bins = RANGE_BINS / 16; bins < RANGE_BINS; bins += RANGE_BINS / 128) {
        double error = squared_error(range, bins);
        if (error < least) {
            least = error;
            best = bins;
        }
    }
    return best;
}

/**
 * The Kullback-Leibler divergence of the first `bins` bins, with all that lies beyond put into the last, from those bins when
 * only `levels` values can be told apart: each group of bins shares its count evenly over those of them that held anything.
 */
static double divergence(const struct range *range, int bins, int levels) {
    double beyond = 0, sum = 0;
    for (int i = bins; i < RANGE_BINS; i++)
        beyond += (double)range->bins[i];
    for (int level = 0; level < levels; level++) {
        int first = (int)((int64_t)level * bins / levels), end = (int)((int64_t)(level + 1) * bins / levels);
        double inside = 0, held = 0;
        for (int i = first; i < end; i++) {
            inside += (double)range->bins[i];
            held += range->bins[i] > 0;
        }
        for (int i = first; i < end; i++) {
            double p = (double)range->bins[i] + (i == bins - 1 ? beyond : 0);
            double q = range->bins[i] > 0 ? inside / held : 0;
            sum += p > 0 ? p * log(p / fmax(q, 1e-9)) : 0;
        }
    }
    double total = (double)range->count;
    return sum / total + log(fmax(total - beyond, 1e-9) / total);
}

static int bins_entropy(const struct range *range) {
    int levels = levels_of(range), best = RANGE_BINS;
    double least = INFINITY;
    for (int bins = RANGE_BINS; bins >= levels && range->count > 0; bins -= RANGE_BINS / 128) {
        double apart = divergence(range, bins, levels);
        if (apart < least) {
            least = apart;
            best = bins;
        }
    }
    return best;
}

float range_scale(const struct range *range, enum range_method method) {
    static int (*const bins_of[RANGE_METHOD_COUNT])(const struct range *range) = {
        [RANGE_MIN_MAX] = bins_min_max,
        [RANGE_PERCENTILE] = bins_percentile,
        [RANGE_MSE] = bins_mse,
        [RANGE_ENTROPY] = bins_entropy,
    };
    float end = largest(range) * (float)bins_of[method](range) / RANGE_BINS;
    return fmaxf(end, 1e-20f) / (float)levels_of(range);
}
