#include "common/metrics/histogram.h"

#include <math.h>
#include <stdatomic.h>

enum { SUB = 1 << HISTOGRAM_SUB_BITS };

int histogram_bucket(uint64_t value_us) {
    if (value_us < SUB)
        return (int)value_us;
    int shift = 63 - __builtin_clzll(value_us) - HISTOGRAM_SUB_BITS;
    int bucket = (shift + 1) * SUB + (int)(value_us >> shift) - SUB;
    return bucket < HISTOGRAM_BUCKETS ? bucket : HISTOGRAM_BUCKETS - 1;
}

uint64_t histogram_low_us(int bucket) {
    if (bucket < SUB)
        return (uint64_t)bucket;
    int shift = bucket / SUB - 1;
    return (uint64_t)(bucket % SUB + SUB) << shift;
}

uint64_t histogram_high_us(int bucket) {
    return bucket < SUB ? (uint64_t)bucket
                        : histogram_low_us(bucket) + (UINT64_C(1) << (bucket / SUB - 1)) - 1;
}

void histogram_record(struct histogram *histogram, uint64_t value_us) {
    atomic_fetch_add_explicit(&histogram->counts[histogram_bucket(value_us)], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&histogram->sum_us, value_us, memory_order_relaxed);
    atomic_fetch_add_explicit(&histogram->total, 1, memory_order_relaxed);
}

void histogram_add(struct histogram *into, const struct histogram *from) {
    for (int i = 0; i < HISTOGRAM_BUCKETS; i++)
        into->counts[i] += from->counts[i];
    into->total += from->total;
    into->sum_us += from->sum_us;
}

void histogram_add_bucket(struct histogram *into, uint32_t bucket, uint64_t count) {
    if (bucket >= HISTOGRAM_BUCKETS)
        return;
    into->counts[bucket] += count;
    into->total += count;
    into->sum_us += count * histogram_high_us((int)bucket);
}

uint64_t histogram_rank_us(const struct histogram *histogram, uint64_t rank) {
    uint64_t seen = 0;
    int last = -1;
    for (int i = 0; i < HISTOGRAM_BUCKETS; i++) {
        uint64_t count = histogram->counts[i];
        last = count ? i : last;
        seen += count;
        if (count && seen >= rank)
            return histogram_high_us(i);
    }
    return last < 0 ? 0 : histogram_high_us(last);
}

uint64_t histogram_quantile_us(const struct histogram *histogram, double q) {
    double rank = ceil(q * (double)histogram->total);
    return histogram_rank_us(histogram, rank < 1 ? 1 : (uint64_t)rank);
}
