#pragma once
#include "trainerd/config.h"
#include "trainerd/job.h"
#include "trainerd/supervisor.h"

/**
 * This process' part of the training run that a configuration describes: which node it is, what all nodes must have alike, and
 * the rules by which ranks are lost and come back.
 */
struct cluster_run_spec {
    const struct trainer_config *config;
    const struct cluster_place *place;
    char *const *arguments; /**< argv: workers are started with it */
    bool resume;            /**< from the run's newest checkpoint, if there is one */
    const char *folder;     /**< of the run */
    const char *data_digest;
    struct wire_security *security; /**< of the section `security`; NULL: there is none */
    void *context;
    bool (*on_report)(void *context, int rank, const char *kind, const void *data, size_t size, struct error *err);
    void (*on_event)(void *context, const char *event, const struct metric *metrics, int count);
};

/** Finds this process' place; a GPU is wanted where the configuration says so. */
bool cluster_run_place(const struct trainer_config *config, struct cluster_place *out, struct error *err);

/** supervisor_run, with all that follows from the configuration. */
bool cluster_run(const struct cluster_run_spec *spec, enum cluster_outcome *outcome, struct error *err);
