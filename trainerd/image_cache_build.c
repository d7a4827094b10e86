#include "trainerd/image_cache_file.h"

#include "common/base/clock.h"
#include "common/base/thread_pool.h"
#include "common/image/preprocess.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <zlib.h>

enum { REASON_SIZE = 160, PROGRESS_MS = 100 };

/* What the decoding threads share. Each sample's row, status, CRC and reason belong to the thread that took
 * its number. */
struct build {
    const struct dataset *dataset;
    const struct image_cache_spec *spec;
    struct image_limits limits;
    struct cache_places places;
    uint8_t *map;
    char (*reasons)[REASON_SIZE]; /* (count) why a sample is broken; filled only where its status says so */
    _Atomic int64_t next, done;
};

static bool decode_pixels(const struct dataset_sample *sample, const struct recipe *recipe, uint8_t *grey,
                          struct error *err) {
    /* preprocess_pixels only reads the picture. */
    struct image image = {sample->width, sample->height, sample->channels, 8,
                          (void *)(uintptr_t)sample->pixels};
    return preprocess_pixels(recipe, &image, grey, err);
}

static bool decode_file(const struct dataset_sample *sample, const struct image_limits *limits,
                        const struct recipe *recipe, uint8_t *grey, struct error *err) {
    struct bytes bytes;
    struct image image = {0};
    if (!file_read(sample->path, limits->max_bytes, &bytes, err))
        return false;
    bool ok = image_decode(bytes.data, bytes.size, limits, &image, err) &&
              preprocess_pixels(recipe, &image, grey, err);
    image_fini(&image);
    free(bytes.data);
    return ok;
}

/* One line, whatever a library had to say. */
static void note_reason(char reason[REASON_SIZE], const struct error *err) {
    snprintf(reason, REASON_SIZE, "%s: %.120s", error_code_name(err->code), err->message);
    for (char *at = reason; *at; at++)
        if ((unsigned char)*at < ' ')
            *at = ' ';
}

static void build_sample(struct build *build, int64_t index) {
    const struct dataset_sample *sample = &build->dataset->samples[index];
    const struct recipe *recipe = build->spec->recipe;
    uint8_t *grey = build->map + build->places.pixels + (size_t)index * build->places.image_bytes;
    struct error err = {0};
    bool ok = sample->pixels ? decode_pixels(sample, recipe, grey, &err)
                             : decode_file(sample, &build->limits, recipe, grey, &err);
    if (!ok) {
        memset(grey, 0, build->places.image_bytes);
        build->map[build->places.status + (size_t)index] = 1;
        note_reason(build->reasons[index], &err);
    }
    uint32_t *crcs = (uint32_t *)(build->map + build->places.crcs);
    crcs[index] = (uint32_t)crc32_z(0, grey, build->places.image_bytes);
}

static bool stopped(const struct build *build) {
    return build->spec->stop && *build->spec->stop;
}

static void build_job(void *context) {
    struct build *build = context;
    int64_t index;
    while (!stopped(build) && (index = atomic_fetch_add(&build->next, 1)) < build->dataset->count) {
        build_sample(build, index);
        atomic_fetch_add(&build->done, 1);
    }
}

static bool decode_all(struct build *build, struct error *err) {
    int threads = build->spec->threads > 0 ? build->spec->threads : 1;
    struct thread_pool_spec pool_spec = {
        .threads = threads, .queue_limit = (size_t)threads, .name = "decode"};
    struct thread_pool *pool = thread_pool_create(&pool_spec, err);
    if (!pool)
        return false;
    bool submitted = true;
    for (int i = 0; submitted && i < threads; i++)
        submitted = thread_pool_submit(pool, build_job, build);
    while (submitted && !stopped(build) && atomic_load(&build->done) < build->dataset->count) {
        clock_sleep_ms(PROGRESS_MS);
        if (build->spec->progress)
            build->spec->progress(build->spec->context, atomic_load(&build->done), build->dataset->count);
    }
    thread_pool_destroy(pool);
    if (!submitted)
        return error_set(err, ERROR_MEMORY, "image cache: out of memory");
    return !stopped(build) || error_set(err, ERROR_STATE, "stopped while decoding the images");
}

static void seal(struct build *build) {
    struct cache_header *header = (struct cache_header *)build->map;
    *header = (struct cache_header){.magic = CACHE_MAGIC,
                                    .version = CACHE_VERSION,
                                    .width = (uint32_t)build->spec->recipe->width,
                                    .height = (uint32_t)build->spec->recipe->height,
                                    .count = (uint64_t)build->dataset->count,
                                    .data = build->dataset->digest};
    header->contents =
        digest_of(build->map + build->places.status, build->places.pixels - build->places.status);
    header->self = digest_of(header, offsetof(struct cache_header, self));
}

/* One line a broken image: digest of the file, reason, name. For the owner's eyes: names are about patients.
 */
static bool write_quarantine(const struct image_cache *cache, const struct build *build, struct error *err) {
    int64_t broken = 0;
    unlink(cache->quarantine);
    for (int64_t i = 0; i < build->dataset->count; i++)
        broken += build->map[build->places.status + (size_t)i] != 0;
    if (broken == 0)
        return true;
    int descriptor = open(cache->quarantine, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    FILE *file = descriptor < 0 ? NULL : fdopen(descriptor, "w");
    if (!file) {
        error_set_errno(err, "%s", cache->quarantine);
        if (descriptor >= 0)
            close(descriptor);
        return false;
    }
    fprintf(file, "# images that could not be read and are left out: sha256, reason, name\n");
    for (int64_t i = 0; i < build->dataset->count; i++) {
        char hex[DIGEST_HEX_SIZE];
        const struct dataset_sample *sample = &build->dataset->samples[i];
        if (build->map[build->places.status + (size_t)i] != 0)
            fprintf(file, "%s\t%s\t%s\n", digest_hex(&sample->content, hex), build->reasons[i], sample->name);
    }
    return fclose(file) == 0 || error_set_errno(err, "%s", cache->quarantine);
}

static bool fill(struct image_cache *cache, struct build *build, int descriptor, struct error *err) {
    /* A hole in a mapped file would be a signal on a full disk: reserve all of it, where that still is an
     * error. */
    int status = posix_fallocate(descriptor, 0, (off_t)build->places.total);
    if (status != 0) {
        errno = status;
        return error_set_errno(err, "%s: room for %zu MiB", cache->path, build->places.total >> 20);
    }
    build->map = mmap(NULL, build->places.total, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    if (build->map == MAP_FAILED)
        return error_set_errno(err, "%s: mapping", cache->path);
    build->reasons = calloc((size_t)build->dataset->count, REASON_SIZE);
    bool ok = build->reasons || error_set(err, ERROR_MEMORY, "image cache: out of memory");
    ok = ok && decode_all(build, err) && write_quarantine(cache, build, err);
    if (ok) {
        seal(build);
        ok = msync(build->map, build->places.total, MS_SYNC) == 0 ||
             error_set_errno(err, "%s: writing", cache->path);
    }
    free(build->reasons);
    munmap(build->map, build->places.total);
    return ok;
}

bool cache_build(struct image_cache *cache, const struct dataset *dataset,
                 const struct image_cache_spec *spec, struct error *err) {
    char temporary[sizeof cache->path + 32];
    struct build build = {.dataset = dataset,
                          .spec = spec,
                          .limits = spec->limits.max_bytes ? spec->limits : image_limits_default(),
                          .places = cache_places(dataset->count, spec->recipe->width, spec->recipe->height)};
    snprintf(temporary, sizeof temporary, "%s.partial", cache->path);
    /* We hold the lock: a partial file is the leavings of a process that died. */
    unlink(temporary);
    int descriptor = open(temporary, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (descriptor < 0)
        return error_set_errno(err, "%s", temporary);
    bool ok = fill(cache, &build, descriptor, err);
    ok = (close(descriptor) == 0 || error_set_errno(err, "%s", temporary)) && ok;
    ok = ok && (rename(temporary, cache->path) == 0 || error_set_errno(err, "%s", cache->path));
    if (!ok)
        unlink(temporary);
    return ok;
}
