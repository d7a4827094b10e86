#pragma once
#include "common/image/image.h"
#include "inferd/model.h"
#include "inferd/model_stats.h"

/**
 * A model that is computed beside the active one on some of the live pictures and never answers: what a
 * rollout learns from before anybody depends on the model. A sample is taken where the picture is decoded and
 * handed over when the answer is out; a niced thread of its own computes it and compares. Bounded: where too
 * many samples are under way, new ones are dropped and counted. Nothing here changes or delays an answer, but
 * for the second resizing of a sampled picture where the two recipes differ in size. Any thread; its mutex is
 * a leaf lock.
 */
struct shadow;

/** A picture on its way into the comparison. */
struct shadow_sample;

struct shadow_spec {
    struct model_stats *stats; /**< borrowed; what was compared is counted there */
    int limit;                 /**< samples under way at most; more are dropped. At least 1 */
};

/** Starts the thread, which has nothing to do yet. Returns owned. */
struct shadow *shadow_create(const struct shadow_spec *spec, struct error *err);
/** Takes NULL. All samples were handed over or dropped; those that wait are discarded. */
void shadow_destroy(struct shadow *shadow);

/**
 * Compares this model, taking the caller's reference, on so many of a thousand pictures; NULL: none any more.
 * The model before goes as soon as its last sample is out of the way. The model is computed by the shadow's
 * thread only.
 */
void shadow_set(struct shadow *shadow, struct model *model, int permille);
/** Changes the share. */
void shadow_set_share(struct shadow *shadow, int permille);
/** Which model is compared; false: none. */
bool shadow_current(struct shadow *shadow, struct digest *out);
/** Samples that were not taken because too many were under way. */
uint64_t shadow_dropped(const struct shadow *shadow);

/**
 * Takes a sample, if it is this picture's turn: the picture as the shadow's recipe wants it. active: the
 * model that answers; grey: the picture as its recipe made it. NULL: it is not, or it does not work out,
 * which is nobody's failure. shadow may be NULL.
 */
struct shadow_sample *shadow_begin(struct shadow *shadow, const struct model *active,
                                   const struct image *image, const uint8_t *grey);
/** The active model has answered with these probabilities. Takes the sample; never waits. */
void shadow_submit(struct shadow_sample *sample, const struct model_info *active,
                   const double *probabilities);
/** There was no answer to compare with. Takes NULL. */
void shadow_drop(struct shadow_sample *sample);
