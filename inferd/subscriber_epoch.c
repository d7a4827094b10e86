#include "common/base/file.h"
#include "common/base/log.h"
#include "inferd/subscriber_internal.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* How far the publisher's registry was when it was heard of last, on disk: one that is behind that was copied
 * back from somewhere, and would silently bring old models back. trainctl restore makes the numbers jump
 * ahead instead. */

/** The file's bytes: both in the machine's own order, since it never leaves the machine. */
struct epoch {
    uint8_t registry[16];
    uint64_t number;
};

static bool epoch_path(const struct subscriber *subscriber, char out[PATH_MAX], struct error *err) {
    return file_join(out, PATH_MAX, store_folder(subscriber->store), "epoch", err);
}

void epoch_load(struct subscriber *subscriber) {
    char path[PATH_MAX];
    struct bytes bytes;
    struct error err = {0};
    struct epoch epoch;
    if (!epoch_path(subscriber, path, &err) || !file_exists(path))
        return;
    if (!file_read(path, sizeof epoch, &bytes, &err)) {
        log_error("epoch_unreadable", &err); /* as if no publisher was ever heard of */
        return;
    }
    if (bytes.size == sizeof epoch) {
        memcpy(&epoch, bytes.data, sizeof epoch);
        memcpy(subscriber->registry, epoch.registry, sizeof subscriber->registry);
        subscriber->registry_number = epoch.number;
    }
    free(bytes.data);
}

static bool same_registry(const struct subscriber *subscriber, const Thorax__V1__ControlReply *reply) {
    return reply->registry_id.len == sizeof subscriber->registry &&
           memcmp(reply->registry_id.data, subscriber->registry, sizeof subscriber->registry) == 0;
}

bool epoch_check(struct subscriber *subscriber, const Thorax__V1__ControlReply *reply, struct error *err) {
    if (!same_registry(subscriber, reply) || reply->number >= subscriber->registry_number)
        return true;
    error_set(err, ERROR_STATE,
              "the publisher has gone back from event %llu to %llu: was its store copied back by hand? "
              "Nothing changes here until it is ahead again",
              (unsigned long long)subscriber->registry_number, (unsigned long long)reply->number);
    return error_hint(err, "restore it by trainctl restore");
}

void epoch_note(struct subscriber *subscriber, const Thorax__V1__ControlReply *reply) {
    char path[PATH_MAX];
    struct error err = {0};
    struct epoch epoch = {.number = reply->number};
    if (reply->registry_id.len != sizeof epoch.registry ||
        (same_registry(subscriber, reply) && reply->number == subscriber->registry_number))
        return; /* a publisher of version 0.1 has no id */
    memcpy(epoch.registry, reply->registry_id.data, sizeof epoch.registry);
    if (!epoch_path(subscriber, path, &err) || !file_write_atomic(path, &epoch, sizeof epoch, &err))
        log_error("epoch_not_recorded", &err);
    memcpy(subscriber->registry, epoch.registry, sizeof subscriber->registry);
    subscriber->registry_number = epoch.number;
}
