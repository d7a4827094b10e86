#pragma once
#include "common/base/arena.h"
#include "common/base/error.h"
#include "common/config/yaml.h"
#include <stdio.h>

/** Something wrong with a configuration: where, and what was expected. */
struct config_problem {
    const char *text; /**< "FILE:LINE:COLUMN: KEY: ..." or "--set KEY: ..." */
    struct config_problem *next;
};

/**
 * A configuration: the tree that was read, with what --set replaced, and all that is wrong with it. Owns
 * every string that schema_read hands out, so it outlives the structs that were filled from it. Not
 * thread-safe.
 */
struct config {
    struct arena arena;
    const char *source; /**< the file's name */
    struct yaml_node *root;
    struct config_problem *first_problem, *last_problem;
    int problem_count;
};

/** Reads a file. On error nothing is to be freed. */
bool config_load(struct config *config, const char *path, struct error *err);

/** As config_load, of a text in memory; `source` stands in messages. */
bool config_parse(struct config *config, const char *text, size_t size, const char *source,
                  struct error *err);

/** Harmless on a zeroed or finished config. */
void config_fini(struct config *config);

/**
 * Applies one "a.b=value" of the command line; the value is read as YAML, so lists and mappings work too.
 * What is wrong with the value itself is found by schema_read and reported as "--set a.b".
 */
bool config_set(struct config *config, const char *assignment, struct error *err);

/** The node at a dotted key; NULL where there is none. */
const struct yaml_node *config_find(const struct config *config, const char *key);

/** True where the key or section stands in the file or in a --set, even with nothing in it. */
bool config_has(const struct config *config, const char *key);

/**
 * Adds a problem with a key, for checks that involve several keys: it is reported at the key's place, or
 * without a line where the key has its default. Goes on quietly where memory ends: the count rises all the
 * same.
 */
void config_problem(struct config *config, const char *key, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/** As config_problem, at a node (NULL: no place is known). */
void config_problem_at(struct config *config, const struct yaml_node *node, const char *key,
                       const char *format, ...) __attribute__((format(printf, 4, 5)));

/** True where there is no problem; else ERROR_INVALID with the first one and how many there are. */
bool config_ok(const struct config *config, struct error *err);

/** Writes all problems, one a line. */
void config_print_problems(const struct config *config, FILE *out);
