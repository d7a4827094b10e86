#include "common/store/store.h"

#include "common/store/store_internal.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/** folder/pins/NAME, where NAME is one that pins may have: it becomes a file's name, so nothing clever is let
 * through. */
static bool pin_path(const struct store *store, const char *name, char out[STORE_PATH_SIZE],
                     struct error *err) {
    size_t length = strlen(name);
    bool ok = length > 0 && length < STORE_PIN_NAME_SIZE;
    for (size_t i = 0; ok && i < length; i++)
        ok = isalnum((unsigned char)name[i]) || name[i] == '_' || name[i] == '-';
    if (!ok)
        return error_set(err, ERROR_INVALID, "a pin's name is 1 to 80 of letters, digits, '_', '-'");
    snprintf(out, STORE_PATH_SIZE, "%s/pins/%s", store->folder, name);
    return true;
}

bool store_pin(struct store *store, const char *name, const struct digest *digest, struct error *err) {
    char path[STORE_PATH_SIZE], hex[DIGEST_HEX_SIZE];
    return pin_path(store, name, path, err) &&
           file_write_atomic(path, digest_hex(digest, hex), DIGEST_HEX_SIZE - 1, err);
}

bool store_unpin(struct store *store, const char *name, struct error *err) {
    char path[STORE_PATH_SIZE];
    if (!pin_path(store, name, path, err))
        return false;
    return unlink(path) == 0 || errno == ENOENT || error_set_errno(err, "%s", path);
}

bool store_pinned(const struct store *store, const char *name, struct digest *digest, struct error *err) {
    char path[STORE_PATH_SIZE];
    struct bytes text;
    if (!pin_path(store, name, path, err) || !file_read(path, DIGEST_HEX_SIZE, &text, err))
        return false;
    bool ok = digest_parse((const char *)text.data, digest, err) || error_prefix(err, "%s", path);
    free(text.data);
    return ok;
}
