#pragma once
#include "trainerd/upload.h"

/**
 * Hands the models of a training run to a publisher elsewhere, in the background and in the order in which they
 * were made. Each waits in a folder of the run until the publisher has said that it has it: neither a publisher
 * that is down nor this program's end loses one, and the next to open the folder takes up what is left.
 *
 * Owns a thread, which owns the conversation. The functions here are for one other thread, and none but
 * handover_stop waits for the network.
 */
struct handover;

enum { HANDOVER_PATH_SIZE = 4096 };

struct handover_spec {
    const char *endpoint; /**< the publisher's control socket */
    const char *folder;   /**< where models wait; made if need be */
    const char *sign_key; /**< as in upload_spec */
    struct control_keys keys; /**< its security is borrowed for the handover's life */
    int answer_ms;        /**< how long to wait for each answer; 0: 10000 */
    int retry_ms;         /**< the pause after a failure, which doubles with each up to 30 s; 0: 500 */
};

/** Starts the thread. Returns owned. Borrows spec.keys.security, nothing else. */
struct handover *handover_create(const struct handover_spec *spec, struct error *err);
/** Stops it first. Takes NULL. What was not handed over stays in the folder. */
void handover_destroy(struct handover *handover);

/** Puts a model file into the folder, to be handed over; the file itself may be removed then. ERROR_NOT_FOUND: it is gone. */
bool handover_add(struct handover *handover, const char *path, struct error *err);
/** How many models wait, or are on their way. */
int handover_waiting(struct handover *handover);
/** The end is near: tries again at once, and from now on without long pauses. */
void handover_hurry(struct handover *handover);
/** Ends the thread, which takes up to answer_ms. */
void handover_stop(struct handover *handover);

enum handover_fate {
    HANDOVER_WAITS,   /**< after handover_stop: it was not handed over; error says what went wrong last, where anything did */
    HANDOVER_DONE,    /**< the publisher has it; it may be against it (done.gate) */
    HANDOVER_REFUSED, /**< the publisher will not have it, or it cannot be sent, and error says why; the file stays */
};

struct handover_result {
    enum handover_fate fate;
    char path[HANDOVER_PATH_SIZE]; /**< in the folder */
    struct upload_done done;
    struct error error;
};

/** What became of the next model; each is told once. False: nothing new. */
bool handover_next_result(struct handover *handover, struct handover_result *out);
