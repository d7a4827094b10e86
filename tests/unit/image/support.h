#pragma once
#include "common/base/digest.h"
#include "common/base/file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* What several of these tests need. Tests run in the root of the source. */

/** The generator of make_golden.py: Numerical Recipes' LCG, the top byte of each state. */
static inline void lcg_fill(void *out, size_t size, uint32_t state) {
    for (size_t i = 0; i < size; i++) {
        state = state * 1664525u + 1013904223u;
        ((uint8_t *)out)[i] = (uint8_t)(state >> 24);
    }
}

/** A file beside make_golden.py; free() its data. */
static inline struct bytes golden_read(const char *name) {
    char path[256];
    struct bytes bytes = {0};
    struct error err = {0};
    snprintf(path, sizeof path, "tests/unit/image/golden/%s", name);
    if (!file_read(path, 1 << 20, &bytes, &err))
        fail_msg("%s", err.message);
    return bytes;
}

static inline bool digest_matches(const void *data, size_t size, const char *hex) {
    char got[DIGEST_HEX_SIZE];
    struct digest digest = digest_of(data, size);
    return strcmp(digest_hex(&digest, got), hex) == 0;
}
