#include "inferd/pins.h"
#include <pthread.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

enum { LIMIT_MAX = 1 << 24, NONE = -1 };

struct entry {
    uint8_t hash[crypto_shorthash_siphashx24_BYTES];
    struct digest model;
    int64_t until_ms;
    int32_t next;         /* in its bucket, or in the list of free ones */
    int32_t newer, older; /* in order of use */
};

struct pins {
    struct pins_spec spec;
    uint8_t secret[crypto_shorthash_siphashx24_KEYBYTES];
    pthread_mutex_t mutex;      /* guards all below */
    size_t count, bucket_count; /* of buckets: a power of two */
    int32_t newest, oldest, free;
    struct entry *entries; /* (limit) */
    int32_t *buckets;      /* (bucket_count) */
};

static bool allocate(struct pins *pins) {
    size_t limit = pins->spec.limit;
    for (pins->bucket_count = 16; pins->bucket_count < limit;) {
        pins->bucket_count *= 2;
    }
    pins->entries = calloc(limit ? limit : 1, sizeof *pins->entries);
    pins->buckets = malloc(pins->bucket_count * sizeof *pins->buckets);
    if (!pins->entries || !pins->buckets) {
        return false;
    }
    for (size_t i = 0; i < pins->bucket_count; i++) {
        pins->buckets[i] = NONE;
    }
    for (size_t i = 0; i < limit; i++) {
        pins->entries[i].next = i + 1 < limit ? (int32_t)(i + 1) : NONE;
    }
    pins->free = limit ? 0 : NONE;
    return true;
}

struct pins *pins_create(const struct pins_spec *spec, struct error *err) {
    if (spec->limit > LIMIT_MAX) {
        error_set(err, ERROR_INVALID, "pins: at most %d", LIMIT_MAX);
        return NULL;
    }
    struct pins *pins = calloc(1, sizeof *pins);
    if (!pins) {
        error_set(err, ERROR_MEMORY, "no memory for the table of pins");
        return NULL;
    }
    pins->spec = *spec;
    pins->spec.limit = spec->time_ms > 0 ? spec->limit : 0;
    pins->newest = pins->oldest = NONE;
    pthread_mutex_init(&pins->mutex, NULL);
    randombytes_buf(pins->secret, sizeof pins->secret);
    if (!allocate(pins)) {
        error_set(err, ERROR_MEMORY, "no memory for a table of %zu pins", pins->spec.limit);
        pins_destroy(pins);
        return NULL;
    }
    return pins;
}

void pins_destroy(struct pins *pins) {
    if (pins) {
        pthread_mutex_destroy(&pins->mutex);
        free(pins->entries);
        free(pins->buckets);
        sodium_memzero(pins->secret, sizeof pins->secret);
        free(pins);
    }
}

/** The bucket of a hash, which is uniform: any of its bits will do. */
static int32_t *bucket_of(struct pins *pins, const uint8_t *hash) {
    uint64_t bits;
    memcpy(&bits, hash, sizeof bits);
    return &pins->buckets[bits & (pins->bucket_count - 1)];
}

static void unlink_use(struct pins *pins, int32_t i) {
    const struct entry *entry = &pins->entries[i];
    *(entry->newer == NONE ? &pins->newest : &pins->entries[entry->newer].older) = entry->older;
    *(entry->older == NONE ? &pins->oldest : &pins->entries[entry->older].newer) = entry->newer;
}

static void link_newest(struct pins *pins, int32_t i) {
    pins->entries[i].newer = NONE;
    pins->entries[i].older = pins->newest;
    *(pins->newest == NONE ? &pins->oldest : &pins->entries[pins->newest].newer) = i;
    pins->newest = i;
}

static void drop(struct pins *pins, int32_t i) {
    struct entry *entry = &pins->entries[i];
    int32_t *at = bucket_of(pins, entry->hash);
    while (*at != i) {
        at = &pins->entries[*at].next;
    }
    *at = entry->next;
    unlink_use(pins, i);
    entry->next = pins->free;
    pins->free = i;
    pins->count--;
}

/** The key's entry, now the one used last; NONE where there is none, or its time was over. */
static int32_t find(struct pins *pins, const uint8_t *hash, int64_t now_ms) {
    int32_t i = *bucket_of(pins, hash);
    while (i != NONE && memcmp(pins->entries[i].hash, hash, sizeof pins->entries[i].hash) != 0) {
        i = pins->entries[i].next;
    }
    if (i != NONE && now_ms >= pins->entries[i].until_ms) {
        drop(pins, i);
        return NONE;
    }
    if (i != NONE) {
        unlink_use(pins, i);
        link_newest(pins, i);
    }
    return i;
}

static void add(struct pins *pins, const uint8_t *hash, const struct digest *model, int64_t now_ms) {
    if (pins->free == NONE) {
        drop(pins, pins->oldest);
    }
    int32_t i = pins->free, *bucket = bucket_of(pins, hash);
    struct entry *entry = &pins->entries[i];
    pins->free = entry->next;
    memcpy(entry->hash, hash, sizeof entry->hash);
    entry->model = *model;
    entry->until_ms = now_ms + pins->spec.time_ms;
    entry->next = *bucket;
    *bucket = i;
    link_newest(pins, i);
    pins->count++;
}

bool pins_get(struct pins *pins, const void *key, size_t key_size, int64_t now_ms, struct digest *out) {
    uint8_t hash[crypto_shorthash_siphashx24_BYTES];
    if (key_size == 0 || pins->spec.limit == 0) {
        return false;
    }
    crypto_shorthash_siphashx24(hash, key, key_size, pins->secret);
    pthread_mutex_lock(&pins->mutex);
    int32_t i = find(pins, hash, now_ms);
    if (i != NONE) {
        *out = pins->entries[i].model;
    }
    pthread_mutex_unlock(&pins->mutex);
    return i != NONE;
}

void pins_put(struct pins *pins, const void *key, size_t key_size, const struct digest *model,
              int64_t now_ms) {
    uint8_t hash[crypto_shorthash_siphashx24_BYTES];
    if (key_size == 0 || pins->spec.limit == 0) {
        return;
    }
    crypto_shorthash_siphashx24(hash, key, key_size, pins->secret);
    pthread_mutex_lock(&pins->mutex);
    if (find(pins, hash, now_ms) == NONE) {
        add(pins, hash, model, now_ms);
    }
    pthread_mutex_unlock(&pins->mutex);
}

size_t pins_count(struct pins *pins) {
    pthread_mutex_lock(&pins->mutex);
    size_t count = pins->count;
    pthread_mutex_unlock(&pins->mutex);
    return count;
}
