#include "trainerd/collective/collective.h"

#include <assert.h>
#include <dlfcn.h>
#include <string.h>

/** Engines that need CUDA live in a shared object of their own, so that one package serves machines without a
 * GPU. */
static const char PLUGIN[] = "libthorax-cuda.so";

static const struct engine {
    const char *name;
    const struct collective_ops *ops; /* NULL: in the shared object, */
    const char *symbol;               /* under this name */
} engines[] = {
    {"solo", &collective_solo, NULL},
    {"gloo", &collective_gloo, NULL},
    {"nccl", NULL, "collective_nccl"},
};
enum { ENGINE_COUNT = sizeof engines / sizeof *engines };

/** The shared object stays loaded until the process ends: CUDA's own threads do not survive an unload. */
static const struct collective_ops *load(const char *symbol, struct error *err) {
    void *plugin = dlopen(PLUGIN, RTLD_NOW | RTLD_LOCAL);
    const struct collective_ops *ops = plugin ? dlsym(plugin, symbol) : NULL;
    if (!ops) {
        error_set(err, ERROR_UNSUPPORTED, "collective nccl: %s", dlerror());
        error_hint(err, "on machines without NVIDIA GPUs use gloo");
    }
    return ops;
}

static const struct collective_ops *find(const char *name, struct error *err) {
    for (int i = 0; i < ENGINE_COUNT; i++) {
        if (strcmp(engines[i].name, name) == 0)
            return engines[i].ops ? engines[i].ops : load(engines[i].symbol, err);
    }
    error_set(err, ERROR_NOT_FOUND, "no collective is called \"%s\": there are solo, gloo and nccl", name);
    return NULL;
}

struct collective *collective_open(const struct collective_spec *spec, struct error *err) {
    if (spec->world_size < 1 || spec->rank < 0 || spec->rank >= spec->world_size || spec->timeout_ms <= 0) {
        error_set(err, ERROR_INVALID, "collective: rank %d of %d with a time-out of %lld ms", spec->rank,
                  spec->world_size, (long long)spec->timeout_ms);
        return NULL;
    }
    const struct collective_ops *ops = find(spec->name, err);
    struct collective *collective = ops ? ops->open(spec, err) : NULL;
    if (collective) {
        collective->ops = ops;
        collective->rank = spec->rank;
        collective->world_size = spec->world_size;
    }
    return collective;
}

void collective_close(struct collective *collective) {
    if (collective)
        collective->ops->close(collective);
}

bool collective_start(struct collective *collective, const struct collective_piece *piece, int *ticket,
                      struct error *err) {
    size_t size = dtype_size(piece->dtype);
    if (size == 0 || piece->count < 0 || (piece->count > 0 && !piece->buffer) ||
        (uint64_t)piece->count > SIZE_MAX / size)
        return error_set(err, ERROR_INVALID, "all-reduce of %lld elements of %s", (long long)piece->count,
                         size ? dtype_name(piece->dtype) : "no type");
    return collective->ops->start(collective, piece, ticket, err);
}

bool collective_wait(struct collective *collective, int ticket, int64_t deadline_ms, struct error *err) {
    return collective->ops->wait(collective, ticket, deadline_ms, err);
}

struct event *collective_done_event(struct collective *collective, int ticket) {
    return collective->ops->done_event ? collective->ops->done_event(collective, ticket) : NULL;
}

bool collective_broadcast(struct collective *collective, void *buffer, size_t size, int root,
                          struct error *err) {
    if (root < 0 || root >= collective->world_size)
        return error_set(err, ERROR_INVALID, "broadcast from rank %d of %d", root, collective->world_size);
    return size == 0 || collective->ops->broadcast(collective, buffer, size, root, err);
}

bool collective_allgather(struct collective *collective, const void *mine, size_t size, void *all,
                          struct error *err) {
    if (size == 0 || size > COLLECTIVE_ALLGATHER_MAX)
        return error_set(err, ERROR_INVALID, "all-gather of %zu bytes: 1 to %d", size,
                         COLLECTIVE_ALLGATHER_MAX);
    return collective->ops->allgather(collective, mine, size, all, err);
}

bool collective_barrier(struct collective *collective, struct error *err) {
    return collective->ops->barrier(collective, err);
}

const char *collective_describe(const struct collective *collective) {
    return collective->ops->describe ? collective->ops->describe(collective) : "";
}

bool collective_read_times(struct collective *collective, struct collective_times *out) {
    *out = (struct collective_times){0};
    if (collective->ops->times)
        collective->ops->times(collective, out);
    return collective->ops->times;
}

void collective_abort(struct collective *collective) {
    if (collective)
        collective->ops->abort(collective);
}
