/*
 * pool_asker RATE DEADLINE_MS OUTSTANDING SEED ENDPOINT[,ENDPOINT...] PICTURE...: asks a pool through
 * libthorax, at RATE a second on average (Poisson arrivals: an open loop), and prints one line of JSON for
 * each request when it ends. Ends when standard input does, once all is answered. A client as any user would
 * write it: nothing of the project but the public header.
 */
#include "inferd/client/thorax.h"
#include <math.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { PICTURES = 64, ENDPOINTS = 64, PICTURE_BYTES = 1 << 20, STUDIES = 6 };

struct picture {
    unsigned char *data;
    size_t size;
};

struct asker {
    double rate;
    long deadline_ms, limit;
    unsigned short random[3];
    int picture_count;
    struct picture pictures[PICTURES];
    struct thorax_client *client;
    pthread_mutex_t mutex; /* guards what follows, and standard output */
    pthread_cond_t changed;
    int outstanding;
};

/* A request under way. */
struct question {
    struct asker *asker;
    int picture, study;
    double intended_s, asked_s;
};

static double now_s(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static void print_answer(const struct question *question, const struct thorax_answer *answer) {
    printf("\"model\": \"");
    for (size_t i = 0; i < sizeof answer->model_digest; i++)
        printf("%02x", answer->model_digest[i]);
    printf("\", \"changed\": %s, \"probabilities\": [", answer->model_changed ? "true" : "false");
    for (size_t i = 0; i < answer->probability_count; i++)
        printf("%s%.9f", i ? ", " : "", answer->probabilities[i].probability);
    printf("], \"attempts\": %d, \"study\": %d}\n", answer->attempts, question->study);
}

static void done(void *context, struct thorax_answer *answer, const struct thorax_error *error) {
    struct question *question = context;
    struct asker *asker = question->asker;
    pthread_mutex_lock(&asker->mutex);
    printf("{\"picture\": %d, \"asked_ms\": %.3f, \"intended_ms\": %.3f, ", question->picture,
           1000 * (now_s() - question->asked_s), 1000 * (now_s() - question->intended_s));
    if (answer && answer->status == THORAX_OK)
        print_answer(question, answer);
    else
        printf("\"error\": \"%s %s\"}\n", answer ? thorax_status_name(answer->status) : "none",
               answer ? answer->message : error->message);
    fflush(stdout);
    asker->outstanding--;
    pthread_cond_signal(&asker->changed);
    pthread_mutex_unlock(&asker->mutex);
    thorax_answer_free(answer);
    free(question);
}

static void wait_below(struct asker *asker, int limit) {
    pthread_mutex_lock(&asker->mutex);
    while (asker->outstanding >= limit)
        pthread_cond_wait(&asker->changed, &asker->mutex);
    pthread_mutex_unlock(&asker->mutex);
}

/* Every third request belongs to a study; so many requests later there is another one. */
static int draw_study(struct asker *asker, long asked) {
    return nrand48(asker->random) % 3 ? 0 : (int)(1 + asked / (STUDIES * 3));
}

static void ask(struct asker *asker, long asked, double intended_s) {
    struct question *question = malloc(sizeof *question);
    char key[32];
    struct thorax_error error = {0};
    *question = (struct question){asker, (int)(nrand48(asker->random) % asker->picture_count),
                                  draw_study(asker, asked), intended_s, now_s()};
    snprintf(key, sizeof key, "study-%d", question->study);
    struct thorax_request request = {
        .image = asker->pictures[question->picture].data,
        .image_size = asker->pictures[question->picture].size,
        .timeout_ms = asker->deadline_ms,
        .routing_key = question->study ? key : NULL,
        .routing_key_size = question->study ? strlen(key) : 0,
    };
    pthread_mutex_lock(&asker->mutex);
    asker->outstanding++;
    pthread_mutex_unlock(&asker->mutex);
    if (!thorax_submit(asker->client, &request, done, question, &error))
        done(question, NULL, &error);
}

/* Until the time, or until standard input ends: false. */
static bool wait_until(double time_s) {
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    double left_ms = 1000 * (time_s - now_s());
    if (poll(&input, 1, left_ms > 0 ? (int)left_ms : 0) > 0)
        return false;
    left_ms = 1000 * (time_s - now_s());
    if (left_ms > 0)
        usleep((useconds_t)(1000 * left_ms));
    return true;
}

static void run(struct asker *asker) {
    double due_s = now_s();
    for (long asked = 0;; asked++) {
        due_s += -log(1 - erand48(asker->random)) / asker->rate;
        if (!wait_until(due_s))
            break;
        wait_below(asker, (int)asker->limit);
        ask(asker, asked, due_s);
    }
    wait_below(asker, 1);
}

static bool read_picture(const char *path, struct picture *out) {
    FILE *file = fopen(path, "rb");
    out->data = malloc(PICTURE_BYTES);
    out->size = file && out->data ? fread(out->data, 1, PICTURE_BYTES, file) : 0;
    if (file)
        fclose(file);
    return out->size > 0;
}

static struct thorax_client *open_client(const struct asker *asker, char *list) {
    const char *endpoints[ENDPOINTS];
    struct thorax_options options = {.endpoints = endpoints, .max_outstanding = (int)asker->limit + 1};
    struct thorax_error error;
    for (char *piece; options.endpoint_count < ENDPOINTS && (piece = strsep(&list, ","));)
        endpoints[options.endpoint_count++] = piece;
    struct thorax_client *client = thorax_open(&options, &error);
    if (!client)
        fprintf(stderr, "pool_asker: %s\n", error.message);
    return client;
}

int main(int argc, char **argv) {
    struct asker asker = {.mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    if (argc < 7 || argc - 6 > PICTURES) {
        fputs("usage: pool_asker RATE DEADLINE_MS OUTSTANDING SEED ENDPOINT[,ENDPOINT...] PICTURE...\n",
              stderr);
        return 2;
    }
    asker.rate = strtod(argv[1], NULL);
    asker.deadline_ms = strtol(argv[2], NULL, 10);
    asker.limit = strtol(argv[3], NULL, 10);
    asker.random[0] = (unsigned short)strtol(argv[4], NULL, 10);
    for (; asker.picture_count < argc - 6; asker.picture_count++) {
        if (!read_picture(argv[6 + asker.picture_count], &asker.pictures[asker.picture_count]))
            return 1;
    }
    if (!(asker.client = open_client(&asker, argv[5])))
        return 1;
    run(&asker);
    thorax_close(asker.client);
    return 0;
}
