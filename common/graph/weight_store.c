#include "common/graph/plan_internal.h"

#include "common/graph/passes.h"

#include <stdlib.h>

struct weight_store *weight_store_create(const struct plan_spec *spec, struct error *err) {
    struct weight_store *store = calloc(1, sizeof *store);
    if (!store) {
        error_set(err, ERROR_MEMORY, "plan: out of memory");
        return NULL;
    }
    atomic_init(&store->references, 1);
    store->precision = spec->precision;
    store->graph =
        graph_fold_for_inference(spec->graph, spec->parameters, spec->device, spec->precision, &store->parameters, err);
    if (!store->graph) {
        weight_store_release(store, spec->device);
        return NULL;
    }
    return store;
}

struct weight_store *weight_store_retain(struct weight_store *store) {
    atomic_fetch_add(&store->references, 1);
    return store;
}

void weight_store_release(struct weight_store *store, struct device *device) {
    if (!store || atomic_fetch_sub(&store->references, 1) > 1)
        return;
    for (int i = 0; i < store->count; i++)
        device->ops->free(device, store->entries[i].memory);
    free(store->entries);
    graph_destroy(store->graph);
    parameters_destroy(store->parameters);
    free(store);
}

static struct weight_entry *new_entry(struct weight_store *store, struct error *err) {
    if (store->count == store->capacity) {
        int wanted = store->capacity ? 2 * store->capacity : 64;
        struct weight_entry *grown = realloc(store->entries, (size_t)wanted * sizeof *grown);
        if (!grown) {
            error_set(err, ERROR_MEMORY, "plan: out of memory");
            return NULL;
        }
        store->entries = grown;
        store->capacity = wanted;
    }
    return &store->entries[store->count];
}

void *weight_store_get(struct weight_store *store, struct device *device, int parameter, const struct tensor_desc *desc,
                       struct error *err) {
    for (int i = 0; i < store->count; i++) {
        const struct weight_entry *entry = &store->entries[i];
        if (entry->parameter == parameter && entry->desc.layout == desc->layout && entry->desc.dtype == desc->dtype)
            return entry->memory;
    }
    struct weight_entry *entry = new_entry(store, err);
    if (!entry)
        return NULL;
    *entry = (struct weight_entry){parameter, *desc, device->ops->alloc(device, desc->bytes, err)};
    if (!entry->memory)
        return NULL;
    store->count++;
    store->bytes += desc->bytes;
    if (!plan_upload_tensor(device, &store->parameters->tensors[parameter], desc, entry->memory, err)) {
        error_prefix(err, "parameter %s", store->graph->parameters[parameter].name);
        return NULL;
    }
    return entry->memory;
}
