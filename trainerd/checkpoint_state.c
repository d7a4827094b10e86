#include "trainerd/checkpoint_state.h"

#include "common/base/text.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum field_type { FIELD_INT64, FIELD_INT, FIELD_BOOL, FIELD_REAL, FIELD_TEXT, FIELD_HEX };
enum { HEX_DIGITS = 16 };

/** One row per member, for both directions. */
static const struct field {
    const char *key;
    enum field_type type;
    size_t offset, size;
    bool optional; /* zero where it is missing: checkpoints of before it was there */
} fields[] = {
#define FIELD(key, type) {#key, type, offsetof(struct training_state, key), sizeof(((struct training_state *)0)->key), false}
#define LATER(key, type) {#key, type, offsetof(struct training_state, key), sizeof(((struct training_state *)0)->key), true}
#define SCALE(key, type) {"loss_scale_" #key, type, offsetof(struct training_state, loss_scale.key), 0, true}
    FIELD(epoch, FIELD_INT64),        FIELD(step, FIELD_INT64),         FIELD(global_step, FIELD_INT64),
    FIELD(seed, FIELD_INT64),         FIELD(best_metric, FIELD_REAL),   FIELD(best_epoch, FIELD_INT64),
    FIELD(stale_epochs, FIELD_INT64), FIELD(loss_sum, FIELD_REAL),      FIELD(models, FIELD_INT64),
    FIELD(finished, FIELD_BOOL),      FIELD(ranks, FIELD_INT),          FIELD(config_digest, FIELD_TEXT),
    FIELD(data_digest, FIELD_TEXT),   FIELD(environment, FIELD_TEXT),   SCALE(factor, FIELD_REAL),
    SCALE(good_steps, FIELD_INT64),   SCALE(skipped, FIELD_INT64),      LATER(run, FIELD_HEX),
    LATER(parts, FIELD_INT),
#undef LATER
#undef SCALE
#undef FIELD
};

/** NaN (no metric yet) is null, as JSON has no NaN. */
static json_t *field_print(const struct field *field, const char *member) {
    switch (field->type) {
    case FIELD_INT64: return json_integer(*(const int64_t *)(const void *)member);
    case FIELD_INT: return json_integer(*(const int *)(const void *)member);
    case FIELD_BOOL: return json_boolean(*(const bool *)(const void *)member);
    case FIELD_REAL: {
        double value = *(const double *)(const void *)member;
        return isfinite(value) ? json_real(value) : json_null();
    }
    case FIELD_TEXT: return json_string(member);
    case FIELD_HEX: return json_sprintf("%0*" PRIx64, HEX_DIGITS, *(const uint64_t *)(const void *)member);
    }
    return NULL;
}

/** Exactly HEX_DIGITS digits: most readers of JSON would round a number of 64 bits. */
static bool hex_parse(const char *text, uint64_t *out) {
    if (!text || strlen(text) != HEX_DIGITS || strspn(text, "0123456789abcdef") != HEX_DIGITS)
        return false;
    *out = strtoull(text, NULL, 16);
    return true;
}

static bool field_parse(const struct field *field, const json_t *value, char *member) {
    switch (field->type) {
    case FIELD_INT64: *(int64_t *)(void *)member = json_integer_value(value); return json_is_integer(value);
    case FIELD_INT: *(int *)(void *)member = (int)json_integer_value(value); return json_is_integer(value);
    case FIELD_BOOL: *(bool *)(void *)member = json_is_true(value); return json_is_boolean(value);
    case FIELD_REAL:
        *(double *)(void *)member = json_is_null(value) ? NAN : json_number_value(value);
        return json_is_null(value) || json_is_number(value);
    case FIELD_TEXT: return json_is_string(value) && text_copy(member, field->size, json_string_value(value));
    case FIELD_HEX: return hex_parse(json_string_value(value), (uint64_t *)(void *)member);
    }
    return false;
}

char *checkpoint_state_print(const struct training_state *state, struct error *err) {
    json_t *object = json_object();
    bool ok = object;
    for (size_t i = 0; ok && i < sizeof fields / sizeof *fields; i++)
        ok = json_object_set_new(object, fields[i].key, field_print(&fields[i], (const char *)state + fields[i].offset)) == 0;
    char *text = ok ? json_dumps(object, JSON_COMPACT | JSON_REAL_PRECISION(17)) : NULL;
    json_decref(object);
    if (!text)
        error_set(err, ERROR_MEMORY, "checkpoint: out of memory");
    return text;
}

static bool check_ranges(const struct training_state *state, struct error *err) {
    const struct loss_scale *scale = &state->loss_scale;
    if (state->epoch < 0 || state->step < 0 || state->global_step < 0)
        return error_set(err, ERROR_FORMAT, "the checkpoint's state: a negative position");
    if (!(scale->factor >= 0 && scale->factor <= 0x1p24 && scale->good_steps >= 0 && scale->skipped >= 0))
        return error_set(err, ERROR_FORMAT, "the checkpoint's state: a loss scale that cannot be");
    if (state->ranks < 0 || state->parts < 0)
        return error_set(err, ERROR_FORMAT, "the checkpoint's state: %d ranks, %d parts", state->ranks, state->parts);
    return true;
}

bool checkpoint_state_parse(const char *text, struct training_state *out, struct error *err) {
    json_error_t problem;
    json_t *object = json_loads(text, JSON_REJECT_DUPLICATES, &problem);
    *out = (struct training_state){0};
    bool ok = json_is_object(object) || error_set(err, ERROR_FORMAT, "the checkpoint's state: %s", problem.text);
    for (size_t i = 0; ok && i < sizeof fields / sizeof *fields; i++) {
        const json_t *value = json_object_get(object, fields[i].key);
        if (!(fields[i].optional && !value) && !field_parse(&fields[i], value, (char *)out + fields[i].offset))
            ok = error_set(err, ERROR_FORMAT, "the checkpoint's state: key %s is missing or no good", fields[i].key);
    }
    ok = ok && check_ranges(out, err);
    out->parts = out->parts ? out->parts : 1;
    json_decref(object);
    return ok;
}
