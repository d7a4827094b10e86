#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/thread_slice.h"
#include "inferd/subscriber_internal.h"

#include <errno.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* Loading and warming up yield to the threads that serve, as far as they can without starving: SCHED_IDLE would
 * hold the locks that both need for as long as others have work. */
enum { ACTIVATOR_NICE = 19 };

/* ---- the activating thread ---- */

/** Waits for a job. False: stop. */
static bool next_job(struct subscriber *subscriber, struct job *job) {
    pthread_mutex_lock(&subscriber->lock);
    while (subscriber->job.state != JOB_READY && !atomic_load(&subscriber->stop))
        pthread_cond_wait(&subscriber->job_ready, &subscriber->lock);
    bool found = !atomic_load(&subscriber->stop);
    if (found) {
        subscriber->job.state = JOB_RUNNING;
        *job = subscriber->job;
    }
    pthread_mutex_unlock(&subscriber->lock);
    return found;
}

/** The whole file is checked once more: it may have lain on the disk for long. */
static bool find_file(struct subscriber *subscriber, const struct digest *digest, char *path, size_t size,
                      struct error *err) {
    return store_verify(subscriber->store, digest, err) &&
           store_path(subscriber->store, digest, path, size, err);
}

static bool activate(struct subscriber *subscriber, const struct job *job, struct error *err) {
    char path[4096];
    return admit_recorded(subscriber, &job->digest, err) &&
           find_file(subscriber, &job->digest, path, sizeof path, err) &&
           subscriber->activate(subscriber->context_of_daemon, path, &job->digest, err);
}

static bool load_shadow(struct subscriber *subscriber, const struct job *job, struct error *err) {
    char path[4096];
    return find_file(subscriber, &job->digest, path, sizeof path, err) &&
           subscriber->load_shadow(subscriber->context_of_daemon, path, &job->digest, job->permille, err);
}

static bool end_shadow(struct subscriber *subscriber, const struct job *job, struct error *err) {
    return subscriber->load_shadow(subscriber->context_of_daemon, NULL, &job->digest, 0, err);
}

void *turn_activator(void *context) {
    static bool (*const run[])(struct subscriber *, const struct job *, struct error *) = {
        [JOB_ACTIVATE] = activate, [JOB_LOAD_SHADOW] = load_shadow, [JOB_END_SHADOW] = end_shadow};
    struct subscriber *subscriber = context;
    struct job job;
    uint64_t one = 1;
    thread_slice_set(THREAD_SLICE_NORMAL);
    setpriority(PRIO_PROCESS, 0, ACTIVATOR_NICE); /* on Linux: of this thread; refused is no harm */
    while (next_job(subscriber, &job)) {
        struct error err = {0};
        bool ok = run[job.kind](subscriber, &job, &err);
        pthread_mutex_lock(&subscriber->lock);
        subscriber->job.ok = ok;
        subscriber->job.error = err;
        subscriber->job.state = JOB_DONE;
        pthread_mutex_unlock(&subscriber->lock);
        while (write(subscriber->wake, &one, sizeof one) < 0 && errno == EINTR) {
        }
    }
    return NULL;
}

static enum job_state job_state(struct subscriber *subscriber) {
    pthread_mutex_lock(&subscriber->lock);
    enum job_state state = subscriber->job.state;
    pthread_mutex_unlock(&subscriber->lock);
    return state;
}

bool turn_activating(struct subscriber *subscriber) {
    pthread_mutex_lock(&subscriber->lock);
    bool activating = subscriber->job.state != JOB_NONE && subscriber->job.kind == JOB_ACTIVATE;
    pthread_mutex_unlock(&subscriber->lock);
    return activating;
}

void turn_start_job(struct subscriber *subscriber, const struct job *job) {
    pthread_mutex_lock(&subscriber->lock);
    subscriber->job = *job;
    subscriber->job.state = JOB_READY;
    pthread_cond_signal(&subscriber->job_ready);
    pthread_mutex_unlock(&subscriber->lock);
}

/* ---- the network thread ---- */

static void send_outcome(struct subscriber *subscriber, uint64_t turn, const struct digest *digest,
                         Thorax__V1__TurnResult result) {
    Thorax__V1__ControlRequest request;
    Thorax__V1__TurnOutcome outcome;
    thorax__v1__control_request__init(&request);
    thorax__v1__turn_outcome__init(&outcome);
    outcome.turn = turn;
    outcome.digest = pool_digest_field(digest);
    outcome.result = result;
    request.body_case = THORAX__V1__CONTROL_REQUEST__BODY_OUTCOME;
    request.outcome = &outcome;
    link_send(subscriber, &request);
}

void turn_tidy(struct subscriber *subscriber) {
    struct store_list list;
    if (!store_list(subscriber->store, &list, NULL))
        return;
    for (size_t i = 0; i < list.count; i++) {
        const struct digest *digest = &list.entries[i].digest;
        bool needed = list.entries[i].pinned ||
                      (subscriber->target.packed && digest_equal(digest, &subscriber->target.digest)) ||
                      (subscriber->shadow.packed && digest_equal(digest, &subscriber->shadow.digest));
        for (int k = 0; k < subscriber->staged_count && !needed; k++)
            needed = digest_equal(digest, &subscriber->staged[k].digest);
        pthread_mutex_lock(&subscriber->lock);
        needed =
            needed || (subscriber->job.state != JOB_NONE && digest_equal(digest, &subscriber->job.digest));
        pthread_mutex_unlock(&subscriber->lock);
        if (!needed && store_remove(subscriber->store, digest, NULL))
            record_remove(subscriber->store, digest);
    }
    store_list_fini(&list);
}

/** Notes on disk what runs now, so that a restart begins with it. */
static void record_active(struct subscriber *subscriber, const struct digest *digest) {
    struct subscriber_status *now = &subscriber->now;
    struct error err = {0};
    bool kept = now->has_active && store_has(subscriber->store, &now->active);
    bool ok = !kept || digest_equal(&now->active, digest) ||
              store_pin(subscriber->store, "previous", &now->active, &err);
    if (!ok || !store_pin(subscriber->store, "active", digest, &err))
        log_error("active_model_not_recorded", &err);
    now->has_active = true;
    now->active = *digest;
    now->error = (struct error){0};
}

static void finish_activation(struct subscriber *subscriber, const struct job *job) {
    char hex[DIGEST_HEX_SIZE];
    if (job->ok) {
        record_active(subscriber, &job->digest);
        subscriber_forgive(subscriber, &job->digest);
        log_event(LOG_INFO, "model_activated", "digest=%.12s turn=%llu", digest_hex(&job->digest, hex),
                  (unsigned long long)subscriber->turn);
        turn_tidy(subscriber);
        subscriber->now.phase = SUBSCRIBER_IDLE;
    } else {
        subscriber_fail(subscriber, &job->digest, &job->error);
        subscriber->now.phase = SUBSCRIBER_FAILED;
    }
    send_outcome(subscriber, subscriber->turn, &job->digest,
                 job->ok ? THORAX__V1__TURN_RESULT__TURN_ACTIVATED : THORAX__V1__TURN_RESULT__TURN_FAILED);
}

static void finish_job(struct subscriber *subscriber) {
    pthread_mutex_lock(&subscriber->lock);
    struct job job = subscriber->job;
    subscriber->job.state = JOB_NONE;
    pthread_mutex_unlock(&subscriber->lock);
    if (job.kind == JOB_ACTIVATE)
        finish_activation(subscriber, &job);
    else
        shadow_finish(subscriber, &job);
}

/** The target is here, not running, and not to be left alone. */
static bool ready_for_turn(struct subscriber *subscriber) {
    return subscriber_target_pending(subscriber) && !subscriber->target_refused &&
           store_has(subscriber->store, &subscriber->target.digest) &&
           !subscriber_blocked(subscriber, &subscriber->target.digest);
}

static void ask(struct subscriber *subscriber) {
    Thorax__V1__ControlRequest request;
    Thorax__V1__TurnRequest turn;
    thorax__v1__control_request__init(&request);
    thorax__v1__turn_request__init(&turn);
    turn.digest = pool_digest_field(&subscriber->target.digest);
    request.body_case = THORAX__V1__CONTROL_REQUEST__BODY_TURN;
    request.turn = &turn;
    subscriber->now.phase = SUBSCRIBER_WAITING;
    link_send(subscriber, &request);
    subscriber->ask_due_ms = clock_now_ms() + subscriber->heartbeat_ms;
}

void turn_tick(struct subscriber *subscriber) {
    enum job_state state = job_state(subscriber);
    if (state == JOB_DONE) {
        finish_job(subscriber);
    } else if (state == JOB_NONE && subscriber->link.synced && ready_for_turn(subscriber)) {
        if (clock_now_ms() >= subscriber->ask_due_ms)
            ask(subscriber);
    } else if (state == JOB_NONE) { /* a shadow waits until the target was dealt with */
        shadow_tick(subscriber);
    }
}

void turn_receive(struct subscriber *subscriber, const Thorax__V1__Turn *turn) {
    struct digest digest;
    pool_digest(&turn->digest, &digest);
    pthread_mutex_lock(&subscriber->lock);
    bool busy = subscriber->job.state != JOB_NONE;
    bool same = busy && subscriber->job.kind == JOB_ACTIVATE && digest_equal(&subscriber->job.digest, &digest);
    pthread_mutex_unlock(&subscriber->lock);
    if (same) {
        subscriber->turn =
            turn->turn; /* told again: the outcome will name the turn that the publisher knows */
        return;
    }
    if (busy || !ready_for_turn(subscriber) || !digest_equal(&digest, &subscriber->target.digest)) {
        send_outcome(subscriber, turn->turn, &digest, THORAX__V1__TURN_RESULT__TURN_DECLINED);
        return;
    }
    subscriber->turn = turn->turn;
    turn_start_job(subscriber, &(struct job){.kind = JOB_ACTIVATE, .digest = digest});
    subscriber->now.phase = SUBSCRIBER_ACTIVATING;
    link_send_report(subscriber);
}
