#include "trainerd/collective/collective.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/** One rank alone: a sum over one rank is the buffer as it is. */
struct solo {
    struct collective base;
    int tickets;
    atomic_bool aborted;
};

static bool alive(struct collective *collective, struct error *err) {
    struct solo *solo = (struct solo *)collective;
    return !atomic_load(&solo->aborted) || error_set(err, ERROR_STATE, "the collective was aborted");
}

static struct collective *solo_open(const struct collective_spec *spec, struct error *err) {
    if (spec->world_size != 1) {
        error_set(err, ERROR_INVALID, "collective solo is for one rank, not %d", spec->world_size);
        return NULL;
    }
    struct solo *solo = calloc(1, sizeof *solo);
    if (!solo) {
        error_set(err, ERROR_MEMORY, "collective solo: out of memory");
        return NULL;
    }
    return &solo->base;
}

static void solo_close(struct collective *collective) {
    free(collective);
}

static bool solo_start(struct collective *collective, const struct collective_piece *piece, int *ticket,
                       struct error *err) {
    (void)piece;
    struct solo *solo = (struct solo *)collective;
    solo->tickets = solo->tickets == INT32_MAX ? 1 : solo->tickets + 1;
    *ticket = solo->tickets;
    return alive(collective, err);
}

static bool solo_wait(struct collective *collective, int ticket, int64_t deadline_ms, struct error *err) {
    (void)ticket, (void)deadline_ms;
    return alive(collective, err);
}

static bool solo_broadcast(struct collective *collective, void *buffer, size_t size, int root,
                           struct error *err) {
    (void)buffer, (void)size, (void)root;
    return alive(collective, err);
}

static bool solo_allgather(struct collective *collective, const void *mine, size_t size, void *all,
                           struct error *err) {
    if (all != mine)
        memcpy(all, mine, size);
    return alive(collective, err);
}

static bool solo_barrier(struct collective *collective, struct error *err) {
    return alive(collective, err);
}

static void solo_abort(struct collective *collective) {
    atomic_store(&((struct solo *)collective)->aborted, true);
}

const struct collective_ops collective_solo = {
    .name = "solo",
    .open = solo_open,
    .close = solo_close,
    .start = solo_start,
    .wait = solo_wait,
    .broadcast = solo_broadcast,
    .allgather = solo_allgather,
    .barrier = solo_barrier,
    .abort = solo_abort,
};
