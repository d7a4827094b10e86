#pragma once
#include "common/pool/descriptor.h"
#include "common/pool/message.h"
#include "common/store/store.h"

/**
 * What a publisher knows and must not forget: models, their figures, approvals, revocations, rollouts, and
 * everything that happened, in SQLite in the store's folder ("registry.sqlite"). Each change is one
 * transaction that is on disk when the function returns, or nothing is changed and err says why. What is
 * asked often lies in memory. One thread at a time.
 */
struct registry;

enum {
    REGISTRY_ID_BYTES = 16,
    REGISTRY_BY_SIZE = 101,
    REGISTRY_TEXT_SIZE = POOL_MAX_TEXT_BYTES + 1,
    REGISTRY_MAX_STAGED = 16,  /**< published and never activated; the oldest make room */
    REGISTRY_MAX_RETIRED = 16, /**< the most that may be kept of what was stable once */
    REGISTRY_MAX_MODELS = 64,
};

/** A model whose file is in the store. */
struct registry_model {
    struct descriptor descriptor;
    Thorax__V1__ModelState state;       /**< REGISTERED, STAGED, CANDIDATE, CURRENT (stable), RETIRED or REVOKED */
    int64_t published_ms, activated_ms; /**< since 1970; activated_ms 0: never was stable */
    char approved_by[REGISTRY_BY_SIZE]; /**< "": nobody */
    char signer[SIGNATURE_ID_SIZE];     /**< of the first signature's key; "": unsigned */
    char gate[REGISTRY_TEXT_SIZE];      /**< why it is not offered to the pool; "": nothing is against it */
};

struct registry_spec {
    struct store *store; /**< borrowed */
    int keep_retired;    /**< 0 to REGISTRY_MAX_RETIRED */
    int max_pages;       /**< the database may not grow beyond it; 0: no limit */
};

/**
 * Opens or makes the registry and tidies the store: models whose file is gone or damaged are forgotten
 * (*dropped counts them), files that no model needs are removed. A publisher.state of version 0.1 is taken in
 * once. Returns owned. ERROR_FORMAT: it is damaged, or of another program.
 */
struct registry *registry_open(const struct registry_spec *spec, int *dropped, struct error *err);
/** Takes NULL. */
void registry_close(struct registry *registry);

/** Drawn when the registry was made. (REGISTRY_ID_BYTES) */
const uint8_t *registry_id(const struct registry *registry);
/** Of the last event that members hear of. */
uint64_t registry_number(const struct registry *registry);
/** Something that members hear of has changed: the next number. */
bool registry_next_number(struct registry *registry, struct error *err);

/* ---- models ---- */

/** Models in the store, oldest first. Pointers are borrowed until the next change. */
int registry_count(const struct registry *registry);
const struct registry_model *registry_model(const struct registry *registry, int i);
/** Each NULL where there is none. previous: what was stable before the one that is. */
const struct registry_model *registry_find(const struct registry *registry, const struct digest *digest);
const struct registry_model *registry_stable(const struct registry *registry);
const struct registry_model *registry_candidate(const struct registry *registry);
const struct registry_model *registry_previous(const struct registry *registry);

/** A figure of a model: as manifest_metric. */
struct registry_metric {
    char name[REGISTRY_BY_SIZE], data_set[2 * REGISTRY_BY_SIZE], split[REGISTRY_BY_SIZE];
    double value;
};

struct registry_addition {
    struct descriptor *descriptor; /**< taken, also on failure; its object is in the store */
    const struct registry_metric *metrics;
    int metric_count;
    bool registers_only; /**< it is not offered to the pool before somebody approves it */
    const char *gate; /**< NULL or "": nothing is against it; else kept and not offered, and the reason */
};
/** Where the pool may hear of it, as the next event. */
bool registry_add(struct registry *registry, const struct registry_addition *addition, struct error *err);

/** The figure's value; false where the model has none of that name, data set and split. */
bool registry_metric(struct registry *registry, const struct digest *digest,
                     const struct registry_metric *wanted, double *value, struct error *err);
/** Calls each with the figures of a model until it returns false. */
bool registry_metrics(struct registry *registry, const struct digest *digest,
                      bool (*each)(void *context, const struct registry_metric *metric), void *context,
                      struct error *err);

/** Makes a model stable, as the next event; the one before is retired and becomes the previous one. by: for
 * the record; "" by itself. ERROR_NOT_FOUND; ERROR_STATE: it is revoked. */
bool registry_set_stable(struct registry *registry, const struct digest *digest, const char *by,
                         struct error *err);
/** Makes a model the candidate, NULL: there is none any more. No event by itself. */
bool registry_set_candidate(struct registry *registry, const struct digest *digest, struct error *err);

/** Lets a model be activated, stages one that was registered only, and lifts what the gate has against it where note is
 * not "". */
bool registry_approve(struct registry *registry, const struct digest *digest, const char *by,
                      const char *note, struct error *err);
/** Never again; as the next event. ERROR_STATE: it is stable or candidate. */
bool registry_revoke(struct registry *registry, const struct digest *digest, const char *by,
                     const char *reason, struct error *err);
/** All that was ever revoked: (*count), borrowed until the next change. */
const struct digest *registry_revoked(const struct registry *registry, int *count);

/**
 * Which model people mean: NAME:VERSION (the newest of that name and version), "stable", "candidate",
 * "previous", or the first 8 to 64 hexadecimal digits of a digest. ERROR_NOT_FOUND; ERROR_INVALID: it is none
 * of these, or several models fit, which the message lists.
 */
bool registry_resolve(const struct registry *registry, const char *text, struct digest *out,
                      struct error *err);

/* ---- rollouts ---- */

/** Writes the record of a rollout, a new one or the newest. */
bool registry_save_rollout(struct registry *registry, const Thorax__V1__RolloutRecord *record,
                           struct error *err);
/** The newest one: owned (pool_free); NULL with err->code ERROR_NOT_FOUND where there never was one. */
Thorax__V1__RolloutRecord *registry_newest_rollout(struct registry *registry, struct error *err);

/* ---- hold ---- */

/** Why nothing is activated at present; "": nothing is held. */
const char *registry_held(const struct registry *registry);
bool registry_lift_hold(struct registry *registry, const char *by, struct error *err);

/* ---- events ---- */

struct registry_event {
    uint64_t id;
    int64_t at_ms;
    char kind[65];
    bool has_digest;
    struct digest digest;
    char by[REGISTRY_BY_SIZE], detail[REGISTRY_TEXT_SIZE];
};

/** Notes what happened; id and at_ms are filled in. Texts that are too long are cut. */
bool registry_add_event(struct registry *registry, const char *kind, const struct digest *digest,
                        const char *by, const char *detail, struct error *err);
/** Up to limit events after an id, oldest first, into out. Returns how many, -1 on error. */
int registry_events(struct registry *registry, uint64_t after, int limit, struct registry_event *out,
                    struct error *err);

/* ---- backup ---- */

/** Where a store folder's registry is. */
bool registry_path(const char *store_folder, char *out, size_t size, struct error *err);
/** Writes a consistent copy of a registry, also while a publisher uses it. */
bool registry_copy(const char *store_folder, const char *path, struct error *err);
/** Calls each with every model whose file a registry says is in the store, until it returns false, having set err. */
bool registry_each_stored(const char *store_folder,
                          bool (*each)(void *context, const struct digest *digest, struct error *err), void *context,
                          struct error *err);
/**
 * After a copy was put into a store folder that nobody uses: members must not take its events for old ones,
 * nor be told to run what was stable then before somebody has looked. reason: what registry_held says.
 */
bool registry_mark_restored(const char *store_folder, const char *reason, struct error *err);
