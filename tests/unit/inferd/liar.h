#pragma once
#include <pthread.h>
#include <stdatomic.h>

/** What a bad member does with a diagnosis request. All of them answer status requests as a good one would.
 */
enum liar_habit {
    LIAR_SILENT,        /**< takes it and never answers */
    LIAR_GARBAGE,       /**< answers bytes that are no message */
    LIAR_OTHER_REQUEST, /**< a complete answer with another request's id */
    LIAR_OTHER_IMAGE,   /**< a complete answer about another picture */
    LIAR_EMPTY,         /**< an OK without an answer */
    LIAR_TWICE,         /**< a good answer, two times */
};

/** A member that does wrong, run by a thread of its own. A test double. */
struct liar {
    enum liar_habit habit;
    char endpoint[128];
    atomic_int asked; /**< diagnosis requests that came */
    atomic_bool stop;
    void *socket, *context;
    pthread_t thread;
};

void liar_start(struct liar *liar, enum liar_habit habit);
void liar_stop(struct liar *liar);
