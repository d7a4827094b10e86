#include "common/wire/security.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PEERS_MAX = 4096 };

/** A word inside a line. */
struct word {
    const char *text;
    size_t size;
};

static bool word_is(struct word word, const char *text) {
    return strlen(text) == word.size && memcmp(word.text, text, word.size) == 0;
}

/** The next word of a line, empty at its end. */
static struct word next_word(const char **at) {
    *at += strspn(*at, " \t\r");
    struct word word = {*at, strcspn(*at, " \t\r\n")};
    *at += word.size;
    return word;
}

static const struct {
    const char *name;
    unsigned role;
} ROLES[] = {{"trainer", WIRE_TRAINER}, {"member", WIRE_MEMBER}, {"client", WIRE_CLIENT}, {"admin", WIRE_ADMIN}};

static bool take_role(struct word word, unsigned *roles) {
    for (size_t i = 0; i < sizeof ROLES / sizeof *ROLES; i++) {
        if (word_is(word, ROLES[i].name)) {
            *roles |= ROLES[i].role;
            return true;
        }
    }
    return false;
}

const char *wire_roles_text(unsigned roles, char out[WIRE_ROLES_SIZE]) {
    size_t used = 0;
    out[0] = '\0';
    for (size_t i = 0; i < sizeof ROLES / sizeof *ROLES; i++) {
        if (roles & ROLES[i].role)
            used += (size_t)snprintf(out + used, WIRE_ROLES_SIZE - used, "%s%s", used ? ", " : "", ROLES[i].name);
    }
    return out;
}

static bool take_roles(struct word word, unsigned *roles) {
    for (size_t from = 0, i = 0; i <= word.size; i++) {
        if (i < word.size && word.text[i] != ',') {
            continue;
        }
        if (!take_role((struct word){word.text + from, i - from}, roles)) {
            return false;
        }
        from = i + 1;
    }
    return true;
}

/** As descriptor_name_ok: names reach logs, and are compared with those in reports. */
static bool take_name(struct word word, char out[WIRE_PEER_NAME_SIZE]) {
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
    if (word.size < 1 || word.size >= WIRE_PEER_NAME_SIZE || strchr("._-", word.text[0])) {
        return false;
    }
    memcpy(out, word.text, word.size);
    out[word.size] = '\0';
    return strspn(out, letters) == word.size;
}

/** What is wrong with a line, or NULL. An empty line and a comment leave out->key empty. */
static const char *parse_line(const char *line, struct wire_allowed *out) {
    *out = (struct wire_allowed){.peer = {.authenticated = true}};
    struct word key = next_word(&line);
    if (key.size == 0 || word_is(key, "#")) {
        return NULL;
    }
    struct word roles = next_word(&line), name = next_word(&line);
    if (key.size != CURVE_TEXT_SIZE - 1) {
        return "expected a public key of 40 characters (a comment begins with \"# \")";
    }
    memcpy(out->key, key.text, key.size);
    if (!curve_public_ok(out->key)) {
        return "the public key is no Z85";
    }
    if (!take_roles(roles, &out->peer.roles)) {
        return "expected roles behind the key: trainer, member, client, admin, joined by commas";
    }
    if (!take_name(name, out->peer.name)) {
        return "expected a name behind the roles: 1 to 100 of A-Z a-z 0-9 . _ -";
    }
    return next_word(&line).size ? "more words than a key, roles and a name" : NULL;
}

static int by_key(const void *a, const void *b) {
    return strcmp(((const struct wire_allowed *)a)->key, ((const struct wire_allowed *)b)->key);
}

static bool parse_lines(const char *text, const char *where, struct wire_allowed *list, int *count,
                        struct error *err) {
    for (int number = 1; *text; number++) {
        struct wire_allowed line;
        const char *fault = parse_line(text, &line);
        if (fault) {
            return error_set(err, ERROR_FORMAT, "%s:%d: %s", where, number, fault);
        }
        if (line.key[0] && *count == PEERS_MAX) {
            return error_set(err, ERROR_TOO_LARGE, "%s: more than %d peers", where, PEERS_MAX);
        }
        if (line.key[0]) {
            list[(*count)++] = line;
        }
        text += strcspn(text, "\n");
        text += *text == '\n';
    }
    qsort(list, (size_t)*count, sizeof *list, by_key);
    for (int i = 1; i < *count; i++) {
        if (strcmp(list[i - 1].key, list[i].key) == 0) {
            return error_set(err, ERROR_FORMAT, "%s: %s and %s have the same key", where,
                             list[i - 1].peer.name, list[i].peer.name);
        }
    }
    return true;
}

struct wire_allowed *wire_allowed_parse(const char *text, const char *where, int *count, struct error *err) {
    struct wire_allowed *list = calloc(PEERS_MAX, sizeof *list);
    *count = 0;
    if (!list) {
        error_set(err, ERROR_MEMORY, "out of memory for an allow-list");
        return NULL;
    }
    if (!parse_lines(text, where, list, count, err)) {
        free(list);
        return NULL;
    }
    return list;
}
