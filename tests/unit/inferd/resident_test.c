#include "common/base/log.h"
#include "common/wire/endpoint.h"
#include "common/wire/message.h"
#include "proto/envelope.pb-c.h"
#include "tests/unit/inferd/fake_model.h"
#include "tests/unit/inferd/fixture.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* Several models that can answer at once: which one a request gets. */

enum { WAIT_MS = 20000, PIN_MS = 3600 * 1000 };

static struct digest digest_named(const char *name) {
    return digest_of(name, strlen(name)); /* as fake_model makes it */
}

static struct model *make(const char *name) {
    return fake_model(&(struct fake_model_spec){.name = name, .logits = {0, 1, 0}});
}

/** "old" is the previous model, "new" the active one. */
static void start(struct fixture *fixture) {
    struct server_spec spec = fixture_spec();
    spec.pins = (struct pins_spec){.limit = 16, .time_ms = PIN_MS};
    spec.incarnation = 4711;
    fixture_start(fixture, &spec, make("old"));
    slot_keep_previous(fixture->slot, true);
    slot_swap(fixture->slot, make("new"));
}

static Thorax__V1__Envelope *converse(const struct fixture *fixture, Thorax__V1__Envelope *request) {
    const char *const connect[] = {fixture->endpoint, NULL};
    struct wire_context *wire = wire_context_create(1, NULL);
    struct wire_socket *socket =
        wire_socket_open(wire, &(struct wire_socket_spec){.kind = WIRE_DEALER, .connect = connect}, NULL);
    struct bytes packed;
    struct wire_message message = {0};
    struct message_limits limits = {.max_bytes = 1 << 20, .max_fields = 1000, .max_depth = 8};
    request->protocol_version = MESSAGE_PROTOCOL_VERSION;
    assert_true(message_pack(&request->base, &packed, NULL));
    struct wire_frame frames[] = {{"", 0}, {packed.data, packed.size}};
    assert_true(wire_send(socket, frames, 2, WAIT_MS, NULL));
    assert_true(wire_receive(socket, &message, WAIT_MS, NULL));
    Thorax__V1__Envelope *reply = (Thorax__V1__Envelope *)message_unpack(
        &thorax__v1__envelope__descriptor, message.frames[message.count - 1], &limits, NULL);
    assert_non_null(reply);
    wire_message_fini(&message);
    free(packed.data);
    wire_socket_close(socket);
    wire_context_destroy(wire);
    return reply;
}

/** What to ask with; all may be absent. */
struct question {
    const char *model, *key;
    const struct digest *pinned;
    size_t pinned_size; /* 0: the whole digest */
};

static Thorax__V1__Envelope *ask(const struct fixture *fixture, struct question question) {
    struct bytes image = fixture_image(1);
    Thorax__V1__Envelope envelope = THORAX__V1__ENVELOPE__INIT;
    Thorax__V1__DiagnosisRequest request = THORAX__V1__DIAGNOSIS_REQUEST__INIT;
    request.request_id = "r";
    request.model = (char *)(uintptr_t)(question.model ? question.model : "");
    request.image_case = THORAX__V1__DIAGNOSIS_REQUEST__IMAGE_ENCODED;
    request.encoded = (ProtobufCBinaryData){image.size, image.data};
    if (question.key) {
        request.routing_key = (ProtobufCBinaryData){strlen(question.key), (uint8_t *)(uintptr_t)question.key};
    }
    if (question.pinned) {
        request.pinned_model =
            (ProtobufCBinaryData){question.pinned_size ? question.pinned_size : sizeof question.pinned->bytes,
                                  (uint8_t *)(uintptr_t)question.pinned->bytes};
    }
    envelope.body_case = THORAX__V1__ENVELOPE__BODY_DIAGNOSIS_REQUEST;
    envelope.diagnosis_request = &request;
    Thorax__V1__Envelope *reply = converse(fixture, &envelope);
    assert_int_equal(reply->body_case, THORAX__V1__ENVELOPE__BODY_DIAGNOSIS_REPLY);
    free(image.data);
    return reply;
}

/** The answer is by this model, and nothing is said of another one. */
static void assert_by(const struct fixture *fixture, struct question question, const char *name) {
    Thorax__V1__Envelope *reply = ask(fixture, question);
    const Thorax__V1__DiagnosisReply *answer = reply->diagnosis_reply;
    assert_int_equal(answer->status, THORAX__V1__STATUS__STATUS_OK);
    assert_string_equal(answer->model->name, name);
    assert_int_equal(answer->n_warnings, 0);
    assert_int_equal(answer->pinned_model.len, 0);
    message_free(&reply->base);
}

/** The answer is by the active model, and says that another one answered before. */
static void assert_changed(const struct fixture *fixture, struct question question,
                           const struct digest *before) {
    Thorax__V1__Envelope *reply = ask(fixture, question);
    const Thorax__V1__DiagnosisReply *answer = reply->diagnosis_reply;
    struct model *active = slot_acquire(fixture->slot);
    assert_int_equal(answer->status, THORAX__V1__STATUS__STATUS_OK);
    assert_string_equal(answer->model->name, active->info.name);
    assert_int_equal(answer->n_warnings, 1);
    assert_int_equal(answer->warnings[0]->code, THORAX__V1__WARNING_CODE__WARNING_MODEL_CHANGED);
    assert_int_equal(answer->pinned_model.len, sizeof before->bytes);
    assert_memory_equal(answer->pinned_model.data, before->bytes, sizeof before->bytes);
    model_release(active);
    message_free(&reply->base);
}

static void assert_refused(const struct fixture *fixture, struct question question,
                           Thorax__V1__Status status) {
    Thorax__V1__Envelope *reply = ask(fixture, question);
    assert_int_equal(reply->diagnosis_reply->status, status);
    message_free(&reply->base);
}

static void a_request_may_name_any_resident_model(void **state) {
    (void)state;
    struct fixture fixture;
    struct digest old = digest_named("old"), gone = digest_named("gone");
    char hex[DIGEST_HEX_SIZE];
    start(&fixture);
    assert_by(&fixture, (struct question){0}, "new");
    assert_by(&fixture, (struct question){.model = "stable"}, "new");
    assert_by(&fixture, (struct question){.model = "old:1"}, "old");
    assert_by(&fixture, (struct question){.model = digest_hex(&old, hex)}, "old");
    assert_by(&fixture, (struct question){.model = "new:1", .pinned = &old}, "new");
    assert_refused(&fixture, (struct question){.model = "old:2"}, THORAX__V1__STATUS__STATUS_NOT_READY);
    assert_refused(&fixture, (struct question){.model = digest_hex(&gone, hex)},
                   THORAX__V1__STATUS__STATUS_NOT_READY);
    assert_refused(&fixture, (struct question){.model = "old"}, THORAX__V1__STATUS__STATUS_INVALID_ARGUMENT);
    fixture_stop(&fixture);
}

static void a_pinned_model_answers_while_it_is_here(void **state) {
    (void)state;
    struct fixture fixture;
    struct digest old = digest_named("old"), gone = digest_named("gone");
    start(&fixture);
    assert_by(&fixture, (struct question){.pinned = &old}, "old");
    assert_by(&fixture, (struct question){.model = "stable", .pinned = &old}, "old");
    assert_changed(&fixture, (struct question){.pinned = &gone}, &gone);
    assert_refused(&fixture, (struct question){.pinned = &old, .pinned_size = 31},
                   THORAX__V1__STATUS__STATUS_INVALID_ARGUMENT);
    assert_true(slot_drop_previous(fixture.slot));
    assert_changed(&fixture, (struct question){.pinned = &old}, &old);
    fixture_stop(&fixture);
}

static void a_model_that_may_not_run_any_more_answers_nobody(void **state) {
    (void)state;
    struct fixture fixture;
    struct digest old = digest_named("old"), new = digest_named("new");
    char hex[DIGEST_HEX_SIZE];
    start(&fixture);
    assert_false(slot_drop(fixture.slot, &new)); /* it is the active one */
    assert_by(&fixture, (struct question){0}, "new");
    assert_by(&fixture, (struct question){.pinned = &old}, "old");
    assert_true(slot_drop(fixture.slot, &old));
    assert_changed(&fixture, (struct question){.pinned = &old}, &old);
    assert_refused(&fixture, (struct question){.model = digest_hex(&old, hex)},
                   THORAX__V1__STATUS__STATUS_NOT_READY);
    assert_refused(&fixture, (struct question){.model = "old:1"}, THORAX__V1__STATUS__STATUS_NOT_READY);
    assert_false(slot_drop(fixture.slot, &old));
    fixture_stop(&fixture);
}

static void a_routing_key_stays_with_its_first_model(void **state) {
    (void)state;
    struct fixture fixture;
    struct digest older = digest_named("new");
    start(&fixture);
    assert_by(&fixture, (struct question){.key = "study"}, "new");
    slot_swap(fixture.slot, make("newer"));
    assert_by(&fixture, (struct question){.key = "study"}, "new");
    assert_by(&fixture, (struct question){.key = "other"}, "newer");
    assert_by(&fixture, (struct question){.key = "study", .model = "newer:1"}, "newer");
    slot_swap(fixture.slot, make("newest")); /* "new" is no longer here */
    assert_changed(&fixture, (struct question){.key = "study"}, &older);
    assert_changed(&fixture, (struct question){.key = "study"}, &older);
    assert_by(&fixture, (struct question){.key = "other"}, "newer");
    fixture_stop(&fixture);
}

static void what_a_client_says_of_its_key_goes_before_what_the_member_remembers(void **state) {
    (void)state;
    struct fixture fixture;
    struct digest old = digest_named("old"), gone = digest_named("gone");
    start(&fixture);
    assert_by(&fixture, (struct question){.key = "study", .pinned = &old}, "old");
    assert_by(&fixture, (struct question){.key = "study"}, "old"); /* it is remembered here too */
    assert_changed(&fixture, (struct question){.key = "other", .pinned = &gone}, &gone);
    assert_changed(&fixture, (struct question){.key = "other"}, &gone);
    fixture_stop(&fixture);
}

static void status_lists_what_is_resident(void **state) {
    (void)state;
    struct fixture fixture;
    Thorax__V1__Envelope envelope = THORAX__V1__ENVELOPE__INIT;
    Thorax__V1__StatusRequest request = THORAX__V1__STATUS_REQUEST__INIT;
    start(&fixture);
    envelope.body_case = THORAX__V1__ENVELOPE__BODY_STATUS_REQUEST;
    envelope.status_request = &request;
    Thorax__V1__Envelope *reply = converse(&fixture, &envelope);
    const Thorax__V1__StatusReply *status = reply->status_reply;
    assert_int_equal(status->n_resident, 2);
    assert_string_equal(status->resident[0]->name, "new");
    assert_string_equal(status->resident[1]->name, "old");
    assert_string_equal(status->model->name, "new");
    assert_int_equal(status->incarnation, 4711);
    message_free(&reply->base);
    fixture_stop(&fixture);
}

static void a_rollback_to_the_resident_model_is_a_swap(void **state) {
    (void)state;
    atomic_int alive = 0;
    struct slot *slot = slot_create();
    struct digest old = digest_named("old"), new = digest_named("new"), gone = digest_named("gone");
    slot_keep_previous(slot, true);
    slot_swap(slot, fake_model(&(struct fake_model_spec){.name = "older", .alive = &alive}));
    slot_swap(slot, fake_model(&(struct fake_model_spec){.name = "old", .alive = &alive}));
    slot_swap(slot, fake_model(&(struct fake_model_spec){.name = "new", .alive = &alive}));
    assert_int_equal(atomic_load(&alive), 2);
    assert_false(slot_activate(slot, &gone));
    assert_true(slot_activate(slot, &new)); /* it is active already */
    assert_int_equal(slot_swaps(slot), 2);
    assert_true(slot_activate(slot, &old));
    struct model *model = slot_acquire(slot);
    assert_string_equal(model->info.name, "old");
    assert_int_equal(slot_swaps(slot), 3);
    assert_int_equal(atomic_load(&alive), 2);
    model_release(model);
    model = slot_find(slot, &new);
    atomic_store(&model->broken, true); /* as the inference thread does where it cannot compute */
    model_release(model);
    assert_false(slot_activate(slot, &new));
    slot_destroy(slot);
    assert_int_equal(atomic_load(&alive), 0);
}

static void a_model_loaded_anew_takes_its_own_place(void **state) {
    (void)state;
    atomic_int alive = 0;
    struct slot *slot = slot_create();
    slot_keep_previous(slot, true);
    for (int i = 0; i < 3; i++) {
        slot_swap(slot, fake_model(&(struct fake_model_spec){.name = "same", .alive = &alive}));
        assert_int_equal(atomic_load(&alive), 1);
    }
    slot_destroy(slot);
    assert_int_equal(atomic_load(&alive), 0);
}

int main(void) {
    log_init("resident_test", LOG_ERROR + 1, LOG_TEXT);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_request_may_name_any_resident_model),
        cmocka_unit_test(a_pinned_model_answers_while_it_is_here),
        cmocka_unit_test(a_model_that_may_not_run_any_more_answers_nobody),
        cmocka_unit_test(a_routing_key_stays_with_its_first_model),
        cmocka_unit_test(what_a_client_says_of_its_key_goes_before_what_the_member_remembers),
        cmocka_unit_test(status_lists_what_is_resident),
        cmocka_unit_test(a_rollback_to_the_resident_model_is_a_swap),
        cmocka_unit_test(a_model_loaded_anew_takes_its_own_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
