#pragma once
#include "common/weights/model_file.h"
#include "inferd/model.h"

/**
 * Lets a model answer the golden images of its file, on its first instance, and compares with what it answered where it was
 * made. *count: how many images there are; a file without them is let pass with 0. tolerance: how far a probability may be
 * off. ERROR_INVALID where an answer is another one, ERROR_SHAPE where the images do not fit the network. The caller's thread
 * computes; nobody else uses the model yet.
 */
bool self_test_run(struct model *model, const struct model_file *file, double tolerance, int *count, struct error *err);
