/*
 * Asks a pool about chest X-rays: a program in a few lines, to start your own from.
 *
 *     cc diagnose.c $(pkg-config --cflags --libs thorax) -o diagnose
 *     ./diagnose tcp://10.0.0.1:5700,tcp://10.0.0.2:5700 FILE...
 *
 * Where members encrypt: THORAX_KEY=our.key THORAX_SERVER_KEY=members.pub ./diagnose ...
 *
 * Research and integration; not a medical device.
 */
#define _DEFAULT_SOURCE /* strsep */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <thorax.h>

enum { MAX_ENDPOINTS = 64, TIMEOUT_MS = 10000 };

/** The whole file; NULL where it cannot be read. */
static void *read_file(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    void *data = NULL;
    long length;
    if (file && fseek(file, 0, SEEK_END) == 0 && (length = ftell(file)) > 0 &&
        fseek(file, 0, SEEK_SET) == 0 && (data = malloc((size_t)length)) != NULL) {
        *size = fread(data, 1, (size_t)length, file);
    }
    if (file) {
        fclose(file);
    }
    return data;
}

static void print_answer(const char *path, const struct thorax_answer *answer) {
    if (answer->status != THORAX_OK) {
        printf("%s: no answer: %s: %s\n", path, thorax_status_name(answer->status), answer->message);
        return;
    }
    printf("%s: %s ", path, thorax_decision_name(answer->decision));
    for (size_t i = 0; i < answer->probability_count; i++) {
        printf(" %s %.3f", answer->probabilities[i].label, answer->probabilities[i].probability);
    }
    printf("  (%s %s)\n", answer->model_name, answer->model_version);
    for (size_t i = 0; i < answer->warning_count; i++) {
        printf("%s: warning: %s\n", path, answer->warnings[i].message);
    }
}

static void print_error(const char *what, const struct thorax_error *error) {
    printf("%s: no answer: %s%s%s\n", what, error->message, *error->hint ? "; " : "", error->hint);
}

/** True where there was a diagnosis. */
static bool diagnose(struct thorax_client *client, const char *path) {
    struct thorax_request request = {.timeout_ms = TIMEOUT_MS};
    struct thorax_answer answer;
    struct thorax_error error = {.message = "the file cannot be read"};
    void *image = read_file(path, &request.image_size);
    request.image = image;
    bool ok = image != NULL && thorax_diagnose(client, &request, &answer, &error);
    if (ok) {
        print_answer(path, &answer);
        ok = answer.status == THORAX_OK;
        thorax_answer_free(&answer);
    } else {
        print_error(path, &error);
    }
    free(image);
    return ok;
}

int main(int argc, char **argv) {
    const char *endpoints[MAX_ENDPOINTS];
    struct thorax_options options = {.endpoints = endpoints};
    const char *server_key = getenv("THORAX_SERVER_KEY");
    struct thorax_error error;
    int failed = 0;
    options.key = getenv("THORAX_KEY");
    options.server_keys = &server_key;
    options.server_key_count = server_key ? 1 : 0;
    if (argc < 3) {
        fprintf(stderr, "usage: diagnose ENDPOINT[,ENDPOINT...] FILE...\n");
        return 2;
    }
    for (char *rest = argv[1], *each;
         (each = strsep(&rest, ",")) && options.endpoint_count < MAX_ENDPOINTS;) {
        endpoints[options.endpoint_count++] = each;
    }
    struct thorax_client *client = thorax_open(&options, &error);
    if (!client) {
        print_error("diagnose", &error);
        return 1;
    }
    for (int i = 2; i < argc; i++) {
        failed += !diagnose(client, argv[i]);
    }
    thorax_close(client);
    return failed ? 1 : 0;
}
