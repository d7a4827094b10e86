#include "common/base/arena.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK_BYTES = 16384, ALIGNMENT = 16 };

struct arena_chunk {
    struct arena_chunk *next;
    size_t size, used;
    _Alignas(16) unsigned char data[];
};

void arena_init(struct arena *arena, size_t limit_bytes) {
    *arena = (struct arena){.limit_bytes = limit_bytes};
}

void arena_fini(struct arena *arena) {
    for (struct arena_chunk *chunk = arena->chunks; chunk;) {
        struct arena_chunk *next = chunk->next;
        free(chunk);
        chunk = next;
    }
    arena->chunks = NULL;
    arena->used_bytes = 0;
}

static struct arena_chunk *arena_grow(struct arena *arena, size_t size) {
    size_t room = size > CHUNK_BYTES ? size : CHUNK_BYTES;
    struct arena_chunk *chunk = calloc(1, sizeof *chunk + room);
    if (!chunk)
        return NULL;
    chunk->size = room;
    chunk->next = arena->chunks;
    arena->chunks = chunk;
    return chunk;
}

void *arena_alloc(struct arena *arena, size_t size) {
    if (size > SIZE_MAX / 2)
        return NULL;
    size = (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    if (size == 0)
        size = ALIGNMENT;
    if (arena->limit_bytes && (size > arena->limit_bytes || arena->used_bytes > arena->limit_bytes - size))
        return NULL;
    struct arena_chunk *chunk = arena->chunks;
    if (!chunk || chunk->size - chunk->used < size) {
        chunk = arena_grow(arena, size);
        if (!chunk)
            return NULL;
    }
    void *memory = chunk->data + chunk->used;
    chunk->used += size;
    arena->used_bytes += size;
    return memory;
}

char *arena_copy(struct arena *arena, const char *text, size_t length) {
    char *copy = length < SIZE_MAX ? arena_alloc(arena, length + 1) : NULL;
    if (copy)
        memcpy(copy, text, length);
    return copy;
}
