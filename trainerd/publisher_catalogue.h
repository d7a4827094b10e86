#pragma once
#include "common/pool/descriptor.h"
#include "common/pool/message.h"
#include "common/store/store.h"

/** What a publisher has published, and the number of its last event. Each change is on disk when the function
 * returns. */

enum { CATALOGUE_MAX_STAGED = 16, CATALOGUE_MAX_RETIRED = 16, CATALOGUE_MAX_MODELS = 34 };

struct catalogue_model {
    struct descriptor descriptor;
    Thorax__V1__ModelState state;
    int64_t published_ms, activated_ms; /**< since 1970 */
};

struct catalogue {
    struct store *store; /**< borrowed */
    int keep_retired;
    uint64_t number;
    int count;
    struct catalogue_model models[CATALOGUE_MAX_MODELS]; /**< oldest first */
};

/**
 * Reads the record in the store's folder, if there is one, and tidies the store: models whose file is gone or
 * damaged are dropped (*dropped counts them), files that no model needs are removed. ERROR_FORMAT: the record
 * is damaged.
 */
bool catalogue_load(struct catalogue *catalogue, struct store *store, int keep_retired, int *dropped,
                    struct error *err);
void catalogue_fini(struct catalogue *catalogue);

/** NULL where there is none. Borrowed until the next change. */
struct catalogue_model *catalogue_find(struct catalogue *catalogue, const struct digest *digest);
struct catalogue_model *catalogue_current(struct catalogue *catalogue);

/** Adds a staged model, whose object is in the store, as the next event. Takes descriptor, also on failure.
 */
bool catalogue_add(struct catalogue *catalogue, struct descriptor *descriptor, struct error *err);
/** Makes a model current, as the next event, and lets go of models that are over the limits. ERROR_NOT_FOUND.
 */
bool catalogue_activate(struct catalogue *catalogue, const struct digest *digest, struct error *err);
