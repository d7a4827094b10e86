#include "common/config/security_config.h"

#include <string.h>

/** The first of them that is encrypted where there are keys; NULL: none. */
static const char *first_tcp(const char *const *endpoints, int count) {
    for (int i = 0; i < count; i++) {
        if (strncmp(endpoints[i], "tcp://", 6) == 0)
            return endpoints[i];
    }
    return NULL;
}

void security_config_check(struct config *config, const struct security_config *security,
                           const char *const *binds, int count) {
    const char *tcp = first_tcp(binds, count);
    if (*security->allow && !*security->key)
        config_problem(config, "security.allow", "an allow-list needs security.key: nobody is known without keys");
    if (*security->key && !*security->allow && tcp)
        config_problem(config, "security.key", "%.80s is bound with it: say who may talk to it, in security.allow", tcp);
}

void security_config_check_server(struct config *config, const struct security_config *security, const char *key,
                                  bool given, const char *const *endpoints, int count) {
    const char *tcp = first_tcp(endpoints, count);
    if (given && !*security->key)
        config_problem(config, key, "it needs security.key: the other side asks for ours");
    if (*security->key && !given && tcp)
        config_problem(config, key, "missing: with security.key %.80s is encrypted", tcp);
}
