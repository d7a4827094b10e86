#include "trainerd/sql.h"

#include "common/base/file.h"

#include <fcntl.h>
#include <limits.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BUSY_TIMEOUT_MS = 5000, COPY_PAGES = 256, COPY_PAUSE_MS = 5 };

struct sql {
    sqlite3 *database;
    char path[PATH_MAX];
};

struct sql_row {
    sqlite3_stmt *statement;
};

static enum error_code code_of(int result) {
    switch (result & 0xff) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return ERROR_BUSY;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return ERROR_FORMAT;
    case SQLITE_NOMEM:
        return ERROR_MEMORY;
    case SQLITE_CONSTRAINT:
    case SQLITE_MISUSE:
    case SQLITE_ERROR:
        return ERROR_INTERNAL;
    default:
        return ERROR_IO;
    }
}

/** The one converter from SQLite's results: true where it is what a call that went well returns. */
static bool sql_ok(const struct sql *sql, int result, struct error *err) {
    if (result == SQLITE_OK || result == SQLITE_ROW || result == SQLITE_DONE)
        return true;
    error_set(err, code_of(result), "%s: %s", sql->path,
              sql->database ? sqlite3_errmsg(sql->database) : sqlite3_errstr(result));
    if (code_of(result) == ERROR_FORMAT)
        error_hint(
            err, "restore it from a backup (trainctl restore), or move it away and publish the models again");
    else if ((result & 0xff) == SQLITE_FULL)
        error_hint(err, "make room on the disk; nothing was changed");
    return false;
}

struct sql_value sql_integer(int64_t value) {
    return (struct sql_value){.kind = SQL_INTEGER, .integer = value};
}

struct sql_value sql_real(double value) {
    return (struct sql_value){.kind = SQL_REAL, .real = value};
}

struct sql_value sql_text(const char *text) {
    return (struct sql_value){.kind = SQL_TEXT, .data = text, .size = strlen(text)};
}

struct sql_value sql_blob(const void *data, size_t size) {
    return (struct sql_value){.kind = SQL_BLOB, .data = data ? data : "", .size = size};
}

struct sql_value sql_digest(const struct digest *digest) {
    return digest ? sql_blob(digest->bytes, sizeof digest->bytes) : (struct sql_value){.kind = SQL_NOTHING};
}

static int bind(sqlite3_stmt *statement, int at, const struct sql_value *value) {
    switch (value->kind) {
    case SQL_INTEGER:
        return sqlite3_bind_int64(statement, at, value->integer);
    case SQL_REAL:
        return sqlite3_bind_double(statement, at, value->real);
    case SQL_TEXT:
        return sqlite3_bind_text64(statement, at, value->data, value->size, SQLITE_STATIC, SQLITE_UTF8);
    case SQL_BLOB:
        return sqlite3_bind_blob64(statement, at, value->data, value->size, SQLITE_STATIC);
    default:
        return sqlite3_bind_null(statement, at);
    }
}

bool sql_query(struct sql *sql, const char *statement, const struct sql_value *values, int count,
               bool (*each)(void *context, const struct sql_row *row, struct error *err), void *context,
               struct error *err) {
    struct sql_row row = {NULL};
    int result = sqlite3_prepare_v2(sql->database, statement, -1, &row.statement, NULL);
    for (int i = 0; i < count && result == SQLITE_OK; i++)
        result = bind(row.statement, i + 1, &values[i]);
    bool ok = sql_ok(sql, result, err);
    while (ok && (result = sqlite3_step(row.statement)) == SQLITE_ROW)
        ok = !each || each(context, &row, err);
    ok = ok && sql_ok(sql, result, err);
    sqlite3_finalize(row.statement);
    return ok;
}

bool sql_run(struct sql *sql, const char *statement, const struct sql_value *values, int count,
             struct error *err) {
    return sql_query(sql, statement, values, count, NULL, NULL, err);
}

int64_t sql_row_integer(const struct sql_row *row, int column) {
    return sqlite3_column_int64(row->statement, column);
}

double sql_row_real(const struct sql_row *row, int column) {
    return sqlite3_column_double(row->statement, column);
}

const char *sql_row_text(const struct sql_row *row, int column) {
    const unsigned char *text = sqlite3_column_text(row->statement, column);
    return text ? (const char *)text : "";
}

const void *sql_row_blob(const struct sql_row *row, int column, size_t *size) {
    const void *data = sqlite3_column_blob(row->statement, column);
    *size = (size_t)sqlite3_column_bytes(row->statement, column);
    return data;
}

bool sql_row_digest(const struct sql_row *row, int column, struct digest *out) {
    size_t size;
    const void *data = sql_row_blob(row, column, &size);
    if (!data || size != sizeof out->bytes)
        return false;
    memcpy(out->bytes, data, size);
    return true;
}

bool sql_begin(struct sql *sql, struct error *err) {
    return sql_run(sql, "BEGIN IMMEDIATE", NULL, 0, err);
}

bool sql_end(struct sql *sql, bool ok, struct error *err) {
    ok = ok && sql_run(sql, "COMMIT", NULL, 0, err);
    if (!ok && !sqlite3_get_autocommit(sql->database))
        sql_run(sql, "ROLLBACK", NULL, 0, NULL);
    return ok;
}

int64_t sql_last_id(const struct sql *sql) {
    return sqlite3_last_insert_rowid(sql->database);
}

/* ---- opening ---- */

static bool take_integer(void *context, const struct sql_row *row, struct error *err) {
    (void)err;
    *(int64_t *)context = sql_row_integer(row, 0);
    return true;
}

static bool take_check(void *context, const struct sql_row *row, struct error *err) {
    const struct sql *sql = context;
    if (strcmp(sql_row_text(row, 0), "ok") == 0)
        return true;
    error_set(err, ERROR_FORMAT, "%s: damaged: %.200s", sql->path, sql_row_text(row, 0));
    return error_hint(
        err, "restore it from a backup (trainctl restore), or move it away and publish the models again");
}

static bool check_owner(struct sql *sql, const struct sql_spec *spec, int64_t *version, struct error *err) {
    int64_t owner = 0;
    if (!sql_query(sql, "PRAGMA application_id", NULL, 0, take_integer, &owner, err) ||
        !sql_query(sql, "PRAGMA user_version", NULL, 0, take_integer, version, err))
        return false;
    if (owner != spec->application_id && (owner != 0 || *version != 0))
        return error_set(err, ERROR_FORMAT, "%s: a database of another program", sql->path);
    return sql_query(sql, "PRAGMA quick_check(1)", NULL, 0, take_check, sql, err);
}

static bool pragma(struct sql *sql, const char *name, int64_t value, struct error *err) {
    char text[80];
    snprintf(text, sizeof text, "PRAGMA %s = %lld", name, (long long)value); /* pragmas take no ? */
    return sql_run(sql, text, NULL, 0, err);
}

static bool migrate(struct sql *sql, const struct sql_spec *spec, int64_t version, struct error *err) {
    int64_t newest = 0;
    while (spec->migrations[newest])
        newest++;
    if (version > newest)
        return error_set(err, ERROR_UNSUPPORTED, "%s: version %lld; this program knows up to %lld", sql->path,
                         (long long)version, (long long)newest);
    if (version == newest || spec->read_only)
        return true;
    bool ok = sql_begin(sql, err);
    for (int64_t i = version; ok && i < newest; i++)
        ok = sql_ok(sql, sqlite3_exec(sql->database, spec->migrations[i], NULL, NULL, NULL), err);
    ok = ok && pragma(sql, "user_version", newest, err) &&
         pragma(sql, "application_id", spec->application_id, err);
    return sql_end(sql, ok, err);
}

static bool prepare(struct sql *sql, const struct sql_spec *spec, struct error *err) {
    int64_t version;
    sqlite3_extended_result_codes(sql->database, 1);
    sqlite3_busy_timeout(sql->database, BUSY_TIMEOUT_MS);
    sqlite3_db_config(sql->database, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    sqlite3_db_config(sql->database, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
    return check_owner(sql, spec, &version, err) &&
           (spec->read_only || sql_run(sql, "PRAGMA journal_mode = WAL", NULL, 0, err)) &&
           pragma(sql, "synchronous", 2, err) && pragma(sql, "foreign_keys", 1, err) &&
           (!spec->max_pages || pragma(sql, "max_page_count", spec->max_pages, err)) &&
           migrate(sql, spec, version, err);
}

/** An empty file that only its owner reads: who approved what is nobody else's business. SQLite's other files
 * take its mode. */
static bool make_file(const char *path, struct error *err) {
    int descriptor = open(path, O_CREAT | O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (descriptor < 0)
        return error_set_errno(err, "%s", path);
    close(descriptor);
    return true;
}

struct sql *sql_open(const struct sql_spec *spec, struct error *err) {
    struct sql *sql = calloc(1, sizeof *sql);
    if (!sql || strlen(spec->path) >= sizeof sql->path) {
        free(sql);
        error_set(err, ERROR_MEMORY, "%.200s: out of memory, or too long a path", spec->path);
        return NULL;
    }
    memcpy(sql->path, spec->path, strlen(spec->path) + 1);
    int flags = SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_NOFOLLOW |
                (spec->read_only ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE);
    bool ok = (spec->read_only || make_file(sql->path, err)) &&
              sql_ok(sql, sqlite3_open_v2(sql->path, &sql->database, flags, NULL), err) &&
              prepare(sql, spec, err);
    if (!ok) {
        sql_close(sql);
        return NULL;
    }
    return sql;
}

void sql_close(struct sql *sql) {
    if (sql) {
        sqlite3_close_v2(sql->database);
        free(sql);
    }
}

bool sql_copy(struct sql *sql, const char *path, struct error *err) {
    struct sql copy = {0};
    if (strlen(path) >= sizeof copy.path)
        return error_set(err, ERROR_TOO_LARGE, "%.200s: too long a path", path);
    if (file_exists(path))
        return error_set(err, ERROR_STATE, "%s: is there already", path);
    memcpy(copy.path, path, strlen(path) + 1);
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;
    bool ok = make_file(path, err) && sql_ok(&copy, sqlite3_open_v2(path, &copy.database, flags, NULL), err);
    sqlite3_backup *backup = ok ? sqlite3_backup_init(copy.database, "main", sql->database, "main") : NULL;
    int result = backup ? SQLITE_OK : SQLITE_ERROR;
    while (backup && (result == SQLITE_OK || result == SQLITE_BUSY || result == SQLITE_LOCKED)) {
        result = sqlite3_backup_step(backup, COPY_PAGES);
        if (result == SQLITE_BUSY || result == SQLITE_LOCKED)
            sqlite3_sleep(COPY_PAUSE_MS);
    }
    sqlite3_backup_finish(backup);
    ok = ok && sql_ok(&copy, result, err);
    sqlite3_close_v2(copy.database);
    if (!ok)
        unlink(path);
    return ok;
}
