#pragma once
#include "common/metrics/histogram.h"
#include <stdint.h>

/** An interval around a statistic. */
struct interval {
    double low, high;
};

/*
 * Confidence intervals from counts and sums alone, for the gates of a rollout. `confidence` is of the
 * two-sided interval, above 0 and below 1. Where there are too few samples for a bound it is infinite (or the
 * end of the statistic's range): nothing is claimed. Any thread.
 */

/** z with P(|N(0, 1)| <= z) = confidence: 1.959964 for 0.95. */
double interval_z(double confidence);

/**
 * Of a proportion, `hits` of `count`: Wilson's score interval, within 0 to 1; 0 to 1 where count is 0.
 * Source: E. B. Wilson 1927; Brown, Cai and DasGupta 2001, equation 4.
 */
struct interval interval_proportion(uint64_t hits, uint64_t count, double confidence);

/**
 * Of a mean, from the sum of `count` values and the sum of their squares: the normal interval, mean +- z s /
 * sqrt(count) with the unbiased variance. It leans on the central limit theorem: below 30 values it is
 * infinite.
 */
struct interval interval_mean(uint64_t count, double sum, double square_sum, double confidence);

/** Ranks, from 1, of the order statistics that bound a quantile. low 0, high count + 1: there is no such
 * bound. */
struct interval_ranks {
    uint64_t low, high;
};

/**
 * The ranks whose values bound the quantile q, 0 to 1 exclusive, of a distribution that `count` values were
 * drawn from, whatever distribution it is: each side errs with at most (1 - confidence) / 2. Source: the
 * binomial argument; Conover, Practical Nonparametric Statistics, 3rd edition 1999, section 3.2; David and
 * Nagaraja, Order Statistics, 7.1.
 */
struct interval_ranks interval_quantile_ranks(uint64_t count, double q, double confidence);

/** Bounds, in microseconds, of the quantile q of what the histogram counts; the width of its buckets widens
 * them. */
struct interval interval_quantile_us(const struct histogram *histogram, double q, double confidence);
