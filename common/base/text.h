#pragma once
#include "common/base/error.h"
#include <stddef.h>
#include <stdint.h>

/** The whole of text as a decimal integer in [low, high]; nothing before or after it. */
bool text_to_int(const char *text, int64_t low, int64_t high, int64_t *out, struct error *err);
/** The whole of text as a finite number. */
bool text_to_double(const char *text, double *out, struct error *err);
/** True where the bytes are well-formed UTF-8 without NUL. */
bool text_is_utf8(const void *bytes, size_t size);
/** Copies at most size - 1 bytes and always ends with NUL; false where text was cut. */
bool text_copy(char *out, size_t size, const char *text);
/**
 * borrowed ("" where it is NULL), for a generated message, whose fields are char * where they mean const
 * char *: packing reads only.
 */
char *text_for_packing(const char *borrowed);
