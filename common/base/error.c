#include "common/base/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

bool error_set(struct error *err, enum error_code code, const char *format, ...) {
    if (!err)
        return false;
    err->code = code;
    err->hint[0] = '\0';
    va_list args;
    va_start(args, format);
    vsnprintf(err->message, sizeof err->message, format, args);
    va_end(args);
    return false;
}

bool error_set_errno(struct error *err, const char *format, ...) {
    int saved = errno;
    if (!err)
        return false;
    err->code = saved == ENOENT ? ERROR_NOT_FOUND : saved == ENOMEM ? ERROR_MEMORY : ERROR_IO;
    err->hint[0] = '\0';
    va_list args;
    va_start(args, format);
    vsnprintf(err->message, sizeof err->message, format, args);
    va_end(args);
    size_t used = strlen(err->message);
    snprintf(err->message + used, sizeof err->message - used, ": %s", strerror(saved));
    return false;
}

bool error_hint(struct error *err, const char *format, ...) {
    if (!err)
        return false;
    va_list args;
    va_start(args, format);
    vsnprintf(err->hint, sizeof err->hint, format, args);
    va_end(args);
    return false;
}

bool error_prefix(struct error *err, const char *format, ...) {
    if (!err)
        return false;
    char tail[sizeof err->message];
    memcpy(tail, err->message, sizeof tail);
    va_list args;
    va_start(args, format);
    vsnprintf(err->message, sizeof err->message, format, args);
    va_end(args);
    size_t used = strlen(err->message), room = sizeof err->message - 1 - used;
    strncat(err->message, ": ", room);
    strncat(err->message, tail, room > 2 ? room - 2 : 0);
    return false;
}

const char *error_code_name(enum error_code code) {
    static const char *const names[] = {
        [ERROR_NONE] = "none",           [ERROR_INVALID] = "invalid",     [ERROR_SHAPE] = "shape",
        [ERROR_UNSUPPORTED] = "unsupported", [ERROR_FORMAT] = "format",   [ERROR_TOO_LARGE] = "too_large",
        [ERROR_NOT_FOUND] = "not_found", [ERROR_IO] = "io",               [ERROR_MEMORY] = "memory",
        [ERROR_TIMEOUT] = "timeout",     [ERROR_PEER] = "peer",           [ERROR_STATE] = "state",
        [ERROR_BUSY] = "busy",           [ERROR_DENIED] = "denied",       [ERROR_LOST] = "lost",
        [ERROR_INTERNAL] = "internal",
    };
    size_t count = sizeof names / sizeof *names;
    return (size_t)code < count && names[code] ? names[code] : "unknown";
}
