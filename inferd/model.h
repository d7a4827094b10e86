#pragma once
#include "common/base/digest.h"
#include "common/base/error.h"
#include "common/image/recipe.h"
#include "inferd/ladder.h"
#include <stdatomic.h>

enum { MODEL_MAX_CLASSES = 64, MODEL_MAX_POINTS = 33, MODEL_NAME_SIZE = 101, MODEL_MAX_BATCH = LADDER_MAX_IMAGES };

/** The thresholds of one decision: at or above rule_in the finding is ruled in, below rule_out it is ruled
 * out. */
struct decision_point {
    char name[MODEL_NAME_SIZE];
    int class_index; /**< whose probability is compared */
    double rule_in, rule_out;
};

/** A bit for each view of proto/diagnosis.proto that the model is meant for: 1 << View. */
typedef uint32_t view_set;

/** What the daemon needs to know of a model besides its weights. Plain data. */
struct model_info {
    char name[MODEL_NAME_SIZE], version[MODEL_NAME_SIZE];
    struct digest digest; /**< of the model file */
    int class_count;      /**< 2..MODEL_MAX_CLASSES */
    char classes[MODEL_MAX_CLASSES][MODEL_NAME_SIZE];
    int invalid_class; /**< the class of pictures that cannot be judged; -1: the model has none */
    double temperature;
    int point_count; /**< at least 1; the first is the default */
    struct decision_point points[MODEL_MAX_POINTS];
    struct recipe recipe;
    double age_min_years, age_max_years; /**< intended use; max 0: not stated */
    view_set views;                      /**< intended use; 0: not stated */
};

struct model;
struct model_ops {
    /**
     * Where the caller had best put an instance's next images, so that compute need not copy them: (max_batch, C, H, W), all
     * finite. NULL, or a NULL slot: anywhere. Called by the instance's thread, as compute.
     */
    float *(*images)(struct model *model, int instance);
    /**
     * images: (max_batch, C, H, W) as the recipe says, of which the first `count` matter; logits: (count, K),
     * to be filled in. instance: whose buffers are used, from 0; for each, called by one thread at a time, after the model
     * was made ready; different ones compute at the same time.
     */
    bool (*compute)(struct model *model, int instance, const float *images, int count, float *logits, struct error *err);
    /** The last reference is gone. Any thread; nobody is computing. */
    void (*destroy)(struct model *model);
};

/**
 * A model that can answer: immutable but for its buffers, counted by reference, since requests finish on the
 * model that they began with while another one takes over. Objects embed it as their first member.
 */
struct model {
    const struct model_ops *ops;
    atomic_int references; /**< starts at 1: its maker's */
    struct model_info info;
    int max_batch;      /**< images per compute, 1..MODEL_MAX_BATCH */
    struct ladder ladder; /**< its batch sizes, up to max_batch, and what they cost */
    atomic_bool broken; /**< it failed to compute: never made active again without loading it anew */
};

/** One more reference. Returns the model. */
struct model *model_retain(struct model *model);
/** One reference less; the last one destroys. Takes NULL. */
void model_release(struct model *model);

/** The operating point of that name, "" for the default; NULL: ERROR_INVALID lists the names. */
const struct decision_point *model_point(const struct model *model, const char *name, struct error *err);
