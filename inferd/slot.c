#include "inferd/slot.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct slot {
    pthread_mutex_t mutex; /* guards all below */
    bool keep;
    struct model *active, *previous; /* NULL: none */
    uint64_t swaps;
};

struct slot *slot_create(void) {
    struct slot *slot = calloc(1, sizeof *slot);
    if (slot) {
        pthread_mutex_init(&slot->mutex, NULL);
    }
    return slot;
}

void slot_destroy(struct slot *slot) {
    if (slot) {
        model_release(slot->active);
        model_release(slot->previous);
        pthread_mutex_destroy(&slot->mutex);
        free(slot);
    }
}

void slot_keep_previous(struct slot *slot, bool keep) {
    pthread_mutex_lock(&slot->mutex);
    slot->keep = keep;
    pthread_mutex_unlock(&slot->mutex);
}

struct model *slot_acquire(struct slot *slot) {
    pthread_mutex_lock(&slot->mutex);
    struct model *model = slot->active ? model_retain(slot->active) : NULL;
    pthread_mutex_unlock(&slot->mutex);
    return model;
}

static bool has_digest(const struct model *model, const struct digest *digest) {
    return model && digest_equal(&model->info.digest, digest);
}

struct model *slot_find(struct slot *slot, const struct digest *digest) {
    pthread_mutex_lock(&slot->mutex);
    struct model *model = has_digest(slot->active, digest)     ? slot->active
                          : has_digest(slot->previous, digest) ? slot->previous
                                                               : NULL;
    if (model) {
        model_retain(model);
    }
    pthread_mutex_unlock(&slot->mutex);
    return model;
}

/** Whether name is the model's NAME:VERSION. */
static bool is_named(const struct model *model, const char *name) {
    size_t length = strlen(model->info.name);
    return strncmp(name, model->info.name, length) == 0 && name[length] == ':' &&
           strcmp(name + length + 1, model->info.version) == 0;
}

static struct model *find_named(struct slot *slot, const char *name) {
    struct model *models[SLOT_MODELS], *found = NULL;
    int count = slot_residents(slot, models);
    for (int i = 0; i < count; i++) {
        if (!found && is_named(models[i], name)) {
            found = models[i];
        } else {
            model_release(models[i]);
        }
    }
    return found;
}

struct model *slot_choose(struct slot *slot, const char *name, struct error *err) {
    struct digest digest;
    struct model *model;
    if (!*name || strcmp(name, "stable") == 0) {
        model = slot_acquire(slot);
        if (!model) {
            error_set(err, ERROR_STATE, "this member has no model yet");
        }
        return model;
    }
    if (strchr(name, ':')) {
        model = find_named(slot, name);
    } else if (digest_parse(name, &digest, NULL)) {
        model = slot_find(slot, &digest);
    } else {
        error_set(err, ERROR_INVALID,
                  "model: expected \"stable\", NAME:VERSION, or the 64 hexadecimal digits of a digest");
        return NULL;
    }
    if (!model) {
        error_set(err, ERROR_STATE, "model: this member has not got it ready");
    }
    return model;
}

int slot_residents(struct slot *slot, struct model *out[SLOT_MODELS]) {
    int count = 0;
    pthread_mutex_lock(&slot->mutex);
    if (slot->active) {
        out[count++] = model_retain(slot->active);
    }
    if (slot->previous) {
        out[count++] = model_retain(slot->previous);
    }
    pthread_mutex_unlock(&slot->mutex);
    return count;
}

void slot_swap(struct slot *slot, struct model *model) {
    pthread_mutex_lock(&slot->mutex);
    struct model *before = slot->active, *gone = slot->previous;
    slot->active = model;
    slot->previous = slot->keep ? before : NULL;
    slot->swaps += before ? 1 : 0;
    if (has_digest(slot->previous, &model->info.digest)) {
        slot->previous = NULL; /* the same, loaded anew */
    }
    bool kept = slot->previous != NULL;
    pthread_mutex_unlock(&slot->mutex);
    model_release(gone);
    if (!kept) {
        model_release(before);
    }
}

bool slot_activate(struct slot *slot, const struct digest *digest) {
    pthread_mutex_lock(&slot->mutex);
    bool is_active = has_digest(slot->active, digest);
    bool is_previous = !is_active && has_digest(slot->previous, digest);
    struct model *model = is_active ? slot->active : is_previous ? slot->previous : NULL;
    bool healthy = model && !atomic_load(&model->broken);
    if (healthy && is_previous) {
        slot->previous = slot->active;
        slot->active = model;
        slot->swaps++;
    }
    pthread_mutex_unlock(&slot->mutex);
    return healthy;
}

bool slot_drop_previous(struct slot *slot) {
    pthread_mutex_lock(&slot->mutex);
    struct model *gone = slot->previous;
    slot->previous = NULL;
    pthread_mutex_unlock(&slot->mutex);
    model_release(gone);
    return gone != NULL;
}

bool slot_drop(struct slot *slot, const struct digest *digest) {
    pthread_mutex_lock(&slot->mutex);
    struct model *gone = has_digest(slot->previous, digest) ? slot->previous : NULL;
    if (gone) {
        slot->previous = NULL;
    }
    pthread_mutex_unlock(&slot->mutex);
    model_release(gone);
    return gone != NULL;
}

uint64_t slot_swaps(struct slot *slot) {
    pthread_mutex_lock(&slot->mutex);
    uint64_t swaps = slot->swaps;
    pthread_mutex_unlock(&slot->mutex);
    return swaps;
}
