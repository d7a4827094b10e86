#include "common/base/text.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

bool text_to_int(const char *text, int64_t low, int64_t high, int64_t *out, struct error *err) {
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (end == text || *end || errno || strchr(" \t\n\v\f\r+", *text))
        return error_set(err, ERROR_INVALID, "\"%.60s\" is not a whole number", text);
    if (value < low || value > high)
        return error_set(err, ERROR_INVALID, "%lld is not in %lld..%lld", value, (long long)low, (long long)high);
    *out = value;
    return true;
}

bool text_to_double(const char *text, double *out, struct error *err) {
    char *end;
    errno = 0;
    double value = strtod(text, &end);
    if (end == text || *end || !isfinite(value) || strchr(" \t\n\v\f\r", *text))
        return error_set(err, ERROR_INVALID, "\"%.60s\" is not a number", text);
    *out = value;
    return true;
}

/** Length of the well-formed sequence that starts at s, 0 where there is none (RFC 3629, table of section 4). */
static size_t utf8_sequence(const uint8_t *s, size_t left) {
    if (s[0] < 0x80)
        return s[0] ? 1 : 0;
    size_t length = s[0] >= 0xC2 && s[0] <= 0xDF ? 2 : (s[0] & 0xF0) == 0xE0 ? 3 : s[0] >= 0xF0 && s[0] <= 0xF4 ? 4 : 0;
    if (length == 0 || left < length)
        return 0;
    for (size_t i = 1; i < length; i++) {
        if ((s[i] & 0xC0) != 0x80)
            return 0;
    }
    bool overlong = (s[0] == 0xE0 && s[1] < 0xA0) || (s[0] == 0xF0 && s[1] < 0x90);
    bool surrogate = s[0] == 0xED && s[1] > 0x9F;
    bool beyond = s[0] == 0xF4 && s[1] > 0x8F;
    return overlong || surrogate || beyond ? 0 : length;
}

bool text_is_utf8(const void *bytes, size_t size) {
    const uint8_t *s = bytes;
    for (size_t i = 0; i < size;) {
        size_t length = utf8_sequence(s + i, size - i);
        if (length == 0)
            return false;
        i += length;
    }
    return true;
}

bool text_copy(char *out, size_t size, const char *text) {
    size_t length = strlen(text);
    size_t kept = length < size ? length : size - 1;
    memcpy(out, text, kept);
    out[kept] = '\0';
    return kept == length;
}

char *text_for_packing(const char *borrowed) {
    return (char *)(uintptr_t)(borrowed ? borrowed : "");
}
