#include "common/metrics/interval.h"

#include <math.h>

enum { MEAN_MIN_COUNT = 30, BISECTIONS = 100 };

static const double Z_MAX = 40, NEGLIGIBLE = 1e-20;

double interval_z(double confidence) {
    double low = 0, high = Z_MAX;
    for (int i = 0; i < BISECTIONS; i++) {
        double middle = (low + high) / 2;
        if (erf(middle / sqrt(2)) < confidence)
            low = middle;
        else
            high = middle;
    }
    return (low + high) / 2;
}

struct interval interval_proportion(uint64_t hits, uint64_t count, double confidence) {
    if (count == 0)
        return (struct interval){0, 1};
    double n = (double)count, p = (double)hits / n, z = interval_z(confidence), zz = z * z;
    double centre = (p + zz / (2 * n)) / (1 + zz / n);
    double half = z / (1 + zz / n) * sqrt(p * (1 - p) / n + zz / (4 * n * n));
    /* The formula's own values at the ends, without its rounding. */
    return (struct interval){hits == 0 ? 0 : fmax(0, centre - half),
                             hits == count ? 1 : fmin(1, centre + half)};
}

struct interval interval_mean(uint64_t count, double sum, double square_sum, double confidence) {
    if (count < MEAN_MIN_COUNT)
        return (struct interval){-INFINITY, INFINITY};
    double n = (double)count, mean = sum / n;
    double variance = fmax(0, (square_sum - sum * mean) / (n - 1));
    double half = interval_z(confidence) * sqrt(variance / n);
    return (struct interval){mean - half, mean + half};
}

/** ln P(Bin(n, q) = k). */
static double log_binomial(double n, double q, double k) {
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1) + k * log(q) + (n - k) * log1p(-q);
}

/* Sums the probabilities around the mode, each from its neighbour by their ratio: some ten standard
 * deviations of them. */
struct interval_ranks interval_quantile_ranks(uint64_t count, double q, double confidence) {
    if (count == 0)
        return (struct interval_ranks){0, 1};
    double n = (double)count, k = floor((n + 1) * q), tail = (1 - confidence) / 2;
    k = k > n ? n : k;
    double probability = exp(log_binomial(n, q, k));
    while (k > 0 && probability > NEGLIGIBLE) {
        probability *= k * (1 - q) / ((n - k + 1) * q);
        k--;
    }
    double below = probability; /* P(Bin <= k) */
    while (below <= tail && k < n) {
        probability *= (n - k) * q / ((k + 1) * (1 - q));
        below += probability;
        k++;
    }
    struct interval_ranks ranks = {.low = (uint64_t)k};
    while (below < 1 - tail && k < n) {
        probability *= (n - k) * q / ((k + 1) * (1 - q));
        below += probability;
        k++;
    }
    ranks.high = (uint64_t)k + 1;
    return ranks;
}

struct interval interval_quantile_us(const struct histogram *histogram, double q, double confidence) {
    uint64_t total = histogram->total;
    struct interval_ranks ranks = interval_quantile_ranks(total, q, confidence);
    struct interval bounds = {0, INFINITY};
    if (ranks.low >= 1)
        bounds.low = (double)histogram_low_us(histogram_bucket(histogram_rank_us(histogram, ranks.low)));
    if (ranks.high <= total)
        bounds.high = (double)histogram_rank_us(histogram, ranks.high);
    return bounds;
}
