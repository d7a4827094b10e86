#pragma once
#include "common/pool/descriptor.h"
#include "common/pool/message.h"
#include "common/store/partial.h"
#include "common/store/store.h"
#include "common/wire/endpoint.h"
#include "inferd/subscriber.h"

#include <pthread.h>
#include <stdatomic.h>

/*
 * The subscriber's parts: subscriber.c (life, the network thread's loop), subscriber_link.c (sockets,
 * snapshot, events), subscriber_report.c (what a report says), subscriber_fetch.c (transfer),
 * subscriber_reuse.c (chunks that other models have), subscriber_records.c (descriptors of what is here),
 * subscriber_turn.c (turns and the activating thread), subscriber_epoch.c (a publisher must not go back),
 * subscriber_shadow.c (the model that is computed beside the active one).
 */

enum { SUBSCRIBER_STAGED_MAX = 16, SUBSCRIBER_FAILURES = 16, SUBSCRIBER_ENDPOINT_SIZE = 256 };

enum subscriber_socket { SUBSCRIBER_ANNOUNCE, SUBSCRIBER_CONTROL, SUBSCRIBER_BLOBS, SUBSCRIBER_SOCKETS };

/** A pause that doubles with each failure up to last_ms. */
struct backoff {
    int64_t first_ms, last_ms;
    int64_t pause_ms; /**< the present one; 0: nothing failed since the last reset */
    int64_t due_ms;   /**< monotonic */
};

/** A model that could not be fetched or activated: left alone until backoff.due_ms. */
struct failure {
    struct digest digest;
    struct backoff backoff;
    struct error error;
    bool used;
};

/** The connection to the publisher and how far we are in its events. */
struct link {
    struct wire_socket *sockets[SUBSCRIBER_SOCKETS]; /**< NULL while closed */
    bool synced;                                     /**< a snapshot was taken and no gap seen since */
    uint64_t incarnation, number;
    int64_t heard_ms, report_due_ms;
    int64_t behind_ms; /**< since when replies speak of events that did not come; 0: they do not */
    struct wire_socket *watch; /**< of the control socket; NULL while that is closed */
    bool handshake_failed;     /**< the last that was heard of its connection */
    struct error complaint;    /**< what the log was told last of this publisher, and when */
    int64_t complaint_ms;
    struct backoff reopen, snapshot;
};

/** A chunk that is in one of the store's objects. */
struct reuse_entry {
    uint8_t chunk[32]; /**< its digest */
    struct digest object;
    int64_t offset;
    size_t size; /**< 0: it turned out to be damaged */
};

/** Chunks that need not be fetched, since other models have them. Zeroed is none. */
struct reuse {
    struct reuse_entry *entries; /**< owned, sorted by chunk */
    size_t count;
};

/** The one transfer under way. Unused where partial is NULL. */
struct fetch {
    struct descriptor descriptor;
    struct partial *partial;
    struct reuse reuse;
    int64_t requested;   /**< chunks before this one were asked for, or are here */
    int64_t progress_ms; /**< when the last chunk came or was asked for again */
    int64_t stall_ms;    /**< how long to wait before asking again; doubles */
    int bad_in_row;
};

/** One model's statistics while they are packed. */
struct report_stats {
    Thorax__V1__ModelStats message;
    uint32_t buckets[HISTOGRAM_BUCKETS];
    uint64_t counts[HISTOGRAM_BUCKETS];
};

/** What a report points to while it is packed. */
struct report {
    Thorax__V1__MemberReport message;
    struct subscriber_facts facts;
    struct report_stats stats[MODEL_STATS_MAX];
    Thorax__V1__ModelStats *stats_list[MODEL_STATS_MAX];
    ProtobufCBinaryData residents[SUBSCRIBER_RESIDENTS_MAX], staged[SUBSCRIBER_STAGED_MAX + 2];
    char error[POOL_MAX_TEXT_BYTES], reason[POOL_MAX_TEXT_BYTES];
};

enum job_state { JOB_NONE, JOB_READY, JOB_RUNNING, JOB_DONE };
enum job_kind { JOB_ACTIVATE, JOB_LOAD_SHADOW, JOB_END_SHADOW };

/** What the activating thread is to do. */
struct job {
    enum job_state state;
    enum job_kind kind;
    struct digest digest;
    int permille; /**< JOB_LOAD_SHADOW */
    bool ok;
    struct error error;
};

struct subscriber {
    char endpoints[SUBSCRIBER_SOCKETS][SUBSCRIBER_ENDPOINT_SIZE];
    struct wire_security *security; /* NULL: clear text */
    char server_key[CURVE_TEXT_SIZE];
    char member[DESCRIPTOR_NAME_SIZE];
    int64_t max_model_bytes;
    int heartbeat_ms, window_chunks, retry_ms;
    bool (*activate)(void *, const char *, const struct digest *, struct error *);
    bool (*load_shadow)(void *, const char *, const struct digest *, int, struct error *);
    void (*describe)(void *, struct subscriber_facts *);
    bool (*admit)(void *, const struct descriptor *, struct error *);
    void (*drop)(void *, const struct digest *, const struct error *);
    void *context_of_daemon;
    uint64_t incarnation;
    struct store *store; /* thread-safe */
    struct wire_context *context;
    int wake; /* eventfd: a job is done, or stop is set */
    atomic_bool stop;
    pthread_t network, activator;
    bool network_runs, activator_runs;

    pthread_mutex_t lock; /* guards published and job; held for copies only */
    pthread_cond_t job_ready;
    struct subscriber_status published;
    struct job job;

    /* The network thread's own. */
    struct subscriber_status now;
    struct link link;
    struct fetch fetch;
    struct failure failures[SUBSCRIBER_FAILURES];
    struct descriptor target; /* packed is NULL: none */
    bool target_refused;      /* it is not trusted, or cannot run here: target_refusal */
    struct error target_refusal;
    uint8_t registry[16]; /* the publisher's, and how far it was: see subscriber_epoch.c */
    uint64_t registry_number;
    bool publisher_behind;
    struct digest *revoked; /* owned: (revoked_count) by the publisher */
    size_t revoked_count;
    struct descriptor staged[SUBSCRIBER_STAGED_MAX]; /* newest last */
    int staged_count;
    struct descriptor shadow; /* packed is NULL: none */
    int shadow_permille;
    bool shadow_loaded; /* by the daemon: shadow_digest, for so many of a thousand pictures */
    struct digest shadow_digest;
    int loaded_permille;
    int staged_max;
    bool has_refused; /* of models that are no target: the last one that could not be fetched or loaded */
    struct digest refused;
    struct error refusal;
    struct report report;
    bool turn_held;
    uint64_t turn; /* of the job under way */
    int64_t ask_due_ms;
};

/* subscriber.c */
void backoff_fail(struct backoff *backoff, int64_t now_ms);
void backoff_reset(struct backoff *backoff);
/** Notes that a model failed, says so in the log and in the status. */
void subscriber_fail(struct subscriber *subscriber, const struct digest *digest, const struct error *err);
/** Notes for the reports why a model that is no target cannot be used here. Told until it is forgiven or
 * another is refused. */
void subscriber_refuse(struct subscriber *subscriber, const struct digest *digest, const struct error *err);
/** True while a model that failed is to be left alone. */
bool subscriber_blocked(const struct subscriber *subscriber, const struct digest *digest);
void subscriber_forgive(struct subscriber *subscriber, const struct digest *digest);
/** True where digest is what the pool is to run, here too, and is not running here. */
bool subscriber_target_pending(const struct subscriber *subscriber);

/* subscriber_link.c */
/** Opens or gives up the connection, asks for a snapshot, reports: whatever is due. */
void link_tick(struct subscriber *subscriber);
void link_close(struct subscriber *subscriber);
void link_receive_event(struct subscriber *subscriber, const struct wire_message *message);
void link_receive_reply(struct subscriber *subscriber, const struct wire_message *message);
/** Sends request with our report in it. request: initialised, its body set. */
void link_send(struct subscriber *subscriber, Thorax__V1__ControlRequest *request);
void link_send_report(struct subscriber *subscriber);
/** What we know of the publisher's events may be wrong: ask again. */
void link_resync(struct subscriber *subscriber);
/** Milliseconds until link_tick has something to do. */
int64_t link_left_ms(const struct subscriber *subscriber);

/* subscriber_report.c */
/** The report as it is now; borrowed until the next call. */
Thorax__V1__MemberReport *report_fill(struct subscriber *subscriber);

/* subscriber_fetch.c */
void fetch_tick(struct subscriber *subscriber);
void fetch_receive(struct subscriber *subscriber, const struct wire_message *message);
void fetch_close(struct subscriber *subscriber);
/** At most left_ms; 0 where fetch_tick has something to do at once. */
int64_t fetch_left_ms(const struct subscriber *subscriber, int64_t left_ms);
/** The link is new: nothing is on its way any more. */
void fetch_restart(struct subscriber *subscriber);

/* subscriber_epoch.c */
/** Reads how far the publisher was when it was heard of last. */
void epoch_load(struct subscriber *subscriber);
/** Whether the publisher that answered is at least that far; err says that it is not. */
bool epoch_check(struct subscriber *subscriber, const Thorax__V1__ControlReply *reply, struct error *err);
/** It is followed: keeps how far it is. */
void epoch_note(struct subscriber *subscriber, const Thorax__V1__ControlReply *reply);

/* subscriber_admit.c */
/** Reads what was revoked when the publisher was heard of last. */
bool admit_load_revoked(struct subscriber *subscriber, struct error *err);
void admit_take_revoked(struct subscriber *subscriber, const Thorax__V1__Snapshot *snapshot);
/** Has the daemon let go of those residents that may not run here any more, and takes them out of facts. */
void admit_residents(const struct subscriber *subscriber, struct subscriber_facts *facts);
/** Whether the model may be fetched and run here. */
bool admit_check(const struct subscriber *subscriber, const struct descriptor *descriptor, struct error *err);
/** A descriptor that may be; where it may not, that is logged and, as far as it says what it is, reported. */
bool admit_parse(struct subscriber *subscriber, const Thorax__V1__PublishedModel *model,
                 struct descriptor *out);
/** What the daemon says of a model that is in the store, by the descriptor that was kept. Any thread. */
bool admit_recorded(const struct subscriber *subscriber, const struct digest *digest, struct error *err);
/** As admit_check, of a model that is in the store. Before the threads run. */
bool admit_stored(const struct subscriber *subscriber, const struct digest *digest, struct error *err);

/* subscriber_records.c */
/** Keeps the descriptor, with its signatures, of a model whose file is in the store. */
bool record_write(const struct store *store, const struct descriptor *descriptor, struct error *err);
/** Reads it again, with all the checks of one that comes from the network. ERROR_NOT_FOUND. */
bool record_read(const struct store *store, const struct digest *digest, struct descriptor *out,
                 struct error *err);
void record_remove(const struct store *store, const struct digest *digest);

/* subscriber_reuse.c */
/** Notes which chunks the models in the store have. Where it cannot, everything is fetched. */
void reuse_open(struct reuse *reuse, const struct store *store);
void reuse_close(struct reuse *reuse);
/** Where the chunk with that digest and size is; NULL: nowhere. */
struct reuse_entry *reuse_find(const struct reuse *reuse, const uint8_t chunk[32], size_t size);
/** Reads it into data (entry->size bytes). False: it cannot be had there, and is forgotten. */
bool reuse_read(const struct store *store, struct reuse_entry *entry, void *data);

/* subscriber_turn.c */
void *turn_activator(void *subscriber);
void turn_tick(struct subscriber *subscriber);
void turn_receive(struct subscriber *subscriber, const Thorax__V1__Turn *turn);
/** Gives the activating thread a job; there must be none. */
void turn_start_job(struct subscriber *subscriber, const struct job *job);
/** Whether a model is being activated. */
bool turn_activating(struct subscriber *subscriber);
/** Removes models from the store that nobody needs any more. */
void turn_tidy(struct subscriber *subscriber);

/* subscriber_shadow.c */
/** Takes what a snapshot says; NULL: none. */
void shadow_follow(struct subscriber *subscriber, const Thorax__V1__Shadow *shadow);
/** Starts to load or end the shadow, where that is due. The activating thread has nothing to do. */
void shadow_tick(struct subscriber *subscriber);
/** A job of ours is done. */
void shadow_finish(struct subscriber *subscriber, const struct job *job);
