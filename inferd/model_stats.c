#include "inferd/model_stats.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct model_stats {
    pthread_mutex_t mutex; /* guards all below */
    int count;
    struct model_record *rows[MODEL_STATS_MAX]; /* pointers into records, the one used last first */
    struct model_record records[MODEL_STATS_MAX];
};

struct model_stats *model_stats_create(void) {
    struct model_stats *stats = calloc(1, sizeof *stats);
    if (stats) {
        pthread_mutex_init(&stats->mutex, NULL);
    }
    return stats;
}

void model_stats_destroy(struct model_stats *stats) {
    if (stats) {
        pthread_mutex_destroy(&stats->mutex);
        free(stats);
    }
}

/** The model's row, moved to the front; a new one takes a free place or the last one's. Locked. */
static struct model_record *touch(struct model_stats *stats, const struct digest *model) {
    int at = 0;
    while (at < stats->count && !digest_equal(&stats->rows[at]->digest, model)) {
        at++;
    }
    if (at == stats->count && stats->count < MODEL_STATS_MAX) {
        stats->rows[stats->count++] = &stats->records[at];
        stats->records[at].digest = *model;
    } else if (at == stats->count) {
        at--;
        memset(stats->rows[at], 0, sizeof *stats->rows[at]);
        stats->rows[at]->digest = *model;
    }
    struct model_record *row = stats->rows[at];
    memmove(&stats->rows[1], &stats->rows[0], (size_t)at * sizeof *stats->rows);
    return stats->rows[0] = row;
}

void model_stats_answered(struct model_stats *stats, const struct digest *model, uint64_t latency_us) {
    pthread_mutex_lock(&stats->mutex);
    struct model_record *row = touch(stats, model);
    row->answered++;
    histogram_record(&row->latency, latency_us);
    pthread_mutex_unlock(&stats->mutex);
}

void model_stats_failed(struct model_stats *stats, const struct digest *model) {
    pthread_mutex_lock(&stats->mutex);
    touch(stats, model)->failed++;
    pthread_mutex_unlock(&stats->mutex);
}

void model_stats_compared(struct model_stats *stats, const struct digest *shadow, bool agreed, double drift) {
    pthread_mutex_lock(&stats->mutex);
    struct model_record *row = touch(stats, shadow);
    row->compared++;
    row->agreed += agreed ? 1 : 0;
    row->drift_sum += drift;
    row->drift_square_sum += drift * drift;
    pthread_mutex_unlock(&stats->mutex);
}

void model_stats_shadow_failed(struct model_stats *stats, const struct digest *shadow) {
    pthread_mutex_lock(&stats->mutex);
    struct model_record *row = touch(stats, shadow);
    row->compared++;
    row->shadow_failed++;
    pthread_mutex_unlock(&stats->mutex);
}

int model_stats_copy(struct model_stats *stats, struct model_record out[MODEL_STATS_MAX]) {
    pthread_mutex_lock(&stats->mutex);
    int count = stats->count;
    for (int i = 0; i < count; i++) {
        memcpy(&out[i], stats->rows[i], sizeof out[i]);
    }
    pthread_mutex_unlock(&stats->mutex);
    return count;
}
