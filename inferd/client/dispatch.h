#pragma once
#include "common/base/digest.h"

/**
 * Which member of a pool is asked next, and when a question is asked again: the rules alone, which libthorax
 * and the router share. No sockets, no threads; time is what the caller hands in (monotonic milliseconds,
 * never going back).
 *
 * The caller reports what happens (dispatch_heard, dispatch_reply, ...), then takes what is to be done from
 * dispatch_next until there is nothing, then waits for dispatch_wait_ms or an event. Questions are
 * idempotent, so one may be asked twice; its first answer wins.
 *
 * Source: ZeroMQ guide, chapter 4 (Paranoid Pirate: heartbeats where any traffic counts, liveness 3, doubling
 * back-off).
 */
struct dispatch;

enum {
    DISPATCH_MAX_MEMBERS = 64,  /**< members are bits of a word */
    DISPATCH_MAX_RESIDENT = 16, /**< models of a member that are known here */
    DISPATCH_LIVENESS = 3,      /**< unanswered heartbeats after which a member is dead */
    DISPATCH_MAX_FAULTS = 3,    /**< members whose own fault is not passed on; a fourth is believed */
};

struct dispatch_spec {
    int members;           /**< 1 to DISPATCH_MAX_MEMBERS, numbered from 0 */
    int max_questions;     /**< at once, 1 to 65536; more are ERROR_BUSY */
    int64_t heartbeat_ms;  /**< a member is asked for its status so often, > 0 */
    uint64_t first_ticket; /**< where tickets start: random, so that no earlier process' replies match */
};

/** Returns owned. */
struct dispatch *dispatch_create(const struct dispatch_spec *spec, struct error *err);
/** Takes NULL. Owners of questions are the caller's. */
void dispatch_destroy(struct dispatch *dispatch);

/** What is asked, as far as it matters here. */
struct dispatch_question {
    int64_t deadline_ms;
    const struct digest *pinned; /**< copied: members that have this model are preferred; NULL: any will do */
    bool particular; /**< names a model: NOT_READY may be about that model, not about the member */
    bool urgent;     /**< goes before all that wait for a member */
    void *owner;     /**< the caller's */
};

/** Takes a question in. Its ticket, never 0; 0 with ERROR_BUSY where too many are here already. */
uint64_t dispatch_add(struct dispatch *dispatch, const struct dispatch_question *question, int64_t now_ms,
                      struct error *err);
/** The question belongs to a model from now on, unless it does already. */
void dispatch_pin(struct dispatch *dispatch, uint64_t ticket, const struct digest *model);
/** Forgets a question. False: it is not here (any more). */
bool dispatch_cancel(struct dispatch *dispatch, uint64_t ticket);
/** The owner of a question, NULL where it is not here (any more). */
void *dispatch_owner(const struct dispatch *dispatch, uint64_t ticket);
/** The owner of any question that is left; NULL: none. For clearing up. */
void *dispatch_any(const struct dispatch *dispatch, uint64_t *ticket);

/** What a member said of itself. */
struct dispatch_status {
    bool ready;
    int limit; /**< questions that it takes at once; 0: unknown */
    int resident_count;
    struct digest resident[DISPATCH_MAX_RESIDENT]; /**< models that it answers with at once */
};

/** A well-formed message came from the member. */
void dispatch_heard(struct dispatch *dispatch, int member);
/** Its status came; counts as heard. */
void dispatch_status(struct dispatch *dispatch, int member, const struct dispatch_status *status);
/** It can be reached (again): it is asked for its status at once. */
void dispatch_reached(struct dispatch *dispatch, int member, int64_t now_ms);
/** It cannot be reached any more: what is outstanding there is asked elsewhere at once. */
void dispatch_lost(struct dispatch *dispatch, int member, int64_t now_ms);

enum dispatch_reply_kind {
    DISPATCH_FINAL,     /**< an answer, or a refusal that holds everywhere */
    DISPATCH_CHANGED,   /**< an answer, but not by the pinned model */
    DISPATCH_BUSY,      /**< later, or elsewhere */
    DISPATCH_NOT_READY, /**< elsewhere */
    DISPATCH_FAULT,     /**< the member's own fault, or it ran out of time: elsewhere */
    DISPATCH_GARBAGE,   /**< failed its checks: not to be believed, and the member is let alone for a while */
};

enum dispatch_verdict {
    DISPATCH_DELIVER, /**< this is the answer; the question is gone from here */
    DISPATCH_AGAIN,   /**< drop it: another member is (being) asked */
    DISPATCH_STALE,   /**< drop it: the question is answered, expired, or none of ours */
};

/** A reply to a question came from a member. retry_after_ms: of BUSY. */
enum dispatch_verdict dispatch_reply(struct dispatch *dispatch, int member, uint64_t ticket,
                                     enum dispatch_reply_kind kind, int64_t retry_after_ms, int64_t now_ms);

enum dispatch_action_kind {
    DISPATCH_ASK,    /**< send the question to the member */
    DISPATCH_PING,   /**< send it a status request */
    DISPATCH_DIED,   /**< it stopped answering: open its connection anew, so that nothing old is delivered */
    DISPATCH_EXPIRE, /**< nobody answered in time; the question is gone from here */
};

struct dispatch_action {
    enum dispatch_action_kind kind;
    int member;         /**< ASK, PING, DIED */
    uint64_t ticket;    /**< ASK, EXPIRE */
    void *owner;        /**< ASK, EXPIRE */
    int64_t timeout_ms; /**< ASK: the time that is left, >= 1 */
};

/** The next thing to do now; false where there is none. */
bool dispatch_next(struct dispatch *dispatch, int64_t now_ms, struct dispatch_action *out);
/** How long dispatch_next will have nothing to do unless something happens; at least 0. */
int64_t dispatch_wait_ms(const struct dispatch *dispatch, int64_t now_ms);

/** A member as seen from here. */
struct dispatch_member_view {
    bool reachable;  /**< answers heartbeats */
    bool ready;      /**< and takes questions */
    int outstanding; /**< of ours */
    int resident_count;
    const struct digest *resident; /**< borrowed until the next call that changes anything */
};
struct dispatch_member_view dispatch_view(const struct dispatch *dispatch, int member);
/** Members that are reachable and take questions. */
int dispatch_ready_count(const struct dispatch *dispatch);
/** Questions that are here. */
int dispatch_count(const struct dispatch *dispatch);
