#pragma once
#include "common/graph/parameters.h"
#include "trainerd/collective/collective.h"

/**
 * Puts rank 0's running statistics (of batch norms) into everyone's parameters: each rank keeps its own, and only rank 0's are
 * ever used. All ranks call it alike. One statistic has at most COLLECTIVE_ALLGATHER_MAX bytes.
 */
bool running_statistics_share(struct collective *collective, const struct graph *graph, struct parameters *parameters,
                              struct error *err);
