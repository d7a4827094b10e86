#pragma once
#include "common/base/digest.h"
#include "common/metrics/histogram.h"

/**
 * What became of each model's requests, for the member's reports (ModelStats of proto/pool.proto). Counts
 * only grow. Kept of the MODEL_STATS_MAX models used last; one that comes back after it made room starts from
 * zero. Any thread; its mutex is a leaf lock, held for a look at a few digests.
 */
struct model_stats;

enum { MODEL_STATS_MAX = 8 };

struct model_record {
    struct digest digest;
    uint64_t answered, failed;
    uint64_t compared, agreed, shadow_failed; /**< as a shadow; compared counts those that failed too */
    double drift_sum, drift_square_sum;       /**< over what was compared and did not fail */
    struct histogram latency;                 /**< of answered */
};

/** Returns owned, NULL where memory ends. */
struct model_stats *model_stats_create(void);
/** Takes NULL. */
void model_stats_destroy(struct model_stats *stats);

/** A diagnosis reply with STATUS_OK, so long after its acceptance. */
void model_stats_answered(struct model_stats *stats, const struct digest *model, uint64_t latency_us);
/** One with STATUS_INTERNAL. */
void model_stats_failed(struct model_stats *stats, const struct digest *model);
/** A shadow answered: whether it decided as the active model did, and its probability of the finding less
 * that one's. */
void model_stats_compared(struct model_stats *stats, const struct digest *shadow, bool agreed, double drift);
/** A shadow could not. */
void model_stats_shadow_failed(struct model_stats *stats, const struct digest *shadow);

/** A copy, the models used last first. Returns how many. */
int model_stats_copy(struct model_stats *stats, struct model_record out[MODEL_STATS_MAX]);
