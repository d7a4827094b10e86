#include "inferd/client/keys.h"
#include <string.h>

bool client_keys_load(struct client_keys *keys, const struct client_keys_spec *spec, struct error *err) {
    memset(keys, 0, sizeof *keys);
    if (!spec->key) {
        return spec->server_key_count == 0 ||
               error_set(err, ERROR_INVALID, "a server key, and no key of our own: nothing would be encrypted");
    }
    if (spec->server_key_count < 0 || spec->server_key_count > DISPATCH_MAX_MEMBERS) {
        return error_set(err, ERROR_INVALID, "%d server keys: expected up to %d", spec->server_key_count,
                         DISPATCH_MAX_MEMBERS);
    }
    for (int i = 0; i < spec->server_key_count; i++) {
        if (!curve_public_load(spec->server_keys[i], keys->text[i], err)) {
            return error_prefix(err, "server key");
        }
        keys->servers[i] = keys->text[i];
    }
    keys->server_count = spec->server_key_count;
    keys->security = wire_security_create(&(struct wire_security_spec){.secret_key = spec->key}, err);
    return keys->security != NULL;
}

void client_keys_fini(struct client_keys *keys) {
    wire_security_destroy(keys->security);
    memset(keys, 0, sizeof *keys);
}
