#include "common/base/clock.h"
#include "common/base/log.h"
#include "trainerd/publisher_internal.h"
#include "trainerd/rollout.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A rollout (rollout.h) in the publisher: its clock, its disk, and who hears of it. The order is always the
 * registry first, then the members. */

enum { LOOKS_PER_HEARTBEAT = 4, RETRY_MS = 1000, PATIENCE_SILENCES = 20 };

/** After a start or a standstill members first connect again: canaries get longer for it than the others,
 * since they would be replaced, and so do all where fewer than the plan wants would pause it. */
static struct rollout_view view_of(const struct publisher *publisher) {
    int64_t now_ms = clock_now_ms(), over_ms = now_ms - publisher->rollout_settled_ms;
    struct rollout_view view = {.members = &publisher->members, .now_ms = now_ms, .wall_ms = clock_wall_ms()};
    view.settled = over_ms >= PATIENCE_SILENCES * publisher->members.spec.silence_ms ||
                   (over_ms >= 0 && rollout_hears_enough(&publisher->rollout, &view));
    return view;
}

/* ---- the record ---- */

static void forget_saved(struct publisher *publisher) {
    free(publisher->rollout_saved.data);
    publisher->rollout_saved = (struct packed){0};
}

/** What could not be saved has not happened. */
static void go_back_to_saved(struct publisher *publisher) {
    const struct packed *saved = &publisher->rollout_saved;
    if (!saved->data || !rollout_load(&publisher->rollout, saved->data, saved->size, NULL))
        rollout_fini(&publisher->rollout);
}

static bool save(struct publisher *publisher, struct error *err) {
    struct packed packed = rollout_pack(&publisher->rollout);
    Thorax__V1__RolloutRecord *record =
        packed.data ? pool_unpack_rollout(packed.data, packed.size, err) : NULL;
    bool ok = record && registry_save_rollout(publisher->registry, record, err);
    if (!packed.data)
        error_set(err, ERROR_MEMORY, "out of memory for a rollout's record");
    pool_free(record);
    if (!ok) {
        free(packed.data);
        return false;
    }
    forget_saved(publisher);
    publisher->rollout_saved = packed;
    return true;
}

static bool load(struct publisher *publisher, struct error *err) {
    struct error none = {0};
    Thorax__V1__RolloutRecord *record = registry_newest_rollout(publisher->registry, &none);
    if (!record) {
        if (none.code != ERROR_NOT_FOUND && err)
            *err = none;
        return none.code == ERROR_NOT_FOUND;
    }
    struct packed packed = pool_pack(&record->base);
    pool_free(record);
    if (!packed.data)
        return error_set(err, ERROR_MEMORY, "out of memory for a rollout's record");
    publisher->rollout_saved = packed;
    return rollout_load(&publisher->rollout, packed.data, packed.size, err);
}

bool publisher_open_rollout(struct publisher *publisher, const struct publisher_spec *spec,
                            struct error *err) {
    if (spec->plan && !(publisher->plan = rollout_copy_plan(spec->plan)))
        return error_set(err, ERROR_MEMORY, "out of memory for a plan");
    if (!load(publisher, err))
        return false;
    struct rollout *rollout = &publisher->rollout;
    if (rollout_live(rollout) && !registry_find(publisher->registry, &rollout->candidate)) {
        rollout_end(rollout, "the model is no longer in the store", clock_wall_ms());
        if (!save(publisher, err))
            return false;
    }
    /* A start that a crash cut off between the alias and the record. */
    return rollout_decides(rollout) || registry_set_candidate(publisher->registry, NULL, err);
}

void publisher_close_rollout(struct publisher *publisher) {
    rollout_fini(&publisher->rollout);
    forget_saved(publisher);
    pool_free(publisher->plan);
}

/* ---- after a change ---- */

/** One row a state: what the registry and the log call coming into it. */
static const struct {
    const char *event;
    enum log_level level;
} ARRIVALS[] = {
    [THORAX__V1__ROLLOUT_STATE__ROLLOUT_RUNNING] = {"rollout_running", LOG_INFO},
    [THORAX__V1__ROLLOUT_STATE__ROLLOUT_PAUSED] = {"rollout_paused", LOG_WARNING},
    [THORAX__V1__ROLLOUT_STATE__ROLLOUT_DONE] = {"rollout_done", LOG_INFO},
    [THORAX__V1__ROLLOUT_STATE__ROLLOUT_ROLLING_BACK] = {"rolling_back", LOG_WARNING},
    [THORAX__V1__ROLLOUT_STATE__ROLLOUT_ROLLED_BACK] = {"rolled_back", LOG_WARNING},
};

/** By whom: a person, or "" where it happened by itself. */
static void note(struct publisher *publisher, const char *event, enum log_level level, const char *by) {
    const struct rollout *rollout = &publisher->rollout;
    char hex[DIGEST_HEX_SIZE], who[ROLLOUT_BY_SIZE], detail[POOL_MAX_TEXT_BYTES + 1];
    struct error err = {0};
    snprintf(detail, sizeof detail, "rollout %llu, step %u of %zu%s%.440s", (unsigned long long)rollout->id,
             rollout->step + 1, rollout->plan->n_steps, rollout->reason[0] ? ": " : "", rollout->reason);
    log_event(level, event, "digest=%.12s rollout=%llu step=%u by=\"%s\" reason=\"%s\"",
              digest_hex(&rollout->candidate, hex), (unsigned long long)rollout->id, rollout->step + 1,
              pool_text(who, sizeof who, by), rollout->reason);
    if (!registry_add_event(publisher->registry, event, &rollout->candidate, by, detail, &err))
        log_error("event_not_recorded", &err);
}

/** What the rollout was before a change. */
struct moment {
    Thorax__V1__RolloutState state;
    uint32_t step;
};

static struct moment moment_of(const struct publisher *publisher) {
    return (struct moment){publisher->rollout.state, publisher->rollout.step};
}

/** Tells the members; a number that cannot be written now is tried again with the next look. */
static void tell(struct publisher *publisher) {
    struct error err = {0};
    publisher->rollout_untold = !registry_next_number(publisher->registry, &err);
    if (publisher->rollout_untold)
        log_error("targets_not_announced", &err);
    else
        publisher_announce_targets(publisher);
}

/** Makes a change of the rollout true: on disk, then in the log, then for the members. */
static bool settle(struct publisher *publisher, unsigned change, struct moment before, const char *by,
                   struct error *err) {
    struct rollout *rollout = &publisher->rollout;
    struct digest candidate = rollout->candidate;
    bool ok =
        !(change & ROLLOUT_PROMOTE) || registry_set_stable(publisher->registry, &candidate, rollout->by, err);
    ok = ok && (!(change & ROLLOUT_SAVE) || save(publisher, err));
    if (!ok) {
        go_back_to_saved(publisher);
        return false;
    }
    if (rollout->state != before.state)
        note(publisher, ARRIVALS[rollout->state].event, ARRIVALS[rollout->state].level, by);
    else if (rollout->step != before.step)
        note(publisher, "rollout_step", LOG_INFO, by);
    if (!rollout_decides(rollout) && registry_candidate(publisher->registry))
        registry_set_candidate(publisher->registry, NULL, NULL); /* the next start does it too */
    if (change & ROLLOUT_PROMOTE)
        publisher_announce_targets(publisher); /* what is stable has its own number */
    else if (change & ROLLOUT_TARGETS)
        tell(publisher);
    return true;
}

/** Where this thread itself stood still (a slow disk, a machine that slept) it is no wonder that nobody was
 * heard. */
static void forgive_silence(struct publisher *publisher, int64_t now_ms) {
    int64_t silence_ms = publisher->members.spec.silence_ms;
    if (publisher->rollout_ticked_ms && now_ms - publisher->rollout_ticked_ms > silence_ms)
        publisher->rollout_settled_ms = now_ms + silence_ms;
    publisher->rollout_ticked_ms = now_ms;
}

void publisher_tick_rollout(struct publisher *publisher) {
    int64_t now_ms = clock_now_ms();
    struct error err = {0};
    forgive_silence(publisher, now_ms);
    if (now_ms < publisher->rollout_due_ms || registry_held(publisher->registry)[0])
        return;
    publisher->rollout_due_ms = now_ms + publisher->heartbeat_ms / LOOKS_PER_HEARTBEAT;
    if (publisher->rollout_untold)
        tell(publisher);
    if (!rollout_live(&publisher->rollout))
        return;
    struct rollout_view view = view_of(publisher);
    struct moment before = moment_of(publisher);
    unsigned change = rollout_tick(&publisher->rollout, &view);
    if (change && !settle(publisher, change, before, "", &err)) {
        log_error("rollout_not_saved", &err); /* and so it stands where it stood */
        publisher->rollout_due_ms = now_ms + RETRY_MS;
    }
}

/* ---- who runs what ---- */

bool publisher_target(const struct publisher *publisher, const char *member, struct digest *target) {
    const struct registry_model *stable = registry_stable(publisher->registry);
    if (registry_held(publisher->registry)[0])
        return false;
    if (rollout_decides(&publisher->rollout))
        return rollout_target(&publisher->rollout, member, target);
    if (stable)
        *target = stable->descriptor.digest;
    return stable;
}

uint32_t publisher_shadow(const struct publisher *publisher, const char *member, struct digest *shadow) {
    *shadow = publisher->rollout.candidate;
    return registry_held(publisher->registry)[0] ? 0 : rollout_shadow(&publisher->rollout, member);
}

/* ---- starting ---- */

static bool begin(struct publisher *publisher, const struct digest *candidate,
                  const Thorax__V1__RolloutPlan *plan, const char *by, struct error *err) {
    const struct registry_model *stable = registry_stable(publisher->registry);
    struct rollout *rollout = &publisher->rollout;
    struct rollout_view view = view_of(publisher);
    struct rollout_spec spec = {.id = rollout->id + 1,
                                .candidate = candidate,
                                .incumbent = stable ? &stable->descriptor.digest : NULL,
                                .plan = plan,
                                .by = by};
    if (!registry_set_candidate(publisher->registry, candidate, err))
        return false;
    rollout_fini(rollout);
    bool ok = rollout_start(rollout, &spec, &view, err) && save(publisher, err);
    if (!ok) {
        go_back_to_saved(publisher);
        registry_set_candidate(publisher->registry, NULL, NULL);
        return false;
    }
    note(publisher, "rollout_started", LOG_INFO, by);
    tell(publisher);
    publisher->rollout_due_ms = 0;
    return true;
}

/** Ends one that is under way; members hear of what comes next. */
static bool end_present(struct publisher *publisher, const char *reason, const char *by, struct error *err) {
    if (!rollout_live(&publisher->rollout))
        return true;
    struct moment before = moment_of(publisher);
    rollout_end(&publisher->rollout, reason, clock_wall_ms());
    return settle(publisher, ROLLOUT_SAVE, before, by, err);
}

/** Everywhere at once, one member after the other. */
static bool begin_direct(struct publisher *publisher, const struct digest *candidate, struct error *err) {
    Thorax__V1__RolloutPlan plan;
    Thorax__V1__RolloutStep step, *steps = &step;
    thorax__v1__rollout_plan__init(&plan);
    thorax__v1__rollout_step__init(&step);
    step.kind = THORAX__V1__ROLLOUT_STEP_KIND__STEP_WAVE;
    step.percent = 100;
    plan.name = (char *)"direct";
    plan.steps = &steps;
    plan.n_steps = 1;
    plan.on_failure = THORAX__V1__ROLLOUT_REACTION__REACTION_PAUSE;
    return begin(publisher, candidate, &plan, "", err);
}

bool publisher_start_by_itself(struct publisher *publisher, const struct digest *candidate,
                               struct error *err) {
    const struct registry_model *model = registry_find(publisher->registry, candidate);
    const struct rollout *rollout = &publisher->rollout;
    char reason[POOL_MAX_TEXT_BYTES];
    if (!model || model->gate[0] || model->state == THORAX__V1__MODEL_STATE__MODEL_REGISTERED ||
        registry_held(publisher->registry)[0])
        return true; /* it waits for a person */
    if (rollout_decides(rollout) && digest_equal(&rollout->candidate, candidate))
        return true;
    bool ends = rollout_live(rollout);
    snprintf(reason, sizeof reason, "superseded by %s:%s", model->descriptor.name, model->descriptor.version);
    if (!end_present(publisher, reason, "", err))
        return false;
    if (model->state == THORAX__V1__MODEL_STATE__MODEL_CURRENT) {
        if (ends)
            tell(publisher);
        return true;
    }
    return publisher->plan ? begin(publisher, candidate, publisher->plan, "", err)
                           : begin_direct(publisher, candidate, err);
}

/** Nobody but a person lets a model run that nothing speaks for. */
static bool may_run(const struct publisher *publisher, const struct registry_model *model,
                    struct error *err) {
    const char *name = model->descriptor.name, *version = model->descriptor.version;
    if (model->state == THORAX__V1__MODEL_STATE__MODEL_REVOKED)
        return error_set(err, ERROR_STATE, "%s:%s was revoked", name, version);
    if (model->gate[0])
        return error_set(err, ERROR_STATE, "%s:%s was refused when it was published: %.300s", name, version,
                         model->gate);
    if (publisher->activate == PUBLISHER_ACTIVATE_AUTO || model->approved_by[0] || model->activated_ms)
        return true;
    error_set(err, ERROR_STATE, "%s:%s is not approved", name, version);
    error_hint(err, "trainctl approve %s:%s --by NAME", name, version);
    return false;
}

static bool may_start(const struct publisher *publisher, const struct registry_model *model,
                      struct error *err) {
    const struct rollout *rollout = &publisher->rollout;
    if (registry_held(publisher->registry)[0])
        return error_set(err, ERROR_STATE,
                         "nothing is activated at present: %.300s; trainctl rollout resume lifts it",
                         registry_held(publisher->registry));
    if (rollout_decides(rollout))
        return error_set(err, ERROR_STATE, "rollout %llu is under way; abort it, or wait until it is done",
                         (unsigned long long)rollout->id);
    if (model->state == THORAX__V1__MODEL_STATE__MODEL_CURRENT)
        return error_set(err, ERROR_STATE, "%s:%s is stable already", model->descriptor.name,
                         model->descriptor.version);
    return may_run(publisher, model, err);
}

/* ---- rolling back ---- */

bool publisher_roll_back(struct publisher *publisher, const struct digest *target, const char *by,
                         const char *reason, struct error *err) {
    char why[POOL_MAX_TEXT_BYTES];
    snprintf(why, sizeof why, "rollback by %.100s%s%.300s", by[0] ? by : "the program", reason[0] ? ": " : "",
             reason);
    if (!end_present(publisher, why, by, err))
        return false;
    const struct registry_model *stable = registry_stable(publisher->registry);
    bool is_stable = stable && digest_equal(&stable->descriptor.digest, target);
    if (!is_stable && !registry_set_stable(publisher->registry, target, by, err))
        return false;
    if (!registry_add_event(publisher->registry, "rollback", target, by, reason, NULL))
        log_event(LOG_WARNING, "event_not_recorded", "event=rollback");
    char hex[DIGEST_HEX_SIZE], who[ROLLOUT_BY_SIZE];
    log_event(LOG_WARNING, "rollback", "digest=%.12s by=\"%s\"", digest_hex(target, hex),
              pool_text(who, sizeof who, by));
    tell(publisher);
    return true;
}

/* ---- what administrators ask ---- */

static const struct registry_model *resolve(const struct publisher *publisher, const char *text,
                                            struct error *err) {
    struct digest digest;
    return registry_resolve(publisher->registry, text, &digest, err)
               ? registry_find(publisher->registry, &digest)
               : NULL;
}

bool publisher_answer_rollout_start(struct publisher *publisher, const struct control *control,
                                    struct error *err) {
    const Thorax__V1__RolloutStart *ask = control->request->rollout_start;
    const struct registry_model *model = resolve(publisher, ask->model, err);
    char message[POOL_MAX_TEXT_BYTES];
    if (!model || !may_start(publisher, model, err))
        return false;
    struct digest digest = model->descriptor.digest;
    snprintf(message, sizeof message, "rollout %llu of %s:%s has started, plan %s",
             (unsigned long long)publisher->rollout.id + 1, model->descriptor.name, model->descriptor.version,
             ask->plan->name);
    if (!end_present(publisher, "another rollout began", ask->by, err) ||
        !begin(publisher, &digest, ask->plan, ask->by, err))
        return false;
    publisher_reply_done(publisher, control, message);
    return true;
}

/** A registry that was restored: somebody has looked, and the pool may be told what to run again. */
static bool lift_hold(struct publisher *publisher, const struct control *control, struct error *err) {
    const Thorax__V1__RolloutCommand *ask = control->request->rollout_command;
    if (!registry_lift_hold(publisher->registry, ask->by, err))
        return false;
    log_event(LOG_WARNING, "hold_lifted", "digest=-");
    publisher_announce_targets(publisher);
    bool paused =
        publisher->rollout.id && publisher->rollout.state == THORAX__V1__ROLLOUT_STATE__ROLLOUT_PAUSED;
    publisher_reply_done(publisher, control,
                         paused ? "the hold is lifted; the rollout is still paused: resume once more to go on"
                                : "the hold is lifted");
    return true;
}

bool publisher_answer_rollout_command(struct publisher *publisher, const struct control *control,
                                      struct error *err) {
    static const char *const done[] = {[THORAX__V1__ROLLOUT_ACTION__ACTION_PAUSE] = "paused",
                                       [THORAX__V1__ROLLOUT_ACTION__ACTION_RESUME] = "goes on",
                                       [THORAX__V1__ROLLOUT_ACTION__ACTION_ABORT] =
                                           "goes back to the incumbent"};
    const Thorax__V1__RolloutCommand *ask = control->request->rollout_command;
    struct rollout_view view = view_of(publisher);
    struct moment before = moment_of(publisher);
    unsigned change;
    if (ask->action == THORAX__V1__ROLLOUT_ACTION__ACTION_RESUME && registry_held(publisher->registry)[0])
        return lift_hold(publisher, control, err);
    if (!rollout_command(&publisher->rollout, ask, &view, &change, err) ||
        !settle(publisher, change, before, ask->by, err))
        return false;
    publisher->rollout_due_ms = 0;
    publisher_reply_done(publisher, control, done[ask->action]);
    return true;
}

/** Which model a rollback without a name means. */
static const struct registry_model *before_this_one(const struct publisher *publisher, struct error *err) {
    const struct rollout *rollout = &publisher->rollout;
    const struct registry_model *model = registry_previous(publisher->registry);
    if (rollout_decides(rollout))
        model = rollout->has_incumbent ? registry_find(publisher->registry, &rollout->incumbent) : NULL;
    if (!model)
        error_set(err, ERROR_NOT_FOUND, "no model that was stable before is in the store");
    return model;
}

bool publisher_answer_rollback(struct publisher *publisher, const struct control *control,
                               struct error *err) {
    const Thorax__V1__RollbackRequest *ask = control->request->rollback;
    const struct registry_model *model =
        ask->model[0] ? resolve(publisher, ask->model, err) : before_this_one(publisher, err);
    char message[POOL_MAX_TEXT_BYTES];
    if (!model || !may_run(publisher, model, err))
        return false;
    if (registry_held(publisher->registry)[0])
        return error_set(err, ERROR_STATE,
                         "nothing is activated at present: %.300s; trainctl rollout resume lifts it",
                         registry_held(publisher->registry));
    struct digest digest = model->descriptor.digest;
    snprintf(message, sizeof message, "the pool goes back to %s:%s", model->descriptor.name,
             model->descriptor.version);
    if (!publisher_roll_back(publisher, &digest, ask->by, ask->reason, err))
        return false;
    publisher_reply_done(publisher, control, message);
    return true;
}

static void fill_gates(const struct rollout *rollout, Thorax__V1__GateStatus *rows,
                       Thorax__V1__GateStatus **pointers) {
    for (int i = 0; i < rollout->gate_count; i++) {
        const struct rollout_gate *gate = &rollout->gates[i];
        thorax__v1__gate_status__init(&rows[i]);
        rows[i].name = (char *)gate->name;
        rows[i].verdict = gate->verdict;
        rows[i].value = gate->value;
        rows[i].low = gate->low;
        rows[i].high = gate->high;
        rows[i].limit = gate->limit;
        rows[i].samples = gate->samples;
        pointers[i] = &rows[i];
    }
}

static void fill_status(const struct publisher *publisher, Thorax__V1__RolloutStatus *status) {
    const struct rollout *rollout = &publisher->rollout;
    struct rollout_view view = view_of(publisher);
    status->id = rollout->id;
    if (rollout->has_incumbent)
        status->incumbent_digest = pool_digest_field(&rollout->incumbent);
    status->plan = rollout->plan;
    status->state = rollout->state;
    status->reason = (char *)rollout->reason;
    status->step = rollout->step;
    status->started_ms = rollout->started_ms;
    status->step_ms = rollout->step_ms;
    status->ended_ms = rollout->ended_ms;
    rollout_count(rollout, &view, &status->assigned, &status->running, &status->members);
    status->by = (char *)rollout->by;
    status->waiting_for = (char *)rollout->waiting_for;
    if (registry_held(publisher->registry)[0])
        status->waiting_for = (char *)registry_held(publisher->registry);
}

/** A model that is no longer in the store is known by its digest alone. */
static void fill_model(const struct publisher *publisher, Thorax__V1__ModelRow *row) {
    const struct registry_model *model = registry_find(publisher->registry, &publisher->rollout.candidate);
    thorax__v1__model_row__init(row);
    row->name = row->version = (char *)"gone";
    row->digest = pool_digest_field(&publisher->rollout.candidate);
    if (model)
        publisher_model_row(row, model);
}

bool publisher_answer_rollout_status(struct publisher *publisher, const struct control *control,
                                     struct error *err) {
    (void)err;
    Thorax__V1__ControlReply reply;
    Thorax__V1__RolloutStatus status;
    Thorax__V1__ModelRow model;
    Thorax__V1__GateStatus gates[ROLLOUT_GATES_MAX], *pointers[ROLLOUT_GATES_MAX];
    thorax__v1__control_reply__init(&reply);
    thorax__v1__rollout_status__init(&status);
    if (publisher->rollout.id) {
        fill_status(publisher, &status);
        fill_model(publisher, &model);
        fill_gates(&publisher->rollout, gates, pointers);
        status.model = &model;
        status.gates = pointers;
        status.n_gates = (size_t)publisher->rollout.gate_count;
    }
    reply.body_case = THORAX__V1__CONTROL_REPLY__BODY_ROLLOUT;
    reply.rollout = &status;
    publisher_reply(publisher, control, &reply);
    return true;
}
