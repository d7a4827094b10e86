#pragma once
#include <stdbool.h>
#include <stddef.h>

/**
 * How gradients are cut into buckets, in the order in which they become ready. A bucket ends where it has bucket_bytes, but the
 * first and the last are small: the first so that the ranks begin early, as PyTorch's DistributedDataParallel has it (Li et al.,
 * VLDB 2020), and the last because nothing is left that could hide its sum. The last holds as many of the last gradients as fit
 * into BUCKETS_SMALL_BYTES (bucket_bytes where that is less), at least one; the first ends where it has so many.
 */
enum { BUCKETS_SMALL_BYTES = 1 << 20 };

/**
 * ends: (count) bytes up to and with each gradient, ascending; count 0 gives no bucket. last: (count), gets the index of each
 * bucket's last gradient, ascending. Returns the number of buckets.
 */
int buckets_cut(const size_t *ends, int count, size_t bucket_bytes, int *last);
