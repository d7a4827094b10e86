#include "trainerd/checkpoint_spread.h"

#include "common/base/file.h"

#include <stdlib.h>
#include <string.h>

enum { PIECE_BYTES = 4 << 20 };

/** What a rank holds while the pieces pass: the root its file, a receiver the memory to put it together in. */
struct spread {
    const struct checkpoint_spread_spec *spec;
    struct file_map map;
    uint8_t *received;
    void *piece; /* device memory */
};

static bool is_root(const struct spread *spread) {
    return spread->spec->collective->rank == spread->spec->root;
}

static bool spread_init(struct spread *spread, const struct checkpoint_spread_spec *spec, struct error *err) {
    *spread = (struct spread){.spec = spec};
    if (is_root(spread)) {
        if (!file_map_open(spec->from, &spread->map, err))
            return false;
        if (spread->map.size != spec->bytes)
            return error_set(err, ERROR_STATE, "%s: changed while it was being sent", spec->from);
    } else if (spec->to && !(spread->received = malloc(spec->bytes ? spec->bytes : 1))) {
        return error_set(err, ERROR_MEMORY, "%s: out of memory for %zu bytes", spec->to, spec->bytes);
    }
    return (spread->piece = spec->device->ops->alloc(spec->device, PIECE_BYTES, err));
}

static void spread_fini(struct spread *spread) {
    struct device *device = spread->spec->device;
    if (spread->piece)
        device->ops->free(device, spread->piece);
    free(spread->received);
    file_map_close(&spread->map);
}

static bool pass_piece(const struct spread *spread, size_t at, size_t bytes, struct error *err) {
    const struct checkpoint_spread_spec *spec = spread->spec;
    struct device *device = spec->device;
    if (is_root(spread) && (!device->ops->upload(device, spread->piece, spread->map.data + at, bytes, NULL, err) ||
                            !device->ops->synchronise(device, NULL, err)))
        return false;
    if (!collective_broadcast(spec->collective, spread->piece, bytes, spec->root, err))
        return false;
    if (spec->alive)
        spec->alive(spec->context);
    return !spread->received || (device->ops->download(device, spread->received + at, spread->piece, bytes, NULL, err) &&
                                 device->ops->synchronise(device, NULL, err));
}

static bool keep(const struct spread *spread, struct error *err) {
    const struct checkpoint_spread_spec *spec = spread->spec;
    struct digest digest = digest_of(spread->received, spec->bytes);
    if (!digest_equal(&digest, &spec->digest))
        return error_set(err, ERROR_FORMAT, "%s: rank %d sent other bytes than it said", spec->to, spec->root);
    char *folder = strdup(spec->to);
    bool ok = folder || error_set(err, ERROR_MEMORY, "out of memory");
    if (ok && strrchr(folder, '/')) {
        *strrchr(folder, '/') = '\0';
        ok = file_make_folders(folder, err);
    }
    free(folder);
    return ok && file_write_atomic(spec->to, spread->received, spec->bytes, err);
}

bool checkpoint_spread(const struct checkpoint_spread_spec *spec, struct error *err) {
    struct spread spread;
    bool ok = spread_init(&spread, spec, err);
    for (size_t at = 0; ok && at < spec->bytes; at += PIECE_BYTES)
        ok = pass_piece(&spread, at, spec->bytes - at < PIECE_BYTES ? spec->bytes - at : PIECE_BYTES, err);
    ok = ok && (!spread.received || keep(&spread, err));
    spread_fini(&spread);
    return ok;
}
