#include "common/base/file.h"
#include "inferd/inferctl/commands.h"
#include "inferd/inferctl/options.h"
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { IMAGE_MAX_BYTES = 256 << 20, HEADINGS_SIZE = 512, DECISION_WIDTH = 9, PROBABILITY_WIDTH = 5 };

/** Output for one file: a row of the table, or an object of the array. */
struct output {
    bool json;
    json_t *rows; /**< owned; NULL for a table */
    int unanswered;
    int name_width; /**< of the table's first column: names are never cut, two might look the same */
    char headings[HEADINGS_SIZE]; /**< the classes that the rows above are about */
};

static json_t *digest_json(const ProtobufCBinaryData *bytes) {
    struct digest digest;
    char hex[DIGEST_HEX_SIZE];
    if (bytes->len != sizeof digest.bytes) {
        return json_null();
    }
    memcpy(digest.bytes, bytes->data, sizeof digest.bytes);
    return json_string(digest_hex(&digest, hex));
}

static json_t *probabilities_json(const Thorax__V1__DiagnosisReply *reply) {
    json_t *out = json_object();
    for (size_t i = 0; i < reply->n_probabilities; i++) {
        json_object_set_new(out, reply->probabilities[i]->label,
                            json_real(reply->probabilities[i]->probability));
    }
    return out;
}

static json_t *warnings_json(const Thorax__V1__DiagnosisReply *reply) {
    json_t *out = json_array();
    for (size_t i = 0; i < reply->n_warnings; i++) {
        json_array_append_new(out, json_string(reply->warnings[i]->message));
    }
    return out;
}

/** What only an OK reply has. */
static void add_answer(json_t *row, const Thorax__V1__DiagnosisReply *reply) {
    json_object_set_new(row, "decision", json_string(client_decision_name(reply->decision)));
    json_object_set_new(row, "decision_reason", json_string(reply->decision_reason));
    json_object_set_new(row, "probabilities", probabilities_json(reply));
    json_object_set_new(row, "warnings", warnings_json(reply));
    if (reply->operating_point) {
        const Thorax__V1__OperatingPoint *point = reply->operating_point;
        json_object_set_new(row, "operating_point",
                            json_pack("{s:s, s:s, s:f, s:f}", "name", point->name, "label", point->label,
                                      "rule_in", point->rule_in, "rule_out", point->rule_out));
    }
}

static json_t *reply_json(const char *file, const struct client_reply *reply) {
    const Thorax__V1__DiagnosisReply *diagnosis = reply->diagnosis;
    json_t *row =
        json_pack("{s:s, s:s, s:s, s:I}", "file", file, "status", client_status_name(diagnosis->status),
                  "member", diagnosis->member, "elapsed_us", (json_int_t)reply->elapsed_us);
    if (!row) { /* a file name that is no UTF-8 */
        row = json_pack("{s:n, s:s}", "file", "status", client_status_name(diagnosis->status));
    }
    json_object_set_new(row, "image_sha256", digest_json(&diagnosis->image_sha256));
    if (diagnosis->model) {
        json_object_set_new(row, "model",
                            json_pack("{s:s, s:s, s:o}", "name", diagnosis->model->name, "version",
                                      diagnosis->model->version, "digest",
                                      digest_json(&diagnosis->model->digest)));
    }
    if (diagnosis->times) {
        json_object_set_new(row, "times_us",
                            json_pack("{s:I, s:I, s:I}", "queue", (json_int_t)diagnosis->times->queue_us,
                                      "decode", (json_int_t)diagnosis->times->decode_us, "compute",
                                      (json_int_t)diagnosis->times->compute_us));
    }
    if (diagnosis->status == THORAX__V1__STATUS__STATUS_OK) {
        add_answer(row, diagnosis);
    } else {
        json_object_set_new(row, "message", json_string(diagnosis->message));
    }
    return row;
}

/** The file's name without its folders. */
static const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static int name_width(char *const *files, int count) {
    size_t width = strlen("PICTURE");
    for (int i = 0; i < count; i++) {
        size_t length = strlen(base_name(files[i]));
        width = length > width ? length : width;
    }
    return width < 200 ? (int)width : 200;
}

/** A class's column is as wide as its label. */
static int class_width(const Thorax__V1__ClassProbability *row) {
    size_t length = strlen(row->label);
    return length > PROBABILITY_WIDTH ? (int)length : PROBABILITY_WIDTH;
}

/** The table's first line; again where another model with other classes answers. */
static void print_headings(struct output *output, const Thorax__V1__DiagnosisReply *reply) {
    char line[HEADINGS_SIZE] = "";
    size_t length = 0;
    for (size_t i = 0; i < reply->n_probabilities && length < sizeof line; i++) {
        length += (size_t)snprintf(line + length, sizeof line - length, "  %*s",
                                   class_width(reply->probabilities[i]), reply->probabilities[i]->label);
    }
    if (strcmp(line, output->headings) != 0) {
        memcpy(output->headings, line, sizeof line);
        printf("%-*s  %-*s%s  %10s  %s\n", output->name_width, "PICTURE", DECISION_WIDTH, "DECISION", line,
               "TIME", "MODEL");
    }
}

static void print_answer(struct output *output, const char *file, const struct client_reply *reply) {
    const Thorax__V1__DiagnosisReply *diagnosis = reply->diagnosis;
    print_headings(output, diagnosis);
    printf("%-*s  %-*s", output->name_width, base_name(file), DECISION_WIDTH,
           client_decision_name(diagnosis->decision));
    for (size_t i = 0; i < diagnosis->n_probabilities; i++) {
        printf("  %*.3f", class_width(diagnosis->probabilities[i]), diagnosis->probabilities[i]->probability);
    }
    printf("  %7.1f ms  %s %s\n", (double)reply->elapsed_us / 1000, diagnosis->model->name,
           diagnosis->model->version);
    for (size_t i = 0; i < diagnosis->n_warnings; i++) {
        printf("%-*s  warning: %s\n", output->name_width, "", diagnosis->warnings[i]->message);
    }
}

static void put_reply(struct output *output, const char *file, const struct client_reply *reply) {
    bool ok = reply->diagnosis->status == THORAX__V1__STATUS__STATUS_OK;
    output->unanswered += ok ? 0 : 1;
    if (output->json) {
        json_array_append_new(output->rows, reply_json(file, reply));
    } else if (ok) {
        print_answer(output, file, reply);
    } else {
        printf("%-*s  no answer: %s: %s\n", output->name_width, base_name(file),
               client_status_name(reply->diagnosis->status), reply->diagnosis->message);
    }
}

static void put_error(struct output *output, const char *file, const struct error *err) {
    output->unanswered++;
    if (output->json) {
        json_t *row = json_pack("{s:s, s:n, s:s}", "file", file, "status", "message", err->message);
        json_array_append_new(output->rows, row ? row : json_null());
    } else {
        printf("%-*s  no answer: %s%s%s\n", output->name_width, base_name(file), err->message,
               *err->hint ? "; " : "", err->hint);
    }
}

static void diagnose(struct client *client, const struct options *options, const char *file,
                     struct output *output) {
    struct error err = {0};
    struct bytes image;
    struct client_reply reply;
    if (!file_read(file, IMAGE_MAX_BYTES, &image, &err)) {
        put_error(output, file, &err);
        return;
    }
    struct client_request request = {
        .image = image.data,
        .image_size = image.size,
        .operating_point = options->operating_point,
        .age_years = options->has_age ? &options->age_years : NULL,
        .view = options->view,
        .stat = options->stat,
        .timeout_ms = options->timeout_ms,
    };
    if (client_diagnose_patiently(client, &request, &reply, &err)) {
        put_reply(output, file, &reply);
        client_reply_fini(&reply);
    } else {
        put_error(output, file, &err);
    }
    free(image.data);
}

int command_diagnose(int argc, char **argv) {
    struct options options;
    struct error err = {0};
    if (!options_parse(argc, argv, &options, &err)) {
        return options_fail(&err, INFERCTL_USAGE);
    }
    if (options.file_count == 0) {
        error_set(&err, ERROR_INVALID, "diagnose: expected image files");
        return options_fail(&err, INFERCTL_USAGE);
    }
    struct client *client = client_open(options.endpoint, &err);
    if (!client) {
        return options_fail(&err, INFERCTL_FAILED);
    }
    struct output output = {.json = options.json,
                            .rows = options.json ? json_array() : NULL,
                            .name_width = name_width(options.files, options.file_count)};
    for (int i = 0; i < options.file_count; i++) {
        diagnose(client, &options, options.files[i], &output);
    }
    if (options.json) {
        json_dumpf(output.rows, stdout, JSON_INDENT(2));
        putchar('\n');
    } else {
        puts("Research and integration; not a medical device.");
    }
    json_decref(output.rows);
    client_close(client);
    return output.unanswered ? INFERCTL_FAILED : 0;
}
