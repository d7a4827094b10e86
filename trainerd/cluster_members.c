#include "trainerd/cluster_members.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SHOWN_MAX = 120 };

bool cluster_members_init(struct cluster_members *members, int nodes, int64_t silence_ms, const char *fingerprint,
                          struct error *err) {
    *members = (struct cluster_members){.nodes = nodes, .silence_ms = silence_ms, .fingerprint = fingerprint};
    members->list = calloc((size_t)nodes, sizeof *members->list);
    return members->list || error_set(err, ERROR_MEMORY, "out of memory for %d nodes", nodes);
}

void cluster_members_fini(struct cluster_members *members) {
    free(members->list);
    *members = (struct cluster_members){0};
}

static size_t line_length(const char *text) {
    return strcspn(text, "\n");
}

/** In a printed configuration a line without indent is a section; what follows is in it. */
static void follow_section(const char *line, size_t length, char *section, size_t size) {
    if (length == 0 || *line == ' ')
        return;
    section[0] = '\0';
    if (line[length - 1] == ':')
        snprintf(section, size, "%.*s.", (int)(length - 1 < size - 2 ? length - 1 : size - 2), line);
}

static int indent_of(const char *line, size_t length) {
    int spaces = 0;
    while ((size_t)spaces < length && line[spaces] == ' ')
        spaces++;
    return spaces;
}

static int shown(size_t length) {
    return (int)(length < SHOWN_MAX ? length : SHOWN_MAX);
}

/** What is different in two fingerprints, both sides shown; false where nothing is. */
static bool explain_difference(const char *here, const char *there, char *reason) {
    char section[SHOWN_MAX] = "";
    while (*here || *there) {
        size_t mine = line_length(here), its = line_length(there);
        if (mine != its || memcmp(here, there, mine) != 0) {
            int skip_here = indent_of(here, mine), skip_there = indent_of(there, its);
            const char *prefix = skip_here || skip_there ? section : "";
            const char *its_value = there + skip_there, *my_value = here + skip_here;
            snprintf(reason, CLUSTER_REASON_SIZE, "it has \"%s%.*s\", the coordinator has \"%s%.*s\"", prefix,
                     shown(its - (size_t)skip_there), its_value, prefix, shown(mine - (size_t)skip_here), my_value);
            return true;
        }
        follow_section(here, mine, section, sizeof section);
        here += mine + (here[mine] == '\n');
        there += its + (there[its] == '\n');
    }
    return false;
}

static void note_connection(struct cluster_member *member, struct wire_frame identity, int64_t now_ms) {
    if (identity.size <= CLUSTER_IDENTITY_MAX) {
        memcpy(member->identity, identity.data, identity.size);
        member->identity_size = identity.size;
    }
    member->heard_ms = now_ms;
}

enum cluster_admission cluster_members_admit(struct cluster_members *members, const struct cluster_hello *hello,
                                             struct wire_frame identity, int64_t now_ms, char *reason) {
    if (hello->nodes != members->nodes) {
        snprintf(reason, CLUSTER_REASON_SIZE, "it is one of %d nodes, the coordinator's run is of %d (cluster.nodes)",
                 hello->nodes, members->nodes);
        return CLUSTER_REFUSED;
    }
    if (explain_difference(members->fingerprint, hello->fingerprint, reason))
        return CLUSTER_REFUSED;
    struct cluster_member *member = &members->list[hello->node];
    bool same = member->here && member->instance == hello->instance;
    if (member->here && !same) {
        snprintf(reason, CLUSTER_REASON_SIZE, "there is a node %d (cluster.node) already, %s, heard of %.1f s ago", hello->node,
                 member->name, (double)(now_ms - member->heard_ms) / 1000);
        return CLUSTER_LATER;
    }
    if (!same) {
        *member = (struct cluster_member){.here = true, .ranks = hello->ranks, .instance = hello->instance};
        snprintf(member->name, sizeof member->name, "%s", hello->name);
    }
    note_connection(member, identity, now_ms);
    return same ? CLUSTER_KNOWN : CLUSTER_ADMITTED;
}

int cluster_members_hear(struct cluster_members *members, uint64_t instance, struct wire_frame identity, int64_t now_ms) {
    for (int node = 0; node < members->nodes; node++) {
        struct cluster_member *member = &members->list[node];
        if (!member->here || member->instance != instance)
            continue;
        note_connection(member, identity, now_ms);
        return node;
    }
    return -1;
}

int cluster_members_silent(const struct cluster_members *members, int64_t now_ms) {
    for (int node = 0; node < members->nodes; node++) {
        const struct cluster_member *member = &members->list[node];
        if (member->here && now_ms - member->heard_ms > members->silence_ms)
            return node;
    }
    return -1;
}

bool cluster_members_leave_out(struct cluster_members *members, int node, int place) {
    struct cluster_member *member = &members->list[node];
    if (!member->here || place >= member->ranks || place >= CLUSTER_PLACES_MAX || member->left_out >> place & 1)
        return false;
    member->left_out |= UINT64_C(1) << place;
    return true;
}

/** How many ranks a node can be given. */
static int room_of(const struct cluster_member *member) {
    return member->here ? member->ranks - __builtin_popcountll(member->left_out) : 0;
}

int cluster_members_ranks(const struct cluster_members *members, int *nodes) {
    int ranks = 0;
    *nodes = 0;
    for (int node = 0; node < members->nodes; node++) {
        *nodes += members->list[node].here;
        ranks += room_of(&members->list[node]);
    }
    return ranks;
}

void cluster_members_assign(struct cluster_members *members, const struct cluster_share *share) {
    int given = 0;
    for (int node = 0; node < members->nodes; node++) {
        struct cluster_member *member = &members->list[node];
        int left = share->ranks - given, room = room_of(member);
        member->share = *share;
        member->share.left_out = member->left_out;
        member->share.first_rank = given;
        member->share.count = room < left ? room : left;
        member->ended = 0;
        given += member->share.count;
    }
}

const char *cluster_members_missing(const struct cluster_members *members, char *out, size_t size) {
    size_t used = 0;
    out[0] = '\0';
    for (int node = 0; node < members->nodes && used < size; node++) {
        if (!members->list[node].here)
            used += (size_t)snprintf(out + used, size - used, "%snode %d", used ? ", " : "", node);
    }
    return out;
}
