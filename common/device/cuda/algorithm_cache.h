#pragma once
#include "common/base/error.h"

/**
 * Which convolution algorithm was the fastest, kept in a file from one process to the next. A line for each convolution: the
 * algorithm, its math type, and what the measurement depends on. Whatever is wrong in the file is passed over, and gone with
 * the next rewriting; what it says is only taken where cuDNN offers that algorithm too. One thread at a time.
 */
struct algorithm_cache;

enum { ALGORITHM_KEY_SIZE = 400 };

/** Reads the file; one that is not there, or no good, is an empty one. Returns owned, NULL where memory ends. */
struct algorithm_cache *algorithm_cache_open(const char *path, struct error *err);
/** Takes NULL. */
void algorithm_cache_close(struct algorithm_cache *cache);

/** False: not known. key: one line of less than ALGORITHM_KEY_SIZE bytes. */
bool algorithm_cache_find(const struct algorithm_cache *cache, const char *key, int *algorithm, int *math);
/**
 * Adds or replaces it and writes the file, with what other processes put there meanwhile, by renaming. Where that fails the next
 * process measures again: no error.
 */
void algorithm_cache_put(struct algorithm_cache *cache, const char *key, int algorithm, int math);
