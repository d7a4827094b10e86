#include "common/base/file.h"
#include "trainerd/registry_internal.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

/* Version 0.1 kept what it had published in one file, "publisher.state". */

enum { FORMAT_VERSION = 1, STATE_LIMIT_BYTES = 64 << 20 };

/** One of its models, into memory and, as part of a transaction, into the database. */
static bool import_model(struct registry *registry, const Thorax__V1__ModelRecord *record,
                         struct error *err) {
    struct registry_model *model = &registry->models[registry->count];
    if (registry->count == REGISTRY_MAX_MODELS || record->state < THORAX__V1__MODEL_STATE__MODEL_STAGED ||
        record->state > THORAX__V1__MODEL_STATE__MODEL_RETIRED)
        return error_set(err, ERROR_FORMAT, "too many models, or a state that is unknown");
    if (!descriptor_parse(&model->descriptor, record->model, STORE_MAX_OBJECT_BYTES, err))
        return false;
    model->state = record->state;
    model->published_ms = record->published_ms;
    model->activated_ms = record->activated_ms;
    registry->count++;
    return registry_write_model(registry, model, err);
}

static bool import_all(struct registry *registry, const Thorax__V1__PublisherState *state,
                       struct error *err) {
    if (state->format_version != FORMAT_VERSION)
        return error_set(err, ERROR_FORMAT, "not a record that version 0.1 wrote");
    for (size_t i = 0; i < state->n_models; i++) {
        if (!import_model(registry, state->models[i], err))
            return false;
    }
    return registry_write_event(registry, "imported", NULL, "", "from version 0.1's publisher.state", err) &&
           registry_write_number(registry, state->number, err);
}

static bool import_file(struct registry *registry, const char *path, struct error *err) {
    struct bytes bytes;
    if (!file_read(path, STATE_LIMIT_BYTES, &bytes, err))
        return false;
    Thorax__V1__PublisherState *state = pool_unpack_state(bytes.data, bytes.size, err);
    free(bytes.data);
    bool ok = state && sql_begin(registry->sql, err);
    ok = ok && sql_end(registry->sql, import_all(registry, state, err), err);
    if (ok)
        registry->number = state->number;
    pool_free(state);
    return ok || error_prefix(err, "%s", path);
}

bool registry_import(struct registry *registry, struct error *err) {
    char path[PATH_MAX], aside[PATH_MAX];
    const char *folder = store_folder(registry->store);
    if (!file_join(path, sizeof path, folder, "publisher.state", err) ||
        !file_join(aside, sizeof aside, folder, "publisher.state.imported", err))
        return false;
    if (registry->number > 0 || registry->count > 0 || !file_exists(path))
        return true;
    if (!import_file(registry, path, err))
        return false;
    return rename(path, aside) == 0 || error_set_errno(err, "%s", path);
}
