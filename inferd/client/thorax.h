/**
 * libthorax: asks a pool of Thorax' inferds about chest X-rays. Research and integration; not a medical
 * device.
 *
 *     const char *const endpoints[] = {"tcp://10.0.0.1:5700", "tcp://10.0.0.2:5700"};
 *     struct thorax_options options = {.endpoints = endpoints, .endpoint_count = 2};
 *     struct thorax_error error;
 *     struct thorax_client *client = thorax_open(&options, &error);
 *     struct thorax_request request = {.image = bytes, .image_size = size, .timeout_ms = 10000};
 *     struct thorax_answer answer;
 *     if (client && thorax_diagnose(client, &request, &answer, &error)) {
 *         if (answer.status == THORAX_OK) { ... answer.decision, answer.probabilities ... }
 *         thorax_answer_free(&answer);
 *     }
 *     thorax_close(client);
 *
 * Compile with `pkg-config --cflags --libs thorax`.
 *
 * The library knows which members are alive (heartbeats), asks the one that has the least to do for us, and
 * asks another one where a member is busy, not ready, at fault, dead or silent. Requests are idempotent, so
 * asking twice is harmless. A reply is believed only where it is to that request, about that picture (by its
 * SHA-256) and complete. An endpoint may be a member or a router; give two routers, so that one may fail.
 *
 * Members that encrypt (tcp:// with keys) know us by our key: its public half stands in their allow-list, with
 * the role client, and theirs in server_keys. Nothing is sent to who has another key. A member that does not
 * (or no longer) have ours in its list says nothing: requests end as THORAX_ERROR_TIMEOUT, whose hint says so.
 *
 * Zeroed structs are defaults: set what you need by name, and zero the rest. Strings are UTF-8. Nothing here
 * logs, installs a signal handler, or ends the process. Do not use a client across fork().
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** A connection to a pool. Any number of threads may use it at once, each call but thorax_close. */
struct thorax_client;

/** Why a call failed. */
enum thorax_error_code {
    THORAX_ERROR_NONE = 0,
    THORAX_ERROR_INVALID =
        1, /**< an argument makes no sense, or others can read or change a key file; the message names it */
    THORAX_ERROR_TIMEOUT =
        2, /**< nobody answered in time: DEADLINE_EXCEEDED. The message says what stood in the way */
    THORAX_ERROR_BUSY = 3,   /**< max_outstanding requests are on their way already */
    THORAX_ERROR_CLOSED = 4, /**< the client was closed before an answer came */
    THORAX_ERROR_SYSTEM = 5, /**< memory, descriptors, threads, or a key file that cannot be read */
};

/** Filled in where a call fails, else untouched. Plain data. Says nothing of a patient. */
struct thorax_error {
    enum thorax_error_code code;
    char message[480];
    char hint[240]; /**< what to do about it; often empty */
};

struct thorax_options {
    const char *const *endpoints; /**< copied; tcp://HOST:PORT or ipc://PATH, each a member or a router */
    int endpoint_count;           /**< 1 to 64 */
    int max_outstanding;          /**< requests at once, 1 to 65536; more are THORAX_ERROR_BUSY. 0: 256 */
    int64_t heartbeat_ms; /**< a member is asked for its status so often, and dead after three without a sign
                             of life. 0: 500 */
    int64_t pin_ms; /**< how long requests with one routing_key stay with one model. 0: 10 minutes; < 0: not
                       at all */
    const char *key; /**< our CURVE key: a .key file of `trainctl keygen curve`, mode 0600, read by thorax_open.
                        With it all tcp:// is encrypted. NULL: clear text */
    const char *const *server_keys; /**< with key: the public keys that endpoints must have, each a .pub file or its 40
                                       characters; copied. Without key: THORAX_ERROR_INVALID */
    int server_key_count; /**< 1: all endpoints have the same; endpoint_count: one each (ipc:// needs none, and
                             ignores its own); 0: all are ipc:// */
    const void *reserved[8]; /**< NULL, for later versions: a library that does not know an option refuses it */
};

/** How a radiograph was taken. */
enum thorax_view {
    THORAX_VIEW_UNKNOWN = 0,
    THORAX_VIEW_PA = 1,
    THORAX_VIEW_AP = 2,
    THORAX_VIEW_LATERAL = 3,
    THORAX_VIEW_OTHER = 4,
};

/** Which end of the values is white (DICOM Photometric Interpretation). */
enum thorax_photometric {
    THORAX_MONOCHROME1 = 1, /**< the smallest value is white */
    THORAX_MONOCHROME2 = 2, /**< the smallest value is black */
};

/** Pixels without a file format: rows from the top, one value a pixel, little-endian, no padding, windowed as
 * a reader would see them. The image of the request is their rows x columns x bits_allocated / 8 bytes. */
struct thorax_pixels {
    uint32_t rows, columns;
    uint32_t bits_allocated; /**< 8 or 16 */
    uint32_t bits_stored;    /**< low bits that count, 1 to bits_allocated */
    bool is_signed;
    enum thorax_photometric photometric; /**< required */
};

/** One picture, one question. All pointers are borrowed until the call returns. */
struct thorax_request {
    const void *image; /**< a JPEG or PNG file as it is, or the values of `pixels` */
    size_t image_size;
    const struct thorax_pixels *pixels; /**< NULL: image is a file */
    int64_t timeout_ms;     /**< for everything, asking again included; 0: 30 seconds. At most a day */
    const char *request_id; /**< 1 to 128 bytes; NULL: one is drawn at random */
    const char *model; /**< NULL: the pool's. "stable", NAME:VERSION, or a digest's 64 hexadecimal digits */
    const char *operating_point; /**< NULL: the model's first */
    const void *routing_key;     /**< what belongs together, e.g. a study: at most 128 bytes, or NULL */
    size_t routing_key_size;
    const float *age_years; /**< 0 to 150; NULL: unknown */
    enum thorax_view view;
    bool stat; /**< an emergency: goes before all that is routine */
};

/** How a request ended at the pool; the numbers of `Status` in diagnosis.proto, whose comments say what each
 * means. */
enum thorax_status {
    THORAX_OK = 1,
    THORAX_INVALID_ARGUMENT = 2,
    THORAX_UNSUPPORTED_MEDIA = 3,
    THORAX_TOO_LARGE = 4,
    THORAX_BUSY = 5,
    THORAX_DEADLINE_EXCEEDED = 6,
    THORAX_NOT_READY = 7,
    THORAX_UNSUPPORTED_VERSION = 8,
    THORAX_INTERNAL = 9,
    THORAX_PERMISSION_DENIED = 10,
};

enum thorax_decision {
    THORAX_DECISION_NONE = 0, /**< every answer whose status is not OK */
    THORAX_RULE_IN = 1,
    THORAX_UNCERTAIN = 2,
    THORAX_RULE_OUT = 3,
    THORAX_DECISION_INVALID = 4, /**< the picture is none that the model can judge */
};

struct thorax_probability {
    const char *label;
    double probability; /**< 0 to 1; all of an answer add up to 1 */
};

/** A warning's codes: the numbers of `WarningCode` in diagnosis.proto. */
enum thorax_warning_code {
    THORAX_WARNING_AGE = 1,
    THORAX_WARNING_VIEW = 2,
    THORAX_WARNING_MODEL_CHANGED = 3,
};

struct thorax_warning {
    int code; /**< enum thorax_warning_code, or one that is newer than this library */
    const char *message;
};

/** A checked answer, or a checked refusal. Strings and arrays belong to it and live until thorax_answer_free;
 * strings are never NULL. What is "only with OK" is zero or empty otherwise. */
struct thorax_answer {
    enum thorax_status status;
    bool retryable; /**< the same request may succeed later */
    uint32_t retry_after_ms;
    const char *message;    /**< why it was refused, for people */
    const char *request_id; /**< that of the request, or the one that was drawn */
    const char *member;     /**< who answered */
    enum thorax_decision decision;
    const char *decision_reason;                    /**< only with OK */
    const struct thorax_probability *probabilities; /**< every class, in the model's order; only with OK */
    size_t probability_count;
    const struct thorax_warning *warnings; /**< only with OK */
    size_t warning_count;
    const char *operating_point, *operating_point_label; /**< only with OK */
    double rule_in, rule_out;                            /**< its thresholds; only with OK */
    const char *model_name, *model_version;              /**< "" where no model was chosen */
    uint8_t model_digest[32];
    bool model_changed; /**< MODEL_CHANGED: pictures with this routing_key were answered by another model
                           before */
    uint8_t pinned_digest[32];                /**< which one; only with model_changed */
    uint8_t image_sha256[32];                 /**< of the picture that was sent, computed here */
    uint64_t queue_us, decode_us, compute_us; /**< at the member */
    uint64_t elapsed_us;                      /**< from the call to the answer */
    int attempts;                             /**< how often it was sent; 1 unless members failed */
    void *owned;                              /**< the library's */
};

/**
 * Connects, in the background: members that cannot be reached now are tried again for as long as the client
 * lives. Returns owned, NULL on error (THORAX_ERROR_INVALID, THORAX_ERROR_SYSTEM). error may be NULL, here
 * and everywhere.
 */
struct thorax_client *thorax_open(const struct thorax_options *options, struct thorax_error *error);

/** Ends the client; requests that wait end as THORAX_ERROR_CLOSED, and the call waits for their call-backs.
 * No other call may be running that began after it. Not from a call-back. Takes NULL. */
void thorax_close(struct thorax_client *client);

/**
 * Asks and waits for the answer. True: answer holds a checked reply, to be freed with thorax_answer_free;
 * only where its status is THORAX_OK is there a diagnosis. False: there is none, and answer is zeroed. Never
 * returns later than timeout_ms after the call but for the scheduling of threads.
 */
bool thorax_diagnose(struct thorax_client *client, const struct thorax_request *request,
                     struct thorax_answer *answer, struct thorax_error *error);

/**
 * Called once for each thorax_submit that returned true, on the library's own thread: it must not block nor
 * call thorax_diagnose or thorax_close; thorax_submit it may. answer: the callee's, to be freed with
 * thorax_answer_free; NULL where there is none, and then error, borrowed, says why.
 */
typedef void thorax_done(void *context, struct thorax_answer *answer, const struct thorax_error *error);

/** Asks and returns at once; done is called later. False: it will not be called. The picture is copied before
 * this returns. */
bool thorax_submit(struct thorax_client *client, const struct thorax_request *request, thorax_done *done,
                   void *context, struct thorax_error *error);

/** Frees what an answer holds and zeroes it. Takes NULL, a zeroed one, and one that is freed already. */
void thorax_answer_free(struct thorax_answer *answer);

/** An endpoint as the client sees it. */
struct thorax_member {
    bool reachable;  /**< answers heartbeats */
    bool ready;      /**< and takes requests */
    int outstanding; /**< requests of this client that it has not answered */
};

/** Fills in the state of up to `count` endpoints, in the order of the options. Returns how many there are. */
int thorax_members(struct thorax_client *client, struct thorax_member *out, int count);

/** "OK", "BUSY" and so on. Never NULL. */
const char *thorax_status_name(enum thorax_status status);
/** "RULE_IN" and so on. Never NULL. */
const char *thorax_decision_name(enum thorax_decision decision);
/** Of the library, e.g. "0.2.0". */
const char *thorax_version(void);

#ifdef __cplusplus
}
#endif
