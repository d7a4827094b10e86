#include "trainerd/handover.h"

#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/text.h"

#include <dirent.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { DEFAULT_ANSWER_MS = 10000, DEFAULT_RETRY_MS = 500, MAX_PAUSE_MS = 30000, HURRY_PAUSE_MS = 1000 };

/** A model. All but path and next is guarded by the lock. */
struct item {
    struct item *next;
    bool told;
    struct handover_result result; /* its path does not change */
};

struct handover {
    char *endpoint, *folder, *sign_key; /* owned */
    struct control_keys keys;
    int answer_ms, retry_ms;
    long long last_number; /* of the files in the folder */
    pthread_t thread;
    bool thread_runs;
    pthread_mutex_t lock; /* a leaf */
    pthread_cond_t changed;
    bool stop;
    int pause_ms, max_pause_ms; /* the next pause; 0: nothing has failed since the last success */
    int64_t due_ms;             /* nothing is tried before */
    struct item *items;         /* oldest first; owned */
};

/* ---- the folder ---- */

static int is_model(const struct dirent *entry) {
    size_t length = strlen(entry->d_name);
    return length > 12 && strcmp(entry->d_name + length - 12, ".safetensors") == 0;
}

static bool append(struct handover *handover, const char *path, struct error *err) {
    struct item *item = calloc(1, sizeof *item), **end = &handover->items;
    if (!item || !text_copy(item->result.path, sizeof item->result.path, path)) {
        free(item);
        return error_set(err, ERROR_MEMORY, "out of memory for a model that is to be handed over");
    }
    pthread_mutex_lock(&handover->lock);
    while (*end)
        end = &(*end)->next;
    *end = item;
    pthread_cond_signal(&handover->changed);
    pthread_mutex_unlock(&handover->lock);
    return true;
}

/** What an earlier run could not hand over comes first. */
static bool take_up(struct handover *handover, struct error *err) {
    struct dirent **names = NULL;
    char path[HANDOVER_PATH_SIZE];
    int count = scandir(handover->folder, &names, is_model, versionsort);
    bool ok = count >= 0 || error_set_errno(err, "%s", handover->folder);
    for (int i = 0; i < count; i++) {
        handover->last_number = strtoll(names[i]->d_name, NULL, 10);
        ok = ok && file_join(path, sizeof path, handover->folder, names[i]->d_name, err) && append(handover, path, err);
        free(names[i]);
    }
    free(names);
    return ok;
}

/** The same file under a second name, or a copy where the file system knows no such thing. */
static bool keep(const char *from, const char *to, struct error *err) {
    struct file_map map;
    if (link(from, to) == 0)
        return true;
    if (!file_map_open(from, &map, err))
        return false;
    bool ok = file_write_atomic(to, map.data, map.size, err);
    file_map_close(&map);
    return ok;
}

bool handover_add(struct handover *handover, const char *path, struct error *err) {
    const char *slash = strrchr(path, '/');
    char name[NAME_MAX + 1], kept[HANDOVER_PATH_SIZE];
    int length = snprintf(name, sizeof name, "%06lld-%s", handover->last_number + 1, slash ? slash + 1 : path);
    if (length >= (int)sizeof name)
        return error_set(err, ERROR_TOO_LARGE, "%.200s: a name that is too long", path);
    if (!file_join(kept, sizeof kept, handover->folder, name, err) || !keep(path, kept, err) ||
        !file_sync_folder(handover->folder, err))
        return false;
    handover->last_number++;
    return append(handover, kept, err);
}

/* ---- the thread ---- */

static struct item *next_waiting(struct handover *handover) {
    struct item *item = handover->items;
    while (item && item->result.fate != HANDOVER_WAITS)
        item = item->next;
    return item;
}

/** Waits for a change, or until the time that is set for the next try; for ever where nothing waits. */
static void wait_for_change(struct handover *handover, bool for_ever) {
    struct timespec until = {.tv_sec = handover->due_ms / 1000, .tv_nsec = handover->due_ms % 1000 * 1000000};
    if (for_ever)
        pthread_cond_wait(&handover->changed, &handover->lock);
    else
        pthread_cond_timedwait(&handover->changed, &handover->lock, &until);
}

/** One try, without the lock. */
static void hand_over(struct handover *handover, const char *path, struct handover_result *out) {
    struct control control = {0};
    struct upload_spec spec = {.path = path, .sign_key = handover->sign_key, .once = true};
    bool ok = control_open(&control, handover->endpoint, handover->answer_ms, &handover->keys, &out->error) &&
              upload_file(&control, &spec, &out->done, &out->error);
    control_close(&control);
    enum error_code code = out->error.code;
    bool final = code == ERROR_INVALID || code == ERROR_FORMAT || code == ERROR_STATE || code == ERROR_UNSUPPORTED ||
                 code == ERROR_TOO_LARGE || !file_exists(path);
    out->fate = ok ? HANDOVER_DONE : final ? HANDOVER_REFUSED : HANDOVER_WAITS;
    if (ok && unlink(path) != 0) /* the publisher knows it, should it be handed over again */
        log_event(LOG_WARNING, "handed_over_file_stays", "path=\"%s\"", path);
}

/** The publisher is not there, or cannot: the pause before the next try. */
static void postpone(struct handover *handover, const struct error *why) {
    bool first = handover->pause_ms == 0;
    handover->pause_ms = first ? handover->retry_ms : 2 * handover->pause_ms;
    if (handover->pause_ms > handover->max_pause_ms)
        handover->pause_ms = handover->max_pause_ms;
    handover->due_ms = clock_now_ms() + handover->pause_ms;
    if (first)
        log_error("handover_delayed", why);
}

static void *run(void *context) {
    struct handover *handover = context;
    pthread_mutex_lock(&handover->lock);
    while (!handover->stop) {
        struct item *item = next_waiting(handover);
        if (!item || clock_now_ms() < handover->due_ms) {
            wait_for_change(handover, !item);
            continue;
        }
        struct handover_result result = {0};
        pthread_mutex_unlock(&handover->lock);
        hand_over(handover, item->result.path, &result);
        pthread_mutex_lock(&handover->lock);
        item->result.fate = result.fate;
        item->result.done = result.done;
        item->result.error = result.error;
        if (result.fate == HANDOVER_WAITS)
            postpone(handover, &result.error);
        else
            handover->pause_ms = 0;
    }
    pthread_mutex_unlock(&handover->lock);
    return NULL;
}

/* ---- for the other thread ---- */

int handover_waiting(struct handover *handover) {
    int count = 0;
    pthread_mutex_lock(&handover->lock);
    for (const struct item *item = handover->items; item; item = item->next)
        count += item->result.fate == HANDOVER_WAITS;
    pthread_mutex_unlock(&handover->lock);
    return count;
}

bool handover_next_result(struct handover *handover, struct handover_result *out) {
    pthread_mutex_lock(&handover->lock);
    struct item *item = handover->items;
    while (item && (item->told || (item->result.fate == HANDOVER_WAITS && handover->thread_runs)))
        item = item->next;
    if (item) {
        *out = item->result;
        item->told = true;
    }
    pthread_mutex_unlock(&handover->lock);
    return item;
}

void handover_hurry(struct handover *handover) {
    pthread_mutex_lock(&handover->lock);
    handover->max_pause_ms = HURRY_PAUSE_MS;
    handover->due_ms = 0;
    pthread_cond_signal(&handover->changed);
    pthread_mutex_unlock(&handover->lock);
}

void handover_stop(struct handover *handover) {
    if (!handover->thread_runs)
        return;
    pthread_mutex_lock(&handover->lock);
    handover->stop = true;
    pthread_cond_signal(&handover->changed);
    pthread_mutex_unlock(&handover->lock);
    pthread_join(handover->thread, NULL);
    handover->thread_runs = false;
}

/* ---- life ---- */

static void init_lock(struct handover *handover) {
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_mutex_init(&handover->lock, NULL);
    pthread_cond_init(&handover->changed, &attributes);
    pthread_condattr_destroy(&attributes);
}

static bool start(struct handover *handover, const struct handover_spec *spec, struct error *err) {
    if (!file_make_folders(spec->folder, err))
        return false;
    handover->folder = realpath(spec->folder, NULL);
    handover->endpoint = strdup(spec->endpoint);
    handover->sign_key = strdup(spec->sign_key ? spec->sign_key : "");
    if (!handover->folder || !handover->endpoint || !handover->sign_key)
        return error_set(err, ERROR_MEMORY, "out of memory for what is to be handed over");
    if (!take_up(handover, err))
        return false;
    handover->thread_runs = pthread_create(&handover->thread, NULL, run, handover) == 0;
    return handover->thread_runs || error_set(err, ERROR_MEMORY, "the thread that hands models over does not start");
}

struct handover *handover_create(const struct handover_spec *spec, struct error *err) {
    struct handover *handover = calloc(1, sizeof *handover);
    if (!handover) {
        error_set(err, ERROR_MEMORY, "out of memory for what is to be handed over");
        return NULL;
    }
    handover->keys = spec->keys;
    handover->answer_ms = spec->answer_ms ? spec->answer_ms : DEFAULT_ANSWER_MS;
    handover->retry_ms = spec->retry_ms ? spec->retry_ms : DEFAULT_RETRY_MS;
    handover->max_pause_ms = MAX_PAUSE_MS;
    init_lock(handover);
    if (start(handover, spec, err))
        return handover;
    handover_destroy(handover);
    return NULL;
}

void handover_destroy(struct handover *handover) {
    if (!handover)
        return;
    handover_stop(handover);
    for (struct item *item; (item = handover->items);) {
        handover->items = item->next;
        free(item);
    }
    pthread_cond_destroy(&handover->changed);
    pthread_mutex_destroy(&handover->lock);
    free(handover->sign_key);
    free(handover->endpoint);
    free(handover->folder);
    free(handover);
}
