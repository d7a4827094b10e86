#include "trainerd/registry.h"

#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/text.h"
#include "trainerd/registry_internal.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum { APPLICATION_ID = 0x54687278 /* "Thrx" */ };

static const int64_t PARTIAL_AGE_MS = 24 * 3600 * 1000;

/* The i-th brings a database from version i to i + 1. Never change one that was released: add another. */
static const char *const MIGRATIONS[] = {
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value ANY) STRICT, WITHOUT ROWID;"
    "CREATE TABLE models (digest BLOB PRIMARY KEY CHECK (length(digest) = 32), name TEXT NOT NULL,"
    "  version TEXT NOT NULL, published BLOB NOT NULL, state INTEGER NOT NULL, stored INTEGER NOT NULL,"
    "  published_ms INTEGER NOT NULL, activated_ms INTEGER NOT NULL, gate TEXT NOT NULL) STRICT;"
    "CREATE INDEX models_by_name ON models (name, version);"
    "CREATE TABLE metrics (digest BLOB NOT NULL REFERENCES models, name TEXT NOT NULL, data_set TEXT NOT "
    "NULL,"
    "  split TEXT NOT NULL, value REAL NOT NULL, PRIMARY KEY (digest, name, data_set, split)) STRICT;"
    "CREATE TABLE approvals (id INTEGER PRIMARY KEY, digest BLOB NOT NULL REFERENCES models, at_ms INTEGER "
    "NOT NULL,"
    "  who TEXT NOT NULL, note TEXT NOT NULL) STRICT;"
    "CREATE TABLE revocations (digest BLOB PRIMARY KEY REFERENCES models, at_ms INTEGER NOT NULL, who TEXT "
    "NOT NULL,"
    "  reason TEXT NOT NULL) STRICT;"
    "CREATE TABLE aliases (name TEXT PRIMARY KEY, digest BLOB NOT NULL REFERENCES models) STRICT;"
    "CREATE TABLE rollouts (id INTEGER PRIMARY KEY, digest BLOB NOT NULL, state INTEGER NOT NULL,"
    "  started_ms INTEGER NOT NULL, ended_ms INTEGER NOT NULL, record BLOB NOT NULL) STRICT;"
    "CREATE TABLE events (id INTEGER PRIMARY KEY AUTOINCREMENT, at_ms INTEGER NOT NULL, kind TEXT NOT NULL,"
    "  digest BLOB, who TEXT NOT NULL, detail TEXT NOT NULL) STRICT;",
    NULL,
};

struct sql_spec registry_sql_spec(const char *path) {
    return (struct sql_spec){.path = path, .application_id = APPLICATION_ID, .migrations = MIGRATIONS};
}

bool registry_path(const char *store_folder, char *out, size_t size, struct error *err) {
    return file_join(out, size, store_folder, "registry.sqlite", err);
}

/* ---- meta ---- */

bool registry_set_meta(struct registry *registry, const char *key, struct sql_value value,
                       struct error *err) {
    struct sql_value values[] = {sql_text(key), value};
    return sql_run(registry->sql, "INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", values, 2, err);
}

static bool take_meta(void *context, const struct sql_row *row, struct error *err) {
    struct registry *registry = context;
    const char *key = sql_row_text(row, 0);
    size_t size;
    const void *blob;
    (void)err;
    if (strcmp(key, "number") == 0)
        registry->number = (uint64_t)sql_row_integer(row, 1);
    else if (strcmp(key, "held") == 0)
        text_copy(registry->held, sizeof registry->held, sql_row_text(row, 1));
    else if (strcmp(key, "id") == 0 && (blob = sql_row_blob(row, 1, &size)) && size == REGISTRY_ID_BYTES)
        memcpy(registry->id, blob, size);
    return true;
}

/** A new registry gets its id. */
static bool read_meta(struct registry *registry, struct error *err) {
    static const uint8_t none[REGISTRY_ID_BYTES];
    if (!sql_query(registry->sql, "SELECT key, value FROM meta", NULL, 0, take_meta, registry, err))
        return false;
    if (memcmp(registry->id, none, sizeof none) != 0)
        return true;
    uint64_t halves[] = {digest_random_u64(), digest_random_u64()};
    memcpy(registry->id, halves, sizeof registry->id);
    return registry_set_meta(registry, "id", sql_blob(registry->id, sizeof registry->id), err);
}

bool registry_write_number(struct registry *registry, uint64_t number, struct error *err) {
    return registry_set_meta(registry, "number", sql_integer((int64_t)number), err);
}

bool registry_next_number(struct registry *registry, struct error *err) {
    if (!registry_write_number(registry, registry->number + 1, err))
        return false;
    registry->number++;
    return true;
}

/* ---- models in memory ---- */

struct registry_model *registry_find_mutable(struct registry *registry, const struct digest *digest) {
    for (int i = 0; i < registry->count; i++) {
        if (digest_equal(&registry->models[i].descriptor.digest, digest))
            return &registry->models[i];
    }
    return NULL;
}

void registry_take_out(struct registry *registry, int i) {
    descriptor_fini(&registry->models[i].descriptor);
    registry->count--;
    memmove(&registry->models[i], &registry->models[i + 1],
            (size_t)(registry->count - i) * sizeof registry->models[0]);
    registry->models[registry->count] = (struct registry_model){0};
}

void registry_note_signer(struct registry_model *model) {
    model->signer[0] = '\0';
    if (descriptor_signature_count(&model->descriptor) > 0)
        signature_key_id(descriptor_signer(&model->descriptor, 0), model->signer);
}

static bool known_state(int64_t state) {
    return state >= THORAX__V1__MODEL_STATE__MODEL_STAGED && state <= THORAX__V1__MODEL_STATE__MODEL_REGISTERED;
}

/** A row of models as it was written: the packed PublishedModel is checked as if it came from the network. */
static bool take_model(void *context, const struct sql_row *row, struct error *err) {
    struct registry *registry = context;
    struct registry_model *model = &registry->models[registry->count];
    size_t size;
    const void *packed = sql_row_blob(row, 0, &size);
    Thorax__V1__PublishedModel *published =
        packed ? thorax__v1__published_model__unpack(NULL, size, packed) : NULL;
    bool ok = published && registry->count < REGISTRY_MAX_MODELS && known_state(sql_row_integer(row, 1)) &&
              descriptor_parse(&model->descriptor, published, STORE_MAX_OBJECT_BYTES, err);
    if (published)
        thorax__v1__published_model__free_unpacked(published, NULL);
    if (!ok)
        return error_set(err, ERROR_FORMAT, "the registry: a model's row is damaged, or there are too many");
    model->state = (Thorax__V1__ModelState)sql_row_integer(row, 1);
    model->published_ms = sql_row_integer(row, 2);
    model->activated_ms = sql_row_integer(row, 3);
    text_copy(model->gate, sizeof model->gate, sql_row_text(row, 4));
    text_copy(model->approved_by, sizeof model->approved_by, sql_row_text(row, 5));
    registry_note_signer(model);
    registry->count++;
    return true;
}

bool registry_note_revoked(struct registry *registry, const struct digest *digest, struct error *err) {
    if (registry->revoked_count == registry->revoked_room) {
        int room = registry->revoked_room ? 2 * registry->revoked_room : 16;
        struct digest *larger = realloc(registry->revoked, (size_t)room * sizeof *larger);
        if (!larger)
            return error_set(err, ERROR_MEMORY, "out of memory for the revoked models");
        registry->revoked = larger;
        registry->revoked_room = room;
    }
    registry->revoked[registry->revoked_count++] = *digest;
    return true;
}

static bool take_history(void *context, const struct sql_row *row, struct error *err) {
    struct registry_model *model = context;
    (void)err;
    model->activated_ms = sql_row_integer(row, 0);
    text_copy(model->approved_by, sizeof model->approved_by, sql_row_text(row, 1));
    return true;
}

void registry_read_history(struct registry *registry, struct registry_model *model) {
    static const char history[] =
        "SELECT activated_ms, coalesce((SELECT who FROM approvals a WHERE a.digest = models.digest ORDER BY id "
        "LIMIT 1), '') FROM models WHERE digest = ?";
    struct sql_value digest = sql_digest(&model->descriptor.digest);
    sql_query(registry->sql, history, &digest, 1, take_history, model, NULL); /* else with the next start */
}

static bool take_revoked(void *context, const struct sql_row *row, struct error *err) {
    struct digest digest;
    return !sql_row_digest(row, 0, &digest) || registry_note_revoked(context, &digest, err);
}

static bool take_previous(void *context, const struct sql_row *row, struct error *err) {
    struct registry *registry = context;
    (void)err;
    registry->has_previous = sql_row_digest(row, 0, &registry->previous);
    return true;
}

static bool read_models(struct registry *registry, struct error *err) {
    static const char models[] =
        "SELECT published, state, published_ms, activated_ms, gate, coalesce((SELECT who FROM approvals a "
        "WHERE a.digest = models.digest ORDER BY id LIMIT 1), '') FROM models WHERE stored ORDER BY rowid";
    return sql_query(registry->sql, models, NULL, 0, take_model, registry, err) &&
           sql_query(registry->sql, "SELECT digest FROM revocations", NULL, 0, take_revoked, registry, err) &&
           sql_query(registry->sql, "SELECT digest FROM aliases WHERE name = 'previous'", NULL, 0,
                     take_previous, registry, err);
}

/* ---- the store ---- */

bool registry_pin(const struct registry *registry, const struct digest *digest, struct error *err) {
    char hex[DIGEST_HEX_SIZE];
    return store_pin(registry->store, digest_hex(digest, hex), digest, err);
}

static bool forget(struct registry *registry, int i, struct error *err) {
    struct sql_value digest = sql_digest(&registry->models[i].descriptor.digest);
    if (!sql_run(registry->sql, "UPDATE models SET stored = 0 WHERE digest = ?", &digest, 1, err))
        return false;
    registry_take_out(registry, i);
    return true;
}

/** Models whose file is gone or damaged are not offered any more. */
static bool drop_lost(struct registry *registry, int *dropped, struct error *err) {
    for (int i = registry->count - 1; i >= 0; i--) {
        const struct registry_model *model = &registry->models[i];
        const struct digest *digest = &model->descriptor.digest;
        bool idle =
            model->state == THORAX__V1__MODEL_STATE__MODEL_RETIRED ||
            model->state == THORAX__V1__MODEL_STATE__MODEL_REVOKED; /* many, and nobody asks for them now */
        if (idle ? store_has(registry->store, digest) : store_verify(registry->store, digest, NULL))
            continue;
        if (!forget(registry, i, err))
            return false;
        ++*dropped;
    }
    return true;
}

/** Lets go of objects that a crash left behind between the registry and the store. */
static bool tidy(struct registry *registry, struct error *err) {
    struct store_list list;
    if (!store_list(registry->store, &list, err))
        return false;
    bool ok = true;
    for (size_t i = 0; ok && i < list.count; i++) {
        char hex[DIGEST_HEX_SIZE];
        const struct digest *digest = &list.entries[i].digest;
        ok = registry_find(registry, digest) ? registry_pin(registry, digest, err)
                                             : store_unpin(registry->store, digest_hex(digest, hex), err);
    }
    store_list_fini(&list);
    return ok && store_collect(registry->store, PARTIAL_AGE_MS, NULL, err);
}

/** The model that was approved to run and waits for it; the newest, where there are several. */
static const struct registry_model *newest_approved(const struct registry *registry) {
    for (int i = registry->count - 1; i >= 0; i--) {
        const struct registry_model *model = &registry->models[i];
        if (model->state == THORAX__V1__MODEL_STATE__MODEL_STAGED && model->approved_by[0])
            return model;
    }
    return NULL;
}

/** What must stay whatever the limits say: what runs, is to run, ran before, or is approved to run. */
static bool needed(const struct registry *registry, const struct registry_model *model) {
    if (model->state == THORAX__V1__MODEL_STATE__MODEL_CURRENT ||
        model->state == THORAX__V1__MODEL_STATE__MODEL_CANDIDATE)
        return true;
    if (registry->has_previous && digest_equal(&registry->previous, &model->descriptor.digest))
        return true;
    return model == newest_approved(registry);
}

static bool counts_as(const struct registry_model *model, bool staged) {
    bool is_staged = model->state == THORAX__V1__MODEL_STATE__MODEL_STAGED ||
                     model->state == THORAX__V1__MODEL_STATE__MODEL_REGISTERED;
    return staged ? is_staged
                  : model->state == THORAX__V1__MODEL_STATE__MODEL_RETIRED ||
                        model->state == THORAX__V1__MODEL_STATE__MODEL_REVOKED;
}

/** The oldest model that is not needed, among the staged or the others, where there are more than keep; -1.
 */
static int surplus(const struct registry *registry, bool staged, int keep) {
    int oldest = -1, count = 0;
    for (int i = 0; i < registry->count; i++) {
        const struct registry_model *model = &registry->models[i];
        if (!counts_as(model, staged))
            continue;
        count++;
        oldest = oldest < 0 && !needed(registry, model) ? i : oldest;
    }
    return count > keep ? oldest : -1;
}

void registry_prune(struct registry *registry) {
    for (;;) {
        int i = surplus(registry, false, registry->keep_retired);
        i = i < 0 ? surplus(registry, true, REGISTRY_MAX_STAGED) : i;
        if (i < 0)
            return;
        char hex[DIGEST_HEX_SIZE];
        struct digest digest = registry->models[i].descriptor.digest;
        if (!forget(registry, i, NULL))
            return; /* what cannot be written now is tidied away by the next start */
        if (store_unpin(registry->store, digest_hex(&digest, hex), NULL))
            store_remove(registry->store, &digest, NULL);
    }
}

/* ---- life ---- */

static bool load(struct registry *registry, int max_pages, int *dropped, struct error *err) {
    char path[PATH_MAX];
    if (!registry_path(store_folder(registry->store), path, sizeof path, err))
        return false;
    struct sql_spec spec = registry_sql_spec(path);
    spec.max_pages = max_pages;
    return (registry->sql = sql_open(&spec, err)) && read_meta(registry, err) && read_models(registry, err) &&
           registry_import(registry, err) && drop_lost(registry, dropped, err) && tidy(registry, err);
}

struct registry *registry_open(const struct registry_spec *spec, int *dropped, struct error *err) {
    struct registry *registry = calloc(1, sizeof *registry);
    *dropped = 0;
    if (!registry) {
        error_set(err, ERROR_MEMORY, "out of memory for the registry");
        return NULL;
    }
    registry->store = spec->store;
    registry->keep_retired = spec->keep_retired;
    if (load(registry, spec->max_pages, dropped, err))
        return registry;
    registry_close(registry);
    return NULL;
}

void registry_close(struct registry *registry) {
    if (!registry)
        return;
    while (registry->count > 0)
        registry_take_out(registry, registry->count - 1);
    sql_close(registry->sql);
    free(registry->revoked);
    free(registry);
}

/* ---- asking ---- */

const uint8_t *registry_id(const struct registry *registry) {
    return registry->id;
}

uint64_t registry_number(const struct registry *registry) {
    return registry->number;
}

const char *registry_held(const struct registry *registry) {
    return registry->held;
}

int registry_count(const struct registry *registry) {
    return registry->count;
}

const struct registry_model *registry_model(const struct registry *registry, int i) {
    return &registry->models[i];
}

const struct registry_model *registry_find(const struct registry *registry, const struct digest *digest) {
    return registry_find_mutable((struct registry *)registry, digest);
}

static const struct registry_model *of_state(const struct registry *registry, Thorax__V1__ModelState state) {
    for (int i = 0; i < registry->count; i++) {
        if (registry->models[i].state == state)
            return &registry->models[i];
    }
    return NULL;
}

const struct registry_model *registry_stable(const struct registry *registry) {
    return of_state(registry, THORAX__V1__MODEL_STATE__MODEL_CURRENT);
}

const struct registry_model *registry_candidate(const struct registry *registry) {
    return of_state(registry, THORAX__V1__MODEL_STATE__MODEL_CANDIDATE);
}

const struct registry_model *registry_previous(const struct registry *registry) {
    return registry->has_previous ? registry_find(registry, &registry->previous) : NULL;
}

const struct digest *registry_revoked(const struct registry *registry, int *count) {
    *count = registry->revoked_count;
    return registry->revoked;
}
