#pragma once
#include "common/image/augment.h"
#include "common/tensor/tensor.h"
#include "trainerd/image_cache.h"
#include "trainerd/sampler.h"

/** Where batches lie: page-locked memory, say. alloc NULL: ordinary memory. */
struct loader_memory {
    void *context;
    void *(*alloc)(void *context, size_t bytes, struct error *err); /**< zeroed, aligned to 64 bytes */
    void (*free)(void *context, void *memory);                      /**< takes NULL */
};

/** What to load. Borrows everything until loader_destroy. */
struct loader_spec {
    const struct image_cache *cache;
    const struct recipe *recipe;
    const int32_t *labels;  /**< (count) class of each sample */
    const int32_t *indices; /**< (count) its place in the cache; every one sound */
    int64_t count;
    struct sampler *sampler; /**< training: draws from the count samples, for ever; NULL: evaluation, each
                                sample once, in order */
    const struct augment *const
        *augment_by_class; /**< (classes of the sampler) for training; NULL: as it is */
    bool varied;           /**< training: leaves it to the device to vary and normalise: batches are of the rows of OP_VARY */
    int rank, ranks;       /**< training: whose share of a batch; evaluation: whose shard of the samples */
    int batch_size; /**< evaluation: rows of a batch of this rank; training takes the sampler's share */
    int64_t first_epoch, first_step; /**< training: where to begin */
    uint64_t seed;                   /**< of the augmentation */
    int threads;                     /**< that load; at least 1 */
    int prefetch; /**< batches ready or being made ahead of the step; at least 1, 4 is plenty */
    int nice;     /**< of the threads: they yield to those that compute */
    struct loader_memory memory; /**< of images and labels */
};

/** A batch, borrowed until loader_release. Rows past count are zero, with label and sample -1. */
struct batch {
    const void *images; /**< (rows, channels, height, width) f32 normalised; `varied`: (rows, variation_bytes(height, width)) */
    const int32_t *labels;  /**< (rows) */
    const int32_t *samples; /**< (rows) place in the cache */
    int rows, count;        /**< room, and samples in it; count 0: an evaluation has ended */
    int64_t epoch, step;    /**< of training; an evaluation counts its batches in step */
};

/**
 * Threads that fill a ring of batches ahead of the step. Batches come in order and are bit for bit the same
 * for any number of threads; over all ranks together they hold the same samples, equally augmented, for any
 * number of ranks. One thread calls next and release.
 */
struct loader;

/** Starts the threads. Returns owned, NULL on error. */
struct loader *loader_create(const struct loader_spec *spec, struct error *err);

/** Waits for the next batch. Every batch with samples is to be released, in order; `prefetch` may be held at
 * a time. */
bool loader_next(struct loader *loader, struct batch *out, struct error *err);

/** Gives the oldest batch that is held back to the ring. */
void loader_release(struct loader *loader);

/** Milliseconds that next has waited so far: the time that the step was starved. */
double loader_waited_ms(const struct loader *loader);

/** Stops the threads and frees; takes NULL. Batches that are held end with it. */
void loader_destroy(struct loader *loader);
