#include "common/config/yaml.h"

#include "common/base/file.h"

#include <stdlib.h>
#include <string.h>
#include <yaml.h>

/** One parse: libyaml's events become nodes under `open`, the innermost mapping or sequence that has not
 * ended. */
struct builder {
    struct arena *arena;
    const char *origin;
    struct error *err;
    struct yaml_node *root;
    struct yaml_node *open[YAML_MAX_DEPTH];
    const char *key; /**< read, its value not yet */
    yaml_mark_t key_mark;
    int depth, nodes, documents;
};

static bool fail_at(struct builder *builder, enum error_code code, yaml_mark_t mark, const char *what) {
    return error_set(builder->err, code, "%s:%zu:%zu: %s", builder->origin, mark.line + 1, mark.column + 1,
                     what);
}

static struct yaml_node *innermost(struct builder *builder) {
    return builder->depth > 0 ? builder->open[builder->depth - 1] : NULL;
}

static struct yaml_node *add_node(struct builder *builder, enum yaml_kind kind, yaml_mark_t mark) {
    struct yaml_node *node = arena_alloc(builder->arena, sizeof *node);
    if (!node) {
        error_set(builder->err, ERROR_MEMORY, "%s: out of memory", builder->origin);
        return NULL;
    }
    if (++builder->nodes > YAML_MAX_NODES) {
        fail_at(builder, ERROR_TOO_LARGE, mark, "too many values");
        return NULL;
    }
    if (builder->key)
        mark = builder->key_mark;
    *node = (struct yaml_node){.kind = kind,
                               .key = builder->key,
                               .origin = builder->origin,
                               .line = (int)mark.line + 1,
                               .column = (int)mark.column + 1};
    builder->key = NULL;
    struct yaml_node *parent = innermost(builder);
    if (parent)
        yaml_put(parent, node);
    else
        builder->root = node;
    return node;
}

static bool open_node(struct builder *builder, enum yaml_kind kind, yaml_mark_t mark) {
    struct yaml_node *parent = innermost(builder);
    if (parent && parent->kind == YAML_MAPPING && !builder->key)
        return fail_at(builder, ERROR_FORMAT, mark, "a key must be plain text, not a mapping or a list");
    if (builder->depth == YAML_MAX_DEPTH)
        return fail_at(builder, ERROR_TOO_LARGE, mark, "nested too deeply");
    struct yaml_node *node = add_node(builder, kind, mark);
    if (node)
        builder->open[builder->depth++] = node;
    return node != NULL;
}

static bool take_key(struct builder *builder, const char *text, yaml_mark_t mark) {
    const struct yaml_node *twin = yaml_find(innermost(builder), text);
    if (twin)
        return error_set(builder->err, ERROR_FORMAT,
                         "%s:%zu:%zu: the key \"%.80s\" stands here twice; first in line %d", builder->origin,
                         mark.line + 1, mark.column + 1, text, twin->line);
    if (!*text)
        return fail_at(builder, ERROR_FORMAT, mark, "an empty key");
    builder->key = text;
    builder->key_mark = mark;
    return true;
}

static bool take_scalar(struct builder *builder, const yaml_event_t *event) {
    const char *value = (const char *)event->data.scalar.value;
    size_t length = event->data.scalar.length;
    if (memchr(value, '\0', length))
        return fail_at(builder, ERROR_FORMAT, event->start_mark, "a NUL character");
    char *text = arena_copy(builder->arena, value, length);
    if (!text)
        return error_set(builder->err, ERROR_MEMORY, "%s: out of memory", builder->origin);
    struct yaml_node *parent = innermost(builder);
    if (parent && parent->kind == YAML_MAPPING && !builder->key)
        return take_key(builder, text, event->start_mark);
    struct yaml_node *node = add_node(builder, YAML_SCALAR, event->start_mark);
    if (!node)
        return false;
    node->text = text;
    node->quoted = event->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
    return true;
}

/** Anchors could be expanded and tags could change types: neither is needed here, so neither is understood.
 */
static bool plain_event(struct builder *builder, const yaml_event_t *event) {
    const yaml_char_t *anchor = NULL, *tag = NULL;
    if (event->type == YAML_SCALAR_EVENT) {
        anchor = event->data.scalar.anchor;
        tag = event->data.scalar.tag;
    } else if (event->type == YAML_MAPPING_START_EVENT) {
        anchor = event->data.mapping_start.anchor;
        tag = event->data.mapping_start.tag;
    } else if (event->type == YAML_SEQUENCE_START_EVENT) {
        anchor = event->data.sequence_start.anchor;
        tag = event->data.sequence_start.tag;
    }
    if (anchor)
        return fail_at(builder, ERROR_UNSUPPORTED, event->start_mark,
                       "anchors (&name) are not supported; write the value out, or in quotes if it is text");
    if (tag)
        return fail_at(builder, ERROR_UNSUPPORTED, event->start_mark,
                       "tags (!name) are not supported; put text that starts with ! in quotes");
    return true;
}

static bool take_event(struct builder *builder, const yaml_event_t *event) {
    if (!plain_event(builder, event))
        return false;
    switch (event->type) {
    case YAML_DOCUMENT_START_EVENT:
        return ++builder->documents == 1 ||
               fail_at(builder, ERROR_UNSUPPORTED, event->start_mark, "a second document; a file holds one");
    case YAML_ALIAS_EVENT:
        return fail_at(builder, ERROR_UNSUPPORTED, event->start_mark,
                       "aliases (*name) are not supported; write the value out, or in quotes if it is text");
    case YAML_SCALAR_EVENT:
        return take_scalar(builder, event);
    case YAML_MAPPING_START_EVENT:
        return open_node(builder, YAML_MAPPING, event->start_mark);
    case YAML_SEQUENCE_START_EVENT:
        return open_node(builder, YAML_SEQUENCE, event->start_mark);
    case YAML_MAPPING_END_EVENT:
    case YAML_SEQUENCE_END_EVENT:
        builder->depth--;
        return true;
    default:
        return true;
    }
}

static bool next_event(struct builder *builder, yaml_parser_t *parser, bool *end) {
    yaml_event_t event;
    if (!yaml_parser_parse(parser, &event)) {
        if (parser->error == YAML_MEMORY_ERROR)
            return error_set(builder->err, ERROR_MEMORY, "%s: out of memory", builder->origin);
        yaml_mark_t mark = parser->problem_mark;
        return fail_at(builder, ERROR_FORMAT, mark, parser->problem ? parser->problem : "not YAML");
    }
    *end = event.type == YAML_STREAM_END_EVENT;
    bool ok = take_event(builder, &event);
    yaml_event_delete(&event);
    return ok;
}

struct yaml_node *yaml_parse(struct arena *arena, const void *text, size_t size, const char *origin,
                             struct error *err) {
    struct builder builder = {
        .arena = arena, .err = err, .origin = arena_copy(arena, origin, strlen(origin))};
    yaml_parser_t parser;
    if (size > YAML_MAX_BYTES) {
        error_set(err, ERROR_TOO_LARGE, "%s: %zu bytes, the limit is %d", origin, size, YAML_MAX_BYTES);
        return NULL;
    }
    if (!builder.origin || !yaml_parser_initialize(&parser)) {
        error_set(err, ERROR_MEMORY, "%s: out of memory", origin);
        return NULL;
    }
    yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&parser, text ? text : (const void *)"", size);
    bool ok = true, end = false;
    while (ok && !end)
        ok = next_event(&builder, &parser, &end);
    yaml_parser_delete(&parser);
    if (ok && !builder.root)
        add_node(&builder, YAML_MAPPING, (yaml_mark_t){0});
    return ok ? builder.root : NULL;
}

struct yaml_node *yaml_load(struct arena *arena, const char *path, struct error *err) {
    struct bytes bytes;
    if (!file_read(path, YAML_MAX_BYTES, &bytes, err))
        return NULL;
    struct yaml_node *root = yaml_parse(arena, bytes.data, bytes.size, path, err);
    free(bytes.data);
    return root;
}

struct yaml_node *yaml_find(const struct yaml_node *mapping, const char *key) {
    if (!mapping || mapping->kind != YAML_MAPPING)
        return NULL;
    for (struct yaml_node *child = mapping->first; child; child = child->next) {
        if (strcmp(child->key, key) == 0)
            return child;
    }
    return NULL;
}

struct yaml_node *yaml_find_path(const struct yaml_node *mapping, const char *path) {
    const struct yaml_node *at = mapping;
    for (const char *dot; at && (dot = strchr(path, '.')); path = dot + 1) {
        char part[128];
        size_t length = (size_t)(dot - path);
        if (length >= sizeof part)
            return NULL;
        memcpy(part, path, length);
        part[length] = '\0';
        at = yaml_find(at, part);
    }
    return yaml_find(at, path);
}

/** Takes the child with that key out of a mapping. */
static void remove_key(struct yaml_node *parent, const char *key) {
    struct yaml_node *before = NULL, *child = parent->first;
    while (child && strcmp(child->key, key) != 0) {
        before = child;
        child = child->next;
    }
    if (!child)
        return;
    *(before ? &before->next : &parent->first) = child->next;
    if (parent->last == child)
        parent->last = before;
    parent->count--;
}

void yaml_put(struct yaml_node *parent, struct yaml_node *child) {
    if (parent->kind == YAML_MAPPING)
        remove_key(parent, child->key);
    child->next = NULL;
    *(parent->last ? &parent->last->next : &parent->first) = child;
    parent->last = child;
    parent->count++;
}

bool yaml_is_null(const struct yaml_node *node) {
    return node->kind == YAML_SCALAR && !node->quoted &&
           (!*node->text || strcmp(node->text, "~") == 0 || strcmp(node->text, "null") == 0);
}

const char *yaml_kind_name(enum yaml_kind kind) {
    return kind == YAML_MAPPING ? "a mapping" : kind == YAML_SEQUENCE ? "a list" : "text";
}
