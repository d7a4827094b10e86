/*
 * Threads that ask a pool through one client of libthorax, for tests that check each answer:
 *
 *     thorax_load ENDPOINT[,ENDPOINT...] THREADS SECONDS TIMEOUT_MS FILE...
 *
 * Each thread asks about the files in turn until the time is over. A line an answer: the file's number, the
 * status, digests of picture and model in hexadecimal, how often it was sent, the probabilities; or the
 * file's number, ERROR, and why. Keys are those of THORAX_KEY and THORAX_SERVER_KEY.
 */
#include "inferd/client/thorax.h"
#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/text.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_ENDPOINTS = 64, MAX_THREADS = 64, MAX_FILES = 64, MAX_FILE_BYTES = 64 << 20 };

struct load {
    struct thorax_client *client;
    int64_t until_ms, timeout_ms;
    struct bytes files[MAX_FILES];
    int file_count;
};

struct asker {
    struct load *load;
    pthread_t thread;
    int first; /* file */
};

static void print_hex(FILE *out, const uint8_t bytes[32]) {
    fputc(' ', out);
    for (int i = 0; i < 32; i++) {
        fprintf(out, "%02x", bytes[i]);
    }
}

/** One write a line, so that those of several threads do not mix. */
static void print(int file, const struct thorax_answer *answer, const struct thorax_error *error) {
    char *line = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&line, &size);
    fprintf(out, "%d %s", file, answer ? thorax_status_name(answer->status) : "ERROR");
    if (answer && answer->status == THORAX_OK) {
        print_hex(out, answer->image_sha256);
        print_hex(out, answer->model_digest);
        fprintf(out, " %d", answer->attempts);
        for (size_t i = 0; i < answer->probability_count; i++) {
            fprintf(out, " %.9f", answer->probabilities[i].probability);
        }
    } else {
        fprintf(out, " %s", answer ? answer->message : error->message);
    }
    fputc('\n', out);
    fclose(out);
    fwrite(line, 1, size, stdout);
    free(line);
}

static void *run(void *argument) {
    struct asker *asker = argument;
    struct load *load = asker->load;
    for (int i = asker->first; clock_now_ms() < load->until_ms; i++) {
        struct thorax_answer answer;
        struct thorax_error error = {0};
        int file = i % load->file_count;
        struct thorax_request request = {.image = load->files[file].data,
                                         .image_size = load->files[file].size,
                                         .timeout_ms = load->timeout_ms};
        bool ok = thorax_diagnose(load->client, &request, &answer, &error);
        print(file, ok ? &answer : NULL, &error);
        thorax_answer_free(&answer);
    }
    return NULL;
}

static bool parse(int argc, char **argv, struct load *load, int64_t *threads,
                  struct thorax_options *options) {
    int64_t seconds;
    if (argc < 6 || argc > 5 + MAX_FILES || !text_to_int(argv[2], 1, MAX_THREADS, threads, NULL) ||
        !text_to_int(argv[3], 1, 3600, &seconds, NULL) ||
        !text_to_int(argv[4], 1, 600000, &load->timeout_ms, NULL)) {
        return false;
    }
    const char **endpoints = (const char **)options->endpoints;
    for (char *rest = argv[1], *each;
         (each = strsep(&rest, ",")) && options->endpoint_count < MAX_ENDPOINTS;) {
        endpoints[options->endpoint_count++] = each;
    }
    for (int i = 5; i < argc; i++) {
        if (!file_read(argv[i], MAX_FILE_BYTES, &load->files[load->file_count++], NULL)) {
            return false;
        }
    }
    load->until_ms = clock_now_ms() + seconds * 1000;
    return true;
}

int main(int argc, char **argv) {
    const char *endpoints[MAX_ENDPOINTS];
    const char *server_key = getenv("THORAX_SERVER_KEY");
    struct thorax_options options = {.endpoints = endpoints,
                                     .key = getenv("THORAX_KEY"),
                                     .server_keys = &server_key,
                                     .server_key_count = server_key ? 1 : 0};
    struct thorax_error error = {0};
    struct asker askers[MAX_THREADS];
    struct load load = {0};
    int64_t threads = 0;
    if (!parse(argc, argv, &load, &threads, &options)) {
        fputs("usage: thorax_load ENDPOINT[,ENDPOINT...] THREADS SECONDS TIMEOUT_MS FILE...\n", stderr);
        return 2;
    }
    load.client = thorax_open(&options, &error);
    if (!load.client) {
        fprintf(stderr, "thorax_load: %s\n", error.message);
        return 1;
    }
    for (int i = 0; i < threads; i++) {
        askers[i] = (struct asker){.load = &load, .first = i};
        pthread_create(&askers[i].thread, NULL, run, &askers[i]);
    }
    for (int i = 0; i < threads; i++) {
        pthread_join(askers[i].thread, NULL);
    }
    thorax_close(load.client);
    for (int i = 0; i < load.file_count; i++) {
        free(load.files[i].data);
    }
    return 0;
}
