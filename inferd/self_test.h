#pragma once
#include "common/weights/model_file.h"
#include "inferd/model.h"

struct self_test_spec {
    struct model *model; /**< borrowed */
    int instances;       /**< that have to answer: 1, or those that compute on devices of their own */
    double tolerance;    /**< how far a probability may be off */
};

/**
 * Lets a model answer the golden images of its file, on its first instances, and compares with what it answered where it was
 * made. *count: how many images there are; a file without them is let pass with 0. ERROR_INVALID where an answer is another
 * one, ERROR_SHAPE where the images do not fit the network. The caller's thread computes; nobody else uses the model yet.
 */
bool self_test_run(const struct self_test_spec *spec, const struct model_file *file, int *count, struct error *err);
