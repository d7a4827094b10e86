#pragma once
#include "inferd/model.h"

/**
 * The place of the model that serves. Swapping never waits for requests: each holds a reference to the model
 * that it began with. Its mutex is a leaf lock. Any thread.
 */
struct slot;

/** An empty slot. Returns owned, NULL where memory ends. */
struct slot *slot_create(void);
/** Releases the model inside. Takes NULL. */
void slot_destroy(struct slot *slot);

/** The model that serves, with a reference for the caller (model_release); NULL where there is none yet. */
struct model *slot_acquire(struct slot *slot);

/** Puts a model in, taking the caller's reference, and releases the one before. */
void slot_swap(struct slot *slot, struct model *model);

/** How often a model took the place of another. */
uint64_t slot_swaps(struct slot *slot);
