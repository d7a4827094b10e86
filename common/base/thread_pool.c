#include "common/base/thread_pool.h"

#include "common/base/queue.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

struct job {
    void (*run)(void *context);
    void *context;
};

struct thread_pool {
    struct queue *queue;
    pthread_mutex_t lock; /* guards pending; a leaf lock */
    pthread_cond_t idle;
    size_t pending; /* submitted and not yet finished */
    int nice;
    char name[16];
    int thread_count;
    pthread_t threads[];
};

static void job_done(struct thread_pool *pool) {
    pthread_mutex_lock(&pool->lock);
    if (--pool->pending == 0)
        pthread_cond_broadcast(&pool->idle);
    pthread_mutex_unlock(&pool->lock);
}

static void *pool_thread(void *context) {
    struct thread_pool *pool = context;
    pthread_setname_np(pthread_self(), pool->name);
    if (pool->nice) {
        /* On Linux niceness belongs to the thread. */
        id_t thread = (id_t)syscall(SYS_gettid);
        setpriority(PRIO_PROCESS, thread, getpriority(PRIO_PROCESS, thread) + pool->nice);
    }
    struct job *job;
    while ((job = queue_pop(pool->queue, -1))) {
        job->run(job->context);
        free(job);
        job_done(pool);
    }
    return NULL;
}

struct thread_pool *thread_pool_create(const struct thread_pool_spec *spec, struct error *err) {
    struct thread_pool *pool = calloc(1, sizeof *pool + (size_t)spec->threads * sizeof pool->threads[0]);
    if (!pool || !(pool->queue = queue_create(spec->queue_limit))) {
        free(pool);
        error_set(err, ERROR_MEMORY, "thread pool %s: out of memory", spec->name);
        return NULL;
    }
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->idle, NULL);
    pool->nice = spec->nice;
    strncpy(pool->name, spec->name, sizeof pool->name - 1);
    for (; pool->thread_count < spec->threads; pool->thread_count++) {
        if (pthread_create(&pool->threads[pool->thread_count], NULL, pool_thread, pool) != 0) {
            error_set(err, ERROR_MEMORY, "thread pool %s: cannot start thread %d", spec->name, pool->thread_count);
            thread_pool_destroy(pool);
            return NULL;
        }
    }
    return pool;
}

void thread_pool_destroy(struct thread_pool *pool) {
    if (!pool)
        return;
    queue_close(pool->queue);
    for (int i = 0; i < pool->thread_count; i++)
        pthread_join(pool->threads[i], NULL);
    queue_destroy(pool->queue);
    pthread_cond_destroy(&pool->idle);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}

static bool submit(struct thread_pool *pool, void (*run)(void *), void *context, int64_t timeout_ms) {
    struct job *job = malloc(sizeof *job);
    if (!job)
        return false;
    *job = (struct job){run, context};
    pthread_mutex_lock(&pool->lock);
    pool->pending++;
    pthread_mutex_unlock(&pool->lock);
    if (queue_push(pool->queue, job, timeout_ms))
        return true;
    free(job);
    job_done(pool);
    return false;
}

bool thread_pool_submit(struct thread_pool *pool, void (*job)(void *context), void *context) {
    return submit(pool, job, context, -1);
}

bool thread_pool_try_submit(struct thread_pool *pool, void (*job)(void *context), void *context) {
    return submit(pool, job, context, 0);
}

void thread_pool_wait(struct thread_pool *pool) {
    pthread_mutex_lock(&pool->lock);
    while (pool->pending)
        pthread_cond_wait(&pool->idle, &pool->lock);
    pthread_mutex_unlock(&pool->lock);
}
