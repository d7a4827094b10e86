#include "common/pool/signature.h"
#include "common/wire/curve_key.h"
#include "trainerd/trainctl/commands.h"

#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
    "usage: trainctl keygen curve|sign|secret --out NAME [--json]\n"
    "Makes a pair of keys: NAME.key (secret: keep it where it is used, mode 0600) and NAME.pub (to hand "
    "out); or a secret that nodes share, in the one file NAME.\n"
    "Files that are there are never overwritten.\n"
    "  curve         who may talk to whom: one pair for each daemon, tool and client (security.key,\n"
    "                security.allow, --key, --server-key)\n"
    "  sign          who may vouch for models: Ed25519\n"
    "  secret        which trainerd may train together over several nodes: copy the file to each of them\n"
    "                (cluster.secret)\n"
    "  --out NAME    where to write them\n"
    "  --json        print the files' names, and the public key, as JSON\n"
    "  --help        this text\n";

/** What was made, in words. */
struct made {
    char public[2 * SIGNATURE_PUBLIC_SIZE + 1]; /* "": there is no pair but one file */
    char id[SIGNATURE_ID_SIZE]; /* "" for kinds whose keys have no short name */
};

static bool make_curve(const char *name, struct made *made, struct error *err) {
    struct curve_key key;
    if (!curve_key_generate(&key, err))
        return false;
    bool ok = curve_key_write(&key, name, err);
    snprintf(made->public, sizeof made->public, "%s", key.public_key);
    curve_key_wipe(&key);
    return ok;
}

static bool make_sign(const char *name, struct made *made, struct error *err) {
    struct signature_key key;
    if (!signature_key_generate(&key, err))
        return false;
    bool ok = signature_key_write(&key, name, err);
    for (size_t i = 0; i < sizeof key.public_key; i++)
        snprintf(made->public + 2 * i, 3, "%02x", key.public_key[i]);
    signature_key_id(key.public_key, made->id);
    signature_key_wipe(&key);
    return ok;
}

static bool make_secret(const char *name, struct made *made, struct error *err) {
    (void)made;
    return curve_secret_write(name, err);
}

static const struct kind {
    const char *name;
    bool (*make)(const char *name, struct made *made, struct error *err);
} kinds[] = {{"curve", make_curve}, {"sign", make_sign}, {"secret", make_secret}};

static const struct kind *find_kind(const char *name) {
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (strcmp(kinds[i].name, name) == 0)
            return &kinds[i];
    }
    return NULL;
}

struct keygen_options {
    const struct kind *kind;
    const char *out;
    bool json;
};

/** As control_parse: -1 to go on, else the exit code. */
static int parse(int argc, char **argv, struct keygen_options *out) {
    static const struct option rows[] = {{"out", required_argument, NULL, 'o'},
                                         {"json", no_argument, NULL, 'j'},
                                         {"help", no_argument, NULL, 'h'},
                                         {0}};
    const char *fault = NULL;
    optind = 1;
    opterr = 0;
    for (int letter; (letter = getopt_long(argc, argv, "", rows, NULL)) != -1;) {
        if (letter == 'h') {
            fputs(usage, stdout);
            return 0;
        }
        if (letter == 'o')
            out->out = optarg;
        else if (letter == 'j')
            out->json = true;
        else
            fault = "unknown option, or an option without its value";
    }
    out->kind = optind + 1 == argc ? find_kind(argv[optind]) : NULL;
    if (!fault && !out->kind)
        fault = "which kind: curve, sign or secret?";
    if (!fault && !out->out)
        fault = "--out is wanted";
    if (!fault)
        return -1;
    fprintf(stderr, "trainctl %s: %s\n%s", argv[0], fault, usage);
    return 2;
}

/** Returns owned; NULL: out of memory, or a name that is not UTF-8. */
static json_t *describe(const struct keygen_options *options, const struct made *made) {
    if (!made->public[0])
        return json_pack("{s:s, s:s}", "kind", options->kind->name, "secret_file", options->out);
    json_t *root =
        json_pack("{s:s, s:s+, s:s+, s:s}", "kind", options->kind->name, "secret_file", options->out, ".key",
                  "public_file", options->out, ".pub", "public", made->public);
    if (root && made->id[0])
        json_object_set_new(root, "id", json_string(made->id));
    return root;
}

static bool print_json(const struct keygen_options *options, const struct made *made, struct error *err) {
    json_t *root = describe(options, made);
    char *text = root ? json_dumps(root, 0) : NULL;
    if (text)
        puts(text);
    free(text);
    json_decref(root);
    return text || error_set(err, ERROR_MEMORY, "out of memory, or a name that is not UTF-8");
}

static bool keygen(const struct keygen_options *options, struct error *err) {
    struct made made = {{0}, {0}};
    if (!options->kind->make(options->out, &made, err))
        return false;
    if (options->json)
        return print_json(options, &made, err);
    if (!made.public[0])
        printf("%s: secret, for all nodes and nobody else\n", options->out);
    else
        printf("%s.key: secret, keep it\n%s.pub: public %s%s%s\n", options->out, options->out, made.public,
               made.id[0] ? ", known as " : "", made.id);
    return true;
}

int command_keygen(int argc, char **argv) {
    struct keygen_options options = {0};
    struct error err = {0};
    int code = parse(argc, argv, &options);
    if (code >= 0)
        return code;
    if (keygen(&options, &err))
        return 0;
    fprintf(stderr, "trainctl %s: %s%s%s\n", argv[0], err.message, err.hint[0] ? "; " : "", err.hint);
    return 1;
}
