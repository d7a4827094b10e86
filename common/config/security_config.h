#pragma once
#include "common/config/schema.h"

/** The section `security` that both daemons have: whether, and with whom, their sockets speak encrypted. */
struct security_config {
    const char *key;   /**< our own NAME.key; "": clear text */
    const char *allow; /**< the allow-list; "": none */
    bool insecure;     /**< binding to other than loopback in the clear is allowed */
};

/** The rows of struct OWNER's field FIELD, a struct security_config. */
#define SECURITY_ROWS(OWNER, FIELD)                                                                          \
    {.key = "security.key",                                                                                  \
     .type = SCHEMA_PATH,                                                                                    \
     .offset = offsetof(struct OWNER, FIELD.key),                                                            \
     .fallback = "",                                                                                         \
     .help = "this daemon's own NAME.key (trainctl keygen curve): every tcp:// endpoint is then encrypted, " \
             "loopback too; none: clear text"},                                                              \
        {.key = "security.allow",                                                                            \
         .type = SCHEMA_PATH,                                                                                \
         .offset = offsetof(struct OWNER, FIELD.allow),                                                      \
         .fallback = "",                                                                                     \
         .help = "who may talk to this daemon: lines \"PUBLIC-KEY ROLES NAME\", with the roles trainer, "    \
                 "member, client, admin; read again when it changes"},                                       \
        {.key = "security.insecure",                                                                         \
         .type = SCHEMA_BOOL,                                                                                \
         .offset = offsetof(struct OWNER, FIELD.insecure),                                                   \
         .fallback = "false",                                                                                \
         .help = "bind addresses other than loopback in the clear (http.bind never is anything else): only " \
                 "on a network that is trusted as a whole"}

/** Adds what makes no sense to the problems. binds: (count) endpoints that the daemon is going to bind. */
void security_config_check(struct config *config, const struct security_config *security,
                           const char *const *binds, int count);

/** The same of the public key of whoever is connected to, given or not as the key `key`: endpoints (count) are his. */
void security_config_check_server(struct config *config, const struct security_config *security, const char *key,
                                  bool given, const char *const *endpoints, int count);
