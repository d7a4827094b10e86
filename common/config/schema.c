#include "common/config/schema.h"

#include "common/config/schema_value.h"

#include <string.h>

enum { KEY_SIZE = 320 };

/** One struct being filled: the whole configuration, or a named section of a table. */
struct scope {
    const struct schema *schema;
    struct config *config;
    const struct yaml_node *root; /**< the mapping that the keys are looked up in */
    const char *prefix;           /**< of the root, with its dot: "" or "augment_class.NORMAL." */
    char *out;
    bool keep; /**< what is not given stays as it is: the struct was copied from a base */
};

static const struct schema_row *find_row(const struct schema *schema, const char *key) {
    for (int i = 0; i < schema->row_count; i++) {
        if (strcmp(schema->rows[i].key, key) == 0)
            return &schema->rows[i];
    }
    return NULL;
}

static bool is_section(const struct schema *schema, const char *key) {
    size_t length = strlen(key);
    for (int i = 0; i < schema->row_count; i++) {
        if (strncmp(schema->rows[i].key, key, length) == 0 && schema->rows[i].key[length] == '.')
            return true;
    }
    return false;
}

/** The known key or section below `section` ("" or "train.") that looks most like `key`; else the same name
 * elsewhere. */
static bool suggest(const struct schema *schema, const char *section, const char *key, char out[KEY_SIZE]) {
    const char *elsewhere = NULL;
    int best = SCHEMA_NEAREST_NONE;
    size_t length = strlen(section);
    out[0] = '\0';
    for (int i = 0; i < schema->row_count; i++) {
        const char *row_key = schema->rows[i].key, *leaf = strrchr(row_key, '.');
        if (strcmp(leaf ? leaf + 1 : row_key, key) == 0)
            elsewhere = row_key;
        if (strncmp(row_key, section, length) != 0)
            continue;
        char name[KEY_SIZE];
        const char *near = NULL;
        snprintf(name, sizeof name, "%.*s", (int)strcspn(row_key + length, "."), row_key + length);
        schema_nearest(key, name, &near, &best);
        if (near)
            snprintf(out, KEY_SIZE, "%s%s", section, name);
    }
    if (!out[0] && elsewhere)
        snprintf(out, KEY_SIZE, "%s", elsewhere);
    return out[0] != '\0';
}

static void report_unknown(const struct scope *scope, const char *section, const struct yaml_node *node) {
    char whole[KEY_SIZE], near[KEY_SIZE];
    snprintf(whole, sizeof whole, "%s%s%s", scope->prefix, section, node->key);
    if (suggest(scope->schema, section, node->key, near))
        config_problem_at(scope->config, node, whole, "unknown key; did you mean %s%s?", scope->prefix, near);
    else
        config_problem_at(scope->config, node, whole, "unknown key");
}

/** Reports keys that no row has. `section` is "" or ends with a dot. The depth is limited by the parser. */
static void check_keys(const struct scope *scope, const struct yaml_node *mapping, const char *section) {
    for (const struct yaml_node *node = mapping->first; node; node = node->next) {
        char key[KEY_SIZE], whole[KEY_SIZE];
        if ((size_t)snprintf(key, sizeof key - 1, "%s%s", section, node->key) >= sizeof key - 1) {
            report_unknown(scope, section, node);
        } else if (find_row(scope->schema, key)) {
            continue;
        } else if (!is_section(scope->schema, key)) {
            report_unknown(scope, section, node);
        } else if (node->kind == YAML_MAPPING) {
            size_t length = strlen(key);
            memcpy(key + length, ".", 2);
            check_keys(scope, node, key);
        } else if (!yaml_is_null(node)) {
            snprintf(whole, sizeof whole, "%s%s", scope->prefix, key);
            config_problem_at(scope->config, node, whole, "expected a section with keys, found %s",
                              yaml_kind_name(node->kind));
        }
    }
}

static void read_rows(const struct scope *scope);

/** Fills one named section of a table. */
static void read_entry(const struct scope *scope, const struct schema_row *row, const struct yaml_node *node,
                       char *entry) {
    char prefix[KEY_SIZE];
    snprintf(prefix, sizeof prefix, "%s%s.%s.", scope->prefix, row->key, node->key);
    if (row->has_base)
        memcpy(entry, scope->out + row->base_offset, row->entries->size);
    struct scope inner = {row->entries, scope->config, node, prefix, entry, row->has_base};
    if (node->kind != YAML_MAPPING && !yaml_is_null(node)) {
        prefix[strlen(prefix) - 1] = '\0';
        config_problem_at(scope->config, node, prefix, "expected a section with keys, found %s",
                          yaml_kind_name(node->kind));
        return;
    }
    check_keys(&inner, node, "");
    read_rows(&inner);
}

static void read_table(const struct scope *scope, const struct schema_row *row,
                       const struct yaml_node *node) {
    struct schema_table *table = (struct schema_table *)(scope->out + row->offset);
    if (node->kind != YAML_MAPPING) {
        if (!yaml_is_null(node))
            config_problem_at(scope->config, node, row->key, "expected %s", schema_type_of(row->type)->noun);
        return;
    }
    const char **names = arena_alloc(&scope->config->arena, (size_t)node->count * sizeof *names);
    char *entries = arena_alloc(&scope->config->arena, (size_t)node->count * row->entries->size);
    if (!names || !entries) {
        config_problem_at(scope->config, node, row->key, "out of memory");
        return;
    }
    int count = 0;
    for (const struct yaml_node *child = node->first; child; child = child->next, count++) {
        names[count] = child->key;
        read_entry(scope, row, child, entries + (size_t)count * row->entries->size);
    }
    *table = (struct schema_table){count, names, entries};
}

static void read_row(const struct scope *scope, const struct schema_row *row) {
    char key[KEY_SIZE], expected[400];
    snprintf(key, sizeof key, "%s%s", scope->prefix, row->key);
    const struct yaml_node *node = yaml_find_path(scope->root, row->key);
    struct schema_value value = {scope->config, row, node, key};
    void *field = scope->out + row->offset;
    if (row->type == SCHEMA_TABLE) {
        if (node)
            read_table(scope, row, node);
        return;
    }
    if (!scope->keep)
        schema_value_default(&value, field);
    if (node)
        schema_value_read(&value, field);
    else if (!row->fallback && !scope->keep)
        config_problem(scope->config, key, "missing; it must be given: %s",
                       schema_expectation(row, expected, sizeof expected));
}

static void read_rows(const struct scope *scope) {
    for (int i = 0; i < scope->schema->row_count; i++)
        read_row(scope, &scope->schema->rows[i]);
}

bool schema_read(const struct schema *schema, struct config *config, void *out, struct error *err) {
    memset(out, 0, schema->size);
    struct scope scope = {schema, config, config->root, "", out, false};
    check_keys(&scope, config->root, "");
    read_rows(&scope);
    return config_ok(config, err);
}
