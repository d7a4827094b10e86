#pragma once
#include "common/base/digest.h"
#include "common/base/error.h"
#include <stddef.h>
#include <stdint.h>

/**
 * SQLite behind a small face; no other part of the project includes sqlite3.h. A database belongs to the
 * thread that uses it. Errors: ERROR_BUSY (another process holds it), ERROR_FORMAT (damaged, or no database
 * of ours), ERROR_IO (disk full, read-only, ...), each with the file's name.
 */
struct sql;

struct sql_spec {
    const char *path;
    int32_t application_id; /**< whose files these are: a file with another one is refused */
    const char *const
        *migrations; /**< NULL-ended; the i-th brings version i to i + 1 (PRAGMA user_version) */
    int max_pages;   /**< a larger file is "disk full"; 0: no limit */
    bool read_only;  /**< must be there; not migrated */
};

/**
 * Opens or makes a database: write-ahead log, every commit synced, foreign keys enforced, checked for damage,
 * migrated in one transaction. A newer version than this program's is ERROR_UNSUPPORTED. Returns owned.
 */
struct sql *sql_open(const struct sql_spec *spec, struct error *err);
/** Takes NULL. */
void sql_close(struct sql *sql);

/** A value for a ? of a statement. All are borrowed until the call returns. */
struct sql_value {
    enum { SQL_INTEGER, SQL_REAL, SQL_TEXT, SQL_BLOB, SQL_NOTHING } kind;
    int64_t integer;
    double real;
    const void *data;
    size_t size;
};
struct sql_value sql_integer(int64_t value);
struct sql_value sql_real(double value);
struct sql_value sql_text(const char *text);
struct sql_value sql_blob(const void *data, size_t size);
/** A blob of 32 bytes; NULL: nothing. */
struct sql_value sql_digest(const struct digest *digest);

/** Runs one statement that gives no rows. values: one for each ?. */
bool sql_run(struct sql *sql, const char *statement, const struct sql_value *values, int count,
             struct error *err);

/** Columns of the present row, from 0. Texts and blobs are borrowed until the next row. */
struct sql_row;
int64_t sql_row_integer(const struct sql_row *row, int column);
double sql_row_real(const struct sql_row *row, int column);
/** Never NULL. */
const char *sql_row_text(const struct sql_row *row, int column);
const void *sql_row_blob(const struct sql_row *row, int column, size_t *size);
/** False where the column has not 32 bytes. */
bool sql_row_digest(const struct sql_row *row, int column, struct digest *out);

/** Calls each with every row until it returns false, having set err. */
bool sql_query(struct sql *sql, const char *statement, const struct sql_value *values, int count,
               bool (*each)(void *context, const struct sql_row *row, struct error *err), void *context,
               struct error *err);

/** What runs between begin and commit lasts or is undone as one. Returns false where it cannot begin. */
bool sql_begin(struct sql *sql, struct error *err);
/** Commits where ok, else rolls back; returns whether all of it is on disk. err is left alone where !ok. */
bool sql_end(struct sql *sql, bool ok, struct error *err);

/** Of the last INSERT. */
int64_t sql_last_id(const struct sql *sql);

/** Writes a consistent copy of the database, also while another process writes to it; path must not exist. */
bool sql_copy(struct sql *sql, const char *path, struct error *err);
