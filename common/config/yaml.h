#pragma once
#include "common/base/arena.h"
#include "common/base/error.h"

/** Limits on what is read: far above any real configuration, far below what could hurt. */
enum { YAML_MAX_BYTES = 1 << 20, YAML_MAX_NODES = 8192, YAML_MAX_DEPTH = 16 };

enum yaml_kind { YAML_SCALAR, YAML_MAPPING, YAML_SEQUENCE };

/** A value with the place where it stands. Children of a mapping carry their key. Owned by the arena it was
 * parsed into. */
struct yaml_node {
    enum yaml_kind kind;
    bool quoted;        /**< a scalar in quotes or a block: never null */
    const char *key;    /**< in a mapping; else NULL */
    const char *text;   /**< of a scalar, without NUL inside; else NULL */
    const char *origin; /**< the file's name, or "--set a.b" */
    int line,
        column; /**< of the key where there is one, else of the value; from 1; line 0: not from a file */
    int count;  /**< children */
    struct yaml_node *first, *last, *next;
};

/**
 * Parses one YAML document (libyaml) into a tree owned by the arena. An empty text is an empty mapping.
 * Rejected, with file:line:column in the message: duplicate keys, keys that are no scalars, anchors, aliases,
 * tags, a second document, NUL characters, and what is past the limits above. `origin` is copied. Returns
 * borrowed from the arena, NULL on error.
 */
struct yaml_node *yaml_parse(struct arena *arena, const void *text, size_t size, const char *origin,
                             struct error *err);

/** As yaml_parse, of a file. */
struct yaml_node *yaml_load(struct arena *arena, const char *path, struct error *err);

/** The child of a mapping with that key; NULL where there is none or the node (which may be NULL) is no
 * mapping. */
struct yaml_node *yaml_find(const struct yaml_node *mapping, const char *key);

/** The node at a dotted path ("train.epochs") below a mapping; NULL where there is none. */
struct yaml_node *yaml_find_path(const struct yaml_node *mapping, const char *path);

/** Puts a child at the end of a mapping or sequence; in a mapping it takes the place of one with the same
 * key. */
void yaml_put(struct yaml_node *parent, struct yaml_node *child);

/** True for a plain scalar that is empty, "~" or "null". */
bool yaml_is_null(const struct yaml_node *node);

/** "a mapping", "a list" or "text": for messages. */
const char *yaml_kind_name(enum yaml_kind kind);
