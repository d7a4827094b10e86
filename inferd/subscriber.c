#include "inferd/subscriber.h"

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/text.h"
#include "inferd/subscriber_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum {
    DEFAULT_HEARTBEAT_MS = 1000,
    DEFAULT_WINDOW = 16,
    DEFAULT_RETRY_MS = 5000,
    RETRY_DOUBLINGS = 64,
    REOPEN_FIRST_MS = 250,
    REOPEN_LAST_MS = 16000,
    BURST = 64, /* messages taken from a socket before the others get a look */
};

static const int64_t DEFAULT_MAX_MODEL_BYTES = INT64_C(1) << 30;
static const int64_t PARTIAL_AGE_MS = 7 * 24 * 3600 * INT64_C(1000);

void backoff_fail(struct backoff *backoff, int64_t now_ms) {
    backoff->pause_ms = backoff->pause_ms ? backoff->pause_ms * 2 : backoff->first_ms;
    if (backoff->pause_ms > backoff->last_ms)
        backoff->pause_ms = backoff->last_ms;
    /* Up to a quarter more, so that members that lost the same publisher do not come back in step. */
    int64_t jitter_ms = (int64_t)(digest_random_u64() % (uint64_t)(backoff->pause_ms / 4 + 1));
    backoff->due_ms = now_ms + backoff->pause_ms + jitter_ms;
}

void backoff_reset(struct backoff *backoff) {
    backoff->pause_ms = backoff->due_ms = 0;
}

/* ---- models that failed ---- */

static struct failure *failure_of(const struct subscriber *subscriber, const struct digest *digest) {
    for (int i = 0; i < SUBSCRIBER_FAILURES; i++) {
        const struct failure *failure = &subscriber->failures[i];
        if (failure->used && digest_equal(&failure->digest, digest))
            return (struct failure *)failure;
    }
    return NULL;
}

/** A free place, or the one whose pause ends first. */
static struct failure *failure_place(struct subscriber *subscriber) {
    struct failure *place = &subscriber->failures[0];
    for (int i = 0; i < SUBSCRIBER_FAILURES; i++) {
        struct failure *failure = &subscriber->failures[i];
        if (!failure->used)
            return failure;
        if (failure->backoff.due_ms < place->backoff.due_ms)
            place = failure;
    }
    return place;
}

void subscriber_fail(struct subscriber *subscriber, const struct digest *digest, const struct error *err) {
    struct failure *failure = failure_of(subscriber, digest);
    if (!failure) {
        failure = failure_place(subscriber);
        *failure = (struct failure){.digest = *digest, .used = true};
        failure->backoff.first_ms = subscriber->retry_ms;
        failure->backoff.last_ms = (int64_t)subscriber->retry_ms * RETRY_DOUBLINGS;
    }
    backoff_fail(&failure->backoff, clock_now_ms());
    failure->error = *err;
    if (subscriber->target.packed && digest_equal(digest, &subscriber->target.digest)) {
        subscriber->now.error = *err;
    } else {
        subscriber_refuse(subscriber, digest, err);
    }
    char hex[DIGEST_HEX_SIZE];
    log_event(LOG_WARNING, "model_failed", "digest=%.12s code=%s message=\"%s\" retry_ms=%lld",
              digest_hex(digest, hex), error_code_name(err->code), err->message,
              (long long)failure->backoff.pause_ms);
}

void subscriber_refuse(struct subscriber *subscriber, const struct digest *digest, const struct error *err) {
    subscriber->has_refused = true;
    subscriber->refused = *digest;
    subscriber->refusal = *err;
}

bool subscriber_blocked(const struct subscriber *subscriber, const struct digest *digest) {
    const struct failure *failure = failure_of(subscriber, digest);
    return failure && clock_now_ms() < failure->backoff.due_ms;
}

void subscriber_forgive(struct subscriber *subscriber, const struct digest *digest) {
    struct failure *failure = failure_of(subscriber, digest);
    if (failure)
        failure->used = false;
    if (subscriber->has_refused && digest_equal(digest, &subscriber->refused))
        subscriber->has_refused = false;
}

bool subscriber_target_pending(const struct subscriber *subscriber) {
    return subscriber->target.packed &&
           !(subscriber->now.has_active && digest_equal(&subscriber->target.digest, &subscriber->now.active));
}

/* ---- the network thread ---- */

static enum subscriber_phase phase(struct subscriber *subscriber) {
    if (turn_activating(subscriber))
        return SUBSCRIBER_ACTIVATING;
    if (subscriber->publisher_behind)
        return SUBSCRIBER_FAILED;
    if (!subscriber_target_pending(subscriber))
        return subscriber->fetch.partial ? SUBSCRIBER_FETCHING : SUBSCRIBER_IDLE;
    if (subscriber->target_refused || subscriber_blocked(subscriber, &subscriber->target.digest))
        return SUBSCRIBER_FAILED;
    return store_has(subscriber->store, &subscriber->target.digest) ? SUBSCRIBER_WAITING
                                                                    : SUBSCRIBER_FETCHING;
}

/** Brings the status up to date and shows it to the other threads. */
static void publish_status(struct subscriber *subscriber) {
    struct subscriber_status *now = &subscriber->now;
    now->phase = phase(subscriber);
    now->connected = subscriber->link.synced;
    now->has_target = subscriber->target.packed;
    if (now->has_target)
        now->target = subscriber->target.digest;
    now->fetched_bytes = subscriber->fetch.partial ? partial_offset(subscriber->fetch.partial) : 0;
    now->fetch_bytes = subscriber->fetch.partial ? subscriber->fetch.descriptor.size_bytes : 0;
    pthread_mutex_lock(&subscriber->lock);
    subscriber->published = *now;
    pthread_mutex_unlock(&subscriber->lock);
}

/** Takes up to BURST messages from a socket; a handler may close it. */
static void serve(struct subscriber *subscriber, enum subscriber_socket socket,
                  void (*receive)(struct subscriber *, const struct wire_message *)) {
    for (int i = 0; i < BURST && subscriber->link.sockets[socket]; i++) {
        struct wire_message message = {0};
        struct error err = {0};
        if (!wire_receive(subscriber->link.sockets[socket], &message, 0, &err)) {
            if (err.code == ERROR_TIMEOUT)
                return;
            continue; /* one bad message, dropped whole */
        }
        /* What is announced is no sign that we are heard: whose key was revoked hears it too, for a while. */
        if (socket != SUBSCRIBER_ANNOUNCE)
            subscriber->link.heard_ms = clock_now_ms();
        receive(subscriber, &message);
        wire_message_fini(&message);
    }
}

static void wait_for_work(struct subscriber *subscriber, int64_t timeout_ms) {
    struct link *link = &subscriber->link;
    struct wire_poll_item items[4] = {{.descriptor = subscriber->wake}};
    int count = 1;
    bool open = link->sockets[0];
    if (open) {
        items[count++].socket = link->sockets[SUBSCRIBER_CONTROL];
        items[count++].socket = link->sockets[SUBSCRIBER_BLOBS];
    }
    /* Events wait in their socket until the snapshot says from which number on they count. */
    bool events = open && link->synced;
    if (events)
        items[count++].socket = link->sockets[SUBSCRIBER_ANNOUNCE];
    struct error err = {0};
    if (wire_poll(items, count, timeout_ms, &err) < 0) {
        log_error("subscriber_poll_failed", &err);
        clock_sleep_ms(subscriber->heartbeat_ms); /* not a hot loop */
        return;
    }
    uint64_t woken;
    if (items[0].readable && read(subscriber->wake, &woken, sizeof woken) < 0)
        return;
    if (open && items[1].readable)
        serve(subscriber, SUBSCRIBER_CONTROL, link_receive_reply);
    if (open && items[2].readable)
        serve(subscriber, SUBSCRIBER_BLOBS, fetch_receive);
    if (events && items[3].readable)
        serve(subscriber, SUBSCRIBER_ANNOUNCE, link_receive_event);
}

static void *run(void *context) {
    struct subscriber *subscriber = context;
    while (!atomic_load(&subscriber->stop)) {
        link_tick(subscriber);
        fetch_tick(subscriber);
        turn_tick(subscriber);
        publish_status(subscriber);
        int64_t left_ms = fetch_left_ms(subscriber, link_left_ms(subscriber)), most_ms = subscriber->heartbeat_ms / 2;
        wait_for_work(subscriber, left_ms < most_ms ? left_ms : most_ms);
    }
    return NULL;
}

/* ---- life ---- */

static bool take_spec(struct subscriber *subscriber, const struct subscriber_spec *spec, struct error *err) {
    const char *const given[] = {spec->announce, spec->control, spec->blobs};
    static const char *const defaults[] = {POOL_DEFAULT_ANNOUNCE, POOL_DEFAULT_CONTROL, POOL_DEFAULT_BLOBS};
    for (int i = 0; i < SUBSCRIBER_SOCKETS; i++) {
        if (!text_copy(subscriber->endpoints[i], SUBSCRIBER_ENDPOINT_SIZE, given[i] ? given[i] : defaults[i]))
            return error_set(err, ERROR_INVALID, "an endpoint of more than %d characters",
                             SUBSCRIBER_ENDPOINT_SIZE - 1);
    }
    if (!spec->member || !descriptor_name_ok(spec->member))
        return error_set(err, ERROR_INVALID, "a member's name is 1 to 100 of [A-Za-z0-9._-]");
    text_copy(subscriber->member, sizeof subscriber->member, spec->member);
    subscriber->security = spec->security;
    text_copy(subscriber->server_key, sizeof subscriber->server_key, spec->server_key ? spec->server_key : "");
    subscriber->max_model_bytes = spec->max_model_bytes ? spec->max_model_bytes : DEFAULT_MAX_MODEL_BYTES;
    subscriber->heartbeat_ms = spec->heartbeat_ms ? spec->heartbeat_ms : DEFAULT_HEARTBEAT_MS;
    subscriber->window_chunks = spec->window_chunks ? spec->window_chunks : DEFAULT_WINDOW;
    subscriber->retry_ms = spec->retry_ms ? spec->retry_ms : DEFAULT_RETRY_MS;
    if (subscriber->window_chunks < 1 || subscriber->window_chunks > POOL_MAX_CREDIT)
        return error_set(err, ERROR_INVALID, "window_chunks is 1 to %d", POOL_MAX_CREDIT);
    subscriber->activate = spec->activate;
    subscriber->staged_max = spec->staged_max ? spec->staged_max : SUBSCRIBER_STAGED_MAX;
    if (subscriber->staged_max < 0 || subscriber->staged_max > SUBSCRIBER_STAGED_MAX)
        return error_set(err, ERROR_INVALID, "staged_max is 1 to %d", SUBSCRIBER_STAGED_MAX);
    subscriber->load_shadow = spec->shadow;
    subscriber->describe = spec->describe;
    subscriber->admit = spec->admit;
    subscriber->drop = spec->drop;
    subscriber->context_of_daemon = spec->context;
    subscriber->incarnation = spec->incarnation ? spec->incarnation : digest_random_u64();
    subscriber->link.reopen = (struct backoff){.first_ms = REOPEN_FIRST_MS, .last_ms = REOPEN_LAST_MS};
    subscriber->link.snapshot = (struct backoff){.first_ms = subscriber->heartbeat_ms / 2 + 1,
                                                 .last_ms = (int64_t)subscriber->heartbeat_ms * 4};
    return true;
}

struct subscriber *subscriber_create(const struct subscriber_spec *spec, struct error *err) {
    struct subscriber *subscriber = calloc(1, sizeof *subscriber);
    if (!subscriber) {
        error_set(err, ERROR_MEMORY, "out of memory for a subscriber");
        return NULL;
    }
    pthread_mutex_init(&subscriber->lock, NULL);
    pthread_cond_init(&subscriber->job_ready, NULL);
    atomic_init(&subscriber->stop, false);
    subscriber->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    bool ok = subscriber->wake >= 0 || error_set_errno(err, "eventfd");
    ok = ok && take_spec(subscriber, spec, err);
    ok = ok && (subscriber->store = store_open(spec->store_folder, subscriber->max_model_bytes, err)) &&
         admit_load_revoked(subscriber, err);
    if (ok)
        epoch_load(subscriber);
    ok = ok && store_collect_partials(subscriber->store, PARTIAL_AGE_MS, NULL, err);
    ok = ok && (subscriber->context = wire_context_create(1, err));
    if (ok)
        return subscriber;
    subscriber_destroy(subscriber);
    return NULL;
}

bool subscriber_last_model(struct subscriber *subscriber, char *path, size_t size, struct digest *digest,
                           struct error *err) {
    static const char *const pins[] = {"active", "previous"};
    for (int i = 0; i < 2; i++) {
        struct error reason = {0};
        if (store_pinned(subscriber->store, pins[i], digest, &reason) &&
            store_verify(subscriber->store, digest, &reason) && admit_stored(subscriber, digest, &reason))
            return store_path(subscriber->store, digest, path, size, err);
        if (reason.code != ERROR_NOT_FOUND)
            log_error("last_model_unusable", &reason);
    }
    return error_set(err, ERROR_NOT_FOUND, "%s: no model was activated here yet",
                     store_folder(subscriber->store));
}

bool subscriber_set_active(struct subscriber *subscriber, const struct digest *digest, struct error *err) {
    subscriber->now.has_active = true;
    subscriber->now.active = *digest;
    pthread_mutex_lock(&subscriber->lock);
    subscriber->published = subscriber->now;
    pthread_mutex_unlock(&subscriber->lock);
    /* A model given by hand is not in the store; a restart must not look for it there. */
    return !store_has(subscriber->store, digest) || store_pin(subscriber->store, "active", digest, err);
}

bool subscriber_start(struct subscriber *subscriber, struct error *err) {
    subscriber->activator_runs =
        pthread_create(&subscriber->activator, NULL, turn_activator, subscriber) == 0;
    subscriber->network_runs =
        subscriber->activator_runs && pthread_create(&subscriber->network, NULL, run, subscriber) == 0;
    return subscriber->network_runs || error_set(err, ERROR_MEMORY, "the subscriber's threads do not start");
}

static void stop_threads(struct subscriber *subscriber) {
    uint64_t one = 1;
    atomic_store(&subscriber->stop, true);
    pthread_mutex_lock(&subscriber->lock);
    pthread_cond_broadcast(&subscriber->job_ready);
    pthread_mutex_unlock(&subscriber->lock);
    if (subscriber->activator_runs)
        pthread_join(subscriber->activator, NULL);
    while (subscriber->network_runs && write(subscriber->wake, &one, sizeof one) < 0 && errno == EINTR) {
    }
    if (subscriber->network_runs)
        pthread_join(subscriber->network, NULL);
}

void subscriber_destroy(struct subscriber *subscriber) {
    if (!subscriber)
        return;
    stop_threads(subscriber);
    turn_tick(subscriber); /* an activation that ended meanwhile is what a restart must begin with */
    fetch_close(subscriber);
    link_close(subscriber);
    for (int i = 0; i < subscriber->staged_count; i++)
        descriptor_fini(&subscriber->staged[i]);
    descriptor_fini(&subscriber->target);
    free(subscriber->revoked);
    descriptor_fini(&subscriber->shadow);
    wire_context_destroy(subscriber->context);
    store_close(subscriber->store);
    if (subscriber->wake >= 0)
        close(subscriber->wake);
    pthread_cond_destroy(&subscriber->job_ready);
    pthread_mutex_destroy(&subscriber->lock);
    free(subscriber);
}

void subscriber_status(struct subscriber *subscriber, struct subscriber_status *status) {
    pthread_mutex_lock(&subscriber->lock);
    *status = subscriber->published;
    pthread_mutex_unlock(&subscriber->lock);
}
