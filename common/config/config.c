#include "common/config/config.h"

#include <stdarg.h>
#include <string.h>

enum { MAX_PROBLEMS = 200, ARENA_BYTES = 32 << 20 };

static bool finish_reading(struct config *config, const char *source, struct error *err) {
    config->source = arena_copy(&config->arena, source, strlen(source));
    if (config->root && yaml_is_null(config->root))
        config->root->kind = YAML_MAPPING; /* "---" and no more */
    bool mapping = config->root && config->root->kind == YAML_MAPPING;
    if (config->root && !mapping)
        error_set(err, ERROR_FORMAT, "%s:%d:%d: expected keys and values (\"key: value\"), found %s", source,
                  config->root->line, config->root->column, yaml_kind_name(config->root->kind));
    if (mapping && config->source)
        return true;
    if (mapping)
        error_set(err, ERROR_MEMORY, "%s: out of memory", source);
    config_fini(config);
    return false;
}

bool config_load(struct config *config, const char *path, struct error *err) {
    *config = (struct config){0};
    arena_init(&config->arena, ARENA_BYTES);
    config->root = yaml_load(&config->arena, path, err);
    return finish_reading(config, path, err);
}

bool config_parse(struct config *config, const char *text, size_t size, const char *source,
                  struct error *err) {
    *config = (struct config){0};
    arena_init(&config->arena, ARENA_BYTES);
    config->root = yaml_parse(&config->arena, text, size, source, err);
    return finish_reading(config, source, err);
}

void config_fini(struct config *config) {
    arena_fini(&config->arena);
    *config = (struct config){0};
}

/** Marks a value that came from the command line, with all below it. The depth is limited by the parser. */
static void mark_override(struct yaml_node *node, const char *origin) {
    node->origin = origin;
    node->line = 0;
    for (struct yaml_node *child = node->first; child; child = child->next)
        mark_override(child, origin);
}

/** The mapping that holds the last part of a dotted key; sections that are not there are made. Cuts `key` up.
 */
static struct yaml_node *holder(struct config *config, char *key, char **last, struct error *err) {
    struct yaml_node *at = config->root;
    const char *whole = arena_copy(&config->arena, key, strlen(key));
    for (char *dot; at && (dot = strchr(key, '.')); key = dot + 1) {
        *dot = '\0';
        struct yaml_node *child = yaml_find(at, key);
        if (child && child->kind != YAML_MAPPING && !yaml_is_null(child)) {
            error_set(err, ERROR_INVALID, "--set %s: \"%s\" is %s, not a section", whole ? whole : key, key,
                      yaml_kind_name(child->kind));
            return NULL;
        }
        if (child) {
            child->kind = YAML_MAPPING;
        } else if ((child = arena_alloc(&config->arena, sizeof *child))) {
            *child = (struct yaml_node){.kind = YAML_MAPPING, .key = key, .origin = "--set"};
            yaml_put(at, child);
        }
        at = child;
    }
    *last = key;
    if (!at)
        error_set(err, ERROR_MEMORY, "--set %s: out of memory", key);
    return at;
}

static bool well_formed_key(const char *key) {
    size_t length = strlen(key);
    return length > 0 && key[0] != '.' && key[length - 1] != '.' && !strstr(key, "..");
}

bool config_set(struct config *config, const char *assignment, struct error *err) {
    const char *equals = strchr(assignment, '=');
    if (!equals)
        return error_set(err, ERROR_INVALID, "--set %.100s: expected KEY=VALUE", assignment);
    size_t length = (size_t)(equals - assignment);
    char *key = arena_copy(&config->arena, assignment, length);
    char *origin = arena_alloc(&config->arena, length + sizeof "--set ");
    if (!key || !origin)
        return error_set(err, ERROR_MEMORY, "--set: out of memory");
    memcpy(origin, "--set ", sizeof "--set " - 1);
    memcpy(origin + sizeof "--set " - 1, key, length);
    if (!well_formed_key(key))
        return error_set(err, ERROR_INVALID, "--set %.100s: \"%.60s\" is not a key such as train.epochs",
                         assignment, key);
    /* An empty value is null, as in a file. */
    const char *text = equals[1] ? equals + 1 : "~";
    struct yaml_node *value = yaml_parse(&config->arena, text, strlen(text), origin, err);
    char *last;
    struct yaml_node *parent = value ? holder(config, key, &last, err) : NULL;
    if (!parent)
        return false;
    mark_override(value, origin);
    value->key = last;
    yaml_put(parent, value);
    return true;
}

const struct yaml_node *config_find(const struct config *config, const char *key) {
    return yaml_find_path(config->root, key);
}

bool config_has(const struct config *config, const char *key) {
    return config_find(config, key) != NULL;
}

static void place_text(const struct config *config, const struct yaml_node *node, const char *key, char *out,
                       size_t size) {
    if (node && node->line == 0)
        snprintf(out, size, "--set %s", key);
    else if (node)
        snprintf(out, size, "%s:%d:%d: %s", node->origin, node->line, node->column, key);
    else
        snprintf(out, size, "%s: %s", config->source, key);
}

static void add_problem(struct config *config, const struct yaml_node *node, const char *key,
                        const char *what) {
    char place[512], text[1200];
    config->problem_count++;
    if (config->problem_count > MAX_PROBLEMS)
        return;
    place_text(config, node, key, place, sizeof place);
    snprintf(text, sizeof text, "%s: %s", place, what);
    for (char *c = text; *c; c++) {
        if ((unsigned char)*c < ' ' || *c == 0x7f)
            *c = '?'; /* text from a file must not steer a terminal */
    }
    struct config_problem *problem = arena_alloc(&config->arena, sizeof *problem);
    char *copy = arena_copy(&config->arena, text, strlen(text));
    if (!problem || !copy)
        return;
    *problem = (struct config_problem){.text = copy};
    *(config->last_problem ? &config->last_problem->next : &config->first_problem) = problem;
    config->last_problem = problem;
}

void config_problem(struct config *config, const char *key, const char *format, ...) {
    char what[600];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    add_problem(config, config_find(config, key), key, what);
}

void config_problem_at(struct config *config, const struct yaml_node *node, const char *key,
                       const char *format, ...) {
    char what[600];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    add_problem(config, node, key, what);
}

bool config_ok(const struct config *config, struct error *err) {
    if (config->problem_count == 0)
        return true;
    const char *first = config->first_problem ? config->first_problem->text : "out of memory";
    if (config->problem_count == 1)
        return error_set(err, ERROR_INVALID, "%s", first);
    return error_set(err, ERROR_INVALID, "%d problems; the first: %s", config->problem_count, first);
}

void config_print_problems(const struct config *config, FILE *out) {
    for (const struct config_problem *problem = config->first_problem; problem; problem = problem->next)
        fprintf(out, "%s\n", problem->text);
    if (config->problem_count > MAX_PROBLEMS)
        fprintf(out, "... and %d more\n", config->problem_count - MAX_PROBLEMS);
}
