#include "inferd/slot.h"
#include <pthread.h>
#include <stdlib.h>

struct slot {
    pthread_mutex_t mutex; /* guards all below */
    struct model *current;
    uint64_t swaps;
};

struct slot *slot_create(void) {
    struct slot *slot = calloc(1, sizeof *slot);
    if (slot) {
        pthread_mutex_init(&slot->mutex, NULL);
    }
    return slot;
}

void slot_destroy(struct slot *slot) {
    if (slot) {
        model_release(slot->current);
        pthread_mutex_destroy(&slot->mutex);
        free(slot);
    }
}

struct model *slot_acquire(struct slot *slot) {
    pthread_mutex_lock(&slot->mutex);
    struct model *model = slot->current ? model_retain(slot->current) : NULL;
    pthread_mutex_unlock(&slot->mutex);
    return model;
}

void slot_swap(struct slot *slot, struct model *model) {
    pthread_mutex_lock(&slot->mutex);
    struct model *before = slot->current;
    slot->current = model;
    slot->swaps += before ? 1 : 0;
    pthread_mutex_unlock(&slot->mutex);
    model_release(before);
}

uint64_t slot_swaps(struct slot *slot) {
    pthread_mutex_lock(&slot->mutex);
    uint64_t swaps = slot->swaps;
    pthread_mutex_unlock(&slot->mutex);
    return swaps;
}
