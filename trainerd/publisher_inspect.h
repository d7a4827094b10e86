#pragma once
#include "common/pool/descriptor.h"

/**
 * Looks into a model file before it is published: format, manifest, weights' digest. Writes the manifest's
 * name and version. Has the shape of publisher_spec.inspect; context is not used.
 */
bool publisher_inspect_model(void *context, const char *path, char name[DESCRIPTOR_NAME_SIZE],
                             char version[DESCRIPTOR_NAME_SIZE], struct error *err);
