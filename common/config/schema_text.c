#include "common/config/schema_value.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

/* Messages */

static void append(char *out, size_t size, const char *text) {
    size_t used = strlen(out);
    if (used + 1 < size)
        snprintf(out + used, size - used, "%s", text);
}

static void append_choices(const struct schema_row *row, char *out, size_t size) {
    append(out, size, "one of ");
    for (int i = 0; row->choices[i]; i++) {
        append(out, size, i > 0 ? ", " : "");
        append(out, size, row->choices[i]);
    }
}

const char *schema_expectation(const struct schema_row *row, char *out, size_t size) {
    *out = '\0';
    if (row->choices && row->type != SCHEMA_STRING_LIST) {
        append_choices(row, out, size);
        return out;
    }
    append(out, size, schema_type_of(row->type)->noun);
    char part[96];
    if (row->min < row->max) {
        snprintf(part, sizeof part, row->type == SCHEMA_DURATION ? " in %.15g..%.15g ms" : " in %.15g..%.15g",
                 row->min, row->max);
        append(out, size, part);
    }
    if (row->count > 0) {
        snprintf(part, sizeof part, ", %d of them", row->count);
        append(out, size, part);
    }
    return out;
}

enum { MAX_WORD = 64 };

/** Levenshtein, "Binary codes capable of correcting deletions, insertions, and reversals" (1966), by rows. */
static int edit_distance(const char *a, const char *b) {
    size_t length = strlen(b);
    if (strlen(a) >= MAX_WORD || length >= MAX_WORD)
        return SCHEMA_NEAREST_NONE;
    int row[MAX_WORD];
    for (size_t j = 0; j <= length; j++)
        row[j] = (int)j;
    for (size_t i = 0; a[i]; i++) {
        int diagonal = row[0];
        row[0] = (int)i + 1;
        for (size_t j = 0; j < length; j++) {
            int change = diagonal + (tolower((unsigned char)a[i]) != tolower((unsigned char)b[j]));
            int shorter = (row[j] < row[j + 1] ? row[j] : row[j + 1]) + 1;
            diagonal = row[j + 1];
            row[j + 1] = change < shorter ? change : shorter;
        }
    }
    return row[length];
}

void schema_nearest(const char *word, const char *candidate, const char **best, int *best_distance) {
    int distance = edit_distance(word, candidate);
    int allowed = strlen(word) < 4 ? 1 : strlen(word) < 8 ? 2 : 3;
    if (distance <= allowed && distance < *best_distance) {
        *best = candidate;
        *best_distance = distance;
    }
}

/* Text that goes out */

static bool plain_text(const char *text) {
    if (!isalpha((unsigned char)*text) && *text != '/' && *text != '_')
        return false;
    for (const char *c = text; *c; c++) {
        if (!isalnum((unsigned char)*c) && !strchr("_./-", *c))
            return false;
    }
    static const char *const words[] = {"null", "true", "false", "yes", "no", "on", "off", "y", "n"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (strcasecmp(text, words[i]) == 0)
            return false;
    }
    return true;
}

static void print_quoted_char(unsigned char c, FILE *out) {
    if (c == '"' || c == '\\')
        fprintf(out, "\\%c", c);
    else if (c == '\n')
        fputs("\\n", out);
    else if (c < ' ' || c == 0x7f)
        fprintf(out, "\\x%02x", c);
    else
        fputc(c, out);
}

void schema_print_text(const char *text, bool is_path, FILE *out) {
    bool plain = plain_text(text);
    if (!plain)
        fputc('"', out);
    if (is_path && *text == '~')
        fputs("./", out); /* a folder that is really called ~ */
    for (const char *c = text; *c; c++) {
        if (is_path && *c == '$')
            fputc('$', out);
        if (plain)
            fputc(*c, out);
        else
            print_quoted_char((unsigned char)*c, out);
    }
    if (!plain)
        fputc('"', out);
}

/* Environment variables in paths */

enum { MAX_PATH_TEXT = 4096 };

struct expansion {
    char text[MAX_PATH_TEXT];
    size_t length;
    struct error *err;
};

static bool add_text(struct expansion *to, const char *text, size_t length) {
    if (length >= sizeof to->text - to->length)
        return error_set(to->err, ERROR_TOO_LARGE, "longer than %d bytes", MAX_PATH_TEXT - 1);
    memcpy(to->text + to->length, text, length);
    to->length += length;
    return true;
}

static bool add_variable(struct expansion *to, const char *name, size_t name_length, const char *otherwise,
                         size_t other_length) {
    char variable[128];
    if (name_length == 0 || name_length >= sizeof variable)
        return error_set(to->err, ERROR_INVALID,
                         "\"$\" without the name of a variable; write $$ for a dollar");
    memcpy(variable, name, name_length);
    variable[name_length] = '\0';
    const char *value = getenv(variable);
    if (value && (*value || !otherwise))
        return add_text(to, value, strlen(value));
    if (otherwise)
        return add_text(to, otherwise, other_length);
    return error_set(to->err, ERROR_NOT_FOUND, "the environment variable %s is not set", variable);
}

static size_t name_length(const char *text) {
    size_t length = 0;
    while (isalnum((unsigned char)text[length]) || text[length] == '_')
        length++;
    return length;
}

/** Expands what follows a dollar and moves *at behind it. */
static bool add_dollar(struct expansion *to, const char **at) {
    const char *text = *at;
    if (*text == '$') {
        *at = text + 1;
        return add_text(to, "$", 1);
    }
    if (*text != '{') {
        *at = text + name_length(text);
        return add_variable(to, text, name_length(text), NULL, 0);
    }
    const char *close = strchr(text, '}');
    size_t length = name_length(text + 1);
    const char *after = text + 1 + length;
    bool has_else = strncmp(after, ":-", 2) == 0;
    if (!close || (after != close && !has_else))
        return error_set(to->err, ERROR_INVALID, "\"${\" that does not end as ${NAME} or ${NAME:-else}");
    *at = close + 1;
    return add_variable(to, text + 1, length, has_else ? after + 2 : NULL,
                        has_else ? (size_t)(close - after - 2) : 0);
}

const char *schema_expand_path(struct arena *arena, const char *text, struct error *err) {
    struct expansion to = {.length = 0, .err = err};
    bool ok = true;
    if (strcmp(text, "~") == 0 || strncmp(text, "~/", 2) == 0) {
        ok = add_variable(&to, "HOME", 4, NULL, 0);
        text++;
    }
    while (ok && *text) {
        if (*text == '$') {
            text++;
            ok = add_dollar(&to, &text);
        } else {
            ok = add_text(&to, text++, 1);
        }
    }
    const char *result = ok ? arena_copy(arena, to.text, to.length) : NULL;
    if (ok && !result)
        error_set(err, ERROR_MEMORY, "out of memory");
    return result;
}
