#include "common/device/cuda/algorithm_cache.h"

#include "common/base/file.h"
#include "common/base/text.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_ENTRIES = 4096, MOST_FILE_BYTES = 4 << 20 };
static const char HEADER[] = "thorax convolution algorithms 1\n";

struct entry {
    int algorithm, math;
    char key[ALGORITHM_KEY_SIZE];
};

struct algorithm_cache {
    char path[4096];
    struct entry *entries;
    int count, capacity;
};

static struct entry *find(const struct algorithm_cache *cache, const char *key) {
    for (int i = 0; i < cache->count; i++)
        if (strcmp(cache->entries[i].key, key) == 0)
            return &cache->entries[i];
    return NULL;
}

static void put(struct algorithm_cache *cache, const char *key, int algorithm, int math, bool replace) {
    struct entry *entry = find(cache, key);
    if (entry && !replace)
        return;
    if (!entry && cache->count == cache->capacity) {
        int wanted = cache->capacity ? 2 * cache->capacity : 64;
        struct entry *grown = wanted <= MOST_ENTRIES ? realloc(cache->entries, (size_t)wanted * sizeof *grown) : NULL;
        if (!grown)
            return;
        cache->entries = grown;
        cache->capacity = wanted;
    }
    entry = entry ? entry : &cache->entries[cache->count];
    if (!text_copy(entry->key, sizeof entry->key, key))
        return;
    entry->algorithm = algorithm;
    entry->math = math;
    cache->count += entry == &cache->entries[cache->count];
}

/** "ALGORITHM MATH KEY", of printable ASCII. Anything else is passed over. */
static void read_line(struct algorithm_cache *cache, const char *line, size_t length) {
    char text[ALGORITHM_KEY_SIZE + 32];
    int64_t algorithm, math;
    if (length >= sizeof text)
        return;
    for (size_t i = 0; i < length; i++) {
        text[i] = line[i];
        if (line[i] < ' ' || line[i] > '~')
            return;
    }
    text[length] = '\0';
    char *first = strchr(text, ' '), *second = first ? strchr(first + 1, ' ') : NULL;
    if (!second)
        return;
    *first = *second = '\0';
    if (second[1] && text_to_int(text, 0, INT_MAX, &algorithm, NULL) && text_to_int(first + 1, 0, INT_MAX, &math, NULL))
        put(cache, second + 1, (int)algorithm, (int)math, false);
}

/** What is known already is not replaced. */
static void read_entries(struct algorithm_cache *cache) {
    struct bytes content = {0};
    size_t header = sizeof HEADER - 1;
    if (!file_read(cache->path, MOST_FILE_BYTES, &content, NULL))
        return;
    const char *at = (const char *)content.data, *end = at + content.size;
    if (content.size >= header && memcmp(at, HEADER, header) == 0)
        for (at += header; at < end;) {
            const char *stop = memchr(at, '\n', (size_t)(end - at));
            if (!stop) /* a torn last line */
                break;
            read_line(cache, at, (size_t)(stop - at));
            at = stop + 1;
        }
    free(content.data);
}

struct algorithm_cache *algorithm_cache_open(const char *path, struct error *err) {
    struct algorithm_cache *cache = calloc(1, sizeof *cache);
    if (!cache) {
        error_set(err, ERROR_MEMORY, "out of memory for the convolution algorithms");
        return NULL;
    }
    if (!text_copy(cache->path, sizeof cache->path, path)) {
        error_set(err, ERROR_TOO_LARGE, "the path of the convolution algorithms' file is too long");
        algorithm_cache_close(cache);
        return NULL;
    }
    read_entries(cache);
    return cache;
}

void algorithm_cache_close(struct algorithm_cache *cache) {
    if (cache)
        free(cache->entries);
    free(cache);
}

static void make_folder(const char *path) {
    char folder[sizeof ((struct algorithm_cache *)0)->path];
    (void)text_copy(folder, sizeof folder, path);
    char *slash = strrchr(folder, '/');
    if (slash && slash != folder) {
        *slash = '\0';
        (void)file_make_folders(folder, NULL);
    }
}

bool algorithm_cache_find(const struct algorithm_cache *cache, const char *key, int *algorithm, int *math) {
    const struct entry *entry = find(cache, key);
    if (!entry)
        return false;
    *algorithm = entry->algorithm;
    *math = entry->math;
    return true;
}

void algorithm_cache_put(struct algorithm_cache *cache, const char *key, int algorithm, int math) {
    char *text = NULL;
    size_t size = 0;
    put(cache, key, algorithm, math, true);
    read_entries(cache);
    FILE *out = open_memstream(&text, &size);
    if (!out)
        return;
    fputs(HEADER, out);
    for (int i = 0; i < cache->count; i++)
        fprintf(out, "%d %d %s\n", cache->entries[i].algorithm, cache->entries[i].math, cache->entries[i].key);
    make_folder(cache->path);
    if (fclose(out) == 0)
        (void)file_write_atomic(cache->path, text, size, NULL);
    free(text);
}
