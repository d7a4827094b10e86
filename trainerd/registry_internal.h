#pragma once
#include "trainerd/registry.h"
#include "trainerd/sql.h"

/* The registry's parts: registry.c (life, meta, models), registry_change.c (what changes a model's state),
 * registry_log.c (rollouts, events, backup), registry_import.c (version 0.1). */

struct registry {
    struct sql *sql;
    struct store *store; /* borrowed */
    int keep_retired;
    uint8_t id[REGISTRY_ID_BYTES];
    uint64_t number;
    char held[REGISTRY_TEXT_SIZE];
    bool has_previous;
    struct digest previous;
    int count;
    struct registry_model models[REGISTRY_MAX_MODELS]; /* oldest first */
    int revoked_count, revoked_room;
    struct digest *revoked; /* owned */
};

/** The spec of a registry's database. */
struct sql_spec registry_sql_spec(const char *path);

/** Sets a row of the table meta. */
bool registry_set_meta(struct registry *registry, const char *key, struct sql_value value, struct error *err);
/** As part of a transaction: the next event number, on disk; memory is the caller's after the commit. */
bool registry_write_number(struct registry *registry, uint64_t number, struct error *err);
/** registry_add_event, as part of a transaction. */
bool registry_write_event(struct registry *registry, const char *kind, const struct digest *digest,
                          const char *by, const char *detail, struct error *err);
bool registry_write_state(struct registry *registry, const struct digest *digest,
                          Thorax__V1__ModelState state, struct error *err);

struct registry_model *registry_find_mutable(struct registry *registry, const struct digest *digest);
/** Takes model i out of memory; the others move up. */
void registry_take_out(struct registry *registry, int i);
/** Lets go of the oldest models over the limits, from memory, database and store. */
void registry_prune(struct registry *registry);
bool registry_pin(const struct registry *registry, const struct digest *digest, struct error *err);
/** Writes a new model's rows, as part of a transaction. */
bool registry_write_model(struct registry *registry, const struct registry_model *model, struct error *err);
/** Fills in what is on disk of a model that was here before: by whom it was approved, when it was stable. */
void registry_read_history(struct registry *registry, struct registry_model *model);
/** Fills in what follows from the descriptor. */
void registry_note_signer(struct registry_model *model);
/** Adds to the list in memory. */
bool registry_note_revoked(struct registry *registry, const struct digest *digest, struct error *err);

/** Takes in the record of version 0.1, if there is one and the registry is new. */
bool registry_import(struct registry *registry, struct error *err);
