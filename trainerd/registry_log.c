#include "common/base/clock.h"
#include "common/base/text.h"
#include "trainerd/registry_internal.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* After a restore members may have heard of so many events since the copy was made, and not more. */
enum { RESTORE_JUMP = 1000000, MAX_ROLLOUT_BYTES = 4 << 20 };

/* ---- figures ---- */

struct each_metric {
    bool (*each)(void *context, const struct registry_metric *metric);
    void *context;
    bool stopped;
};

static bool take_metric(void *context, const struct sql_row *row, struct error *err) {
    struct each_metric *each = context;
    struct registry_metric metric = {.value = sql_row_real(row, 3)};
    (void)err;
    text_copy(metric.name, sizeof metric.name, sql_row_text(row, 0));
    text_copy(metric.data_set, sizeof metric.data_set, sql_row_text(row, 1));
    text_copy(metric.split, sizeof metric.split, sql_row_text(row, 2));
    each->stopped = each->stopped || !each->each(each->context, &metric);
    return true;
}

bool registry_metrics(struct registry *registry, const struct digest *digest,
                      bool (*each)(void *context, const struct registry_metric *metric), void *context,
                      struct error *err) {
    struct each_metric all = {each, context, false};
    struct sql_value value = sql_digest(digest);
    return sql_query(registry->sql,
                     "SELECT name, data_set, split, value FROM metrics WHERE digest = ? ORDER BY name, split",
                     &value, 1, take_metric, &all, err);
}

struct wanted_metric {
    bool found;
    double value;
};

static bool take_value(void *context, const struct sql_row *row, struct error *err) {
    struct wanted_metric *wanted = context;
    (void)err;
    *wanted = (struct wanted_metric){true, sql_row_real(row, 0)};
    return true;
}

bool registry_metric(struct registry *registry, const struct digest *digest,
                     const struct registry_metric *wanted, double *value, struct error *err) {
    struct wanted_metric result = {0};
    struct sql_value values[] = {sql_digest(digest), sql_text(wanted->name), sql_text(wanted->data_set),
                                 sql_text(wanted->split)};
    if (!sql_query(registry->sql,
                   "SELECT value FROM metrics WHERE digest = ? AND name = ? AND data_set = ? AND split = ?",
                   values, 4, take_value, &result, err))
        return false;
    *value = result.value;
    return result.found || error_set(err, ERROR_NOT_FOUND, "the model has no %s of %s, %s", wanted->name,
                                     wanted->data_set, wanted->split);
}

/* ---- rollouts ---- */

bool registry_save_rollout(struct registry *registry, const Thorax__V1__RolloutRecord *record,
                           struct error *err) {
    struct packed packed = pool_pack(&record->base);
    if (!packed.data)
        return error_set(err, ERROR_MEMORY, "out of memory for a rollout's record");
    struct sql_value values[] = {
        sql_integer((int64_t)record->id),
        sql_blob(record->candidate_digest.data, record->candidate_digest.len),
        sql_integer(record->state),
        sql_integer(record->started_ms),
        sql_integer(record->ended_ms),
        sql_blob(packed.data, packed.size),
    };
    bool ok = sql_run(registry->sql,
                      "INSERT OR REPLACE INTO rollouts (id, digest, state, started_ms, ended_ms, record) "
                      "VALUES (?, ?, ?, ?, ?, ?)",
                      values, 6, err);
    free(packed.data);
    return ok;
}

static bool take_rollout(void *context, const struct sql_row *row, struct error *err) {
    Thorax__V1__RolloutRecord **out = context;
    size_t size;
    const void *packed = sql_row_blob(row, 0, &size);
    if (size <= MAX_ROLLOUT_BYTES)
        *out = thorax__v1__rollout_record__unpack(NULL, size, packed);
    return *out || error_set(err, ERROR_FORMAT, "the registry: the newest rollout's record is damaged");
}

Thorax__V1__RolloutRecord *registry_newest_rollout(struct registry *registry, struct error *err) {
    Thorax__V1__RolloutRecord *record = NULL;
    if (sql_query(registry->sql, "SELECT record FROM rollouts ORDER BY id DESC LIMIT 1", NULL, 0,
                  take_rollout, &record, err) &&
        !record)
        error_set(err, ERROR_NOT_FOUND, "there never was a rollout");
    return record;
}

/* ---- events ---- */

bool registry_add_event(struct registry *registry, const char *kind, const struct digest *digest,
                        const char *by, const char *detail, struct error *err) {
    return registry_write_event(registry, kind, digest, by, detail, err);
}

struct event_list {
    struct registry_event *events;
    int count;
};

static bool take_event(void *context, const struct sql_row *row, struct error *err) {
    struct event_list *list = context;
    struct registry_event *event = &list->events[list->count++];
    (void)err;
    *event =
        (struct registry_event){.id = (uint64_t)sql_row_integer(row, 0), .at_ms = sql_row_integer(row, 1)};
    text_copy(event->kind, sizeof event->kind, sql_row_text(row, 2));
    event->has_digest = sql_row_digest(row, 3, &event->digest);
    text_copy(event->by, sizeof event->by, sql_row_text(row, 4));
    text_copy(event->detail, sizeof event->detail, sql_row_text(row, 5));
    return true;
}

int registry_events(struct registry *registry, uint64_t after, int limit, struct registry_event *out,
                    struct error *err) {
    struct event_list list = {out, 0};
    struct sql_value values[] = {sql_integer(after > INT64_MAX ? INT64_MAX : (int64_t)after),
                                 sql_integer(limit)};
    bool ok =
        sql_query(registry->sql,
                  "SELECT id, at_ms, kind, digest, who, detail FROM events WHERE id > ? ORDER BY id LIMIT ?",
                  values, 2, take_event, &list, err);
    return ok ? list.count : -1;
}

/* ---- backup ---- */

static struct sql *open_in(const char *store_folder, bool read_only, struct error *err) {
    char path[PATH_MAX];
    if (!registry_path(store_folder, path, sizeof path, err))
        return NULL;
    struct sql_spec spec = registry_sql_spec(path);
    spec.read_only = read_only;
    return sql_open(&spec, err);
}

bool registry_copy(const char *store_folder, const char *path, struct error *err) {
    struct sql *sql = open_in(store_folder, true, err);
    bool ok = sql && sql_copy(sql, path, err);
    sql_close(sql);
    return ok;
}

struct each_stored {
    bool (*each)(void *context, const struct digest *digest, struct error *err);
    void *context;
};

static bool take_stored(void *context, const struct sql_row *row, struct error *err) {
    const struct each_stored *each = context;
    struct digest digest;
    if (!sql_row_digest(row, 0, &digest))
        return error_set(err, ERROR_FORMAT, "the registry: a model without a digest");
    return each->each(each->context, &digest, err);
}

bool registry_each_stored(const char *store_folder,
                          bool (*each)(void *context, const struct digest *digest, struct error *err), void *context,
                          struct error *err) {
    struct each_stored all = {each, context};
    struct sql *sql = open_in(store_folder, true, err);
    bool ok = sql && sql_query(sql, "SELECT digest FROM models WHERE stored", NULL, 0, take_stored, &all, err);
    sql_close(sql);
    return ok;
}

bool registry_mark_restored(const char *store_folder, const char *reason, struct error *err) {
    struct sql *sql = open_in(store_folder, false, err);
    if (!sql)
        return false;
    struct sql_value jump = sql_integer(RESTORE_JUMP), why = sql_text(reason);
    struct sql_value event[] = {sql_integer(clock_wall_ms()), sql_text(reason)};
    bool ok = sql_begin(sql, err);
    ok = ok &&
         sql_end(
             sql,
             sql_run(sql, "UPDATE meta SET value = value + ? WHERE key = 'number'", &jump, 1, err) &&
                 sql_run(sql, "INSERT OR REPLACE INTO meta (key, value) VALUES ('held', ?)", &why, 1, err) &&
                 sql_run(sql, "INSERT INTO events (at_ms, kind, who, detail) VALUES (?, 'restored', '', ?)",
                         event, 2, err),
             err);
    sql_close(sql);
    return ok;
}
