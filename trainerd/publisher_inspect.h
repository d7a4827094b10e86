#pragma once
#include "common/weights/model_file.h"
#include "trainerd/publisher.h"

/**
 * Looks into a model file before it is published: format, manifest, weights' digest. Has the shape of
 * publisher_spec.inspect; context is not used.
 */
bool publisher_inspect_model(void *context, const char *path, struct publisher_findings *findings,
                             struct error *err);

/** What a descriptor is to say of a file in which that was found. Borrows findings and data. */
struct descriptor_spec publisher_describe(const struct publisher_findings *findings, const void *data,
                                          size_t size);
