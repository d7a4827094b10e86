#include "trainerd/trainctl/rollout_show.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <time.h>

enum { SHORT_DIGEST = 12, DEFAULT_CONFIDENCE_PERCENT = 95 };

/** The name of row i of a table of names; "unknown" for values of a newer publisher. */
static const char *name_of(const char *const *names, size_t count, int i) {
    return i > 0 && (size_t)i < count ? names[i] : "unknown";
}
#define NAME_OF(names, i) name_of(names, sizeof(names) / sizeof *(names), (int)(i))

static const char *const STATES[] = {"", "running", "paused", "done", "rolling back", "rolled back"};
static const char *const VERDICTS[] = {"", "passed", "failed", "inconclusive"};
static const char *const KINDS[] = {"", "stage", "shadow", "canary", "wave"};
static const char *const MEMBER_STATES[] = {"", "idle", "fetching", "waiting", "activating", "failed"};

static const char *hex_of(const ProtobufCBinaryData *field, char out[DIGEST_HEX_SIZE]) {
    struct digest digest;
    out[0] = '\0';
    return pool_digest(field, &digest) ? digest_hex(&digest, out) : out;
}

static const char *short_of(const ProtobufCBinaryData *field, char out[DIGEST_HEX_SIZE]) {
    hex_of(field, out);
    out[SHORT_DIGEST] = '\0';
    return out[0] ? out : "-";
}

static const char *time_of(int64_t ms, char out[32]) {
    time_t seconds = (time_t)(ms / 1000);
    struct tm utc;
    if (ms == 0 || !gmtime_r(&seconds, &utc) || strftime(out, 32, "%Y-%m-%d %H:%M:%S", &utc) == 0)
        return "-";
    return out;
}

/** A time in the largest unit that leaves no more than two digits before the point. */
static const char *duration(double ms, char out[32]) {
    static const struct {
        double ms;
        const char *unit;
    } units[] = {{86400e3, "d"}, {3600e3, "h"}, {60e3, "min"}, {1e3, "s"}};
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        if (ms >= units[i].ms) {
            snprintf(out, 32, "%.3g %s", ms / units[i].ms, units[i].unit);
            return out;
        }
    }
    snprintf(out, 32, "%.0f ms", ms);
    return out;
}

/* ---- text ---- */

static void describe_step(const Thorax__V1__RolloutStep *step, char *out, size_t size) {
    char least[32], most[32];
    int used = 0;
    if (step->kind == THORAX__V1__ROLLOUT_STEP_KIND__STEP_SHADOW)
        used = snprintf(out, size, "%.3g %% of pictures compared", step->shadow_permille / 10.0);
    else if (step->kind == THORAX__V1__ROLLOUT_STEP_KIND__STEP_CANARY)
        used = snprintf(out, size, "%u member%s", step->members, step->members == 1 ? "" : "s");
    else if (step->kind == THORAX__V1__ROLLOUT_STEP_KIND__STEP_WAVE)
        used = snprintf(out, size, "%u %% of members", step->percent);
    else
        used = snprintf(out, size, "all members have it");
    if (step->min_requests)
        used += snprintf(out + used, size - (size_t)used, ", %llu pictures",
                         (unsigned long long)step->min_requests);
    if (step->min_ms)
        used += snprintf(out + used, size - (size_t)used, ", %s", duration(step->min_ms, least));
    if (step->max_ms)
        snprintf(out + used, size - (size_t)used, ", at most %s", duration(step->max_ms, most));
}

static const char *step_state(const Thorax__V1__RolloutStatus *status, size_t i) {
    if (status->state == THORAX__V1__ROLLOUT_STATE__ROLLOUT_DONE || i < status->step)
        return "done";
    return i == status->step ? NAME_OF(STATES, status->state) : "";
}

static void show_steps(const Thorax__V1__RolloutStatus *status, FILE *out) {
    char text[160];
    fprintf(out, "\n%-4s %-8s %-62s %s\n", "STEP", "KIND", "WHAT", "STATE");
    for (size_t i = 0; i < status->plan->n_steps; i++) {
        describe_step(status->plan->steps[i], text, sizeof text);
        fprintf(out, "%4zu %-8s %-62s %s\n", i + 1, NAME_OF(KINDS, status->plan->steps[i]->kind), text,
                step_state(status, i));
    }
}

/** A bound that does not exist is a dash. */
static void show_number(double value, char out[24]) {
    if (isfinite(value))
        snprintf(out, 24, "%.4g", value);
    else
        snprintf(out, 24, "-");
}

static void show_gates(const Thorax__V1__RolloutStatus *status, FILE *out) {
    const Thorax__V1__RolloutGates *gates = status->plan->gates;
    double percent = gates && gates->confidence > 0 ? 100 * gates->confidence : DEFAULT_CONFIDENCE_PERCENT;
    char low[24], high[24], bounds[64], head[32];
    if (status->n_gates == 0)
        return;
    snprintf(head, sizeof head, "BOUNDS (%.4g %%)", percent);
    fprintf(out, "\n%-12s %-13s %10s   %-24s %10s %10s\n", "GATE", "VERDICT", "VALUE", head, "LIMIT",
            "SAMPLES");
    for (size_t i = 0; i < status->n_gates; i++) {
        const Thorax__V1__GateStatus *gate = status->gates[i];
        show_number(gate->low, low);
        show_number(gate->high, high);
        snprintf(bounds, sizeof bounds, "%s to %s", low, high);
        fprintf(out, "%-12s %-13s %10.4g   %-24s %10.4g %10llu\n", gate->name,
                NAME_OF(VERDICTS, gate->verdict), gate->value, bounds, gate->limit,
                (unsigned long long)gate->samples);
    }
}

static void show_members(const Thorax__V1__RolloutStatus *status, const Thorax__V1__ModelsReply *members,
                         FILE *out) {
    char runs[DIGEST_HEX_SIZE], told[DIGEST_HEX_SIZE], compares[DIGEST_HEX_SIZE];
    fprintf(out, "\n%u members: %u told to run it, %u run it\n", status->members, status->assigned,
            status->running);
    if (!members)
        return;
    fprintf(out, "%-24s %-11s %-13s %-13s %-13s %10s  %s\n", "MEMBER", "STATE", "RUNS", "TOLD", "COMPARES",
            "SILENT", "ERROR");
    for (size_t i = 0; i < members->n_members; i++) {
        const Thorax__V1__MemberRow *row = members->members[i];
        fprintf(out, "%-24s %-11s %-13s %-13s %-13s %7lld ms  %s\n", row->report->member,
                NAME_OF(MEMBER_STATES, row->report->state), short_of(&row->report->active_digest, runs),
                short_of(&row->assigned_digest, told), short_of(&row->report->shadow_digest, compares),
                (long long)row->silent_ms, row->report->error);
    }
}

void rollout_show_text(const Thorax__V1__RolloutStatus *status, const Thorax__V1__ModelsReply *members,
                       FILE *out) {
    char digest[DIGEST_HEX_SIZE], incumbent[DIGEST_HEX_SIZE], when[32];
    if (!status->id) {
        fputs("there never was a rollout\n", out);
        return;
    }
    fprintf(out, "rollout %llu of %s:%s (%s): %s\n", (unsigned long long)status->id, status->model->name,
            status->model->version, short_of(&status->model->digest, digest), NAME_OF(STATES, status->state));
    fprintf(out, "plan %s, in place of %s, started %s by %s\n", status->plan->name,
            short_of(&status->incumbent_digest, incumbent), time_of(status->started_ms, when),
            status->by[0] ? status->by : "itself");
    if (status->reason[0])
        fprintf(out, "reason: %s\n", status->reason);
    if (status->waiting_for[0])
        fprintf(out, "waits for: %s\n", status->waiting_for);
    if (status->ended_ms)
        fprintf(out, "ended %s\n", time_of(status->ended_ms, when));
    show_steps(status, out);
    show_gates(status, out);
    show_members(status, members, out);
}

/* ---- JSON ---- */

/** JSON has no infinity: a bound that does not exist is null. */
static json_t *number(double value) {
    return isfinite(value) ? json_real(value) : json_null();
}

static json_t *gate_json(const Thorax__V1__GateStatus *gate) {
    return json_pack("{s:s, s:s, s:o, s:o, s:o, s:o, s:I}", "name", gate->name, "verdict",
                     NAME_OF(VERDICTS, gate->verdict), "value", number(gate->value), "low", number(gate->low),
                     "high", number(gate->high), "limit", number(gate->limit), "samples",
                     (json_int_t)gate->samples);
}

static json_t *step_json(const Thorax__V1__RolloutStep *step) {
    return json_pack("{s:s, s:i, s:i, s:i, s:I, s:I, s:I}", "kind", NAME_OF(KINDS, step->kind), "members",
                     (int)step->members, "percent", (int)step->percent, "shadow_permille",
                     (int)step->shadow_permille, "min_requests", (json_int_t)step->min_requests, "min_ms",
                     (json_int_t)step->min_ms, "max_ms", (json_int_t)step->max_ms);
}

static json_t *member_json(const Thorax__V1__MemberRow *row) {
    char runs[DIGEST_HEX_SIZE], told[DIGEST_HEX_SIZE], compares[DIGEST_HEX_SIZE];
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:I}", "member", row->report->member, "state",
                     NAME_OF(MEMBER_STATES, row->report->state), "active_digest",
                     hex_of(&row->report->active_digest, runs), "assigned_digest",
                     hex_of(&row->assigned_digest, told), "shadow_digest",
                     hex_of(&row->report->shadow_digest, compares), "error", row->report->error, "silent_ms",
                     (json_int_t)row->silent_ms);
}

static json_t *status_json(const Thorax__V1__RolloutStatus *status) {
    char digest[DIGEST_HEX_SIZE], incumbent[DIGEST_HEX_SIZE];
    return json_pack("{s:I, s:s, s:s, s:s, s:s, s:s, s:s, s:i, s:s, s:s, s:s, s:I, s:I, s:I, s:i, s:i, s:i}",
                     "id", (json_int_t)status->id, "name", status->model->name, "version",
                     status->model->version, "digest", hex_of(&status->model->digest, digest),
                     "incumbent_digest", hex_of(&status->incumbent_digest, incumbent), "plan",
                     status->plan->name, "state", NAME_OF(STATES, status->state), "step",
                     (int)status->step + 1, "reason", status->reason, "waiting_for", status->waiting_for,
                     "by", status->by, "started_ms", (json_int_t)status->started_ms, "step_ms",
                     (json_int_t)status->step_ms, "ended_ms", (json_int_t)status->ended_ms, "assigned",
                     (int)status->assigned, "running", (int)status->running, "alive", (int)status->members);
}

bool rollout_show_json(const Thorax__V1__RolloutStatus *status, const Thorax__V1__ModelsReply *members,
                       FILE *out, struct error *err) {
    json_t *root = status->id ? status_json(status) : json_object();
    json_t *steps = json_array(), *gates = json_array(), *rows = json_array();
    for (size_t i = 0; status->id && i < status->plan->n_steps; i++)
        json_array_append_new(steps, step_json(status->plan->steps[i]));
    for (size_t i = 0; i < status->n_gates; i++)
        json_array_append_new(gates, gate_json(status->gates[i]));
    for (size_t i = 0; members && i < members->n_members; i++)
        json_array_append_new(rows, member_json(members->members[i]));
    bool ok = root && json_object_set_new(root, "steps", steps) == 0 &&
              json_object_set_new(root, "gates", gates) == 0 &&
              json_object_set_new(root, "members", rows) == 0;
    char *text = ok ? json_dumps(root, JSON_INDENT(2)) : NULL;
    if (text)
        fprintf(out, "%s\n", text);
    free(text);
    json_decref(root);
    return text || error_set(err, ERROR_MEMORY, "out of memory for the answer as JSON");
}
