#pragma once
#include "inferd/acceptance.h"
#include "inferd/loaded_model.h"
#include "inferd/slot.h"

/** What a member needs to make a model the one that serves. */
struct activation_spec {
    struct slot *slot; /**< borrowed */
    struct loaded_model_spec load;
    const struct acceptance_spec *acceptance; /**< borrowed; NULL: the site has no pictures of its own */
    int shadow_threads;                       /**< that compute a shadow, on a CPU */
};

/**
 * Makes the model in the file the active one. One that is resident takes its place at once: it was proved
 * when it was loaded and has computed without fault since. Any other is loaded, warmed up, has to answer its
 * golden images and the site's own, and only then takes over. The previous model is let go first where memory
 * is short. False, with the old model still serving and nothing left behind, where any of that fails. One
 * call at a time, off the threads that serve.
 */
bool activation_run(const struct activation_spec *spec, const char *path, const struct digest *digest,
                    struct error *err);

/**
 * Loads the model in the file as a shadow: proved as any other, but for one picture at a time and with a
 * small team, since it must not take from those that serve. Returns owned, NULL where it cannot be loaded or
 * proved.
 */
struct model *activation_load_shadow(const struct activation_spec *spec, const char *path,
                                     const struct digest *digest, struct error *err);

/** Loads and proves a model without making it active: for activation_run and for a file given by hand.
 * Returns owned. */
struct model *activation_load(const struct activation_spec *spec, const char *path, struct error *err);
