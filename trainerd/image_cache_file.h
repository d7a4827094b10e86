#pragma once
#include "trainerd/image_cache.h"

/*
 * The file of an image cache, private to image_cache*.c: header, one status byte and one CRC-32 an image,
 * padding to a page, pixels (count, height, width). In the machine's byte order, which the magic number
 * tells.
 */
struct cache_header {
    uint32_t magic, version;
    uint32_t width, height;
    uint64_t count;
    struct digest data;     /* of the data set */
    struct digest contents; /* of the status and CRC tables */
    struct digest self;     /* of all the fields above */
};

enum { CACHE_MAGIC = 0x54584331, CACHE_VERSION = 1, CACHE_PAGE = 4096 };

/* Where things lie in a cache of a given size. */
struct cache_places {
    size_t status, crcs, pixels, image_bytes, total;
};

struct cache_places cache_places(int64_t count, int width, int height);

/** Maps and verifies a file; false (with the reason) where it is not there, damaged, or of other data. */
bool cache_map(struct image_cache *cache, const struct dataset *dataset, const struct recipe *recipe,
               struct error *err);

/** Decodes everything into a new file at cache->path, by a temporary one and a rename. */
bool cache_build(struct image_cache *cache, const struct dataset *dataset,
                 const struct image_cache_spec *spec, struct error *err);
