#pragma once
#include <stddef.h>

/**
 * Memory that is freed all at once: for graphs, parsed files and requests. Grows by chunks; what was handed out stays
 * where it is until arena_fini. Not thread-safe.
 */
struct arena {
    struct arena_chunk *chunks;
    size_t limit_bytes; /**< 0: none; else alloc returns NULL past it */
    size_t used_bytes;
};

/** An empty arena that will hand out at most limit_bytes (0: no limit). */
void arena_init(struct arena *arena, size_t limit_bytes);

/** Frees all that was handed out; the arena is then empty and usable. */
void arena_fini(struct arena *arena);

/** Zeroed memory, aligned to 16 bytes, borrowed from the arena; NULL where memory or the limit ends. */
void *arena_alloc(struct arena *arena, size_t size);

/** A copy of length bytes of text with a final NUL; NULL as arena_alloc. */
char *arena_copy(struct arena *arena, const char *text, size_t length);
