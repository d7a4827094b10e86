#include "common/config/security_config.h"

#include <string.h>

void security_config_check(struct config *config, const struct security_config *security,
                           const char *const *binds, int count) {
    if (*security->allow && !*security->key)
        config_problem(config, "security.allow", "an allow-list needs security.key: nobody is known without keys");
    for (int i = 0; *security->key && !*security->allow && i < count; i++) {
        if (strncmp(binds[i], "tcp://", 6) == 0) {
            config_problem(config, "security.key",
                           "%.80s is bound with it: say who may talk to it, in security.allow", binds[i]);
            break;
        }
    }
}
