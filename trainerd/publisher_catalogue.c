#include "trainerd/publisher_catalogue.h"

#include "common/base/clock.h"
#include "common/base/file.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum { FORMAT_VERSION = 1, STATE_LIMIT_BYTES = 64 << 20 };

static const int64_t PARTIAL_AGE_MS = 24 * 3600 * 1000;

static bool state_path(const struct catalogue *catalogue, char out[PATH_MAX], struct error *err) {
    return file_join(out, PATH_MAX, store_folder(catalogue->store), "publisher.state", err);
}

static bool save(const struct catalogue *catalogue, struct error *err) {
    Thorax__V1__PublisherState state;
    Thorax__V1__ModelRecord records[CATALOGUE_MAX_MODELS], *pointers[CATALOGUE_MAX_MODELS];
    Thorax__V1__PublishedModel models[CATALOGUE_MAX_MODELS];
    thorax__v1__publisher_state__init(&state);
    for (int i = 0; i < catalogue->count; i++) {
        const struct catalogue_model *model = &catalogue->models[i];
        descriptor_message(&model->descriptor, &models[i]);
        thorax__v1__model_record__init(&records[i]);
        records[i].model = &models[i];
        records[i].state = model->state;
        records[i].published_ms = model->published_ms;
        records[i].activated_ms = model->activated_ms;
        pointers[i] = &records[i];
    }
    state.format_version = FORMAT_VERSION;
    state.number = catalogue->number;
    state.n_models = (size_t)catalogue->count;
    state.models = pointers;
    struct packed packed = pool_pack(&state.base);
    char path[PATH_MAX];
    bool ok = packed.data
                  ? state_path(catalogue, path, err) && file_write_atomic(path, packed.data, packed.size, err)
                  : error_set(err, ERROR_MEMORY, "out of memory for the publisher's record");
    free(packed.data);
    return ok;
}

static bool pin(const struct catalogue *catalogue, const struct digest *digest, struct error *err) {
    char hex[DIGEST_HEX_SIZE];
    return store_pin(catalogue->store, digest_hex(digest, hex), digest, err);
}

/** Takes model i out of the list; the others move up. */
static void take_out(struct catalogue *catalogue, int i) {
    descriptor_fini(&catalogue->models[i].descriptor);
    catalogue->count--;
    memmove(&catalogue->models[i], &catalogue->models[i + 1],
            (size_t)(catalogue->count - i) * sizeof catalogue->models[0]);
    catalogue->models[catalogue->count] = (struct catalogue_model){0};
}

static bool adopt(struct catalogue *catalogue, const Thorax__V1__PublisherState *state, struct error *err) {
    if (state->format_version != FORMAT_VERSION || state->n_models > CATALOGUE_MAX_MODELS)
        return error_set(err, ERROR_FORMAT, "not a record that this version wrote");
    catalogue->number = state->number;
    for (size_t i = 0; i < state->n_models; i++) {
        const Thorax__V1__ModelRecord *record = state->models[i];
        struct catalogue_model *model = &catalogue->models[catalogue->count];
        if (record->state < THORAX__V1__MODEL_STATE__MODEL_STAGED ||
            record->state > THORAX__V1__MODEL_STATE__MODEL_RETIRED)
            return error_set(err, ERROR_FORMAT, "a model's state is unknown");
        if (!descriptor_parse(&model->descriptor, record->model, STORE_MAX_OBJECT_BYTES, err))
            return false;
        model->state = record->state;
        model->published_ms = record->published_ms;
        model->activated_ms = record->activated_ms;
        catalogue->count++;
    }
    return true;
}

static bool read_state(struct catalogue *catalogue, struct error *err) {
    char path[PATH_MAX];
    struct bytes bytes;
    if (!state_path(catalogue, path, err))
        return false;
    if (!file_exists(path))
        return true;
    if (!file_read(path, STATE_LIMIT_BYTES, &bytes, err))
        return false;
    Thorax__V1__PublisherState *state = pool_unpack_state(bytes.data, bytes.size, err);
    bool ok = state && adopt(catalogue, state, err);
    pool_free(state);
    free(bytes.data);
    if (!ok) {
        error_prefix(err, "%s", path);
        error_hint(err, "restore it from a backup, or move it away and publish the models again");
    }
    return ok;
}

/** Lets go of objects that a crash left behind between the record and the store. */
static bool tidy(struct catalogue *catalogue, struct error *err) {
    struct store_list list;
    if (!store_list(catalogue->store, &list, err))
        return false;
    bool ok = true;
    for (size_t i = 0; ok && i < list.count; i++) {
        char hex[DIGEST_HEX_SIZE];
        if (catalogue_find(catalogue, &list.entries[i].digest))
            ok = pin(catalogue, &list.entries[i].digest, err);
        else
            ok = store_unpin(catalogue->store, digest_hex(&list.entries[i].digest, hex), err);
    }
    store_list_fini(&list);
    return ok && store_collect(catalogue->store, PARTIAL_AGE_MS, NULL, err);
}

bool catalogue_load(struct catalogue *catalogue, struct store *store, int keep_retired, int *dropped,
                    struct error *err) {
    *catalogue = (struct catalogue){.store = store, .keep_retired = keep_retired};
    *dropped = 0;
    bool ok = read_state(catalogue, err);
    for (int i = catalogue->count - 1; ok && i >= 0; i--) {
        const struct catalogue_model *model = &catalogue->models[i];
        bool retired =
            model->state == THORAX__V1__MODEL_STATE__MODEL_RETIRED; /* many, and nobody asks for them now */
        if (retired ? store_has(store, &model->descriptor.digest)
                    : store_verify(store, &model->descriptor.digest, NULL))
            continue;
        take_out(catalogue, i);
        ++*dropped;
    }
    ok = ok && tidy(catalogue, err) && save(catalogue, err);
    if (!ok)
        catalogue_fini(catalogue);
    return ok;
}

void catalogue_fini(struct catalogue *catalogue) {
    while (catalogue->count > 0)
        take_out(catalogue, catalogue->count - 1);
}

struct catalogue_model *catalogue_find(struct catalogue *catalogue, const struct digest *digest) {
    for (int i = 0; i < catalogue->count; i++) {
        if (digest_equal(&catalogue->models[i].descriptor.digest, digest))
            return &catalogue->models[i];
    }
    return NULL;
}

struct catalogue_model *catalogue_current(struct catalogue *catalogue) {
    for (int i = 0; i < catalogue->count; i++) {
        if (catalogue->models[i].state == THORAX__V1__MODEL_STATE__MODEL_CURRENT)
            return &catalogue->models[i];
    }
    return NULL;
}

/** The oldest model of a state that has more than keep models, or -1. */
static int surplus(const struct catalogue *catalogue, Thorax__V1__ModelState state, int keep) {
    int oldest = -1, count = 0;
    for (int i = 0; i < catalogue->count; i++) {
        if (catalogue->models[i].state != state)
            continue;
        count++;
        oldest = oldest < 0 ? i : oldest;
    }
    return count > keep ? oldest : -1;
}

/** Lets go of the oldest models over the limits. What cannot be removed now is tidied away by the next start.
 */
static void prune(struct catalogue *catalogue) {
    for (;;) {
        int i = surplus(catalogue, THORAX__V1__MODEL_STATE__MODEL_RETIRED, catalogue->keep_retired);
        if (i < 0)
            i = surplus(catalogue, THORAX__V1__MODEL_STATE__MODEL_STAGED, CATALOGUE_MAX_STAGED);
        if (i < 0)
            return;
        char hex[DIGEST_HEX_SIZE];
        struct digest digest = catalogue->models[i].descriptor.digest;
        take_out(catalogue, i);
        if (save(catalogue, NULL) && store_unpin(catalogue->store, digest_hex(&digest, hex), NULL))
            store_remove(catalogue->store, &digest, NULL);
    }
}

bool catalogue_add(struct catalogue *catalogue, struct descriptor *descriptor, struct error *err) {
    bool ok = store_has(catalogue->store, &descriptor->digest) ||
              error_set(err, ERROR_NOT_FOUND, "the model's file is not in the store; publish it again");
    if (!ok || !pin(catalogue, &descriptor->digest, err)) {
        descriptor_fini(descriptor);
        return false;
    }
    prune(catalogue);
    catalogue->models[catalogue->count++] = (struct catalogue_model){
        .descriptor = *descriptor,
        .state = THORAX__V1__MODEL_STATE__MODEL_STAGED,
        .published_ms = clock_wall_ms(),
    };
    *descriptor = (struct descriptor){0};
    catalogue->number++;
    if (save(catalogue, err))
        return true;
    catalogue->number--;
    take_out(catalogue, catalogue->count - 1);
    return false;
}

bool catalogue_activate(struct catalogue *catalogue, const struct digest *digest, struct error *err) {
    struct catalogue_model *wanted = catalogue_find(catalogue, digest),
                           *before = catalogue_current(catalogue);
    if (!wanted)
        return error_set(err, ERROR_NOT_FOUND, "no such model is published here");
    struct catalogue_model saved = *wanted;
    if (before)
        before->state = THORAX__V1__MODEL_STATE__MODEL_RETIRED;
    wanted->state = THORAX__V1__MODEL_STATE__MODEL_CURRENT;
    wanted->activated_ms = clock_wall_ms();
    catalogue->number++;
    if (!save(catalogue, err)) {
        catalogue->number--;
        wanted->state = saved.state;
        wanted->activated_ms = saved.activated_ms;
        if (before)
            before->state = THORAX__V1__MODEL_STATE__MODEL_CURRENT;
        return false;
    }
    prune(catalogue);
    return true;
}
