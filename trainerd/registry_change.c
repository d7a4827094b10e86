#include "common/base/clock.h"
#include "common/base/text.h"
#include "trainerd/registry_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* Every function here writes first and changes memory only once all of it is on disk. */

enum { PREFIX_MIN = 8, CANDIDATES_SHOWN = 4 };

/* ---- pieces of transactions ---- */

bool registry_write_event(struct registry *registry, const char *kind, const struct digest *digest,
                          const char *by, const char *detail, struct error *err) {
    char text[REGISTRY_TEXT_SIZE], who[REGISTRY_BY_SIZE];
    text_copy(text, sizeof text, detail);
    text_copy(who, sizeof who, by);
    struct sql_value values[] = {sql_integer(clock_wall_ms()), sql_text(kind), sql_digest(digest),
                                 sql_text(who), sql_text(text)};
    return sql_run(registry->sql,
                   "INSERT INTO events (at_ms, kind, digest, who, detail) VALUES (?, ?, ?, ?, ?)", values, 5,
                   err);
}

bool registry_write_state(struct registry *registry, const struct digest *digest,
                          Thorax__V1__ModelState state, struct error *err) {
    struct sql_value values[] = {sql_integer(state), sql_digest(digest)};
    return sql_run(registry->sql, "UPDATE models SET state = ? WHERE digest = ?", values, 2, err);
}

static bool write_alias(struct registry *registry, const char *name, const struct digest *digest,
                        struct error *err) {
    struct sql_value values[] = {sql_text(name), sql_digest(digest)};
    return digest ? sql_run(registry->sql, "INSERT OR REPLACE INTO aliases (name, digest) VALUES (?, ?)",
                            values, 2, err)
                  : sql_run(registry->sql, "DELETE FROM aliases WHERE name = ?", values, 1, err);
}

bool registry_write_model(struct registry *registry, const struct registry_model *model, struct error *err) {
    Thorax__V1__PublishedModel published;
    descriptor_message(&model->descriptor, &published);
    struct packed packed = pool_pack(&published.base);
    if (!packed.data)
        return error_set(err, ERROR_MEMORY, "out of memory for a model's row");
    struct sql_value values[] = {
        sql_digest(&model->descriptor.digest),
        sql_text(model->descriptor.name),
        sql_text(model->descriptor.version),
        sql_blob(packed.data, packed.size),
        sql_integer(model->state),
        sql_integer(model->published_ms),
        sql_integer(model->activated_ms),
        sql_text(model->gate),
    };
    /* A model that was here before keeps its approvals and events. */
    static const char insert[] = "INSERT INTO models (digest, name, version, published, state, stored, "
                                 "published_ms, activated_ms, gate) "
                                 "VALUES (?1, ?2, ?3, ?4, ?5, 1, ?6, ?7, ?8) ON CONFLICT (digest) DO UPDATE "
                                 "SET published = ?4, state = ?5, "
                                 "stored = 1, published_ms = ?6, gate = ?8";
    bool ok = sql_run(registry->sql, insert, values, 8, err);
    free(packed.data);
    return ok;
}

static bool write_metrics(struct registry *registry, const struct digest *digest,
                          const struct registry_metric *metrics, int count, struct error *err) {
    for (int i = 0; i < count; i++) {
        struct sql_value values[] = {sql_digest(digest), sql_text(metrics[i].name),
                                     sql_text(metrics[i].data_set), sql_text(metrics[i].split),
                                     sql_real(metrics[i].value)};
        if (!sql_run(registry->sql,
                     "INSERT OR REPLACE INTO metrics (digest, name, data_set, split, value) VALUES (?, ?, ?, "
                     "?, ?)",
                     values, 5, err))
            return false;
    }
    return true;
}

/* ---- models come ---- */

/** True where all that stands in the way of a new model is said. */
static bool check_addition(struct registry *registry, const struct descriptor *descriptor,
                           struct error *err) {
    if (!store_has(registry->store, &descriptor->digest))
        return error_set(err, ERROR_NOT_FOUND, "the model's file is not in the store; publish it again");
    if (registry_find(registry, &descriptor->digest))
        return error_set(err, ERROR_STATE, "the model is published already");
    for (int i = 0; i < registry->revoked_count; i++) {
        if (digest_equal(&registry->revoked[i], &descriptor->digest))
            return error_set(err, ERROR_STATE, "the model was revoked");
    }
    registry_prune(registry);
    return registry->count < REGISTRY_MAX_MODELS ||
           error_set(err, ERROR_BUSY, "%d models are published already", registry->count);
}

static bool write_addition(struct registry *registry, const struct registry_addition *addition,
                           const struct registry_model *model, uint64_t number, struct error *err) {
    const struct digest *digest = &model->descriptor.digest;
    return registry_write_model(registry, model, err) &&
           write_metrics(registry, digest, addition->metrics, addition->metric_count, err) &&
           registry_write_event(registry,
                                model->gate[0]              ? "refused_by_gate"
                                : addition->registers_only ? "registered"
                                                            : "published",
                                digest, "", model->gate, err) &&
           registry_write_number(registry, number, err);
}

bool registry_add(struct registry *registry, const struct registry_addition *addition, struct error *err) {
    struct registry_model model = {.descriptor = *addition->descriptor,
                                   .state = addition->registers_only ? THORAX__V1__MODEL_STATE__MODEL_REGISTERED
                                                                     : THORAX__V1__MODEL_STATE__MODEL_STAGED,
                                   .published_ms = clock_wall_ms()};
    *addition->descriptor = (struct descriptor){0};
    text_copy(model.gate, sizeof model.gate, addition->gate ? addition->gate : "");
    uint64_t number = registry->number + (model.gate[0] || addition->registers_only ? 0 : 1);
    bool ok = check_addition(registry, &model.descriptor, err) &&
              registry_pin(registry, &model.descriptor.digest, err) && sql_begin(registry->sql, err);
    ok = ok && sql_end(registry->sql, write_addition(registry, addition, &model, number, err), err);
    if (!ok) {
        descriptor_fini(&model.descriptor);
        return false;
    }
    registry_note_signer(&model);
    registry->models[registry->count++] = model;
    registry->number = number;
    registry_read_history(registry, &registry->models[registry->count - 1]);
    return true;
}

/* ---- models change ---- */

/** What becomes of a model that is candidate or stable no longer. */
static Thorax__V1__ModelState state_after(const struct registry_model *model) {
    return model->activated_ms ? THORAX__V1__MODEL_STATE__MODEL_RETIRED
                               : THORAX__V1__MODEL_STATE__MODEL_STAGED;
}

static bool write_stable(struct registry *registry, const struct registry_model *wanted,
                         const struct registry_model *before, const char *by, struct error *err) {
    const struct digest *digest = &wanted->descriptor.digest;
    struct sql_value values[] = {sql_integer(clock_wall_ms()), sql_digest(digest)};
    bool ok = !before || before == wanted ||
              (registry_write_state(registry, &before->descriptor.digest,
                                    THORAX__V1__MODEL_STATE__MODEL_RETIRED, err) &&
               write_alias(registry, "previous", &before->descriptor.digest, err));
    return ok && registry_write_state(registry, digest, THORAX__V1__MODEL_STATE__MODEL_CURRENT, err) &&
           sql_run(registry->sql, "UPDATE models SET activated_ms = ? WHERE digest = ?", values, 2, err) &&
           write_alias(registry, "stable", digest, err) &&
           registry_write_event(registry, "stable", digest, by, "", err) &&
           registry_write_number(registry, registry->number + 1, err);
}

bool registry_set_stable(struct registry *registry, const struct digest *digest, const char *by,
                         struct error *err) {
    struct registry_model *wanted = registry_find_mutable(registry, digest);
    struct registry_model *before = (struct registry_model *)registry_stable(registry);
    if (!wanted)
        return error_set(err, ERROR_NOT_FOUND, "no such model is published here");
    if (wanted->state == THORAX__V1__MODEL_STATE__MODEL_REVOKED)
        return error_set(err, ERROR_STATE, "the model was revoked");
    if (!sql_begin(registry->sql, err) ||
        !sql_end(registry->sql, write_stable(registry, wanted, before, by, err), err))
        return false;
    if (before && before != wanted) {
        before->state = THORAX__V1__MODEL_STATE__MODEL_RETIRED;
        registry->has_previous = true;
        registry->previous = before->descriptor.digest;
    }
    wanted->state = THORAX__V1__MODEL_STATE__MODEL_CURRENT;
    wanted->activated_ms = clock_wall_ms();
    registry->number++;
    registry_prune(registry);
    return true;
}

static bool write_candidate(struct registry *registry, const struct registry_model *wanted,
                            const struct registry_model *before, struct error *err) {
    const struct digest *digest = wanted ? &wanted->descriptor.digest : NULL;
    if (before && before != wanted &&
        !registry_write_state(registry, &before->descriptor.digest, state_after(before), err))
        return false;
    return write_alias(registry, "candidate", digest, err) &&
           (!digest || registry_write_state(registry, digest, THORAX__V1__MODEL_STATE__MODEL_CANDIDATE, err));
}

bool registry_set_candidate(struct registry *registry, const struct digest *digest, struct error *err) {
    struct registry_model *wanted = digest ? registry_find_mutable(registry, digest) : NULL;
    struct registry_model *before = (struct registry_model *)registry_candidate(registry);
    if (digest && !wanted)
        return error_set(err, ERROR_NOT_FOUND, "no such model is published here");
    if (wanted && (wanted->state == THORAX__V1__MODEL_STATE__MODEL_REVOKED ||
                   wanted->state == THORAX__V1__MODEL_STATE__MODEL_CURRENT))
        return error_set(err, ERROR_STATE, "the model is stable already, or was revoked");
    if (!sql_begin(registry->sql, err) ||
        !sql_end(registry->sql, write_candidate(registry, wanted, before, err), err))
        return false;
    if (before && before != wanted)
        before->state = state_after(before);
    if (wanted)
        wanted->state = THORAX__V1__MODEL_STATE__MODEL_CANDIDATE;
    return true;
}

/** What a model is once it is approved. */
static Thorax__V1__ModelState approved_state(const struct registry_model *model) {
    return model->state == THORAX__V1__MODEL_STATE__MODEL_REGISTERED ? THORAX__V1__MODEL_STATE__MODEL_STAGED : model->state;
}

static bool write_approval(struct registry *registry, const struct registry_model *model, const char *by,
                           const char *note, struct error *err) {
    const struct digest *digest = &model->descriptor.digest;
    struct sql_value values[] = {sql_digest(digest), sql_integer(clock_wall_ms()), sql_text(by),
                                 sql_text(note)};
    return sql_run(registry->sql, "INSERT INTO approvals (digest, at_ms, who, note) VALUES (?, ?, ?, ?)",
                   values, 4, err) &&
           (!*note ||
            sql_run(registry->sql, "UPDATE models SET gate = '' WHERE digest = ?", values, 1, err)) &&
           registry_write_state(registry, digest, approved_state(model), err) &&
           registry_write_event(registry, "approved", digest, by, note, err);
}

bool registry_approve(struct registry *registry, const struct digest *digest, const char *by,
                      const char *note, struct error *err) {
    struct registry_model *model = registry_find_mutable(registry, digest);
    if (!model)
        return error_set(err, ERROR_NOT_FOUND, "no such model is published here");
    if (model->state == THORAX__V1__MODEL_STATE__MODEL_REVOKED)
        return error_set(err, ERROR_STATE, "the model was revoked");
    if (model->gate[0] && !*note) {
        error_set(err, ERROR_STATE, "the gate refused the model: %.300s", model->gate);
        return error_hint(err, "approve it with --note, which says why it may run all the same");
    }
    bool lifted = model->gate[0] || approved_state(model) != model->state; /* members may hear of it now */
    uint64_t number = registry->number + (lifted ? 1 : 0);
    bool ok = sql_begin(registry->sql, err);
    ok = ok && sql_end(registry->sql,
                       write_approval(registry, model, by, note, err) &&
                           registry_write_number(registry, number, err),
                       err);
    if (!ok)
        return false;
    if (!model->approved_by[0])
        text_copy(model->approved_by, sizeof model->approved_by, by);
    model->gate[0] = '\0';
    model->state = approved_state(model);
    registry->number = number;
    return true;
}

static bool write_revocation(struct registry *registry, const struct digest *digest, const char *by,
                             const char *reason, struct error *err) {
    struct sql_value values[] = {sql_digest(digest), sql_integer(clock_wall_ms()), sql_text(by),
                                 sql_text(reason)};
    return sql_run(registry->sql, "INSERT INTO revocations (digest, at_ms, who, reason) VALUES (?, ?, ?, ?)",
                   values, 4, err) &&
           registry_write_state(registry, digest, THORAX__V1__MODEL_STATE__MODEL_REVOKED, err) &&
           registry_write_event(registry, "revoked", digest, by, reason, err) &&
           registry_write_number(registry, registry->number + 1, err);
}

bool registry_revoke(struct registry *registry, const struct digest *digest, const char *by,
                     const char *reason, struct error *err) {
    struct registry_model *model = registry_find_mutable(registry, digest);
    if (!model)
        return error_set(err, ERROR_NOT_FOUND, "no such model is published here");
    if (model->state == THORAX__V1__MODEL_STATE__MODEL_REVOKED)
        return true;
    if (model->state == THORAX__V1__MODEL_STATE__MODEL_CURRENT ||
        model->state == THORAX__V1__MODEL_STATE__MODEL_CANDIDATE) {
        error_set(err, ERROR_STATE, "the pool runs the model, or is to run it");
        return error_hint(err, "roll back first (trainctl rollback, trainctl rollout abort)");
    }
    if (!registry_note_revoked(registry, digest, err))
        return false;
    if (!sql_begin(registry->sql, err) ||
        !sql_end(registry->sql, write_revocation(registry, digest, by, reason, err), err)) {
        registry->revoked_count--;
        return false;
    }
    model->state = THORAX__V1__MODEL_STATE__MODEL_REVOKED;
    registry->number++;
    return true;
}

bool registry_lift_hold(struct registry *registry, const char *by, struct error *err) {
    if (!registry->held[0])
        return true;
    bool ok = sql_begin(registry->sql, err);
    ok = ok && sql_end(registry->sql,
                       registry_set_meta(registry, "held", sql_text(""), err) &&
                           registry_write_event(registry, "hold_lifted", NULL, by, registry->held, err) &&
                           registry_write_number(registry, registry->number + 1, err),
                       err);
    if (ok) {
        registry->held[0] = '\0';
        registry->number++;
    }
    return ok;
}

/* ---- names ---- */

static bool is_prefix(const char *text) {
    size_t length = strlen(text);
    return length >= PREFIX_MIN && length < DIGEST_HEX_SIZE &&
           strspn(text, "0123456789abcdefABCDEF") == length;
}

static bool fits(const struct registry_model *model, const char *text) {
    char hex[DIGEST_HEX_SIZE];
    return strncasecmp(digest_hex(&model->descriptor.digest, hex), text, strlen(text)) == 0;
}

static bool resolve_prefix(const struct registry *registry, const char *text, struct digest *out,
                           struct error *err) {
    const struct registry_model *found = NULL;
    char several[CANDIDATES_SHOWN * 20 + 1] = "", hex[DIGEST_HEX_SIZE];
    int count = 0;
    for (int i = 0; i < registry->count; i++) {
        if (!fits(&registry->models[i], text))
            continue;
        found = &registry->models[i];
        if (count++ < CANDIDATES_SHOWN) {
            size_t used = strlen(several);
            snprintf(several + used, sizeof several - used, " %.16s",
                     digest_hex(&found->descriptor.digest, hex));
        }
    }
    if (count > 1)
        return error_set(err, ERROR_INVALID, "%s: %d models fit:%s", text, count, several);
    if (!found)
        return error_set(err, ERROR_NOT_FOUND, "%s: no model's digest begins so", text);
    *out = found->descriptor.digest;
    return true;
}

/** NAME:VERSION: the newest, where the name and version were given twice. */
static bool resolve_name(const struct registry *registry, const char *text, struct digest *out,
                         struct error *err) {
    const char *colon = strchr(text, ':');
    for (int i = registry->count - 1; i >= 0; i--) {
        const struct descriptor *descriptor = &registry->models[i].descriptor;
        if (strlen(descriptor->name) == (size_t)(colon - text) &&
            strncmp(descriptor->name, text, (size_t)(colon - text)) == 0 &&
            strcmp(descriptor->version, colon + 1) == 0) {
            *out = descriptor->digest;
            return true;
        }
    }
    return error_set(err, ERROR_NOT_FOUND, "%.200s: no such model is published here", text);
}

bool registry_resolve(const struct registry *registry, const char *text, struct digest *out,
                      struct error *err) {
    static const struct {
        const char *name;
        const struct registry_model *(*model)(const struct registry *registry);
    } aliases[] = {
        {"stable", registry_stable}, {"candidate", registry_candidate}, {"previous", registry_previous}};
    for (size_t i = 0; i < sizeof aliases / sizeof *aliases; i++) {
        if (strcmp(text, aliases[i].name) != 0)
            continue;
        const struct registry_model *model = aliases[i].model(registry);
        if (!model)
            return error_set(err, ERROR_NOT_FOUND, "there is no model that is %s", text);
        *out = model->descriptor.digest;
        return true;
    }
    if (strchr(text, ':'))
        return resolve_name(registry, text, out, err);
    if (is_prefix(text))
        return resolve_prefix(registry, text, out, err);
    return error_set(
        err, ERROR_INVALID,
        "%.200s: expected NAME:VERSION, stable, candidate, previous, or 8 to 64 digits of a digest", text);
}
