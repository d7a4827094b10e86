#pragma once
#include "common/config/config.h"
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/** What a key holds, and the C type of its field. */
enum schema_type {
    SCHEMA_BOOL,     /**< bool: true or false */
    SCHEMA_INT,      /**< int */
    SCHEMA_INT64,    /**< int64_t: seeds */
    SCHEMA_FLOAT,    /**< float */
    SCHEMA_DOUBLE,   /**< double */
    SCHEMA_STRING,   /**< const char *, never NULL; one of `choices` where there are any */
    SCHEMA_PATH,     /**< const char *: $NAME, ${NAME}, ${NAME:-else} and a leading ~/ are expanded; $$ is a
                        dollar */
    SCHEMA_ENUM,     /**< an enum whose values count from 0 in the order of `choices` */
    SCHEMA_SIZE,     /**< size_t, bytes: 4096, 64KiB, 25MB */
    SCHEMA_DURATION, /**< int64_t, milliseconds: 250ms, 30s, 5min, 2h, 1d */
    SCHEMA_STRING_LIST,  /**< struct string_list */
    SCHEMA_DOUBLE_LIST,  /**< struct double_list */
    SCHEMA_STRING_LISTS, /**< struct named_lists: a mapping from names to lists */
    SCHEMA_TABLE,        /**< struct schema_table: a mapping from names to sections with keys of their own */
    SCHEMA_TYPE_COUNT
};

struct string_list {
    int count;
    const char **items;
};

struct double_list {
    int count;
    double *items;
};

struct named_list {
    const char *name;
    struct string_list list;
};

struct named_lists {
    int count;
    struct named_list *items;
};

/** Sections by name: entries[i] is a struct as the row's `entries` schema describes it. */
struct schema_table {
    int count;
    const char **names;
    void *entries;
};

struct schema;

/** One key. The rows are the only list of keys: reading, checking, help, reference and printing all come from
 * them. */
struct schema_row {
    const char *key; /**< dotted: "train.batch_size" */
    enum schema_type type;
    size_t offset;                /**< of the field in the struct */
    const char *fallback;         /**< the default, as it would stand in YAML; NULL: the key must be given */
    double min, max;              /**< of each number; no range where both are 0 */
    int count;                    /**< of a list: exactly that many elements; 0: any number */
    const char *const *choices;   /**< ends with NULL */
    const char *unit, *help;      /**< unit may be NULL */
    const struct schema *entries; /**< SCHEMA_TABLE: the keys of each section */
    bool has_base;      /**< SCHEMA_TABLE: a section starts as a copy of the struct at base_offset, */
    size_t base_offset; /**< which rows above have filled; else with its keys' defaults */
};

struct schema {
    const struct schema_row *rows;
    int row_count;
    size_t size; /**< of the struct */
};

/**
 * Fills `out` (schema->size bytes) from the configuration: defaults first, then what stands in it. Everything
 * that is wrong (unknown keys, with the nearest known one; missing keys; wrong types; values out of range) is
 * added to the config's problems, not only the first. Strings and lists are owned by the config. Returns
 * config_ok; the caller may go on to add problems of its own even where this is false, since every field has
 * then at least its default.
 */
bool schema_read(const struct schema *schema, struct config *config, void *out, struct error *err);

/** Help for people: every key with type, range, default, unit and what it does. */
void schema_print_help(const struct schema *schema, FILE *out);

/** The same as Markdown tables, one per section. */
void schema_print_markdown(const struct schema *schema, FILE *out);

/** The values in force, as YAML that schema_read would read back to the same ones. */
void schema_print_yaml(const struct schema *schema, const void *values, FILE *out);
