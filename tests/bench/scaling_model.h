#pragma once
#include <stdbool.h>

/*
 * What a data-parallel step over n ranks takes, as arithmetic.
 *
 * A ring all-reduce of s bytes: t(n, s) = 2 (n - 1) alpha + 2 (n - 1) / n * s / beta: each rank sends and receives 2 (n - 1)
 * messages of s / n bytes (Patarasuk and Yuan, "Bandwidth optimal all-reduce algorithms for clusters of workstations", 2009).
 *
 * A step: buckets are reduced one after the other, each not before it is ready. While a sum and compute go on at the same time
 * each is slowed down, by what was measured. The step ends with the sum of the last bucket and the update of the weights.
 */

/** An interconnect, or a process that stands for one. */
struct ring {
    double alpha_ms;     /**< of one message */
    double bytes_per_ms; /**< beta, in each direction */
};

/** Milliseconds of an all-reduce; one rank: 0. */
double ring_ms(const struct ring *ring, int ranks, double bytes);

/**
 * The ring that explains measured all-reduces (count sizes, 2 or more) best: the least sum of squares of the relative errors,
 * with alpha at least 0. False where these have no such ring: sizes are all one, or beta would not be positive.
 */
bool ring_fit(int ranks, const double *bytes, const double *ms, int count, struct ring *out);

/** A bucket of gradients in one rank's step. */
struct scaling_bucket {
    double ready_ms; /**< when it is complete, after so much compute without any reduction; ascending */
    double bytes;
};

/** One rank's step without any reduction. */
struct scaling_step {
    const struct scaling_bucket *buckets;
    int count;
    double compute_ms; /**< forward and backward pass; at least the last bucket's ready_ms */
    double update_ms;
};

/** How many times as long each takes while the other goes on too; 1: it is not disturbed. */
struct scaling_slowdown {
    double compute, sum;
};

struct scaling_prediction {
    double step_ms;
    double sum_ms;     /**< of all sums, undisturbed */
    double exposed_ms; /**< sums went on, and nothing else */
};

/** A step over the ranks; ranks 1: compute and update. */
struct scaling_prediction scaling_predict(const struct scaling_step *step, const struct ring *ring, int ranks,
                                          const struct scaling_slowdown *slowdown);
