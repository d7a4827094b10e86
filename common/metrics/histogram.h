#pragma once
#include <stdint.h>

/**
 * Counts of times by size, as HdrHistogram keeps them: 32 buckets to each power of two, so that a bucket is
 * never wider than 1/32 of its value, from 1 microsecond to 38 hours, and two histograms add up by adding
 * their counts. Plain data; zeroed is empty. Recording is atomic: any thread; the rest sees some moment's
 * counts. Source: Gil Tene, HdrHistogram.
 */
enum { HISTOGRAM_SUB_BITS = 5, HISTOGRAM_BUCKETS = 1056 };

struct histogram {
    _Atomic uint64_t counts[HISTOGRAM_BUCKETS];
    _Atomic uint64_t total;
    _Atomic uint64_t sum_us;
};

/** The bucket of a value in microseconds; the last one takes all that is larger. */
int histogram_bucket(uint64_t value_us);
/** The least and the largest value of a bucket, in microseconds. */
uint64_t histogram_low_us(int bucket);
uint64_t histogram_high_us(int bucket);

void histogram_record(struct histogram *histogram, uint64_t value_us);
/** into += from. */
void histogram_add(struct histogram *into, const struct histogram *from);
/** count values of one bucket at once: for histograms that travelled. A bucket that does not exist is
 * ignored. */
void histogram_add_bucket(struct histogram *into, uint32_t bucket, uint64_t count);

/**
 * The value of the rank-th smallest, 1 to total, as the largest value of its bucket (never too small); 0
 * where the histogram is empty.
 */
uint64_t histogram_rank_us(const struct histogram *histogram, uint64_t rank);
/** The quantile q, 0 to 1: the value of rank ceil(q x total), at least 1. */
uint64_t histogram_quantile_us(const struct histogram *histogram, double q);
