#pragma once
#include "inferd/model.h"

/**
 * The models that can answer at once: the active one, which serves, and the one before it, where that is
 * kept, for requests that are pinned to it and for a rollback that loads nothing. Swapping never waits for
 * requests: each holds a reference to the model that it began with. Its mutex is a leaf lock. Any thread.
 */
struct slot;

enum { SLOT_MODELS = 2 };

/** An empty slot, which does not keep the previous model. Returns owned, NULL where memory ends. */
struct slot *slot_create(void);
/** Releases the models inside. Takes NULL. */
void slot_destroy(struct slot *slot);
/** Whether from now on the model before the active one stays resident. */
void slot_keep_previous(struct slot *slot, bool keep);

/** The model that serves, with a reference for the caller (model_release); NULL where there is none yet. */
struct model *slot_acquire(struct slot *slot);
/** The resident model of that digest, as above; NULL: it is not resident. */
struct model *slot_find(struct slot *slot, const struct digest *digest);
/**
 * The model that a request names: "" or "stable" for the active one, NAME:VERSION, or the 64 hexadecimal
 * digits of a digest. As above; NULL: ERROR_STATE where it is not resident (or nothing is yet), ERROR_INVALID
 * where that is no name.
 */
struct model *slot_choose(struct slot *slot, const char *name, struct error *err);
/** All of them, the active one first, each with a reference for the caller. Returns how many. */
int slot_residents(struct slot *slot, struct model *out[SLOT_MODELS]);

/** Makes a model the active one, taking the caller's reference. The active one before becomes the previous,
 * or goes. */
void slot_swap(struct slot *slot, struct model *model);
/**
 * Makes a resident model the active one: a rollback without loading. False where it is not resident, or where
 * it failed to compute since it was loaded, and must be loaded anew.
 */
bool slot_activate(struct slot *slot, const struct digest *digest);
/** Lets go of the previous model, where there is one: memory is short. True: there was one. */
bool slot_drop_previous(struct slot *slot);
/** Lets go of the previous model where it is this one: it must not answer any more. True: it was. The active one
 * stays, since something has to answer until another takes its place. */
bool slot_drop(struct slot *slot, const struct digest *digest);

/** How often a model took the place of another. */
uint64_t slot_swaps(struct slot *slot);
