#pragma once
#include "common/models/registry.h"

/** Builders of the registry's rows: add the nodes, return the logits' id, -1 on error. */
int resnet_build(struct graph *graph, const struct model_architecture *row, const struct model_spec *spec, struct error *err);
int efficientnet_lite_build(struct graph *graph, const struct model_architecture *row,
                            const struct model_spec *spec, struct error *err);
