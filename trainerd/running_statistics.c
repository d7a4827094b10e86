#include "trainerd/running_statistics.h"

#include <stdlib.h>
#include <string.h>

static bool share(struct collective *collective, struct tensor *tensor, struct error *err) {
    size_t bytes = tensor_bytes(tensor);
    char *all = malloc((size_t)collective->world_size * bytes);
    bool ok = all ? collective_allgather(collective, tensor->data, bytes, all, err)
                  : error_set(err, ERROR_MEMORY, "out of memory");
    if (ok)
        memcpy(tensor->data, all, bytes); /* rank 0's come first */
    free(all);
    return ok;
}

bool running_statistics_share(struct collective *collective, const struct graph *graph, struct parameters *parameters,
                              struct error *err) {
    for (int i = 0; collective->world_size > 1 && i < graph->parameter_count; i++) {
        if (graph->parameters[i].role.diff == ARG_NONE && !share(collective, &parameters->tensors[i], err))
            return false;
    }
    return true;
}
