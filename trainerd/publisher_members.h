#pragma once
#include "common/base/digest.h"
#include "common/metrics/histogram.h"
#include "common/pool/descriptor.h"
#include "common/pool/message.h"
#include <stddef.h>
#include <stdint.h>

/**
 * Who is in the pool, and whose turn it is to activate: never more than one member's at a time. Plain logic
 * over a clock that the caller hands in (monotonic milliseconds); no sockets. One thread.
 */

enum { MEMBERS_MAX = 256, MEMBER_ROUTE_BYTES = 255, MEMBER_DIGESTS_MAX = 32, MEMBER_STATS_MAX = 8 };

/** ModelStats of proto/pool.proto, as the member's newest report has them: since its process started. */
struct member_stats {
    struct digest digest;
    uint64_t answered, failed;
    uint64_t compared, agreed, shadow_failed;
    double drift_sum, drift_square_sum;
    struct histogram latency; /**< of answered */
};

/** Digests that a report lists. */
struct member_digests {
    int count;
    struct digest digests[MEMBER_DIGESTS_MAX];
};

struct member {
    char name[DESCRIPTOR_NAME_SIZE];
    uint8_t route[MEMBER_ROUTE_BYTES]; /**< its address on the control socket */
    size_t route_size;
    int64_t heard_ms;
    Thorax__V1__MemberState state;
    bool has_active, has_target, asks;
    struct digest active, target, asked; /**< asked: what it wants a turn for, while asks is set */
    int64_t asked_ms;
    int64_t activating_ms; /**< since when its reports say ACTIVATING; 0: they do not */
    uint64_t fetched_bytes;
    char error[POOL_MAX_TEXT_BYTES + 1], software[65];
    uint64_t incarnation; /**< of the member's process: when it changes, the counts in stats began anew */
    struct member_digests residents, staged; /**< see MemberReport */
    bool has_shadow, has_refused;
    struct digest shadow, refused;
    char refused_reason[POOL_MAX_TEXT_BYTES + 1];
    int stats_count;
    struct member_stats *stats; /**< owned by the member, (stats_count): valid until its next report */
};

struct members_spec {
    int64_t silence_ms;            /**< a member that says nothing for so long is gone */
    int64_t activation_timeout_ms; /**< a turn lasts no longer */
    int64_t quiet_until_ms; /**< no turns before: after a restart members first get to say that they are
                               activating */
};

struct members {
    struct members_spec spec;
    int count;
    struct member *rows[MEMBERS_MAX]; /**< owned */
    uint64_t last_turn;
    uint64_t turn; /**< in progress; 0: nobody's */
    char holder[DESCRIPTOR_NAME_SIZE];
    struct digest turn_digest;
    int64_t turn_ms; /**< when it began */
};

void members_init(struct members *members, const struct members_spec *spec);
void members_fini(struct members *members);

/** Notes a report that came by route (at most MEMBER_ROUTE_BYTES). Returns borrowed; NULL with ERROR_BUSY:
 * too many members. */
struct member *members_hear(struct members *members, const Thorax__V1__MemberReport *report,
                            const void *route, size_t route_size, int64_t now_ms, struct error *err);
/** What the member says of the model; NULL: nothing. */
const struct member_stats *members_stats(const struct member *member, const struct digest *model);
/** Whether the list holds the digest. */
bool members_lists(const struct member_digests *list, const struct digest *digest);
/** The member wants a turn. Asking again changes nothing but the digest. */
void members_ask(struct members *members, struct member *member, const struct digest *digest, int64_t now_ms);
/** The member gives its turn back. An old turn's outcome is ignored. */
void members_give_back(struct members *members, const struct member *member, uint64_t turn);
/** Takes back the turn of a member that is gone or too slow, and forgets members gone for long. Returns the
 * turn taken, or 0. */
uint64_t members_expire(struct members *members, int64_t now_ms);
/** What a member is to run; false: nothing. */
typedef bool (*members_target)(void *context, const struct member *member, struct digest *target);
/** Begins the next turn, if it is time for one: of the members that ask for what they are to run, whoever has asked
 * longest. Returns the member to tell, or NULL. */
struct member *members_next(struct members *members, members_target target, void *context, int64_t now_ms);
/** True where the turn in progress is this member's and for this digest: it may be told again. */
bool members_holds(const struct members *members, const struct member *member, const struct digest *digest);
bool members_alive(const struct members *members, const struct member *member, int64_t now_ms);
