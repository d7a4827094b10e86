#pragma once
#include "common/base/file.h"
#include "common/base/queue.h"
#include "common/wire/endpoint.h"
#include "trainerd/publisher.h"
#include "trainerd/publisher_members.h"
#include "trainerd/registry.h"
#include "trainerd/rollout.h"

#include "common/store/partial.h"

#include <pthread.h>
#include <stdatomic.h>

/* The publisher's parts: publisher.c (life, thread, commands), publisher_control.c (members),
 * publisher_admin.c, publisher_rollout.c, publisher_upload.c, publisher_blobs.c, publisher_sockets.c. */

enum {
    PUBLISHER_SOCKETS = 3,
    PUBLISHER_UPLOADS = 4,
    PUBLISHER_BLOBS_OPEN = 4,
    PUBLISHER_ENDPOINT_SIZE = 256
};

/** A model that is arriving from a trainctl. Unused where partial is NULL. */
struct publisher_upload {
    struct descriptor descriptor;
    struct partial *partial;
    int64_t heard_ms;
};

/** A model that is open because members fetch it. Unused where descriptor.packed is NULL. */
struct publisher_blob {
    struct descriptor descriptor;
    int file;
    bool *checked; /**< owned: whether a chunk's digest was seen to be right, for each chunk */
    int64_t used_ms;
};

/** After create, all but the queue, wake, stop and what is constant belongs to the thread. */
struct publisher {
    int64_t max_model_bytes;
    enum publisher_activate activate;
    bool registers_only;
    int heartbeat_ms;
    bool (*inspect)(void *, const char *, struct publisher_findings *, struct error *);
    void *inspect_context;
    struct gate_rule gate[GATE_MAX_RULES];
    int gate_count;
    struct signature_key sign_key;
    bool signs;
    struct store *store; /* thread-safe */
    struct wire_context *context;
    struct wire_security *security; /* NULL: clear text */
    bool insecure;
    uint64_t removals; /* from the allow-list, when the announcing socket was opened */
    char bound[PUBLISHER_SOCKETS][PUBLISHER_ENDPOINT_SIZE];
    struct queue *commands; /* struct command, see publisher.c */
    int wake;               /* eventfd: a command waits, or stop is set */
    atomic_bool stop;
    pthread_t thread;
    bool thread_runs;
    _Atomic int64_t turned_ms; /* when the thread last turned; any thread may read it */

    uint64_t incarnation;
    struct wire_socket *sockets[PUBLISHER_SOCKETS]; /* that which announces is NULL while it cannot be opened anew */
    struct registry *registry;
    struct members members;
    struct publisher_upload uploads[PUBLISHER_UPLOADS];
    struct publisher_blob blobs[PUBLISHER_BLOBS_OPEN];
    uint8_t chunk[DESCRIPTOR_MAX_CHUNK_BYTES]; /**< the one that is being sent */
    int64_t heartbeat_due_ms;
    struct rollout rollout;        /* the newest one; publisher_rollout.c */
    struct packed rollout_saved;   /* owned: its record, as it is on disk */
    Thorax__V1__RolloutPlan *plan; /* owned: of what starts by itself; NULL: everywhere at once */
    int64_t rollout_due_ms, rollout_settled_ms, rollout_ticked_ms;
    bool rollout_untold; /* targets changed, and no event has said so yet */
    int64_t denied_ms;   /* when a request was denied and logged */
    uint64_t uploads_accepted, sent_bytes; /**< since the start, see struct publisher_status */
};

/** Adds a model to the registry (or finds it there), makes it current where that is automatic, and announces
 * it. Takes descriptor. */
bool publisher_accept(struct publisher *publisher, struct descriptor *descriptor,
                      const struct publisher_findings *findings, struct error *err);
/** Calls spec.inspect on an object and checks that it agrees with the name and version that are in findings already,
 * either of which may be empty; fills in all. */
bool publisher_inspect(struct publisher *publisher, const struct digest *digest,
                       struct publisher_findings *findings, struct error *err);

/* publisher_sockets.c */
bool publisher_open_sockets(struct publisher *publisher, const struct publisher_spec *spec, struct error *err);
/**
 * Where the allow-list lost somebody, opens the announcing socket anew: whoever subscribed has to show its key again.
 * Every message that arrives is asked for its key, but what is sent to all goes to whoever got in once.
 */
void publisher_follow_list(struct publisher *publisher);

/** One message on the control socket: who asks, what, and the bytes that came with it. */
struct control {
    struct wire_frame route;
    const Thorax__V1__ControlRequest *request;
    const struct wire_frame *data; /**< NULL where there was no second frame */
    struct member *member;         /**< NULL where the request carries no report */
    const struct wire_peer *peer;  /**< who asks, where the socket has keys */
};
/** Answers; fills in what every reply carries. */
void publisher_reply(struct publisher *publisher, const struct control *control, Thorax__V1__ControlReply *reply);
/** Answers that what was asked is done. */
void publisher_reply_done(struct publisher *publisher, const struct control *control, const char *message);
/** What members are to run, or what they may fetch, has changed: they ask for a snapshot each. */
void publisher_announce_targets(struct publisher *publisher);

/* publisher_admin.c: what administrators ask. Each answers, or returns false with the reason to refuse. */
bool publisher_answer_models(struct publisher *publisher, const struct control *control, struct error *err);
bool publisher_answer_approve(struct publisher *publisher, const struct control *control, struct error *err);
bool publisher_answer_revoke(struct publisher *publisher, const struct control *control, struct error *err);
bool publisher_answer_events(struct publisher *publisher, const struct control *control, struct error *err);
/** Fills in a row, which borrows from model. */
void publisher_model_row(Thorax__V1__ModelRow *row, const struct registry_model *model);

/* publisher_rollout.c */
/** Reads what there is of a rollout. */
bool publisher_open_rollout(struct publisher *publisher, const struct publisher_spec *spec, struct error *err);
void publisher_close_rollout(struct publisher *publisher);
/** Goes on with the rollout where that is possible. */
void publisher_tick_rollout(struct publisher *publisher);
/** What the member is to run; false: nothing, or what it runs already. */
bool publisher_target(const struct publisher *publisher, const char *member, struct digest *target);
/** Of how many of a thousand pictures the member is to compute with *shadow too. */
uint32_t publisher_shadow(const struct publisher *publisher, const char *member, struct digest *shadow);
/** A model was published and nobody has to say that it may run: starts its rollout; one that is under way ends. */
bool publisher_start_by_itself(struct publisher *publisher, const struct digest *candidate, struct error *err);
/** Makes a model stable at once and everywhere; a rollout that is under way ends. by: "" by itself. */
bool publisher_roll_back(struct publisher *publisher, const struct digest *target, const char *by, const char *reason,
                         struct error *err);
bool publisher_answer_rollout_start(struct publisher *publisher, const struct control *control, struct error *err);
bool publisher_answer_rollout_command(struct publisher *publisher, const struct control *control, struct error *err);
bool publisher_answer_rollback(struct publisher *publisher, const struct control *control, struct error *err);
bool publisher_answer_rollout_status(struct publisher *publisher, const struct control *control, struct error *err);

/** Answers one message on the control socket. */
void publisher_serve_control(struct publisher *publisher, const struct wire_message *message);
/** Gives the next turn, if it is time. */
void publisher_grant(struct publisher *publisher);
/** Answers one message on the blobs socket. */
void publisher_serve_blob(struct publisher *publisher, const struct wire_message *message);
void publisher_close_blobs(struct publisher *publisher);

/** An upload begins, or goes on; *offset: what is here. *published: nothing more to send. */
bool publisher_upload_begin(struct publisher *publisher, const Thorax__V1__UploadRequest *request,
                            struct digest *digest, int64_t *offset, bool *published, struct error *err);
bool publisher_upload_chunk(struct publisher *publisher, const Thorax__V1__UploadChunk *chunk,
                            const struct wire_frame *data, int64_t *offset, bool *published,
                            struct error *err);
/** Lets go of uploads that went silent; their bytes stay for when they go on. all: of every one. */
void publisher_close_uploads(struct publisher *publisher, bool all);
