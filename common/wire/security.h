#pragma once
#include "common/wire/curve_key.h"
#include <stdbool.h>
#include <stdint.h>

/**
 * Who may talk to us: our own CURVE key, and the allow-list, which is read anew when its file changes (looked
 * at once a second at most). README.md has the threat model. Thread-safe: the list has a lock of its own, a
 * leaf, which is never held while a file is read.
 *
 * The allow-list is text, a peer a line, and trusted only where nobody else may write it
 * (common/base/secret_file.h):
 *
 *     # comments begin with "# ", since a key may begin with "#"
 *     PUBLIC-KEY-OF-40-CHARACTERS member,client ward-3
 */
struct wire_security;

/** What a peer may be: a set of bits. */
enum wire_role { WIRE_TRAINER = 1, WIRE_MEMBER = 2, WIRE_CLIENT = 4, WIRE_ADMIN = 8 };

enum { WIRE_PEER_NAME_SIZE = 101, WIRE_ROLES_SIZE = 40 };

/** "member, admin" for people. Returns out. */
const char *wire_roles_text(unsigned roles, char out[WIRE_ROLES_SIZE]);

/** Who sent a message. */
struct wire_peer {
    bool authenticated; /**< by its key; false on sockets without security, where everybody may do everything
                         */
    unsigned roles;     /**< of enum wire_role, as the list says now */
    char name[WIRE_PEER_NAME_SIZE]; /**< as the list calls it */
};

struct wire_security_spec {
    const char *secret_key; /**< our own .key file */
    const char *allow;      /**< the allow-list, for sockets that bind; NULL or "": for connecting only */
    /** Told what nobody else hears of: a list that could not be read anew, peers that were refused (another
     * key than the last one at most once a second, the same one once a minute). Any thread. log_error fits. May
     * be NULL. */
    void (*report)(const char *event, const struct error *err);
};

/** Reads both files. Returns owned. Outlives all contexts whose sockets use it. */
struct wire_security *wire_security_create(const struct wire_security_spec *spec, struct error *err);
/**
 * For processes that are one another's equals: each has the pair that follows from the secret in a file (curve_key_load_shared),
 * and an allow-list of just that, with the role trainer and the name "cluster". The server key of whoever connects is
 * wire_security_key()->public_key. report: as in wire_security_spec. Returns owned.
 */
struct wire_security *wire_security_create_shared(const char *secret_file,
                                                  void (*report)(const char *event, const struct error *err),
                                                  struct error *err);
/** Takes NULL. */
void wire_security_destroy(struct wire_security *security);

/** Our own pair. Borrowed. */
const struct curve_key *wire_security_key(const struct wire_security *security);
/** Whether there is an allow-list, so that sockets can be bound. */
bool wire_security_has_list(const struct wire_security *security);

/** Reads the allow-list now, where it has a file. On error the list that was read before stays in force. */
bool wire_security_reload(struct wire_security *security, struct error *err);

/** Looks a peer up, in a list no older than a second. False where it is not in it, or has none of roles. */
bool wire_security_find(struct wire_security *security, const char *public_key, unsigned roles,
                        struct wire_peer *out);

/** How often the list, which is looked at, lost a key or a key a role: whoever keeps connections asks this. */
uint64_t wire_security_removals(struct wire_security *security);

/** Counts a refusal, and reports it. what: "connection" or "message"; public_key may be "". */
void wire_security_refused(struct wire_security *security, const char *what, const char *public_key);
/** Connections and messages refused so far. */
uint64_t wire_security_refusals(struct wire_security *security);

/** One line of the list in memory. */
struct wire_allowed {
    char key[CURVE_TEXT_SIZE];
    struct wire_peer peer;
};
/**
 * Parses the text of an allow-list, which ends with NUL; where: its name, for errors. Returns owned (free),
 * sorted by key, *count entries; NULL on error. A key stands in it once.
 */
struct wire_allowed *wire_allowed_parse(const char *text, const char *where, int *count, struct error *err);
