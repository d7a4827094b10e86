#include "common/base/file.h"
#include "common/base/log.h"
#include "inferd/subscriber_internal.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* What the publisher revoked is kept on disk, so that it holds with no publisher in reach, too. */

enum { REVOKED_LIMIT_BYTES = 4 << 20 };

static bool revoked_path(const struct subscriber *subscriber, char out[PATH_MAX], struct error *err) {
    return file_join(out, PATH_MAX, store_folder(subscriber->store), "revoked", err);
}

bool admit_load_revoked(struct subscriber *subscriber, struct error *err) {
    char path[PATH_MAX];
    struct bytes bytes;
    if (!revoked_path(subscriber, path, err))
        return false;
    if (!file_exists(path))
        return true;
    if (!file_read(path, REVOKED_LIMIT_BYTES, &bytes, err))
        return false;
    if (bytes.size % sizeof(struct digest) != 0) {
        free(bytes.data);
        return error_set(err, ERROR_FORMAT, "%s: not a list of digests", path);
    }
    subscriber->revoked = (struct digest *)bytes.data;
    subscriber->revoked_count = bytes.size / sizeof(struct digest);
    return true;
}

void admit_take_revoked(struct subscriber *subscriber, const Thorax__V1__Snapshot *snapshot) {
    char path[PATH_MAX];
    struct error err = {0};
    struct digest *fresh = calloc(snapshot->n_revoked + 1, sizeof *fresh);
    if (!fresh)
        return; /* the old list stays in force until the next snapshot */
    for (size_t i = 0; i < snapshot->n_revoked; i++)
        pool_digest(&snapshot->revoked[i], &fresh[i]);
    bool same = snapshot->n_revoked == subscriber->revoked_count &&
                (!subscriber->revoked_count ||
                 memcmp(fresh, subscriber->revoked, subscriber->revoked_count * sizeof *fresh) == 0);
    if (!same && (!revoked_path(subscriber, path, &err) ||
                  !file_write_atomic(path, fresh, snapshot->n_revoked * sizeof *fresh, &err)))
        log_error("revocations_not_recorded", &err);
    free(subscriber->revoked);
    subscriber->revoked = fresh;
    subscriber->revoked_count = snapshot->n_revoked;
    if (!same)
        subscriber->link.report_due_ms = 0; /* a resident one goes with the report, and the publisher hears of it */
}

static bool check_revoked(const struct subscriber *subscriber, const struct digest *digest,
                          struct error *err) {
    for (size_t i = 0; i < subscriber->revoked_count; i++) {
        if (digest_equal(&subscriber->revoked[i], digest))
            return error_set(err, ERROR_INVALID, "the model is refused: the publisher revoked it");
    }
    return true;
}

bool admit_check(const struct subscriber *subscriber, const struct descriptor *descriptor,
                 struct error *err) {
    return check_revoked(subscriber, &descriptor->digest, err) &&
           (!subscriber->admit || subscriber->admit(subscriber->context_of_daemon, descriptor, err));
}

bool admit_parse(struct subscriber *subscriber, const Thorax__V1__PublishedModel *model,
                 struct descriptor *out) {
    struct error err = {0};
    if (!descriptor_parse(out, model, subscriber->max_model_bytes, &err)) {
        log_error("model_refused", &err);
        return false;
    }
    if (admit_check(subscriber, out, &err))
        return true;
    log_error("model_refused", &err);
    subscriber_refuse(subscriber, &out->digest, &err);
    descriptor_fini(out);
    return false;
}

bool admit_recorded(const struct subscriber *subscriber, const struct digest *digest, struct error *err) {
    struct descriptor descriptor;
    if (!subscriber->admit)
        return true;
    bool known = record_read(subscriber->store, digest, &descriptor, NULL);
    bool ok = subscriber->admit(subscriber->context_of_daemon, known ? &descriptor : NULL, err);
    descriptor_fini(&descriptor);
    return ok;
}

bool admit_stored(const struct subscriber *subscriber, const struct digest *digest, struct error *err) {
    return check_revoked(subscriber, digest, err) && admit_recorded(subscriber, digest, err);
}

/* With each report, since what is revoked can change at any time: by a snapshot, by the member's own list, and by
 * the swap that makes a revoked active model the previous one. */
void admit_residents(const struct subscriber *subscriber, struct subscriber_facts *facts) {
    int kept = 0;
    for (int i = 0; i < facts->resident_count; i++) {
        struct error reason = {0};
        if (!subscriber->drop || admit_stored(subscriber, &facts->residents[i], &reason))
            facts->residents[kept++] = facts->residents[i];
        else
            subscriber->drop(subscriber->context_of_daemon, &facts->residents[i], &reason);
    }
    facts->resident_count = kept;
}
