#include "inferd/config.h"
#include "common/pool/message.h"
#include "common/store/store.h"
#include "common/wire/address.h"
#include "inferd/client/dispatch.h"
#include "inferd/instances.h"
#include "inferd/model.h"
#include <string.h>

#define FIELD(name) offsetof(struct inferd_config, name)

static const char *const roles[] = {"member", "router", NULL};
static const char *const log_levels[] = {"debug", "info", "warning", "error", NULL};
static const char *const log_styles[] = {"text", "json", NULL};

static const struct schema_row rows[] = {
    {.key = "role",
     .type = SCHEMA_STRING,
     .offset = FIELD(role),
     .fallback = "member",
     .choices = roles,
     .help = "member: answers with a model. router: one address in front of `router.members`; of the other keys it uses "
             "`member`, `server`, `http` and `log` (the flag --role says the same)"},
    {.key = "member",
     .type = SCHEMA_STRING,
     .offset = FIELD(member),
     .fallback = "inferd",
     .help = "this member's name in replies and towards the publisher: A-Z a-z 0-9 . _ -"},
    {.key = "server.bind",
     .type = SCHEMA_STRING_LIST,
     .offset = FIELD(bind),
     .fallback = "[tcp://127.0.0.1:5700]",
     .help = "endpoints where requests are taken: tcp://HOST:PORT, ipc://PATH"},
    {.key = "server.max_message",
     .type = SCHEMA_SIZE,
     .offset = FIELD(max_message_bytes),
     .fallback = "32MiB",
     .min = 1 << 16,
     .max = 1 << 30,
     .unit = "bytes",
     .help = "larger requests are TOO_LARGE; a peer that sends twice as much is cut off"},
    {.key = "server.queue",
     .type = SCHEMA_INT,
     .offset = FIELD(max_jobs),
     .fallback = "64",
     .min = 1,
     .max = 65536,
     .unit = "requests",
     .help = "accepted and not yet answered; more are BUSY"},
    {.key = "server.queue_memory",
     .type = SCHEMA_SIZE,
     .offset = FIELD(max_job_bytes),
     .fallback = "256MiB",
     .min = 1 << 16,
     .max = 1099511627776.0,
     .unit = "bytes",
     .help = "images of all requests in the queue; more are BUSY"},
    {.key = "server.default_timeout",
     .type = SCHEMA_DURATION,
     .offset = FIELD(default_timeout_ms),
     .fallback = "30s",
     .min = 1,
     .max = 86400000,
     .help = "of requests that name none: computing must begin within it"},
    {.key = "server.max_timeout",
     .type = SCHEMA_DURATION,
     .offset = FIELD(max_timeout_ms),
     .fallback = "2min",
     .min = 1,
     .max = 86400000,
     .help = "longer timeouts of requests are shortened to it"},
    {.key = "server.drain_timeout",
     .type = SCHEMA_DURATION,
     .offset = FIELD(drain_timeout_ms),
     .fallback = "60s",
     .min = 1,
     .max = 86400000,
     .help = "how long SIGTERM, and a request to drain, wait for what was accepted"},
    {.key = "server.allow_drain",
     .type = SCHEMA_BOOL,
     .offset = FIELD(allow_drain),
     .fallback = "true",
     .help = "whether inferctl drain may end this member; never with security.insecure and no keys"},
    SECURITY_ROWS(inferd_config, security),
    {.key = "http.bind",
     .type = SCHEMA_STRING,
     .offset = FIELD(http_bind),
     .fallback = "",
     .help = "HOST:PORT for /healthz, /readyz and /metrics, such as 127.0.0.1:5780; none: there is no HTTP"},
    {.key = "decode.threads",
     .type = SCHEMA_INT,
     .offset = FIELD(decode_threads),
     .fallback = "2",
     .min = 1,
     .max = 256,
     .help = "threads that decode and resize images"},
    {.key = "decode.max_pixels",
     .type = SCHEMA_INT64,
     .offset = FIELD(max_pixels),
     .fallback = "64000000",
     .min = 1024,
     .max = 1e9,
     .unit = "pixels",
     .help = "width x height of an image; more is TOO_LARGE"},
    {.key = "decode.max_side",
     .type = SCHEMA_INT,
     .offset = FIELD(max_side),
     .fallback = "16384",
     .min = 32,
     .max = 65535,
     .unit = "pixels",
     .help = "width, and height, of an image; more is TOO_LARGE"},
    {.key = "batch.max",
     .type = SCHEMA_INT,
     .offset = FIELD(max_batch),
     .fallback = "8",
     .min = 1,
     .max = MODEL_MAX_BATCH,
     .unit = "images",
     .help = "computed together at most"},
    {.key = "batch.max_delay_us",
     .type = SCHEMA_INT,
     .offset = FIELD(max_delay_us),
     .fallback = "0",
     .min = 0,
     .max = 10000000,
     .unit = "us",
     .help = "how long an image may wait for others while nothing is computed; 0: batches form from what arrives "
             "during a computation, which loses nothing on CPUs"},
    {.key = "device.name",
     .type = SCHEMA_STRING,
     .offset = FIELD(device),
     .fallback = "auto",
     .help = "what computes: auto (the fastest that is there), cuda, onednn, reference"},
    {.key = "device.gpus",
     .type = SCHEMA_STRING_LIST,
     .offset = FIELD(device_gpus),
     .fallback = "[all]",
     .help = "GPUs that compute, by index, such as [0, 1]; all: those that are there, at most 16. Each has the weights once. "
             "With anything but all, device.name: auto has to find a GPU"},
    {.key = "device.threads",
     .type = SCHEMA_INT,
     .offset = FIELD(device_threads),
     .fallback = "0",
     .min = 0,
     .max = 1024,
     .help = "that compute in each instance, on a CPU; 0: its share of the processors that this process has"},
    {.key = "device.winograd",
     .type = SCHEMA_BOOL,
     .offset = FIELD(device_winograd),
     .fallback = "true",
     .help = "on CPUs with AVX-512, 3x3 convolutions in f32 by Winograd's filtering where it is faster: up to twice as fast, and "
             "rounding several times as much"},
    {.key = "device.graphs",
     .type = SCHEMA_BOOL,
     .offset = FIELD(device_graphs),
     .fallback = "true",
     .help = "on GPUs, a batch is launched as one graph; false: kernel by kernel, slower, with the same results"},
    {.key = "device.tf32",
     .type = SCHEMA_BOOL,
     .offset = FIELD(device_tf32),
     .fallback = "false",
     .help = "on GPUs, f32 convolutions and products round what they multiply to TF32's eleven significant bits: several times "
             "as fast"},
    {.key = "device.algorithm_cache",
     .type = SCHEMA_PATH,
     .offset = FIELD(device_algorithm_cache),
     .fallback = "",
     .help = "on GPUs, measure once which algorithm of each convolution is the fastest and keep it in this file; empty: take "
             "cuDNN's guess"},
    {.key = "device.instances",
     .type = SCHEMA_INT,
     .offset = FIELD(device_instances),
     .fallback = "1",
     .min = 0,
     .max = INSTANCES_MAX,
     .help = "that compute different batches at the same time, each on processors of its own; the weights are there once. "
             "0: as many as the processors have place for, of device.threads each, or of one thread. On GPUs: of each GPU, "
             "at most 64 together; 0 is 1"},
    {.key = "model.file",
     .type = SCHEMA_PATH,
     .offset = FIELD(model_file),
     .fallback = "",
     .help = "serve this model file and follow no publisher (the flag --model says the same)"},
    {.key = "model.keep_previous",
     .type = SCHEMA_BOOL,
     .offset = FIELD(keep_previous),
     .fallback = "true",
     .help = "the model before stays in memory: a rollback loads nothing, and studies that began with it end with it"},
    {.key = "acceptance.folder",
     .type = SCHEMA_PATH,
     .offset = FIELD(acceptance_folder),
     .fallback = "",
     .help = "pictures of this site, as CLASS/FILE, that a model must judge well enough before it serves"},
    {.key = "acceptance.manifest",
     .type = SCHEMA_PATH,
     .offset = FIELD(acceptance_manifest),
     .fallback = "",
     .help = "the same as a CSV file with the columns path (relative to its folder) and class"},
    {.key = "acceptance.min_balanced_accuracy",
     .type = SCHEMA_DOUBLE,
     .offset = FIELD(min_balanced_accuracy),
     .fallback = "0.8",
     .min = 0,
     .max = 1,
     .help = "a model below it is refused: the mean of the classes' recalls"},
    {.key = "acceptance.max_images",
     .type = SCHEMA_INT,
     .offset = FIELD(acceptance_images),
     .fallback = "500",
     .min = 2,
     .max = 100000,
     .unit = "images",
     .help = "of a larger set, as many of each class; they are computed one by one at each activation"},
    {.key = "shadow.threads",
     .type = SCHEMA_INT,
     .offset = FIELD(shadow_threads),
     .fallback = "1",
     .min = 1,
     .max = 1024,
     .help = "that compute a model beside the active one during a rollout, at the lowest priority"},
    {.key = "pins.time",
     .type = SCHEMA_DURATION,
     .offset = FIELD(pin_time_ms),
     .fallback = "30min",
     .min = 0,
     .max = 604800000,
     .help = "how long a routing key stays with the model that answered for it first; 0: not at all"},
    {.key = "pins.limit",
     .type = SCHEMA_INT,
     .offset = FIELD(pin_limit),
     .fallback = "65536",
     .min = 0,
     .max = 16777216,
     .unit = "keys",
     .help = "routing keys remembered, about 90 bytes each; the one used least recently makes room"},
    {.key = "trust.keys",
     .type = SCHEMA_STRING_LIST,
     .offset = FIELD(trust_keys),
     .fallback = "[]",
     .help = "public keys, one of which must have signed a model: .pub files of trainctl keygen sign, or 64 "
             "hexadecimal digits"},
    {.key = "trust.unsigned",
     .type = SCHEMA_BOOL,
     .offset = FIELD(trust_unsigned),
     .fallback = "false",
     .help = "without trust.keys: follow a publisher on another machine all the same"},
    {.key = "trust.oldest",
     .type = SCHEMA_STRING,
     .offset = FIELD(trust_oldest),
     .fallback = "",
     .help = "models described before this time, such as 2026-11-24T00:00:00Z, are refused: nobody can bring "
             "an old model back"},
    {.key = "trust.revoked",
     .type = SCHEMA_PATH,
     .offset = FIELD(trust_revoked),
     .fallback = "",
     .help = "a file of lines \"model DIGEST\" and \"key DIGITS\" that are refused; read again when it changes"},
    {.key = "model.max_memory",
     .type = SCHEMA_SIZE,
     .offset = FIELD(max_memory_bytes),
     .fallback = "0",
     .min = 0,
     .max = 1099511627776.0,
     .unit = "bytes",
     .help = "models that need more are refused; 0: what the machine or the control group has"},
    {.key = "publisher.announce",
     .type = SCHEMA_STRING,
     .offset = FIELD(announce),
     .fallback = POOL_DEFAULT_ANNOUNCE,
     .help =
         "the publisher's endpoint for announcements; a `publisher:` section makes this member follow it"},
    {.key = "publisher.control",
     .type = SCHEMA_STRING,
     .offset = FIELD(control),
     .fallback = POOL_DEFAULT_CONTROL,
     .help = "the publisher's endpoint for control"},
    {.key = "publisher.blobs",
     .type = SCHEMA_STRING,
     .offset = FIELD(blobs),
     .fallback = POOL_DEFAULT_BLOBS,
     .help = "the publisher's endpoint for model files"},
    {.key = "publisher.server_key",
     .type = SCHEMA_STRING, /* no path: a key may have a dollar in it */
     .offset = FIELD(publisher_key),
     .fallback = "",
     .help = "with security.key: the publisher's public key: a file NAME.pub, or the 40 characters in quotes"},
    {.key = "publisher.max_model",
     .type = SCHEMA_SIZE,
     .offset = FIELD(max_model_bytes),
     .fallback = "1GiB",
     .min = 4096,
     .max = STORE_MAX_OBJECT_BYTES,
     .unit = "bytes",
     .help = "larger models are refused"},
    {.key = "store.directory",
     .type = SCHEMA_PATH,
     .offset = FIELD(store),
     .fallback = "runs/inferd-store",
     .help = "where fetched models are kept; of this member alone"},
    {.key = "store.staged",
     .type = SCHEMA_INT,
     .offset = FIELD(staged_max),
     .fallback = "8",
     .min = 1,
     .max = 16,
     .unit = "models",
     .help = "staged models that are fetched ahead of time, the newest ones"},
    {.key = "router.members",
     .type = SCHEMA_STRING_LIST,
     .offset = FIELD(router_members),
     .fallback = "[]",
     .help = "endpoints of the members behind a router, at most 64"},
    {.key = "router.server_keys",
     .type = SCHEMA_STRING_LIST,
     .offset = FIELD(router_keys),
     .fallback = "[]",
     .help = "with security.key: the members' public keys, as publisher.server_key; one for all, or one for "
             "each of router.members"},
    {.key = "router.heartbeat",
     .type = SCHEMA_DURATION,
     .offset = FIELD(router_heartbeat_ms),
     .fallback = "500ms",
     .min = 10,
     .max = 60000,
     .help = "a member is asked for its status so often; after three without a sign of life it is dead, and others are "
             "asked what it has not answered"},
    {.key = "router.pin_time",
     .type = SCHEMA_DURATION,
     .offset = FIELD(router_pin_ms),
     .fallback = "10min",
     .min = 0,
     .max = 86400000,
     .help = "how long requests with one routing_key stay with the model that answered the first of them; 0: not at all"},
    {.key = "log.level",
     .type = SCHEMA_STRING,
     .offset = FIELD(log_level),
     .fallback = "info",
     .choices = log_levels,
     .help = "the least that is logged"},
    {.key = "log.style",
     .type = SCHEMA_STRING,
     .offset = FIELD(log_style),
     .fallback = "text",
     .choices = log_styles,
     .help = "one line per event, as text or as JSON"},
};

static const struct schema schema = {
    .rows = rows, .row_count = sizeof rows / sizeof *rows, .size = sizeof(struct inferd_config)};

const struct schema *inferd_schema(void) {
    return &schema;
}

static void check_router(struct config *config, const struct inferd_config *out) {
    int members = out->router_members.count, keys = out->router_keys.count;
    if (members < 1 || members > DISPATCH_MAX_MEMBERS) {
        config_problem(config, "router.members", "expected 1 to %d endpoints", DISPATCH_MAX_MEMBERS);
    }
    security_config_check_server(config, &out->security, "router.server_keys", keys > 0,
                                 (const char *const *)out->router_members.items, members);
    if (keys > 1 && keys != members) {
        config_problem(config, "router.server_keys", "%d keys for %d members: one for all, or one for each", keys,
                       members);
    }
}

static void check_member(struct config *config, const struct inferd_config *out) {
    if (!*out->model_file && !out->follows) {
        config_problem(config, "model.file",
                       "expected a model file (also: --model FILE), or a `publisher:` section to follow");
    }
    const char *const publisher[] = {out->announce, out->control, out->blobs};
    security_config_check_server(config, &out->security, "publisher.server_key", *out->publisher_key, publisher,
                                 out->follows ? 3 : 0);
}

/** As the publisher wants it; it also keeps control characters out of replies and logs. */
static bool is_member_name(const char *name) {
    size_t length = strlen(name);
    return length >= 1 && length <= 64 &&
           strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") == length;
}

bool inferd_config_read(struct config *config, const char *model_file, struct inferd_config *out,
                        struct error *err) {
    schema_read(&schema, config, out, NULL);
    out->model_file = model_file ? model_file : out->model_file;
    out->follows = config_has(config, "publisher") && !*out->model_file;
    if (!is_member_name(out->member)) {
        config_problem(config, "member", "expected 1 to 64 of A-Z a-z 0-9 . _ -");
    }
    if (out->bind.count == 0) {
        config_problem(config, "server.bind", "expected at least one endpoint");
    }
    if (out->default_timeout_ms > out->max_timeout_ms) {
        config_problem(config, "server.default_timeout", "it is longer than server.max_timeout");
    }
    if (*out->acceptance_folder && *out->acceptance_manifest) {
        config_problem(config, "acceptance.manifest", "acceptance.folder is given already");
    }
    if (out->follows && out->trust_keys.count == 0 && !out->trust_unsigned &&
        !(address_is_local(out->announce) && address_is_local(out->control) &&
          address_is_local(out->blobs))) {
        config_problem(config, "trust.keys", "the publisher is on another machine: say whose models are taken, "
                                             "or trust.unsigned: true");
    }
    security_config_check(config, &out->security, (const char *const *)out->bind.items, out->bind.count);
    out->routes = strcmp(out->role, "router") == 0;
    (out->routes ? check_router : check_member)(config, out);
    return config_ok(config, err);
}
