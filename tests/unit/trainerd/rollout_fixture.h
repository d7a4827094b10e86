#pragma once
#include "trainerd/rollout.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* A pool that is only simulated: members that do what a rollout tells them, a clock that the test turns, and
 * a disk that is a buffer. */

enum { SIM_MEMBERS = 12, SIM_HEARTBEAT_MS = 100, SIM_SILENCE_MS = 300, SIM_MODELS = 2 };
enum { OF_CANDIDATE, OF_INCUMBENT };

/** Counts of one model at one member since its process started. */
struct sim_counts {
    uint64_t answered, failed, compared, agreed, shadow_failed;
    double drift_sum, drift_square_sum;
    uint64_t fast, slow; /**< of answered: how many took 1 ms, and sim.slow_us */
};

struct sim_member {
    char name[16];
    bool there, older; /**< older: a program without incarnation and statistics */
    bool cannot_run;   /**< fails when it is told to run the candidate */
    bool cannot_load;  /**< refuses it as a shadow */
    bool cannot_fetch; /**< never has the candidate */
    bool deaf;         /**< does nothing of what it is told */
    uint64_t incarnation;
    bool has_active, has_staged, has_shadow, failed;
    struct digest active, shadow;
    struct sim_counts counts[SIM_MODELS];
};

struct sim {
    struct members members;
    struct rollout rollout;
    struct sim_member all[SIM_MEMBERS];
    int64_t now_ms;
    uint64_t slow_us;
    bool has_stable;
    struct digest stable;
    uint8_t *saved; /* owned: what is on the disk */
    size_t saved_size;
    unsigned changes; /* of all ticks */
    bool unsettled;
    /* Each look, an alive member answers so many pictures by what it runs and compares as many. */
    uint64_t answers, fails, disagrees;
    double drift;
};

extern const struct digest CANDIDATE, INCUMBENT;

int sim_setup(void **state);
int sim_teardown(void **state);
/** So many members, m00, m01, ..., that run the incumbent. */
void sim_join(struct sim *sim, int count);
/** Starts the plan; the incumbent is what is stable. */
void sim_start(struct sim *sim, Thorax__V1__RolloutPlan *plan);
/** One heartbeat: members report, the rollout is ticked, members do what they are told. */
void sim_beat(struct sim *sim);
void sim_beats(struct sim *sim, int count);
/** Until the state or step is reached, 2000 beats at most. */
void sim_until(struct sim *sim, Thorax__V1__RolloutState wanted);
void sim_until_step(struct sim *sim, uint32_t step);
void sim_save(struct sim *sim, unsigned change);
/** The publisher dies and is started again: all is read from what was saved, and no member was heard of yet.
 */
void sim_restart_publisher(struct sim *sim);
/** The member's process is another one: its counts start from zero. */
void sim_restart_member(struct sim_member *member);
struct rollout_view sim_view(const struct sim *sim);
/** Told to run the candidate, whether there or not. */
bool sim_told(const struct sim *sim, const struct sim_member *member);
int sim_count_told(const struct sim *sim);
void sim_command(struct sim *sim, Thorax__V1__RolloutAction action);
const struct rollout_gate *sim_gate(const struct sim *sim, const char *name);

/** A plan and its steps in one place. */
struct sim_plan {
    Thorax__V1__RolloutPlan plan;
    Thorax__V1__RolloutGates gates;
    Thorax__V1__RolloutStep steps[8], *pointers[8];
};
/** An empty one: no gates, rolls back on failure. */
void sim_plan_init(struct sim_plan *plan);
Thorax__V1__RolloutStep *sim_plan_add(struct sim_plan *plan, Thorax__V1__RolloutStepKind kind);
/** stage, shadow (20 comparisons), canary of 2, waves of 50 and 100 %. */
void sim_plan_full(struct sim_plan *plan);
