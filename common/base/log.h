#pragma once
#include "common/base/error.h"

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARNING, LOG_ERROR };
enum log_style { LOG_TEXT, LOG_JSON };

/**
 * Sets up the process-wide log sink (stderr): the least level that is written, the style, and the program's name.
 * Call once in main before threads start. Only daemons and tools log; libraries return errors.
 */
void log_init(const char *program, enum log_level least, enum log_style style);

/**
 * One line per event: a stable event name and `key=value` pairs, e.g.
 * `log_event(LOG_INFO, "checkpoint_saved", "step=%d bytes=%zu", step, bytes)`.
 * Values with spaces are to be quoted by the caller ("path=\"%s\""). Never anything about a patient, file names included.
 * Thread-safe: each line is one write.
 */
void log_event(enum log_level level, const char *event, const char *format, ...) __attribute__((format(printf, 3, 4)));

/** Logs an error as an event: its code, message and hint. */
void log_error(const char *event, const struct error *err);

/** Parses "debug", "info", "warning" or "error". */
bool log_level_parse(const char *text, enum log_level *level);
