#include "trainerd/trainctl/publish.h"

#include "common/base/file.h"
#include "common/pool/descriptor.h"
#include "trainerd/publisher_inspect.h"
#include "trainerd/trainctl/control.h"
#include "trainerd/trainctl/upload.h"

#include <stdio.h>

static const char usage[] =
    "usage: trainctl publish FILE [--sign-key NAME.key] [--to ENDPOINT] [--timeout-ms N] [--json]\n"
    "Hands a model file to a running publisher, which offers it to its pool.\n"
    "  --sign-key FILE   signs it first (trainctl keygen sign); else the publisher signs, where it has a key\n"
    "  --to ENDPOINT     the publisher's control socket (default " POOL_DEFAULT_CONTROL ")\n"
    "  --timeout-ms N    how long to wait for each answer (default 10000)\n"
    "  --json            print the result as JSON\n"
    "  --help            this text\n";

static bool sign(struct descriptor *descriptor, const char *path, struct error *err) {
    struct signature_key key;
    bool ok = !path || (signature_key_load(path, &key, err) && descriptor_sign(descriptor, &key, err));
    if (path)
        signature_key_wipe(&key);
    return ok;
}

static bool publish(const struct control_options *options, struct error *err) {
    struct publisher_findings findings;
    char hex[DIGEST_HEX_SIZE];
    struct file_map map;
    struct descriptor descriptor = {0};
    if (!digest_start(err))
        return false;
    if (!publisher_inspect_model(NULL, options->file, &findings, err))
        return false;
    if (!file_map_open(options->file, &map, err))
        return false;
    struct control control = {0};
    struct descriptor_spec spec = publisher_describe(&findings, map.data, map.size);
    bool ok = descriptor_make(&descriptor, &spec, err) && sign(&descriptor, options->sign_key, err) &&
              control_open(&control, options->endpoint, options->timeout_ms, err) &&
              upload_model(&control, &descriptor, map.data, err);
    control_close(&control);
    if (ok && options->json)
        printf("{\"name\": \"%s\", \"version\": \"%s\", \"digest\": \"%s\", \"size_bytes\": %zu}\n",
               findings.name, findings.version, digest_hex(&descriptor.digest, hex), map.size);
    else if (ok)
        printf("published %s %s, %zu bytes, digest %s\n", findings.name, findings.version, map.size,
               digest_hex(&descriptor.digest, hex));
    descriptor_fini(&descriptor);
    file_map_close(&map);
    return ok;
}

int command_publish(int argc, char **argv) {
    struct control_options options;
    struct error err = {0};
    int code = control_parse(argc, argv, CONTROL_ARGUMENT | CONTROL_SIGN, usage, &options);
    if (code >= 0)
        return code;
    return publish(&options, &err) ? 0 : control_failed(argv, &err);
}
