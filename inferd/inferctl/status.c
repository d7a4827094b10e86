#include "inferd/inferctl/commands.h"
#include "inferd/inferctl/options.h"
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

static const char *condition_name(Thorax__V1__MemberCondition condition) {
    const ProtobufCEnumValue *value =
        protobuf_c_enum_descriptor_get_value(&thorax__v1__member_condition__descriptor, (int)condition);
    return value ? value->name + strlen("CONDITION_") : "UNKNOWN";
}

static const char *model_digest(const Thorax__V1__ModelIdentity *model, char hex[DIGEST_HEX_SIZE]) {
    struct digest digest;
    if (model->digest.len != sizeof digest.bytes) {
        return "";
    }
    memcpy(digest.bytes, model->digest.data, sizeof digest.bytes);
    return digest_hex(&digest, hex);
}

static void print_table(const Thorax__V1__StatusReply *status) {
    char hex[DIGEST_HEX_SIZE];
    printf("member       %s (inferd %s)\n", status->member, status->version);
    printf("condition    %s\n", condition_name(status->condition));
    if (status->model) {
        printf("model        %s %s %s\n", status->model->name, status->model->version,
               model_digest(status->model, hex));
    }
    for (size_t i = 1; i < status->n_resident; i++) {
        const Thorax__V1__ModelIdentity *model = status->resident[i];
        printf("resident     %s %s %s\n", model->name, model->version, model_digest(model, hex));
    }
    printf("uptime       %.1f s\n", (double)status->uptime_ms / 1000);
    printf("in flight    %" PRIu32 " of %" PRIu32 "\n", status->in_flight, status->queue_limit);
    for (size_t i = 0; i < status->n_counts; i++) {
        printf("answered     %" PRIu64 " %s\n", status->counts[i]->count,
               client_status_name(status->counts[i]->status));
    }
    printf("batches      %" PRIu64 " of %.2f images and %.1f ms on average\n", status->batches,
           status->batches ? (double)status->images / (double)status->batches : 0,
           status->batches ? (double)status->compute_us / 1000 / (double)status->batches : 0);
    for (size_t i = 0; i < status->n_instances; i++) {
        const Thorax__V1__InstanceStatus *instance = status->instances[i];
        printf("instance %-3zu %" PRIu64 " batches, busy %.1f s, %s\n", i, instance->batches,
               (double)instance->busy_us / 1e6, *instance->device ? instance->device : "device not told");
    }
    printf("swaps        %" PRIu64 "\n", status->swaps);
}

static json_t *model_json(const Thorax__V1__ModelIdentity *model) {
    char hex[DIGEST_HEX_SIZE];
    return json_pack("{s:s, s:s, s:s}", "name", model->name, "version", model->version, "digest",
                     model_digest(model, hex));
}

static json_t *instances_json(const Thorax__V1__StatusReply *status) {
    json_t *rows = json_array();
    for (size_t i = 0; i < status->n_instances; i++) {
        const Thorax__V1__InstanceStatus *instance = status->instances[i];
        json_array_append_new(rows, json_pack("{s:I, s:I, s:s}", "batches", (json_int_t)instance->batches, "busy_us",
                                              (json_int_t)instance->busy_us, "device", instance->device));
    }
    return rows;
}

static void print_json(const Thorax__V1__StatusReply *status) {
    json_t *counts = json_object();
    for (size_t i = 0; i < status->n_counts; i++) {
        json_object_set_new(counts, client_status_name(status->counts[i]->status),
                            json_integer((json_int_t)status->counts[i]->count));
    }
    json_t *out = json_pack("{s:s, s:s, s:s, s:I, s:i, s:i, s:I, s:I, s:I, s:I, s:I, s:o}", "member",
                            status->member, "version", status->version, "condition",
                            condition_name(status->condition), "uptime_ms", (json_int_t)status->uptime_ms,
                            "in_flight", (int)status->in_flight, "queue_limit", (int)status->queue_limit,
                            "batches", (json_int_t)status->batches, "images", (json_int_t)status->images,
                            "compute_us", (json_int_t)status->compute_us, "swaps", (json_int_t)status->swaps,
                            "undelivered", (json_int_t)status->undelivered, "counts", counts);
    if (status->model) {
        json_object_set_new(out, "model", model_json(status->model));
    }
    json_t *resident = json_array();
    for (size_t i = 0; i < status->n_resident; i++) {
        json_array_append_new(resident, model_json(status->resident[i]));
    }
    json_object_set_new(out, "resident", resident);
    json_object_set_new(out, "instances", instances_json(status));
    json_dumpf(out, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(out);
}

int command_status(int argc, char **argv) {
    struct options options;
    struct error err = {0};
    struct client_reply reply;
    if (!options_parse(argc, argv, &options, &err)) {
        return options_fail(&err, INFERCTL_USAGE);
    }
    if (options.file_count > 0) {
        error_set(&err, ERROR_INVALID, "status: what is \"%s\"?", options.files[0]);
        return options_fail(&err, INFERCTL_USAGE);
    }
    struct client_keys keys;
    struct client *client = options_connect(&options, &keys, &err);
    bool ok = client && client_status(client, options.timeout_ms, &reply, &err);
    if (ok) {
        (options.json ? print_json : print_table)(reply.status);
        client_reply_fini(&reply);
    }
    client_close(client);
    client_keys_fini(&keys);
    return ok ? 0 : options_fail(&err, INFERCTL_FAILED);
}
