#pragma once
#include "common/image/image.h"
#include "common/image/recipe.h"
#include "trainerd/dataset.h"

/** Where the cache lies and who makes it. */
struct image_cache_spec {
    const char *folder; /**< $NAME and ${NAME} are taken from the environment; made where it is missing */
    const struct recipe *recipe; /**< its width and height matter */
    int threads;                 /**< that decode */
    struct image_limits limits;  /**< zeroed: the default */
    void (*progress)(void *context, int64_t done,
                     int64_t total); /**< called now and then by the opening thread; may be NULL */
    const volatile int *stop;        /**< opening gives up with ERROR_STATE once it is not 0; may be NULL */
    void *context;
};

/**
 * Every image of a data set, decoded, grey and resized, in one file that is mapped: written once, by one
 * process of the node, while others wait. The file's name holds a digest of the data and of the recipe's
 * size, so that a change of either is another file. Immutable after opening: any thread may read.
 */
struct image_cache {
    int width, height;
    int64_t count;   /**< images, as many as the data set has */
    int64_t broken;  /**< of them that could not be decoded */
    bool built;      /**< this call made the file */
    char path[4096]; /**< of the file */
    char
        quarantine[4096]; /**< list of the broken ones, readable by the owner only; "" where there are none */
    const uint8_t *pixels; /* (count, height, width) in the map */
    const uint8_t *status; /* (count) 0: sound */
    const uint8_t *map;
    size_t map_bytes;
};

/**
 * Opens the cache of a data set, or makes it. Broken images are left out, and listed with the reason in a
 * file beside the cache. A damaged cache is made anew. Errors: a class all of whose training images are
 * broken; a folder that cannot be written; no room on the disk; an environment variable that is not set.
 * image_cache_close frees.
 */
bool image_cache_open(struct image_cache *cache, const struct dataset *dataset,
                      const struct image_cache_spec *spec, struct error *err);
void image_cache_close(struct image_cache *cache);

/** The grey picture (height, width) of the data set's index-th sample; NULL where it is broken. */
const uint8_t *image_cache_get(const struct image_cache *cache, int64_t index);

/**
 * The samples of a part that can be used, in the data set's order: out (room for dataset->count) gets their
 * indices. Returns how many.
 */
int64_t image_cache_part(const struct image_cache *cache, const struct dataset *dataset,
                         enum dataset_part part, int32_t *out);

/** Replaces $NAME and ${NAME} in text by the environment. Errors: a name that is not set or none at all; too
 * long. */
bool image_cache_expand(const char *text, char *out, size_t size, struct error *err);
