#pragma once
#include "common/config/schema.h"

/** One value being read: what messages about it need. */
struct schema_value {
    struct config *config;
    const struct schema_row *row;
    const struct yaml_node *node;
    const char *key; /**< the whole dotted key, with the names of tables */
};

/** What a type of key can do. Private to common/config; schema_type_of has one row per enum schema_type. */
struct schema_type_ops {
    const char *name; /**< for help: "int", "list of text" */
    const char *noun; /**< for messages: "a whole number" */
    /** Reads a scalar's text into the field; false: not such a value (the caller says what was expected).
     * NULL: not a scalar. */
    bool (*parse)(const struct schema_value *value, const char *text, void *field);
    /** Reads a list or mapping, reporting problems itself. NULL for scalars. */
    void (*read)(const struct schema_value *value, void *field);
    /** Writes the field as YAML on one line. NULL for tables. */
    void (*print)(const struct schema_row *row, const void *field, FILE *out);
};

const struct schema_type_ops *schema_type_of(enum schema_type type);

/** Reads value->node into the field, or reports what was expected and what stands there. */
void schema_value_read(const struct schema_value *value, void *field);

/** Reads the row's default text into the field; where there is none, strings become empty. */
void schema_value_default(const struct schema_value *value, void *field);

/** Writes "a whole number in 1..64", "one of sgd, adamw" and the like. Returns out. */
const char *schema_expectation(const struct schema_row *row, char *out, size_t size);

/** The candidate nearest to word (Levenshtein) where it is near enough to be a slip; else NULL. Keeps the
 * better of *best. */
void schema_nearest(const char *word, const char *candidate, const char **best, int *best_distance);
enum { SCHEMA_NEAREST_NONE = 1000 };

/** Writes text as a YAML scalar, quoted where it must be; for paths, dollars are doubled so that they read
 * back. */
void schema_print_text(const char *text, bool is_path, FILE *out);

/** Expands $NAME, ${NAME}, ${NAME:-else}, $$ and a leading ~/ into the arena. NULL: err says which variable
 * is not set. */
const char *schema_expand_path(struct arena *arena, const char *text, struct error *err);
