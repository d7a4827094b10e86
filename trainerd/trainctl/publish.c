#include "trainerd/trainctl/publish.h"

#include "trainerd/trainctl/control.h"
#include "trainerd/upload.h"

#include <stdio.h>

static const char usage[] =
    "usage: trainctl publish FILE [--sign-key NAME.key] [--to ENDPOINT] [--timeout-ms N] [--json]\n"
    "Hands a model file to a running publisher, which offers it to its pool.\n"
    "  --sign-key FILE   signs it first (trainctl keygen sign); else the publisher signs, where it has a key\n"
    "  --to ENDPOINT     the publisher's control socket (default " POOL_DEFAULT_CONTROL ")\n"
    "  --timeout-ms N    how long to wait for each answer (default 10000)\n" CONTROL_KEYS
    "  --json            print the result as JSON\n"
    "  --help            this text\n";

static void print_done(const struct control_options *options, const struct upload_done *done) {
    char hex[DIGEST_HEX_SIZE];
    printf(options->json ? "{\"name\": \"%s\", \"version\": \"%s\", \"size_bytes\": %zu, \"digest\": \"%s\"}\n"
                         : "published %s %s, %zu bytes, digest %s\n",
           done->name, done->version, done->size_bytes, digest_hex(&done->digest, hex));
}

static bool publish(const struct control_options *options, struct error *err) {
    struct control control;
    struct control_keys keys;
    struct upload_spec spec = {.path = options->file, .sign_key = options->sign_key};
    struct upload_done done;
    bool ok = control_enter(&control, &keys, options, err) && digest_start(err) &&
              upload_file(&control, &spec, &done, err);
    control_leave(&control, &keys);
    if (ok && done.gate[0])
        return error_set(err, ERROR_INVALID, "refused by the publisher's gate, and kept there: %.400s", done.gate);
    if (ok)
        print_done(options, &done);
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
