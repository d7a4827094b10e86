#pragma once
#include "common/image/recipe.h"
#include "common/models/registry.h"
#include "trainerd/config.h"
#include "trainerd/dataset.h"
#include "trainerd/image_cache.h"

/** A training job as every process of it sees it: configuration, data, and what follows from both. */
struct job {
    const struct trainer_config *config; /**< borrowed */
    struct dataset dataset;
    struct image_cache cache;
    struct recipe recipe;
    struct model_spec model;
    int64_t train_count;
    int32_t *train_indices, *train_labels;       /**< (train_count) places in the cache, classes; owned */
    float class_weights[DATASET_MAX_CLASSES];    /**< ones unless imbalance.class_weighted_loss */
    const struct augment *augment[DATASET_MAX_CLASSES];
    const char *folder;                          /**< runs/NAME */
    char folder_text[4096];
    char config_digest[DIGEST_HEX_SIZE];         /**< of job_decisive_config */
    char shared_digest[DIGEST_HEX_SIZE];         /**< of job_shared_config */
    char data_digest[DIGEST_HEX_SIZE];
};

/** How opening shows itself: called now and then while images are decoded. */
struct job_watch {
    void (*progress)(void *context, int64_t done, int64_t total);
    void *context;
};

/**
 * Finds the data and opens (or makes) its cache. watch may be NULL. What should be said about the data is in job->dataset.notes
 * and in the counts of the cache. job_close frees, also after an error.
 */
bool job_open(struct job *job, const struct trainer_config *config, const struct job_watch *watch, struct error *err);
void job_close(struct job *job);

/**
 * The values in force that decide what is learnt, as YAML, one key a line: a run's identity through its checkpoints, on however
 * many ranks and nodes it goes on. Owned; NULL where memory ends.
 */
char *job_decisive_config(const struct trainer_config *config, struct error *err);

/** The same with what all nodes of a run must have alike besides: how shares are cut, and when checkpoints are written. */
char *job_shared_config(const struct trainer_config *config, struct error *err);

/** What the network of a configuration sees of a picture. */
struct recipe job_recipe(const struct trainer_config *config);

/** Name of the model that the job makes. */
const char *job_model_name(const struct job *job);

/** "NAME/PART" under the run's folder. */
bool job_path(const struct job *job, const char *part, char *out, size_t size, struct error *err);
