#include "trainerd/hostlist.h"

#include <stdlib.h>
#include <string.h>

static const char digits[] = "0123456789";
enum { COUNT_DIGITS = 7 }; /* more nodes, or tasks on one, than there are */

static bool append(char out[HOSTLIST_HOST_SIZE], size_t *length, const char *text, size_t size) {
    if (size >= HOSTLIST_HOST_SIZE - *length)
        return false;
    memcpy(out + *length, text, size);
    *length += size;
    out[*length] = '\0';
    return true;
}

/** The first number between brackets; *at is behind the opening one, then behind the closing one. */
static bool take_bracket(const char **at, char out[HOSTLIST_HOST_SIZE], size_t *length) {
    size_t number = strspn(*at, digits), inside = strspn(*at, "0123456789,-");
    bool ok = number > 0 && (*at)[inside] == ']' && append(out, length, *at, number);
    *at += inside + 1;
    return ok;
}

bool hostlist_first(const char *list, char out[HOSTLIST_HOST_SIZE], struct error *err) {
    const char *letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
    const char *at = list;
    size_t length = 0;
    bool ok = true;
    for (out[0] = '\0'; ok && *at && *at != ',';) {
        size_t plain = strspn(at, letters);
        if (plain > 0) {
            ok = append(out, &length, at, plain);
            at += plain;
        } else {
            ok = *at++ == '[' && take_bracket(&at, out, &length);
        }
    }
    return (ok && length > 0) || error_set(err, ERROR_FORMAT, "\"%.80s\" is no list of hosts", list);
}

/** A positive number of few digits; 0: there is none. */
static int64_t take_count(const char **at) {
    size_t length = strspn(*at, digits);
    int64_t value = length <= COUNT_DIGITS ? strtoll(*at, NULL, 10) : 0;
    *at += length;
    return length > 0 ? value : 0;
}

/** One entry: COUNT or COUNT(xNODES); false where it is neither. */
static bool take_entry(const char **at, int64_t *tasks, int64_t *nodes) {
    *tasks = take_count(at);
    *nodes = 1;
    if (strncmp(*at, "(x", 2) == 0) {
        *at += 2;
        *nodes = take_count(at);
        if (*(*at)++ != ')')
            return false;
    }
    return *tasks > 0 && *nodes > 0;
}

bool hostlist_tasks(const char *list, int64_t node, struct hostlist_tasks *out, struct error *err) {
    const char *at = list;
    *out = (struct hostlist_tasks){0};
    for (bool more = true; more; more = *at++ == ',') {
        int64_t tasks, nodes;
        if (!take_entry(&at, &tasks, &nodes) || (*at && *at != ','))
            return error_set(err, ERROR_FORMAT, "\"%.80s\" does not say how many tasks each node has", list);
        if (node >= out->nodes && node < out->nodes + nodes)
            out->here = tasks;
        out->nodes += nodes;
        out->tasks += tasks * nodes;
        out->most = tasks > out->most ? tasks : out->most;
        if (out->tasks > 1000000)
            return error_set(err, ERROR_TOO_LARGE, "\"%.80s\": more than a million tasks", list);
    }
    return out->here > 0 || error_set(err, ERROR_INVALID, "\"%.80s\" has no node %lld", list, (long long)node);
}
