#include "trainerd/image_cache.h"

#include "common/base/clock.h"
#include "trainerd/image_cache_file.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <unistd.h>
#include <zlib.h>

struct cache_places cache_places(int64_t count, int width, int height) {
    struct cache_places places = {.status = sizeof(struct cache_header),
                                  .image_bytes = (size_t)width * (size_t)height};
    places.crcs = (places.status + (size_t)count + 7) / 8 * 8;
    places.pixels =
        (places.crcs + (size_t)count * sizeof(uint32_t) + CACHE_PAGE - 1) / CACHE_PAGE * CACHE_PAGE;
    places.total = places.pixels + (size_t)count * places.image_bytes;
    return places;
}

static bool header_fits(const struct cache_header *header, const struct dataset *dataset,
                        const struct recipe *recipe) {
    struct digest self = digest_of(header, offsetof(struct cache_header, self));
    return header->magic == CACHE_MAGIC && header->version == CACHE_VERSION &&
           digest_equal(&self, &header->self) && header->width == (uint32_t)recipe->width &&
           header->height == (uint32_t)recipe->height && header->count == (uint64_t)dataset->count &&
           digest_equal(&header->data, &dataset->digest);
}

static bool contents_fit(const uint8_t *map, const struct cache_header *header,
                         const struct cache_places *places) {
    struct digest tables = digest_of(map + places->status, places->pixels - places->status);
    if (!digest_equal(&tables, &header->contents))
        return false;
    const uint32_t *crcs = (const uint32_t *)(map + places->crcs);
    for (uint64_t i = 0; i < header->count; i++)
        if (crc32_z(0, map + places->pixels + i * places->image_bytes, places->image_bytes) != crcs[i])
            return false;
    return true;
}

bool cache_map(struct image_cache *cache, const struct dataset *dataset, const struct recipe *recipe,
               struct error *err) {
    struct cache_places places = cache_places(dataset->count, recipe->width, recipe->height);
    struct file_map map;
    if (!file_map_open(cache->path, &map, err))
        return false;
    const struct cache_header *header = (const struct cache_header *)map.data;
    if (map.size != places.total || !header_fits(header, dataset, recipe) ||
        !contents_fit(map.data, header, &places)) {
        file_map_close(&map);
        return error_set(err, ERROR_FORMAT, "%s: damaged, or of other data", cache->path);
    }
    cache->map = map.data;
    cache->map_bytes = map.size;
    cache->width = recipe->width;
    cache->height = recipe->height;
    cache->count = dataset->count;
    cache->status = map.data + places.status;
    cache->pixels = map.data + places.pixels;
    for (int64_t i = 0; i < cache->count; i++)
        cache->broken += cache->status[i] != 0;
    if (cache->broken == 0)
        cache->quarantine[0] = 0;
    return true;
}

void image_cache_close(struct image_cache *cache) {
    struct file_map map = {cache->map, cache->map_bytes};
    file_map_close(&map);
    *cache = (struct image_cache){0};
}

const uint8_t *image_cache_get(const struct image_cache *cache, int64_t index) {
    if (cache->status[index] != 0)
        return NULL;
    return cache->pixels + (size_t)index * (size_t)cache->width * (size_t)cache->height;
}

int64_t image_cache_part(const struct image_cache *cache, const struct dataset *dataset,
                         enum dataset_part part, int32_t *out) {
    int64_t count = 0;
    for (int64_t i = 0; i < dataset->count; i++)
        if (dataset->samples[i].part == part && cache->status[i] == 0)
            out[count++] = (int32_t)i;
    return count;
}

/* Reads NAME or {NAME} behind a dollar. Returns what follows, NULL where there is no name. */
static const char *take_name(const char *text, char name[128]) {
    bool braced = *text == '{';
    text += braced;
    size_t length = 0;
    while (isalnum((unsigned char)text[length]) || text[length] == '_')
        length++;
    if (length == 0 || length >= 128 || (braced && text[length] != '}'))
        return NULL;
    memcpy(name, text, length);
    name[length] = 0;
    return text + length + braced;
}

bool image_cache_expand(const char *text, char *out, size_t size, struct error *err) {
    size_t used = 0;
    while (*text) {
        char name[128];
        const char *piece = text;
        size_t length = strcspn(text, "$");
        text += length;
        if (length == 0) {
            if (!(text = take_name(text + 1, name)))
                return error_set(err, ERROR_INVALID, "a $ without a variable's name behind it");
            if (!(piece = getenv(name)))
                return error_set(err, ERROR_INVALID, "the environment variable %s is not set", name);
            length = strlen(piece);
        }
        if (length >= size - used)
            return error_set(err, ERROR_INVALID, "the path is too long");
        memcpy(out + used, piece, length);
        used += length;
    }
    out[used] = 0;
    return true;
}

/* The file is named after the data and the size of its pictures. */
static bool name_files(struct image_cache *cache, const struct dataset *dataset,
                       const struct image_cache_spec *spec, struct error *err) {
    char folder[4096], name[128], hex[DIGEST_HEX_SIZE];
    if (!image_cache_expand(spec->folder, folder, sizeof folder, err))
        return error_prefix(err, "cache folder");
    digest_hex(&dataset->digest, hex);
    snprintf(name, sizeof name, "images-%.24s-%dx%d.cache", hex, spec->recipe->width, spec->recipe->height);
    if (!file_make_folders(folder, err) || !file_join(cache->path, sizeof cache->path, folder, name, err))
        return false;
    snprintf(name, sizeof name, "images-%.24s-%dx%d.quarantine.txt", hex, spec->recipe->width,
             spec->recipe->height);
    return file_join(cache->quarantine, sizeof cache->quarantine, folder, name, err);
}

/* Waits for the lock of this cache: another process of this node may be making it. Returns the descriptor, -1
 * on error. */
static int lock_cache(const struct image_cache *cache, const struct image_cache_spec *spec,
                      struct error *err) {
    char path[sizeof cache->path + 8];
    snprintf(path, sizeof path, "%s.lock", cache->path);
    int descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (descriptor < 0) {
        error_set_errno(err, "%s", path);
        return -1;
    }
    while (flock(descriptor, LOCK_EX | LOCK_NB) != 0) {
        bool stopped = spec->stop && *spec->stop;
        if (stopped || (errno != EWOULDBLOCK && errno != EINTR)) {
            stopped ? error_set(err, ERROR_STATE, "%s: stopped while waiting", path)
                    : error_set_errno(err, "%s", path);
            close(descriptor);
            return -1;
        }
        clock_sleep_ms(50);
    }
    return descriptor;
}

static bool open_locked(struct image_cache *cache, const struct dataset *dataset,
                        const struct image_cache_spec *spec, struct error *err) {
    int lock = lock_cache(cache, spec, err);
    if (lock < 0)
        return false;
    /* Whoever held the lock before may have made it. */
    bool ok = cache_map(cache, dataset, spec->recipe, NULL);
    if (!ok) {
        ok = cache_build(cache, dataset, spec, err) && cache_map(cache, dataset, spec->recipe, err);
        cache->built = ok;
    }
    close(lock);
    return ok;
}

static bool check_classes(const struct image_cache *cache, const struct dataset *dataset, struct error *err) {
    int64_t sound[DATASET_MAX_CLASSES] = {0};
    for (int64_t i = 0; i < dataset->count; i++)
        if (dataset->samples[i].part == DATASET_TRAIN)
            sound[dataset->samples[i].label] += cache->status[i] == 0;
    for (int i = 0; i < dataset->classes; i++) {
        if (sound[i] > 0)
            continue;
        error_set(err, ERROR_FORMAT, "class %s: all of its training images are broken",
                  dataset->class_names[i]);
        return error_hint(err, "see %.200s", cache->quarantine);
    }
    return true;
}

bool image_cache_open(struct image_cache *cache, const struct dataset *dataset,
                      const struct image_cache_spec *spec, struct error *err) {
    *cache = (struct image_cache){0};
    bool ok = recipe_check(spec->recipe, err) && name_files(cache, dataset, spec, err) &&
              (cache_map(cache, dataset, spec->recipe, NULL) || open_locked(cache, dataset, spec, err)) &&
              check_classes(cache, dataset, err);
    if (!ok)
        image_cache_close(cache);
    return ok;
}
