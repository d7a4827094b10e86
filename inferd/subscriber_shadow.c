#include "common/base/log.h"
#include "inferd/subscriber_internal.h"

void shadow_follow(struct subscriber *subscriber, const Thorax__V1__Shadow *shadow) {
    struct descriptor descriptor = {0};
    if (shadow && !admit_parse(subscriber, shadow->model, &descriptor))
        descriptor = (struct descriptor){0};
    descriptor_fini(&subscriber->shadow);
    subscriber->shadow = descriptor;
    subscriber->shadow_permille = descriptor.packed ? (int)shadow->permille : 0;
}

/** Named, here, and neither what serves anyway nor one that failed a moment ago. */
static bool wanted(const struct subscriber *subscriber) {
    const struct digest *digest = &subscriber->shadow.digest;
    return subscriber->shadow.packed && !subscriber_blocked(subscriber, digest) &&
           !(subscriber->now.has_active && digest_equal(digest, &subscriber->now.active));
}

void shadow_tick(struct subscriber *subscriber) {
    const struct digest *digest = &subscriber->shadow.digest;
    bool want = subscriber->load_shadow && wanted(subscriber);
    bool same = want && subscriber->shadow_loaded && digest_equal(digest, &subscriber->shadow_digest);
    struct job job = {.kind = JOB_END_SHADOW, .digest = subscriber->shadow_digest};
    if (subscriber->shadow_loaded && !same) {
        turn_start_job(subscriber, &job);
    } else if (want && !(same && subscriber->loaded_permille == subscriber->shadow_permille) &&
               store_has(subscriber->store, digest)) {
        job =
            (struct job){.kind = JOB_LOAD_SHADOW, .digest = *digest, .permille = subscriber->shadow_permille};
        turn_start_job(subscriber, &job);
    }
}

void shadow_finish(struct subscriber *subscriber, const struct job *job) {
    subscriber->shadow_loaded = job->kind == JOB_LOAD_SHADOW && job->ok;
    if (subscriber->shadow_loaded) {
        subscriber->shadow_digest = job->digest;
        subscriber->loaded_permille = job->permille;
        subscriber_forgive(subscriber, &job->digest);
    } else if (job->kind == JOB_LOAD_SHADOW) {
        subscriber_fail(subscriber, &job->digest, &job->error);
    }
    turn_tidy(subscriber);
    link_send_report(subscriber);
}
