#include "inferd/client/dispatch.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum {
    BACKOFF_MAX_DOUBLINGS = 5, /* of the heartbeat towards a dead member */
    BUSY_MIN_MS = 5,
    BUSY_MAX_MS = 10000,
    GARBAGE_FIRST_MS = 100,
    GARBAGE_LAST_MS = 10000,
    ROUND_FIRST_MS = 20, /* pause of a question that every member refused */
    ROUND_LAST_MS = 1000,
    TICKET_SLOT_BITS = 16,
};
static const int64_t NEVER = INT64_MAX;

struct member {
    bool reachable, ready;
    bool heard; /* since the last heartbeat that was sent */
    int misses;
    int64_t ping_ms;       /* when the next heartbeat is due */
    int64_t not_before_ms; /* backed off until then */
    int64_t distrust_ms;   /* length of the next pause after garbage */
    int outstanding, limit;
    uint64_t used; /* turn in which it was asked last */
    int resident_count;
    struct digest resident[DISPATCH_MAX_RESIDENT];
};

struct question {
    uint64_t ticket;                  /* 0: the slot is free */
    struct question *next, *previous; /* in the list of free or of live ones */
    void *owner;
    int64_t deadline_ms, not_before_ms, hedge_ms, pin_until_ms;
    int64_t round_ms;      /* length of the next pause */
    uint64_t asked, tried; /* members where it is outstanding; that refused it in this round */
    int faults;
    bool wants_member, pinned, particular, urgent, hedged;
    struct digest pin;
};

struct dispatch {
    struct member members[DISPATCH_MAX_MEMBERS];
    int member_count, question_count, max_questions, waiting;
    int64_t heartbeat_ms;
    int64_t due_ms; /* no live question has anything due before: deadline, second asking */
    uint64_t serial, turn;
    struct question *slots, *free;
    struct question live; /* head of a ring, oldest (and urgent) first */
};

static uint64_t bit(int member) {
    return UINT64_C(1) << member;
}

static int64_t earlier(int64_t a, int64_t b) {
    return a < b ? a : b;
}

struct dispatch *dispatch_create(const struct dispatch_spec *spec, struct error *err) {
    assert(spec->members >= 1 && spec->members <= DISPATCH_MAX_MEMBERS && spec->heartbeat_ms > 0);
    assert(spec->max_questions >= 1 && spec->max_questions <= 1 << TICKET_SLOT_BITS);
    struct dispatch *dispatch = calloc(1, sizeof *dispatch);
    if (!dispatch || !(dispatch->slots = calloc((size_t)spec->max_questions, sizeof *dispatch->slots))) {
        free(dispatch);
        error_set(err, ERROR_MEMORY, "no memory for %d questions", spec->max_questions);
        return NULL;
    }
    dispatch->member_count = spec->members;
    dispatch->max_questions = spec->max_questions;
    dispatch->heartbeat_ms = spec->heartbeat_ms;
    dispatch->due_ms = NEVER;
    dispatch->serial = spec->first_ticket;
    dispatch->live.next = dispatch->live.previous = &dispatch->live;
    for (int i = spec->max_questions - 1; i >= 0; i--) {
        dispatch->slots[i].next = dispatch->free;
        dispatch->free = &dispatch->slots[i];
    }
    for (int i = 0; i < spec->members; i++) {
        dispatch->members[i].distrust_ms = GARBAGE_FIRST_MS;
        dispatch->members[i].ping_ms = INT64_MIN; /* at once */
    }
    return dispatch;
}

void dispatch_destroy(struct dispatch *dispatch) {
    if (dispatch) {
        free(dispatch->slots);
        free(dispatch);
    }
}

static struct question *find(const struct dispatch *dispatch, uint64_t ticket) {
    uint64_t slot = ticket & ((1 << TICKET_SLOT_BITS) - 1);
    struct question *question = slot < (uint64_t)dispatch->max_questions ? &dispatch->slots[slot] : NULL;
    return ticket && question && question->ticket == ticket ? question : NULL;
}

static void set_wants_member(struct dispatch *dispatch, struct question *question, bool wants) {
    dispatch->waiting += wants - question->wants_member;
    question->wants_member = wants;
}

static void link_before(struct question *question, struct question *place) {
    question->next = place;
    question->previous = place->previous;
    place->previous->next = question;
    place->previous = question;
}

uint64_t dispatch_add(struct dispatch *dispatch, const struct dispatch_question *spec, int64_t now_ms,
                      struct error *err) {
    struct question *question = dispatch->free;
    if (!question) {
        error_set(err, ERROR_BUSY, "%d requests are outstanding already", dispatch->question_count);
        return 0;
    }
    dispatch->free = question->next;
    dispatch->serial = (dispatch->serial + 1) & (UINT64_MAX >> TICKET_SLOT_BITS);
    dispatch->serial += dispatch->serial == 0;
    uint64_t slot = (uint64_t)(question - dispatch->slots);
    *question = (struct question){.ticket = dispatch->serial << TICKET_SLOT_BITS | slot,
                                  .owner = spec->owner,
                                  .deadline_ms = spec->deadline_ms,
                                  .not_before_ms = now_ms,
                                  .hedge_ms = NEVER,
                                  .pin_until_ms = now_ms + (spec->deadline_ms - now_ms) / 2,
                                  .round_ms = ROUND_FIRST_MS,
                                  .particular = spec->particular,
                                  .urgent = spec->urgent};
    if (spec->pinned) {
        question->pinned = true;
        question->pin = *spec->pinned;
    }
    struct question *place = spec->urgent ? dispatch->live.next : &dispatch->live;
    while (place->urgent) {
        place = place->next;
    }
    link_before(question, place);
    dispatch->question_count++;
    dispatch->due_ms = earlier(dispatch->due_ms, question->deadline_ms);
    set_wants_member(dispatch, question, true);
    return question->ticket;
}

/** It is no longer outstanding at that member. */
static void leave_member(struct dispatch *dispatch, struct question *question, int member) {
    if (question->asked & bit(member)) {
        question->asked &= ~bit(member);
        dispatch->members[member].outstanding--;
    }
}

static void drop(struct dispatch *dispatch, struct question *question) {
    for (int i = 0; question->asked && i < dispatch->member_count; i++) {
        leave_member(dispatch, question, i);
    }
    set_wants_member(dispatch, question, false);
    question->previous->next = question->next;
    question->next->previous = question->previous;
    question->ticket = 0;
    question->next = dispatch->free;
    dispatch->free = question;
    dispatch->question_count--;
}

void dispatch_pin(struct dispatch *dispatch, uint64_t ticket, const struct digest *model) {
    struct question *question = find(dispatch, ticket);
    if (question && !question->pinned) {
        question->pinned = true;
        question->pin = *model;
    }
}

bool dispatch_cancel(struct dispatch *dispatch, uint64_t ticket) {
    struct question *question = find(dispatch, ticket);
    if (question) {
        drop(dispatch, question);
    }
    return question != NULL;
}

void *dispatch_owner(const struct dispatch *dispatch, uint64_t ticket) {
    const struct question *question = find(dispatch, ticket);
    return question ? question->owner : NULL;
}

void *dispatch_any(const struct dispatch *dispatch, uint64_t *ticket) {
    const struct question *first = dispatch->live.next;
    *ticket = first->ticket; /* the ring's head has 0 */
    return first->owner;
}

void dispatch_heard(struct dispatch *dispatch, int member) {
    dispatch->members[member].heard = true;
    dispatch->members[member].reachable = true;
    dispatch->members[member].misses = 0;
}

void dispatch_status(struct dispatch *dispatch, int member, const struct dispatch_status *status) {
    struct member *row = &dispatch->members[member];
    dispatch_heard(dispatch, member);
    row->ready = status->ready;
    row->limit = status->limit;
    row->resident_count = status->resident_count;
    memcpy(row->resident, status->resident, sizeof row->resident);
}

void dispatch_reached(struct dispatch *dispatch, int member, int64_t now_ms) {
    dispatch->members[member].misses = 0;
    dispatch->members[member].heard = true; /* the pings before were lost with the connection, not ignored */
    dispatch->members[member].ping_ms = now_ms;
}

/** Whoever was asked there is asked elsewhere; what the member said of itself no longer holds. */
void dispatch_lost(struct dispatch *dispatch, int member, int64_t now_ms) {
    struct member *row = &dispatch->members[member];
    row->reachable = row->ready = false;
    row->resident_count = 0;
    row->not_before_ms = now_ms;
    for (struct question *each = dispatch->live.next; each != &dispatch->live; each = each->next) {
        if (each->asked & bit(member)) {
            leave_member(dispatch, each, member);
            set_wants_member(dispatch, each, true);
        }
    }
}

static bool has_model(const struct member *member, const struct digest *digest) {
    for (int i = 0; i < member->resident_count; i++) {
        if (digest_equal(&member->resident[i], digest)) {
            return true;
        }
    }
    return false;
}

/** Whether a member that is ready, of those that have the model where one is given, could still be asked: at
 * once or after a pause of its own. */
static bool someone_is_left(const struct dispatch *dispatch, const struct question *question,
                            const struct digest *model) {
    for (int i = 0; i < dispatch->member_count; i++) {
        const struct member *member = &dispatch->members[i];
        if (member->ready && !((question->tried | question->asked) & bit(i)) &&
            (!model || has_model(member, model))) {
            return true;
        }
    }
    return false;
}

static bool is_usable(const struct member *member, int64_t now_ms) {
    return member->reachable && member->ready && now_ms >= member->not_before_ms &&
           (member->limit == 0 || member->outstanding < member->limit);
}

/** The usable member with the least outstanding; among equals the one that was asked longest ago. -1: none.
 * Where a member that has the pinned model is left, only those count, for the first half of the question's
 * time. */
static int choose(const struct dispatch *dispatch, const struct question *question, int64_t now_ms) {
    bool only_pinned = question->pinned && now_ms < question->pin_until_ms &&
                       someone_is_left(dispatch, question, &question->pin);
    int best = -1;
    for (int i = 0; i < dispatch->member_count; i++) {
        const struct member *member = &dispatch->members[i];
        if (!is_usable(member, now_ms) || ((question->tried | question->asked) & bit(i)) ||
            (only_pinned && !has_model(member, &question->pin))) {
            continue;
        }
        const struct member *other = best < 0 ? NULL : &dispatch->members[best];
        if (!other || member->outstanding < other->outstanding ||
            (member->outstanding == other->outstanding && member->used < other->used)) {
            best = i;
        }
    }
    return best;
}

/** Everybody refused: after a pause, all may be asked again. */
static void next_round(struct question *question, int64_t now_ms) {
    question->tried = 0;
    question->not_before_ms = now_ms + question->round_ms;
    question->round_ms = earlier(2 * question->round_ms, ROUND_LAST_MS);
}

static void distrust(struct member *member, int64_t now_ms) {
    member->not_before_ms = now_ms + member->distrust_ms;
    member->distrust_ms = earlier(2 * member->distrust_ms, GARBAGE_LAST_MS);
}

static void back_off(struct member *member, int64_t pause_ms, int64_t now_ms) {
    int64_t pause = pause_ms < BUSY_MIN_MS ? BUSY_MIN_MS : earlier(pause_ms, BUSY_MAX_MS);
    member->not_before_ms = now_ms + pause;
}

/** Whether a refusal is passed on: nobody is left who could do better, and waiting would not help. */
static bool is_last_word(const struct dispatch *dispatch, struct question *question,
                         enum dispatch_reply_kind kind) {
    bool left = question->asked || someone_is_left(dispatch, question, NULL);
    switch (kind) {
    case DISPATCH_FAULT:
        return ++question->faults > DISPATCH_MAX_FAULTS || !left;
    case DISPATCH_NOT_READY:
        return question->particular && !left;
    default:
        return false;
    }
}

/** What a refusal says of its member. */
static void judge(struct member *row, const struct question *question, enum dispatch_reply_kind kind,
                  int64_t retry_after_ms, int64_t now_ms) {
    if (kind == DISPATCH_BUSY) {
        back_off(row, retry_after_ms, now_ms);
    } else if (kind == DISPATCH_GARBAGE) {
        distrust(row, now_ms);
    } else if (kind == DISPATCH_NOT_READY) {
        row->ready = row->ready && question->particular;
        row->ping_ms = now_ms; /* to learn why */
    }
}

static enum dispatch_verdict refused(struct dispatch *dispatch, struct question *question, int member,
                                     enum dispatch_reply_kind kind) {
    question->tried |= kind == DISPATCH_BUSY ? 0 : bit(member); /* the pause is the member's */
    if (is_last_word(dispatch, question, kind)) {
        drop(dispatch, question);
        return DISPATCH_DELIVER;
    }
    if (question->asked == 0) {
        set_wants_member(dispatch, question, true);
    }
    return DISPATCH_AGAIN;
}

enum dispatch_verdict dispatch_reply(struct dispatch *dispatch, int member, uint64_t ticket,
                                     enum dispatch_reply_kind kind, int64_t retry_after_ms, int64_t now_ms) {
    struct member *row = &dispatch->members[member];
    struct question *question = find(dispatch, ticket);
    if (!question) {
        return DISPATCH_STALE;
    }
    leave_member(dispatch, question, member);
    if (kind == DISPATCH_CHANGED && now_ms < question->pin_until_ms) {
        question->tried |= bit(member);
        row->ping_ms = now_ms; /* what we knew of its models is out of date */
        if (someone_is_left(dispatch, question, &question->pin)) {
            set_wants_member(dispatch, question, true);
            return DISPATCH_AGAIN;
        }
    }
    if (kind == DISPATCH_FINAL || kind == DISPATCH_CHANGED) {
        row->distrust_ms = GARBAGE_FIRST_MS;
        drop(dispatch, question);
        return DISPATCH_DELIVER;
    }
    judge(row, question, kind, retry_after_ms, now_ms);
    return refused(dispatch, question, member, kind);
}

/** A heartbeat that is due: counts the one before as missed where nothing came since, and learns from that.
 */
static bool next_ping(struct dispatch *dispatch, int64_t now_ms, struct dispatch_action *out) {
    for (int i = 0; i < dispatch->member_count; i++) {
        struct member *row = &dispatch->members[i];
        if (now_ms < row->ping_ms) {
            continue;
        }
        bool first = row->ping_ms == INT64_MIN;
        row->misses = row->heard || first ? 0 : row->misses + 1;
        row->heard = false;
        int doublings = row->misses < DISPATCH_LIVENESS ? 0 : row->misses - DISPATCH_LIVENESS;
        doublings = doublings < BACKOFF_MAX_DOUBLINGS ? doublings : BACKOFF_MAX_DOUBLINGS;
        row->ping_ms = now_ms + (dispatch->heartbeat_ms << doublings);
        bool died = row->reachable && row->misses >= DISPATCH_LIVENESS;
        if (died) {
            dispatch_lost(dispatch, i, now_ms);
            row->ping_ms = now_ms; /* over the new connection */
            row->heard = true;
        }
        *out = (struct dispatch_action){.kind = died ? DISPATCH_DIED : DISPATCH_PING, .member = i};
        return true;
    }
    return false;
}

/** Deadlines, and questions that have waited for half of their time at one member: a second one is asked as
 * well. */
static bool next_due(struct dispatch *dispatch, int64_t now_ms, struct dispatch_action *out) {
    if (now_ms < dispatch->due_ms) {
        return false;
    }
    dispatch->due_ms = NEVER;
    for (struct question *each = dispatch->live.next; each != &dispatch->live; each = each->next) {
        if (now_ms >= each->deadline_ms) {
            *out = (struct dispatch_action){
                .kind = DISPATCH_EXPIRE, .ticket = each->ticket, .owner = each->owner};
            drop(dispatch, each);
            dispatch->due_ms = now_ms; /* there may be more */
            return true;
        }
        if (now_ms >= each->hedge_ms) {
            each->hedge_ms = NEVER;
            set_wants_member(dispatch, each, true);
        }
        dispatch->due_ms = earlier(dispatch->due_ms, earlier(each->deadline_ms, each->hedge_ms));
    }
    return false;
}

static void ask(struct dispatch *dispatch, struct question *question, int member, int64_t now_ms) {
    set_wants_member(dispatch, question, false);
    question->asked |= bit(member);
    dispatch->members[member].outstanding++;
    dispatch->members[member].used = ++dispatch->turn;
    if (!question->hedged) {
        question->hedged = true;
        question->hedge_ms = now_ms + (question->deadline_ms - now_ms) / 2;
        dispatch->due_ms = earlier(dispatch->due_ms, question->hedge_ms);
    }
}

static bool next_ask(struct dispatch *dispatch, int64_t now_ms, struct dispatch_action *out) {
    for (struct question *each = dispatch->live.next; dispatch->waiting && each != &dispatch->live;
         each = each->next) {
        if (!each->wants_member || now_ms < each->not_before_ms) {
            continue;
        }
        int member = choose(dispatch, each, now_ms);
        if (member >= 0) {
            ask(dispatch, each, member, now_ms);
            *out = (struct dispatch_action){.kind = DISPATCH_ASK,
                                            .member = member,
                                            .ticket = each->ticket,
                                            .owner = each->owner,
                                            .timeout_ms = each->deadline_ms - now_ms};
            return true;
        }
        if (each->tried && !each->asked && !someone_is_left(dispatch, each, NULL)) {
            next_round(each, now_ms);
        }
    }
    return false;
}

bool dispatch_next(struct dispatch *dispatch, int64_t now_ms, struct dispatch_action *out) {
    return next_ping(dispatch, now_ms, out) || next_due(dispatch, now_ms, out) ||
           next_ask(dispatch, now_ms, out);
}

int64_t dispatch_wait_ms(const struct dispatch *dispatch, int64_t now_ms) {
    int64_t until = dispatch->due_ms;
    for (int i = 0; i < dispatch->member_count; i++) {
        const struct member *row = &dispatch->members[i];
        until = earlier(until, row->ping_ms);
        if (dispatch->waiting && row->not_before_ms > now_ms) {
            until = earlier(until, row->not_before_ms);
        }
    }
    for (const struct question *each = dispatch->live.next; dispatch->waiting && each != &dispatch->live;
         each = each->next) {
        if (each->wants_member && each->not_before_ms > now_ms) {
            until = earlier(until, each->not_before_ms);
        }
        if (each->wants_member && each->pinned && each->pin_until_ms > now_ms) {
            until = earlier(until, each->pin_until_ms);
        }
    }
    return until <= now_ms ? 0 : until - now_ms;
}

struct dispatch_member_view dispatch_view(const struct dispatch *dispatch, int member) {
    const struct member *row = &dispatch->members[member];
    return (struct dispatch_member_view){.reachable = row->reachable,
                                         .ready = row->reachable && row->ready,
                                         .outstanding = row->outstanding,
                                         .resident_count = row->resident_count,
                                         .resident = row->resident};
}

int dispatch_ready_count(const struct dispatch *dispatch) {
    int count = 0;
    for (int i = 0; i < dispatch->member_count; i++) {
        count += dispatch->members[i].reachable && dispatch->members[i].ready;
    }
    return count;
}

int dispatch_count(const struct dispatch *dispatch) {
    return dispatch->question_count;
}
