#include "trainerd/cluster_keys.h"

#include "common/base/log.h"

#include <string.h>

static bool open_secret(const struct trainer_config *config, struct cluster_keys *out, struct error *err) {
    if (!(out->security = wire_security_create_shared(config->cluster.secret, log_error, err)))
        return error_prefix(err, "cluster.secret");
    out->owns = true;
    memcpy(out->server_key, wire_security_key(out->security)->public_key, sizeof out->server_key);
    return true;
}

/** A worker connects only: it needs no allow-list. */
static bool open_pair(const struct trainer_config *config, struct wire_security *own, struct cluster_keys *out,
                      struct error *err) {
    struct wire_security_spec spec = {.secret_key = config->security.key, .report = log_error};
    out->security = own ? own : wire_security_create(&spec, err);
    if (!out->security)
        return error_prefix(err, "security");
    out->owns = !own;
    return curve_public_load(config->cluster.server_key, out->server_key, err) || error_prefix(err, "cluster.server_key");
}

bool cluster_keys_open(const struct trainer_config *config, struct wire_security *own, struct cluster_keys *out,
                       struct error *err) {
    *out = (struct cluster_keys){0};
    if (*config->cluster.secret)
        return open_secret(config, out, err);
    return !*config->cluster.server_key || open_pair(config, own, out, err);
}

void cluster_keys_close(struct cluster_keys *keys) {
    if (keys->owns)
        wire_security_destroy(keys->security);
    *keys = (struct cluster_keys){0};
}
