#pragma once
#include "inferd/loaded_model.h"
#include "inferd/slot.h"

/** What a member needs to make a model the one that serves. */
struct activation_spec {
    struct slot *slot; /**< borrowed */
    struct loaded_model_spec load;
};

/**
 * Makes the model in the file the active one. One that is resident takes its place at once: it was proved
 * when it was loaded and has computed without fault since. Any other is loaded, warmed up, has to answer its
 * golden images, and only then takes over. The previous model is let go first where memory is short. False,
 * with the old model still serving and nothing left behind, where any of that fails. One call at a time, off
 * the threads that serve.
 */
bool activation_run(const struct activation_spec *spec, const char *path, const struct digest *digest,
                    struct error *err);

/** Loads and proves a model without making it active: for activation_run and for a file given by hand.
 * Returns owned. */
struct model *activation_load(const struct activation_spec *spec, const char *path, struct error *err);
