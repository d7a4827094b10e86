#!/usr/bin/env python3
"""Prints the figures that interval_test.c expects. Needs scipy (1.10 or later)."""

import math

from scipy import stats

LEVELS = (0.9, 0.95, 0.99)


def mean_interval(count, confidence):
    """Of the values i^2 mod 97 for i = 1 .. count, with the normal quantile."""
    values = [i * i % 97 for i in range(1, count + 1)]
    mean = sum(values) / count
    error = math.sqrt(sum((v - mean) ** 2 for v in values) / (count - 1) / count)
    return stats.norm.interval(confidence, mean, error)


def quantile_ranks(count, q, confidence):
    """Searched rank by rank with scipy's distribution function: the tightest ranks whose sides err with at most tail."""
    tail = (1 - confidence) / 2
    low = max((k for k in range(0, count + 1) if k == 0 or stats.binom.cdf(k - 1, count, q) <= tail))
    high = min((k for k in range(1, count + 2) if k == count + 1 or stats.binom.sf(k - 1, count, q) <= tail))
    return low, high


def main():
    for level in (0.5, *LEVELS, 0.9999):
        print(f"z {level} {stats.norm.ppf((1 + level) / 2):.9f}")
    for hits, count in ((0, 10), (1, 20), (5, 10), (20, 20), (3, 1000), (98, 100)):
        low, high = stats.binomtest(hits, count).proportion_ci(0.95, method="wilson")
        print(f"proportion {hits} {count} {low:.9f} {high:.9f}")
    for count in (30, 500):
        print("mean", count, *("%.9f" % v for v in mean_interval(count, 0.95)))
    for count, q, level in ((10, 0.5, 0.95), (100, 0.5, 0.95), (300, 0.99, 0.95), (500, 0.99, 0.95), (2000, 0.99, 0.9),
                            (5000, 0.999, 0.99), (20000, 0.9, 0.95), (1, 0.99, 0.95)):
        print("ranks", count, q, level, *quantile_ranks(count, q, level))


if __name__ == "__main__":
    main()
