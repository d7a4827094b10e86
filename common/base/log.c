#include "common/base/log.h"

#include "common/base/clock.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static struct {
    const char *program;
    enum log_level least;
    enum log_style style;
} sink = {"thorax", LOG_INFO, LOG_TEXT};

static const char *const level_names[] = {"debug", "info", "warning", "error"};

void log_init(const char *program, enum log_level least, enum log_style style) {
    sink.program = program;
    sink.least = least;
    sink.style = style;
}

bool log_level_parse(const char *text, enum log_level *level) {
    for (int i = 0; i < 4; i++) {
        if (strcmp(text, level_names[i]) == 0) {
            *level = (enum log_level)i;
            return true;
        }
    }
    return false;
}

/** Copies text as the inside of a JSON string; cuts where room ends. */
static size_t json_escape(char *out, size_t room, const char *text) {
    size_t used = 0;
    for (; *text && used + 7 < room; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\') {
            out[used++] = '\\';
            out[used++] = (char)c;
        } else if (c < 0x20) {
            used += (size_t)snprintf(out + used, room - used, "\\u%04x", c);
        } else {
            out[used++] = (char)c;
        }
    }
    out[used] = '\0';
    return used;
}

/** Line breaks in a value would forge a second event: they become spaces. */
static void one_line(char *text) {
    for (; *text; text++) {
        if ((unsigned char)*text < 0x20)
            *text = ' ';
    }
}

void log_event(enum log_level level, const char *event, const char *format, ...) {
    if (level < sink.least)
        return;
    char details[1200], line[3200], stamp[40];
    va_list args;
    va_start(args, format);
    vsnprintf(details, sizeof details, format, args);
    va_end(args);
    one_line(details);
    clock_timestamp(stamp, sizeof stamp);
    int used;
    if (sink.style == LOG_JSON) {
        char escaped[2600];
        json_escape(escaped, sizeof escaped, details);
        used = snprintf(
            line, sizeof line,
            "{\"time\":\"%s\",\"level\":\"%s\",\"program\":\"%s\",\"event\":\"%s\",\"details\":\"%s\"}\n",
            stamp, level_names[level], sink.program, event, escaped);
    } else {
        used = snprintf(line, sizeof line, "%s %s %s %s%s%s\n", stamp, sink.program, level_names[level], event,
                        *details ? " " : "", details);
    }
    size_t size = used < (int)sizeof line ? (size_t)used : sizeof line - 1;
    if (write(STDERR_FILENO, line, size) < 0)
        return; /* nowhere left to say it */
}

void log_error(const char *event, const struct error *err) {
    if (err->hint[0])
        log_event(LOG_ERROR, event, "code=%s message=\"%s\" hint=\"%s\"", error_code_name(err->code), err->message, err->hint);
    else
        log_event(LOG_ERROR, event, "code=%s message=\"%s\"", error_code_name(err->code), err->message);
}
