#include "common/config/schema.h"

#include "common/config/schema_value.h"

#include <string.h>

/** Characters of a dotted key up to its last dot. */
static int section_length(const char *key) {
    const char *dot = strrchr(key, '.');
    return dot ? (int)(dot - key) : 0;
}

static bool same_section(const char *a, const char *b) {
    return a && b && section_length(a) == section_length(b) && strncmp(a, b, (size_t)section_length(a)) == 0;
}

static const char *leaf(const char *key) {
    const char *dot = strrchr(key, '.');
    return dot ? dot + 1 : key;
}

static void print_limits(const struct schema_row *row, const char *separator, FILE *out) {
    for (int i = 0; row->choices && row->choices[i]; i++)
        fprintf(out, "%s%s", i > 0 ? separator : "", row->choices[i]);
    if (!row->choices && row->min < row->max)
        fprintf(out, row->type == SCHEMA_DURATION ? "%.15g..%.15g ms" : "%.15g..%.15g", row->min, row->max);
    if (row->count > 0)
        fprintf(out, "%s%d of them", row->min < row->max ? ", " : "", row->count);
}

static bool has_limits(const struct schema_row *row) {
    return row->choices || row->min < row->max || row->count > 0;
}

static const char *default_text(const struct schema_row *row) {
    return !row->fallback ? NULL : *row->fallback ? row->fallback : "\"\"";
}

static void print_help_row(const struct schema_row *row, const char *prefix, FILE *out) {
    fprintf(out, "  %s%s  (%s", prefix, row->key, schema_type_of(row->type)->name);
    if (row->unit)
        fprintf(out, ", %s", row->unit);
    if (has_limits(row)) {
        fputs(", ", out);
        print_limits(row, "|", out);
    }
    if (row->type == SCHEMA_TABLE)
        fputs(")\n", out);
    else if (row->fallback)
        fprintf(out, ", default %s)\n", default_text(row));
    else
        fputs(", required)\n", out);
    fprintf(out, "      %s\n", row->help);
}

void schema_print_help(const struct schema *schema, FILE *out) {
    const char *previous = NULL;
    for (int i = 0; i < schema->row_count; i++) {
        const struct schema_row *row = &schema->rows[i];
        if (!same_section(previous, row->key))
            fprintf(out, "%s%.*s:\n", i > 0 ? "\n" : "",
                    section_length(row->key) ? section_length(row->key) : 9,
                    section_length(row->key) ? row->key : "top level");
        previous = row->key;
        print_help_row(row, "", out);
        for (int k = 0; row->entries && k < row->entries->row_count; k++)
            fprintf(out, "      NAME.%s\n", row->entries->rows[k].key);
    }
}

/** Text inside a table cell: a bar would end the cell. */
static void print_cell(const char *text, FILE *out) {
    for (const char *c = text; *c; c++)
        fprintf(out, *c == '|' ? "\\%c" : "%c", *c);
}

static void print_markdown_row(const struct schema_row *row, FILE *out) {
    fprintf(out, "| `%s` | %s", row->key, schema_type_of(row->type)->name);
    if (row->unit)
        fprintf(out, ", %s", row->unit);
    fputs(" | ", out);
    if (row->type != SCHEMA_TABLE)
        fprintf(out, row->fallback ? "`%s`" : "%srequired", row->fallback ? default_text(row) : "");
    fputs(" | ", out);
    print_limits(row, ", ", out);
    fputs(" | ", out);
    print_cell(row->help, out);
    fputs(" |\n", out);
}

void schema_print_markdown(const struct schema *schema, FILE *out) {
    const char *previous = NULL;
    for (int i = 0; i < schema->row_count; i++) {
        const struct schema_row *row = &schema->rows[i];
        if (!same_section(previous, row->key)) {
            int length = section_length(row->key);
            fprintf(out, "%s## %.*s\n\n", i > 0 ? "\n" : "", length ? length : 9,
                    length ? row->key : "top level");
            fputs("| key | type | default | range | what it does |\n|---|---|---|---|---|\n", out);
        }
        previous = row->key;
        print_markdown_row(row, out);
    }
}

static void print_indent(int depth, FILE *out) {
    fprintf(out, "%*s", depth * 2, "");
}

/** Opens the sections of key that the previous key was not in, one line each; returns the depth of the key
 * itself. */
static int open_sections(const char *key, const char *previous, int depth, FILE *out) {
    const char *part = key;
    for (const char *dot; (dot = strchr(part, '.')); part = dot + 1, depth++) {
        size_t length = (size_t)(dot - key) + 1;
        if (previous && strncmp(previous, key, length) == 0)
            continue;
        print_indent(depth, out);
        fprintf(out, "%.*s:\n", (int)(dot - part), part);
    }
    return depth;
}

static void print_values(const struct schema *schema, const char *values, int depth, FILE *out);

static void print_table(const struct schema_row *row, const struct schema_table *table, int depth,
                        FILE *out) {
    fprintf(out, "%s:%s\n", leaf(row->key), table->count == 0 ? " {}" : "");
    for (int i = 0; i < table->count; i++) {
        print_indent(depth + 1, out);
        schema_print_text(table->names[i], false, out);
        fputs(":\n", out);
        print_values(row->entries, (const char *)table->entries + (size_t)i * row->entries->size, depth + 2,
                     out);
    }
}

static void print_values(const struct schema *schema, const char *values, int depth, FILE *out) {
    const char *previous = NULL;
    for (int i = 0; i < schema->row_count; i++) {
        const struct schema_row *row = &schema->rows[i];
        int row_depth = open_sections(row->key, previous, depth, out);
        previous = row->key;
        print_indent(row_depth, out);
        if (row->type == SCHEMA_TABLE) {
            print_table(row, (const struct schema_table *)(values + row->offset), row_depth, out);
            continue;
        }
        fprintf(out, "%s: ", leaf(row->key));
        schema_type_of(row->type)->print(row, values + row->offset, out);
        fputc('\n', out);
    }
}

void schema_print_yaml(const struct schema *schema, const void *values, FILE *out) {
    print_values(schema, values, 0, out);
}
