#pragma once
#include "common/weights/model_network.h"
#include "trainerd/evaluate.h"
#include "trainerd/job.h"

enum { SESSION_SETTINGS_MAX = 64 };

/** The data set of a configuration as a model file sees it, and what computes: for commands that answer it. */
struct session {
    struct config tree;
    struct trainer_config config;
    struct job job;
    struct device *device;
};

struct session_spec {
    const char *config;
    const char *settings[SESSION_SETTINGS_MAX]; /**< of --set */
    int setting_count;
};

/**
 * Opens data and device. The recipe is the model's, and the classes must be its too. Problems of the configuration are
 * printed to stderr. session_close frees, also after an error.
 */
bool session_open(struct session *session, const struct session_spec *spec, const struct manifest *manifest,
                  struct error *err);
void session_close(struct session *session);

/**
 * The network's answers to a part; ERROR_UNSUPPORTED where this processor's 8-bit arithmetic would not be exact for it.
 * evaluation_fini frees.
 */
bool session_answer(const struct session *session, const struct model_network *network, enum dataset_part part,
                    struct evaluation *out, struct error *err);

/** Of the data set, for reports: never a path. */
const char *session_data_name(const struct session *session);

/** The part of that name; false where there is none. */
bool session_parse_part(const char *text, enum dataset_part *out);
