#pragma once
#include <stdbool.h>

/**
 * What kind of thing went wrong. Callers decide by the code; people read the message.
 */
enum error_code {
    ERROR_NONE = 0,
    ERROR_INVALID,     /**< an argument or a value in a file makes no sense */
    ERROR_SHAPE,       /**< tensor shapes that do not fit together */
    ERROR_UNSUPPORTED, /**< sensible, but this program or device cannot do it */
    ERROR_FORMAT,      /**< bytes that are not what they claim to be */
    ERROR_TOO_LARGE,   /**< over a limit */
    ERROR_NOT_FOUND,   /**< a file, key or name that is not there */
    ERROR_IO,          /**< the system said no: errno is in the message */
    ERROR_MEMORY,      /**< out of memory */
    ERROR_TIMEOUT,     /**< a deadline passed */
    ERROR_PEER,        /**< another process or rank failed */
    ERROR_STATE,       /**< not now: a call out of order, a closed queue */
    ERROR_BUSY,        /**< try again later */
    ERROR_DENIED,      /**< who asks may not do this */
    ERROR_LOST,        /**< a device that this process cannot use any more: only a fresh process helps */
    ERROR_INTERNAL,    /**< our own bug, or a library's */
};

/**
 * The error that a call reports: passed last, filled in where the call fails, untouched where it succeeds.
 * May be NULL where the caller does not care. Plain data; nothing to free.
 */
struct error {
    enum error_code code;
    char message[480]; /**< what went wrong and where: file, line, field */
    char hint[240];    /**< what to do about it; often empty */
};

/**
 * Fills in err (where it is not NULL) and returns false, so that a failing function is one line:
 * `return error_set(err, ERROR_SHAPE, "...", ...);`
 */
bool error_set(struct error *err, enum error_code code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/** As error_set with ": strerror(errno)" at the end and code ERROR_IO (ERROR_NOT_FOUND for ENOENT). */
bool error_set_errno(struct error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

/** Adds a hint to an error that is set. Returns false, as error_set does. */
bool error_hint(struct error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

/** Puts "context: " in front of the message. Returns false. */
bool error_prefix(struct error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

/** The code's stable lower-case name, e.g. "too_large". Never NULL. */
const char *error_code_name(enum error_code code);
