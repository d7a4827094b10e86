#pragma once
#include "inferd/model.h"

/**
 * A model without a network: its logits are fixed, so that an answer shows which model made it; compute may
 * be slowed and made to fail. A test double.
 */
struct fake_model_spec {
    const char *name;
    float logits[3]; /**< NORMAL, PNEUMONIA, INVALID */
    int compute_ms;
    bool fails;
    int max_batch;        /**< 0: 4 */
    atomic_int *alive;    /**< counts fakes that are not destroyed yet; or NULL */
    atomic_int *computed; /**< counts images; or NULL */
};

/** Returns owned (model_release). The digest is that of the name. */
struct model *fake_model(const struct fake_model_spec *spec);
