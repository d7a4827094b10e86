#pragma once
#include "common/pool/message.h"
#include "trainerd/publisher_members.h"

/**
 * A rollout: one model (the candidate) takes the place of another (the incumbent) in a pool, step by step as
 * a plan says, judged by what the members report, and goes back by itself where the plan wants that. Plain
 * logic over a clock and a view of the members that the caller hands in: no sockets, no disk. One thread.
 *
 * Nothing here counts until it is saved: after a change of ROLLOUT_SAVE the caller writes rollout_pack's
 * bytes to the disk and only then tells members; where that fails it goes back to the bytes it wrote last
 * (rollout_load). The parts: rollout.c (states and steps), rollout_targets.c (who runs what),
 * rollout_counts.c (what the members' counts add up to in a step), rollout_gates.c (verdicts),
 * rollout_record.c (to and from disk).
 */

enum { ROLLOUT_ROWS_MAX = 2 * MEMBERS_MAX, ROLLOUT_GATES_MAX = 4, ROLLOUT_BY_SIZE = 101 };

/** What the caller has to do after a call. */
enum rollout_change {
    ROLLOUT_SAVE = 1,    /**< save the record */
    ROLLOUT_TARGETS = 2, /**< then tell the members that their targets changed */
    ROLLOUT_PROMOTE = 4, /**< before that: the candidate is stable now */
};

/** A member as the rollout remembers it. */
struct rollout_row {
    char name[DESCRIPTOR_NAME_SIZE];
    uint64_t incarnation;
    bool assigned, shadows;                     /**< told to run the candidate; told to compare it */
    struct member_stats *candidate, *incumbent; /**< owned: as of the last look; NULL: nothing was said */
};

struct rollout_gate {
    const char *name;
    Thorax__V1__GateVerdict verdict;
    double value, low, high, limit; /**< bounds may be infinite */
    uint64_t samples;
};

/** Zeroed: there never was one. */
struct rollout {
    uint64_t id; /**< 0: none */
    struct digest candidate, incumbent;
    bool has_incumbent;
    Thorax__V1__RolloutPlan *plan; /**< owned; its gates may be NULL */
    Thorax__V1__RolloutState state;
    uint32_t step; /**< index into plan->steps */
    char reason[POOL_MAX_TEXT_BYTES + 1], by[ROLLOUT_BY_SIZE];
    int64_t started_ms, step_ms, ended_ms; /**< since 1970 */
    int64_t watched_ms;                    /**< of the step: while it ran and was watched */
    int64_t ready_ms;                      /**< of these: while all that the step wants was there */
    int64_t looked_ms; /**< the caller's clock at the last look; 0: none since it was started or loaded */
    int row_count;
    struct rollout_row *rows[ROLLOUT_ROWS_MAX]; /**< owned */
    struct member_stats totals;                 /**< of the candidate in this step, over all members */
    struct member_stats
        others; /**< of the incumbent in this step, on members not told to run the candidate */
    struct member_stats reference; /**< `others` of the last step that had enough of them */
    int gate_count;
    struct rollout_gate gates[ROLLOUT_GATES_MAX]; /**< of the present step, at the last look */
    char waiting_for[POOL_MAX_TEXT_BYTES + 1];    /**< in words; "": nothing */
};

/** The pool, as the caller sees it now. Borrowed for the call. */
struct rollout_view {
    const struct members *members;
    int64_t now_ms;  /**< of the members' clock */
    int64_t wall_ms; /**< since 1970 */
    bool settled;    /**< members had the time to say that they are there: whoever is silent is gone */
};

struct rollout_spec {
    uint64_t id;
    const struct digest *candidate, *incumbent; /**< incumbent may be NULL: nothing ran before */
    const Thorax__V1__RolloutPlan *plan;        /**< one without pool_plan_fault; copied */
    const char *by;
};

/** Begins. rollout: zeroed or finished; rollout_fini it. To be saved; targets may have to be told at the next
 * tick. */
bool rollout_start(struct rollout *rollout, const struct rollout_spec *spec, const struct rollout_view *view,
                   struct error *err);
/** Takes a zeroed one. */
void rollout_fini(struct rollout *rollout);

/** Looks at the pool and goes on where it can. Returns rollout_change bits. */
unsigned rollout_tick(struct rollout *rollout, const struct rollout_view *view);

/**
 * What a person asks. A pause keeps what members run; going on begins the step anew (its counts and times,
 * not its choice of members); an abort goes back to the incumbent at once. ERROR_STATE where the rollout is
 * not in a state for it. *change: rollout_change bits.
 */
bool rollout_command(struct rollout *rollout, const Thorax__V1__RolloutCommand *command,
                     const struct rollout_view *view, unsigned *change, struct error *err);
/** Ends one that is not over yet where it stands: everybody's target is the incumbent again. */
void rollout_end(struct rollout *rollout, const char *reason, int64_t wall_ms);

/** Runs or is paused: it decides what members run. */
bool rollout_decides(const struct rollout *rollout);
/** Neither done nor rolled back. */
bool rollout_live(const struct rollout *rollout);
/** All members that are told to run or compare the candidate are alive, and as many as the plan wants. */
bool rollout_hears_enough(const struct rollout *rollout, const struct rollout_view *view);
/** What the member is to run while rollout_live; false: nothing. */
bool rollout_target(const struct rollout *rollout, const char *member, struct digest *target);
/** How many of a thousand pictures the member is to compare; 0: none. */
uint32_t rollout_shadow(const struct rollout *rollout, const char *member);
/** Members that are told to run the candidate and alive, that run it, and that are alive. */
void rollout_count(const struct rollout *rollout, const struct rollout_view *view, uint32_t *assigned,
                   uint32_t *running, uint32_t *alive);

/** A RolloutRecord. data is NULL where memory ended. */
struct packed rollout_pack(const struct rollout *rollout);
/** Takes the place of what rollout held. ERROR_FORMAT: not what rollout_pack wrote; rollout is then
 * unchanged. */
bool rollout_load(struct rollout *rollout, const void *data, size_t size, struct error *err);
/** A copy on the heap (pool_free); NULL where memory ended. */
Thorax__V1__RolloutPlan *rollout_copy_plan(const Thorax__V1__RolloutPlan *plan);
