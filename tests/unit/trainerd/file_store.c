#include "tests/unit/trainerd/file_store.h"

#include "common/base/clock.h"
#include "common/base/file.h"

#include <stdio.h>

static void key_path(char *out, size_t size, const char *folder, const char *key) {
    int start = snprintf(out, size, "%s/", folder);
    snprintf(out + start, size - (size_t)start, "%s", key);
    for (char *at = out + start; *at; at++)
        *at = *at == '/' ? '_' : *at;
}

static bool store_set(void *context, const char *key, const void *data, size_t size, struct error *err) {
    char path[256];
    key_path(path, sizeof path, context, key);
    return file_write_atomic(path, data, size, err);
}

static bool store_get(void *context, const char *key, int64_t deadline_ms, struct bytes *out,
                      struct error *err) {
    char path[256];
    key_path(path, sizeof path, context, key);
    while (!file_exists(path)) {
        if (clock_left_ms(deadline_ms) == 0)
            return error_set(err, ERROR_TIMEOUT, "%s was never set", key);
        clock_sleep_ms(1);
    }
    return file_read(path, 1 << 20, out, err);
}

struct collective_store file_store(const char *folder) {
    return (struct collective_store){(void *)folder, store_set, store_get}; /* only read */
}
