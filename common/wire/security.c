#include "common/wire/security.h"

#include "common/base/clock.h"
#include "common/base/secret_file.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { LOOK_MS = 1000, REPORT_MS = 1000, REPORT_SAME_MS = 60000, FILE_LIMIT = 1 << 20 };

/** What changes where a file is written, replaced, or gets another owner or mode. */
struct mark {
    bool there;
    struct timespec written, changed;
    ino_t inode;
    off_t size;
};

struct wire_security {
    struct curve_key key;
    char *allow;  /* path; NULL: no file */
    bool has_list; /* read, or made here; does not change */
    void (*report)(const char *event, const struct error *err);
    pthread_mutex_t lock; /* of all below; a leaf */
    struct wire_allowed *list;
    int count;
    struct mark mark; /* of the file when it was read last */
    int64_t look_ms;  /* when to look at it again */
    int64_t reported_ms;
    char reported[CURVE_TEXT_SIZE]; /* the key that was refused then */
    uint64_t refusals, removals;
};

static struct mark mark_of(const char *path) {
    struct stat status;
    if (stat(path, &status) != 0) {
        return (struct mark){0};
    }
    return (struct mark){true, status.st_mtim, status.st_ctim, status.st_ino, status.st_size};
}

static bool time_equal(struct timespec a, struct timespec b) {
    return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

static bool mark_equal(const struct mark *a, const struct mark *b) {
    return a->there == b->there && a->inode == b->inode && a->size == b->size &&
           time_equal(a->written, b->written) && time_equal(a->changed, b->changed);
}

static int compare_key(const void *key, const void *row) {
    return strcmp(key, ((const struct wire_allowed *)row)->key);
}

static const struct wire_allowed *row_of(const struct wire_allowed *list, int count, const char *public_key) {
    return count ? bsearch(public_key, list, (size_t)count, sizeof *list, compare_key) : NULL;
}

/** Whether somebody in old may do less, or nothing, by the new list. */
static bool takes_away(const struct wire_allowed *old, int old_count, const struct wire_allowed *list, int count) {
    for (int i = 0; i < old_count; i++) {
        const struct wire_allowed *row = row_of(list, count, old[i].key);
        if (!row || (old[i].peer.roles & ~row->peer.roles)) {
            return true;
        }
    }
    return false;
}

bool wire_security_reload(struct wire_security *security, struct error *err) {
    if (!security->allow) {
        return true;
    }
    struct mark mark = mark_of(security->allow); /* before reading: a later change shows the next time */
    struct bytes text;
    struct wire_allowed *list = NULL;
    int count = 0;
    if (secret_file_read(security->allow, SECRET_TRUSTED, FILE_LIMIT, &text, err)) {
        if (strlen((char *)text.data) == text.size) {
            list = wire_allowed_parse((char *)text.data, security->allow, &count, err);
        } else {
            error_set(err, ERROR_FORMAT, "%s: not a text file", security->allow);
        }
        secret_wipe(&text);
    }
    pthread_mutex_lock(&security->lock);
    struct wire_allowed *old = list ? security->list : NULL;
    if (list) {
        security->removals += takes_away(security->list, security->count, list, count);
        security->list = list;
        security->count = count;
    }
    security->mark = mark;
    pthread_mutex_unlock(&security->lock);
    free(old);
    return list != NULL;
}

/** Without key and list. NULL: out of memory. */
static struct wire_security *create_empty(void (*report)(const char *event, const struct error *err), struct error *err) {
    struct wire_security *security = calloc(1, sizeof *security);
    if (!security) {
        error_set(err, ERROR_MEMORY, "out of memory for keys");
        return NULL;
    }
    pthread_mutex_init(&security->lock, NULL);
    security->report = report;
    security->look_ms = clock_now_ms() + LOOK_MS;
    return security;
}

/** Destroys it where it has become nothing. */
static struct wire_security *keep_if(struct wire_security *security, bool ok) {
    if (ok) {
        return security;
    }
    wire_security_destroy(security);
    return NULL;
}

static bool load(struct wire_security *security, const struct wire_security_spec *spec, struct error *err) {
    security->has_list = spec->allow && *spec->allow;
    if (security->has_list && !(security->allow = strdup(spec->allow))) {
        return error_set(err, ERROR_MEMORY, "out of memory for keys");
    }
    return curve_key_load(spec->secret_key, &security->key, err) && wire_security_reload(security, err);
}

struct wire_security *wire_security_create(const struct wire_security_spec *spec, struct error *err) {
    struct wire_security *security = create_empty(spec->report, err);
    return keep_if(security, security && load(security, spec, err));
}

/** The list of those who have the secret: one key. */
static bool list_own_key(struct wire_security *security, struct error *err) {
    if (!(security->list = calloc(1, sizeof *security->list))) {
        return error_set(err, ERROR_MEMORY, "out of memory for an allow-list");
    }
    struct wire_allowed *row = security->list;
    memcpy(row->key, security->key.public_key, sizeof row->key);
    row->peer = (struct wire_peer){.authenticated = true, .roles = WIRE_TRAINER, .name = "cluster"};
    security->count = 1;
    security->has_list = true;
    return true;
}

struct wire_security *wire_security_create_shared(const char *secret_file,
                                                  void (*report)(const char *event, const struct error *err),
                                                  struct error *err) {
    struct wire_security *security = create_empty(report, err);
    return keep_if(security,
                   security && curve_key_load_shared(secret_file, &security->key, err) && list_own_key(security, err));
}

void wire_security_destroy(struct wire_security *security) {
    if (!security) {
        return;
    }
    pthread_mutex_destroy(&security->lock);
    curve_key_wipe(&security->key);
    free(security->allow);
    free(security->list);
    free(security);
}

const struct curve_key *wire_security_key(const struct wire_security *security) {
    return &security->key;
}

bool wire_security_has_list(const struct wire_security *security) {
    return security->has_list;
}

/** Reads the list anew where its file is another one than the last time. */
static void look(struct wire_security *security) {
    int64_t now_ms = clock_now_ms();
    pthread_mutex_lock(&security->lock);
    bool due = security->allow && now_ms >= security->look_ms;
    if (due) {
        security->look_ms = now_ms + LOOK_MS;
    }
    struct mark last = security->mark;
    pthread_mutex_unlock(&security->lock);
    if (!due) {
        return;
    }
    struct mark now = mark_of(security->allow);
    struct error err = {0};
    if (!mark_equal(&now, &last) && !wire_security_reload(security, &err) && security->report) {
        error_hint(&err, "the list that was read before stays in force");
        security->report("allow_list_not_read", &err);
    }
}

bool wire_security_find(struct wire_security *security, const char *public_key, unsigned roles,
                        struct wire_peer *out) {
    look(security);
    *out = (struct wire_peer){0};
    pthread_mutex_lock(&security->lock);
    const struct wire_allowed *row = row_of(security->list, security->count, public_key);
    bool ok = row && (row->peer.roles & roles);
    if (ok) {
        *out = row->peer;
    }
    pthread_mutex_unlock(&security->lock);
    return ok;
}

void wire_security_refused(struct wire_security *security, const char *what, const char *public_key) {
    int64_t now_ms = clock_now_ms();
    pthread_mutex_lock(&security->lock);
    bool same = strcmp(security->reported, public_key) == 0;
    bool tell = security->report && (!security->reported_ms ||
                                     now_ms - security->reported_ms >= (same ? REPORT_SAME_MS : REPORT_MS));
    security->refusals++;
    if (tell) {
        security->reported_ms = now_ms;
        snprintf(security->reported, sizeof security->reported, "%s", public_key);
    }
    pthread_mutex_unlock(&security->lock);
    if (tell) {
        struct error err = {0};
        error_set(&err, ERROR_PEER, "a %s was refused: key %s is not allowed here", what,
                  *public_key ? public_key : "none");
        security->report("peer_refused", &err);
    }
}

uint64_t wire_security_removals(struct wire_security *security) {
    look(security);
    pthread_mutex_lock(&security->lock);
    uint64_t removals = security->removals;
    pthread_mutex_unlock(&security->lock);
    return removals;
}

uint64_t wire_security_refusals(struct wire_security *security) {
    pthread_mutex_lock(&security->lock);
    uint64_t refusals = security->refusals;
    pthread_mutex_unlock(&security->lock);
    return refusals;
}
