#include "common/base/file.h"
#include "inferd/client/thorax.h"
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

static json_t *digest_json(const uint8_t bytes[32]) {
    struct digest digest;
    char hex[DIGEST_HEX_SIZE];
    memcpy(digest.bytes, bytes, sizeof digest.bytes);
    return json_string(digest_hex(&digest, hex));
}

static json_t *probabilities_json(const struct thorax_answer *answer) {
    json_t *out = json_object();
    for (size_t i = 0; i < answer->probability_count; i++) {
        json_object_set_new(out, answer->probabilities[i].label,
                            json_real(answer->probabilities[i].probability));
    }
    return out;
}

static json_t *warnings_json(const struct thorax_answer *answer) {
    json_t *out = json_array();
    for (size_t i = 0; i < answer->warning_count; i++) {
        json_array_append_new(out, json_string(answer->warnings[i].message));
    }
    return out;
}

/** What only an OK answer has. */
static void add_answer(json_t *row, const struct thorax_answer *answer) {
    json_object_set_new(row, "decision", json_string(thorax_decision_name(answer->decision)));
    json_object_set_new(row, "decision_reason", json_string(answer->decision_reason));
    json_object_set_new(row, "probabilities", probabilities_json(answer));
    json_object_set_new(row, "warnings", warnings_json(answer));
    json_object_set_new(row, "operating_point",
                        json_pack("{s:s, s:s, s:f, s:f}", "name", answer->operating_point, "label",
                                  answer->operating_point_label, "rule_in", answer->rule_in, "rule_out",
                                  answer->rule_out));
}

static json_t *answer_json(const char *file, const struct thorax_answer *answer) {
    json_t *row = json_pack("{s:s, s:s, s:s, s:I, s:i}", "file", file, "status",
                            thorax_status_name(answer->status), "member", answer->member, "elapsed_us",
                            (json_int_t)answer->elapsed_us, "attempts", answer->attempts);
    if (!row) { /* a file name that is no UTF-8 */
        row = json_pack("{s:n, s:s}", "file", "status", thorax_status_name(answer->status));
    }
    json_object_set_new(row, "image_sha256", digest_json(answer->image_sha256));
    if (*answer->model_name) {
        json_object_set_new(row, "model",
                            json_pack("{s:s, s:s, s:o}", "name", answer->model_name, "version",
                                      answer->model_version, "digest", digest_json(answer->model_digest)));
    }
    json_object_set_new(row, "times_us",
                        json_pack("{s:I, s:I, s:I}", "queue", (json_int_t)answer->queue_us, "decode",
                                  (json_int_t)answer->decode_us, "compute", (json_int_t)answer->compute_us));
    if (answer->status == THORAX_OK) {
        add_answer(row, answer);
    } else {
        json_object_set_new(row, "message", json_string(answer->message));
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
static int class_width(const struct thorax_probability *row) {
    size_t length = strlen(row->label);
    return length > PROBABILITY_WIDTH ? (int)length : PROBABILITY_WIDTH;
}

/** The table's first line; again where another model with other classes answers. */
static void print_headings(struct output *output, const struct thorax_answer *answer) {
    char line[HEADINGS_SIZE] = "";
    size_t length = 0;
    for (size_t i = 0; i < answer->probability_count && length < sizeof line; i++) {
        length += (size_t)snprintf(line + length, sizeof line - length, "  %*s",
                                   class_width(&answer->probabilities[i]), answer->probabilities[i].label);
    }
    if (strcmp(line, output->headings) != 0) {
        memcpy(output->headings, line, sizeof line);
        printf("%-*s  %-*s%s  %10s  %s\n", output->name_width, "PICTURE", DECISION_WIDTH, "DECISION", line,
               "TIME", "MODEL");
    }
}

static void print_answer(struct output *output, const char *file, const struct thorax_answer *answer) {
    print_headings(output, answer);
    printf("%-*s  %-*s", output->name_width, base_name(file), DECISION_WIDTH,
           thorax_decision_name(answer->decision));
    for (size_t i = 0; i < answer->probability_count; i++) {
        printf("  %*.3f", class_width(&answer->probabilities[i]), answer->probabilities[i].probability);
    }
    printf("  %7.1f ms  %s %s\n", (double)answer->elapsed_us / 1000, answer->model_name,
           answer->model_version);
    for (size_t i = 0; i < answer->warning_count; i++) {
        printf("%-*s  warning: %s\n", output->name_width, "", answer->warnings[i].message);
    }
}

static void put_answer(struct output *output, const char *file, const struct thorax_answer *answer) {
    bool ok = answer->status == THORAX_OK;
    output->unanswered += ok ? 0 : 1;
    if (output->json) {
        json_array_append_new(output->rows, answer_json(file, answer));
    } else if (ok) {
        print_answer(output, file, answer);
    } else {
        printf("%-*s  no answer: %s: %s\n", output->name_width, base_name(file),
               thorax_status_name(answer->status), answer->message);
    }
}

static void put_error(struct output *output, const char *file, const char *message, const char *hint) {
    output->unanswered++;
    if (output->json) {
        json_t *row = json_pack("{s:s, s:n, s:s}", "file", file, "status", "message", message);
        json_array_append_new(output->rows, row ? row : json_null());
    } else {
        printf("%-*s  no answer: %s%s%s\n", output->name_width, base_name(file), message, *hint ? "; " : "",
               hint);
    }
}

static void diagnose(struct thorax_client *client, const struct options *options, const char *file,
                     struct output *output) {
    struct error err = {0};
    struct thorax_error failure = {0};
    struct bytes image;
    struct thorax_answer answer;
    if (!file_read(file, IMAGE_MAX_BYTES, &image, &err)) {
        put_error(output, file, err.message, err.hint);
        return;
    }
    struct thorax_request request = {
        .image = image.data,
        .image_size = image.size,
        .operating_point = options->operating_point,
        .age_years = options->has_age ? &options->age_years : NULL,
        .view = (enum thorax_view)options->view,
        .stat = options->stat,
        .timeout_ms = options->timeout_ms,
    };
    if (thorax_diagnose(client, &request, &answer, &failure)) {
        put_answer(output, file, &answer);
        thorax_answer_free(&answer);
    } else {
        put_error(output, file, failure.message, failure.hint);
    }
    free(image.data);
}

static struct thorax_client *connect_to(const struct options *options, struct error *err) {
    struct thorax_error failure = {0};
    struct thorax_options spec = {.endpoints = options->endpoints,
                                  .endpoint_count = options->endpoint_count,
                                  .key = options->keys.key,
                                  .server_keys = options->keys.server_keys,
                                  .server_key_count = options->keys.server_key_count};
    struct thorax_client *client = thorax_open(&spec, &failure);
    if (!client) {
        error_set(err, ERROR_INVALID, "%s", failure.message);
        error_hint(err, "%s", failure.hint);
    }
    return client;
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
    struct thorax_client *client = connect_to(&options, &err);
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
    thorax_close(client);
    return output.unanswered ? INFERCTL_FAILED : 0;
}
