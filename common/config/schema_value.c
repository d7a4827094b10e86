#include "common/config/schema_value.h"

#include "common/base/text.h"

#include <float.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static bool in_range(const struct schema_row *row, double number) {
    return row->min >= row->max || (number >= row->min && number <= row->max);
}

static struct arena *arena_of(const struct schema_value *value) {
    return &value->config->arena;
}

/* Scalars */

static bool parse_bool(const struct schema_value *value, const char *text, void *field) {
    (void)value;
    bool yes = strcmp(text, "true") == 0;
    if (yes || strcmp(text, "false") == 0)
        *(bool *)field = yes;
    return yes || strcmp(text, "false") == 0;
}

static void print_bool(const struct schema_row *row, const void *field, FILE *out) {
    (void)row;
    fputs(*(const bool *)field ? "true" : "false", out);
}

static bool parse_int(const struct schema_value *value, const char *text, void *field) {
    int64_t number;
    if (!text_to_int(text, INT_MIN, INT_MAX, &number, NULL) || !in_range(value->row, (double)number))
        return false;
    *(int *)field = (int)number;
    return true;
}

static void print_int(const struct schema_row *row, const void *field, FILE *out) {
    (void)row;
    fprintf(out, "%d", *(const int *)field);
}

static bool parse_int64(const struct schema_value *value, const char *text, void *field) {
    int64_t number;
    if (!text_to_int(text, INT64_MIN, INT64_MAX, &number, NULL) || !in_range(value->row, (double)number))
        return false;
    *(int64_t *)field = number;
    return true;
}

static void print_int64(const struct schema_row *row, const void *field, FILE *out) {
    (void)row;
    fprintf(out, "%lld", (long long)*(const int64_t *)field);
}

/** Decimal notation only: strtod alone would take hexadecimal floats too. */
static bool parse_number(const struct schema_row *row, const char *text, double *out) {
    return strspn(text, "0123456789+-.eE") == strlen(text) && text_to_double(text, out, NULL) &&
           in_range(row, *out);
}

/** The fewest digits that read back to the same double. */
static void print_number(double number, FILE *out) {
    char text[40];
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, number);
        if (strtod(text, NULL) == number)
            break;
    }
    fputs(text, out);
}

static bool parse_double(const struct schema_value *value, const char *text, void *field) {
    double number;
    if (!parse_number(value->row, text, &number))
        return false;
    *(double *)field = number;
    return true;
}

static void print_double(const struct schema_row *row, const void *field, FILE *out) {
    (void)row;
    print_number(*(const double *)field, out);
}

static bool parse_float(const struct schema_value *value, const char *text, void *field) {
    double number;
    if (!parse_number(value->row, text, &number) || fabs(number) > FLT_MAX)
        return false;
    *(float *)field = (float)number;
    return true;
}

static void print_float(const struct schema_row *row, const void *field, FILE *out) {
    (void)row;
    char text[40];
    float number = *(const float *)field;
    for (int digits = 1; digits <= 9; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, (double)number);
        if (strtof(text, NULL) == number)
            break;
    }
    fputs(text, out);
}

static int choice_index(const struct schema_row *row, const char *text) {
    for (int i = 0; row->choices[i]; i++) {
        if (strcmp(row->choices[i], text) == 0)
            return i;
    }
    return -1;
}

static bool parse_string(const struct schema_value *value, const char *text, void *field) {
    if (value->row->choices && choice_index(value->row, text) < 0)
        return false;
    *(const char **)field = text;
    return true;
}

static void print_string(const struct schema_row *row, const void *field, FILE *out) {
    const char *text = *(const char *const *)field;
    schema_print_text(text ? text : "", row->type == SCHEMA_PATH, out);
}

static bool parse_path(const struct schema_value *value, const char *text, void *field) {
    struct error why;
    const char *expanded = schema_expand_path(arena_of(value), text, &why);
    if (expanded)
        *(const char **)field = expanded;
    else
        config_problem_at(value->config, value->node, value->key, "%s", why.message);
    return true; /* what was wrong has been said better than "expected a path" */
}

static bool parse_enum(const struct schema_value *value, const char *text, void *field) {
    int index = choice_index(value->row, text);
    if (index >= 0)
        memcpy(field, &index, sizeof index);
    return index >= 0;
}

static void print_enum(const struct schema_row *row, const void *field, FILE *out) {
    int index;
    memcpy(&index, field, sizeof index);
    fputs(row->choices[index], out);
}

/* Numbers with a unit */

struct unit {
    const char *name;
    double factor;
};

static const struct unit size_units[] = {
    {"TiB", 1099511627776.0},
    {"GiB", 1073741824.0},
    {"MiB", 1048576.0},
    {"KiB", 1024.0},
    {"TB", 1e12},
    {"GB", 1e9},
    {"MB", 1e6},
    {"kB", 1e3},
    {"B", 1},
    {"", 1},
    {NULL, 0},
};

static const struct unit duration_units[] = {
    {"d", 86400000}, {"h", 3600000}, {"min", 60000}, {"s", 1000}, {"ms", 1}, {NULL, 0},
};

/** "1.5GiB" -> 1610612736: the number times its unit, which must come to a whole number. */
static bool parse_with_unit(const struct schema_row *row, const struct unit *units, const char *text,
                            double *out) {
    char number[32];
    size_t digits = strspn(text, "0123456789.");
    const char *name = text + digits + strspn(text + digits, " ");
    if (digits == 0 || digits >= sizeof number)
        return false;
    memcpy(number, text, digits);
    number[digits] = '\0';
    const struct unit *unit = units;
    while (unit->name && strcmp(unit->name, name) != 0)
        unit++;
    double value;
    if (!unit->name || !text_to_double(number, &value, NULL))
        return false;
    *out = value * unit->factor;
    return *out <= 9007199254740992.0 && *out == floor(*out) && in_range(row, *out);
}

static void print_with_unit(const struct unit *units, double number, FILE *out) {
    const struct unit *unit = units;
    while (unit[1].name && (number == 0 || fmod(number, unit->factor) != 0))
        unit++;
    fprintf(out, "%.0f%s", number / unit->factor, unit->name);
}

static bool parse_size(const struct schema_value *value, const char *text, void *field) {
    double number;
    if (!parse_with_unit(value->row, size_units, text, &number))
        return false;
    *(size_t *)field = (size_t)number;
    return true;
}

static void print_size(const struct schema_row *row, const void *field, FILE *out) {
    (void)row;
    print_with_unit(size_units, (double)*(const size_t *)field, out);
}

static bool parse_duration(const struct schema_value *value, const char *text, void *field) {
    double number;
    if (!parse_with_unit(value->row, duration_units, text, &number))
        return false;
    *(int64_t *)field = (int64_t)number;
    return true;
}

static void print_duration(const struct schema_row *row, const void *field, FILE *out) {
    (void)row;
    print_with_unit(duration_units, (double)*(const int64_t *)field, out);
}

/* Lists and mappings */

static void describe_node(const struct yaml_node *node, char *out, size_t size) {
    if (node->kind != YAML_SCALAR)
        snprintf(out, size, "%s", yaml_kind_name(node->kind));
    else if (yaml_is_null(node))
        snprintf(out, size, "nothing");
    else
        snprintf(out, size, "\"%.80s\"", node->text);
}

static void report_unexpected(const struct schema_value *value, const struct yaml_node *node) {
    char expected[400], found[100];
    const char *near = NULL;
    int distance = SCHEMA_NEAREST_NONE;
    describe_node(node, found, sizeof found);
    for (int i = 0; value->row->choices && value->row->choices[i] && node->text; i++)
        schema_nearest(node->text, value->row->choices[i], &near, &distance);
    schema_expectation(value->row, expected, sizeof expected);
    config_problem_at(value->config, value->node, value->key,
                      near ? "expected %s, found %s; did you mean %s?" : "expected %s, found %s", expected,
                      found, near);
}

/** The elements of a list; a scalar counts as a list of one. False: reported. */
static bool list_of(const struct schema_value *value, const struct yaml_node *node, int *count,
                    const struct yaml_node **first) {
    bool scalar = node->kind == YAML_SCALAR && !yaml_is_null(node);
    *first = scalar ? node : node->first;
    *count = scalar ? 1 : node->count;
    bool ok = scalar || node->kind == YAML_SEQUENCE;
    if (ok && (value->row->count == 0 || *count == value->row->count))
        return true;
    report_unexpected(value, node);
    return false;
}

static void *allocate(const struct schema_value *value, int count, size_t size) {
    void *memory = arena_alloc(arena_of(value), (size_t)count * size);
    if (!memory)
        config_problem_at(value->config, value->node, value->key, "out of memory");
    return memory;
}

static void read_strings_at(const struct schema_value *value, const struct yaml_node *node,
                            struct string_list *list) {
    int count;
    const struct yaml_node *element;
    const char **items =
        list_of(value, node, &count, &element) ? allocate(value, count, sizeof *items) : NULL;
    for (int i = 0; items && i < count; i++, element = element->next) {
        bool fits = element->kind == YAML_SCALAR && !yaml_is_null(element) &&
                    (!value->row->choices || choice_index(value->row, element->text) >= 0);
        if (!fits) {
            report_unexpected(value, element);
            return;
        }
        items[i] = element->text;
    }
    if (items)
        *list = (struct string_list){count, items};
}

static void read_strings(const struct schema_value *value, void *field) {
    read_strings_at(value, value->node, field);
}

static void print_strings(const struct schema_row *row, const void *field, FILE *out) {
    (void)row;
    const struct string_list *list = field;
    fputc('[', out);
    for (int i = 0; i < list->count; i++) {
        fputs(i > 0 ? ", " : "", out);
        schema_print_text(list->items[i], false, out);
    }
    fputc(']', out);
}

static void read_doubles(const struct schema_value *value, void *field) {
    struct double_list *list = field;
    int count;
    const struct yaml_node *element;
    double *items =
        list_of(value, value->node, &count, &element) ? allocate(value, count, sizeof *items) : NULL;
    for (int i = 0; items && i < count; i++, element = element->next) {
        if (element->kind != YAML_SCALAR || !parse_number(value->row, element->text, &items[i])) {
            report_unexpected(value, element);
            return;
        }
    }
    if (items)
        *list = (struct double_list){count, items};
}

static void print_doubles(const struct schema_row *row, const void *field, FILE *out) {
    (void)row;
    const struct double_list *list = field;
    fputc('[', out);
    for (int i = 0; i < list->count; i++) {
        fputs(i > 0 ? ", " : "", out);
        print_number(list->items[i], out);
    }
    fputc(']', out);
}

static void read_string_lists(const struct schema_value *value, void *field) {
    struct named_lists *lists = field;
    if (value->node->kind != YAML_MAPPING) {
        report_unexpected(value, value->node);
        return;
    }
    struct named_list *items = allocate(value, value->node->count, sizeof *items);
    int count = 0;
    for (const struct yaml_node *child = value->node->first; items && child; child = child->next, count++) {
        struct schema_value element = *value;
        element.node = child;
        items[count].name = child->key;
        read_strings_at(&element, child, &items[count].list);
    }
    if (items)
        *lists = (struct named_lists){count, items};
}

static void print_string_lists(const struct schema_row *row, const void *field, FILE *out) {
    const struct named_lists *lists = field;
    fputc('{', out);
    for (int i = 0; i < lists->count; i++) {
        fputs(i > 0 ? ", " : "", out);
        schema_print_text(lists->items[i].name, false, out);
        fputs(": ", out);
        print_strings(row, &lists->items[i].list, out);
    }
    fputc('}', out);
}

static const struct schema_type_ops types[SCHEMA_TYPE_COUNT] = {
    [SCHEMA_BOOL] = {"bool", "true or false", parse_bool, NULL, print_bool},
    [SCHEMA_INT] = {"int", "a whole number", parse_int, NULL, print_int},
    [SCHEMA_INT64] = {"int", "a whole number", parse_int64, NULL, print_int64},
    [SCHEMA_FLOAT] = {"number", "a number", parse_float, NULL, print_float},
    [SCHEMA_DOUBLE] = {"number", "a number", parse_double, NULL, print_double},
    [SCHEMA_STRING] = {"text", "text (\"\" for none)", parse_string, NULL, print_string},
    [SCHEMA_PATH] = {"path", "a path (\"\" for none)", parse_path, NULL, print_string},
    [SCHEMA_ENUM] = {"choice", "a choice", parse_enum, NULL, print_enum},
    [SCHEMA_SIZE] = {"size", "a size such as 4096, 64KiB or 25MB", parse_size, NULL, print_size},
    [SCHEMA_DURATION] = {"duration", "a duration such as 250ms, 30s, 5min or 2h", parse_duration, NULL,
                         print_duration},
    [SCHEMA_STRING_LIST] = {"list of text", "a list such as [a, b]", NULL, read_strings, print_strings},
    [SCHEMA_DOUBLE_LIST] = {"list of numbers", "a list of numbers such as [0.9, 0.1]", NULL, read_doubles,
                            print_doubles},
    [SCHEMA_STRING_LISTS] = {"lists by name", "names with lists, such as {a: [x, y]}", NULL,
                             read_string_lists, print_string_lists},
    [SCHEMA_TABLE] = {"sections by name", "names with sections, such as {a: {key: value}}", NULL, NULL, NULL},
};

const struct schema_type_ops *schema_type_of(enum schema_type type) {
    return &types[type];
}

void schema_value_read(const struct schema_value *value, void *field) {
    const struct schema_type_ops *type = &types[value->row->type];
    if (type->read)
        type->read(value, field);
    else if (value->node->kind != YAML_SCALAR || yaml_is_null(value->node) ||
             !type->parse(value, value->node->text, field))
        report_unexpected(value, value->node);
}

void schema_value_default(const struct schema_value *value, void *field) {
    const struct schema_type_ops *type = &types[value->row->type];
    const char *text = value->row->fallback;
    if (!text) { /* a key that must be given: strings are never NULL all the same */
        if (value->row->type == SCHEMA_STRING || value->row->type == SCHEMA_PATH)
            *(const char **)field = "";
        return;
    }
    if (type->parse) {
        if (!type->parse(value, text, field))
            config_problem_at(value->config, NULL, value->key, "its own default \"%s\" does not fit", text);
        return;
    }
    struct schema_value given = *value;
    given.node = yaml_parse(arena_of(value), text, strlen(text), "default", NULL);
    if (given.node)
        type->read(&given, field);
    else
        config_problem_at(value->config, NULL, value->key, "its own default \"%s\" is not YAML", text);
}
