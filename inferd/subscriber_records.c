#include "common/base/file.h"
#include "inferd/subscriber_internal.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* A descriptor of 8192 chunks takes 257 KiB. */
enum { RECORD_LIMIT_BYTES = 1 << 20 };

static bool record_path(const struct store *store, const struct digest *digest, char out[PATH_MAX],
                        struct error *err) {
    char folder[PATH_MAX], hex[DIGEST_HEX_SIZE];
    return file_join(folder, sizeof folder, store_folder(store), "descriptors", err) &&
           file_make_folders(folder, err) && file_join(out, PATH_MAX, folder, digest_hex(digest, hex), err);
}

bool record_write(const struct store *store, const struct descriptor *descriptor, struct error *err) {
    char path[PATH_MAX];
    Thorax__V1__PublishedModel model;
    descriptor_message(descriptor, &model);
    struct packed packed = pool_pack(&model.base);
    bool ok = packed.data || error_set(err, ERROR_MEMORY, "out of memory for a model's descriptor");
    ok = ok && record_path(store, &descriptor->digest, path, err) &&
         file_write_atomic(path, packed.data, packed.size, err);
    free(packed.data);
    return ok;
}

bool record_read(const struct store *store, const struct digest *digest, struct descriptor *out,
                 struct error *err) {
    char path[PATH_MAX];
    struct bytes bytes;
    *out = (struct descriptor){0};
    if (!record_path(store, digest, path, err) || !file_read(path, RECORD_LIMIT_BYTES, &bytes, err))
        return false;
    Thorax__V1__PublishedModel *model = thorax__v1__published_model__unpack(NULL, bytes.size, bytes.data);
    bool ok = model ? descriptor_parse(out, model, STORE_MAX_OBJECT_BYTES, err)
                    : error_set(err, ERROR_FORMAT, "no model's descriptor");
    if (ok && !digest_equal(&out->digest, digest)) {
        descriptor_fini(out);
        ok = error_set(err, ERROR_FORMAT, "another model's descriptor");
    }
    pool_free(model);
    free(bytes.data);
    return ok || error_prefix(err, "%s", path);
}

void record_remove(const struct store *store, const struct digest *digest) {
    char path[PATH_MAX];
    if (record_path(store, digest, path, NULL))
        unlink(path);
}
