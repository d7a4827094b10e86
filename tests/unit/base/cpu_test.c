#include "common/base/cpu.h"
#include "tests/unit/base/test.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static struct cpu_set make_set(int count) {
    struct cpu_set set = {.count = count};
    for (int i = 0; i < count; i++)
        set.ids[i] = 10 + 2 * i;
    return set;
}

static void nobody_has_more_processors_than_are_online(void **state) {
    (void)state;
    struct cpu_set own;
    assert_true(cpu_available(&own, NULL));
    assert_in_range(own.count, 1, cpu_online());
}

static void shares_are_even_and_cover_the_set(void **state) {
    (void)state;
    for (int count = 1; count <= 9; count++) {
        for (int parts = 1; parts <= count; parts++) {
            struct cpu_set set = make_set(count), share;
            int next = 0;
            for (int part = 0; part < parts; part++) {
                cpu_share(&set, part, parts, &share);
                assert_true(share.count == count / parts || share.count == count / parts + 1);
                for (int i = 0; i < share.count; i++)
                    assert_int_equal(share.ids[i], set.ids[next++]);
            }
            assert_int_equal(next, count);
        }
    }
}

static void more_parts_than_processors_share_in_turn(void **state) {
    (void)state;
    struct cpu_set set = make_set(2), share;
    static const int expected[] = {10, 12, 10, 12, 10};
    for (int part = 0; part < 5; part++) {
        cpu_share(&set, part, 5, &share);
        assert_int_equal(share.count, 1);
        assert_int_equal(share.ids[0], expected[part]);
    }
}

static void *report_available(void *context) {
    cpu_available(context, NULL);
    return NULL;
}

static void a_pinned_thread_hands_its_processors_on(void **state) {
    (void)state;
    struct cpu_set before, one, seen = {0};
    assert_true(cpu_available(&before, NULL));
    assert_true(before.count >= 1);
    for (int i = 1; i < before.count; i++)
        assert_true(before.ids[i] > before.ids[i - 1]);
    cpu_share(&before, 0, before.count, &one);
    assert_true(cpu_pin(&one, NULL));
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, report_available, &seen), 0);
    pthread_join(thread, NULL);
    assert_int_equal(seen.count, 1);
    assert_int_equal(seen.ids[0], before.ids[0]);
    assert_true(cpu_pin(&before, NULL));
}

static void no_processors_at_all_are_an_error(void **state) {
    (void)state;
    struct cpu_set none = {0};
    struct error err = {0};
    assert_false(cpu_pin(&none, &err));
    assert_int_equal(err.code, ERROR_IO);
}

static void the_instruction_set_has_a_name(void **state) {
    (void)state;
    assert_true(strlen(cpu_instruction_set()) > 0);
    assert_string_equal(cpu_instruction_set(), cpu_instruction_set());
}

static bool kernel_says(const char *flag) {
    char line[8192], wanted[32];
    bool found = false;
    FILE *file = fopen("/proc/cpuinfo", "r");
    snprintf(wanted, sizeof wanted, " %s ", flag);
    while (file && !found && fgets(line, sizeof line, file))
        found = strncmp(line, "flags", 5) == 0 && strstr(line, wanted);
    if (file)
        fclose(file);
    return found;
}

/* Kernels differ, and so may the bits of what they compute. */
static void the_instruction_set_tells_bf16_from_what_came_before(void **state) {
    const char *name = cpu_instruction_set();
    (void)state;
    assert_int_equal(kernel_says("avx512_bf16"), strcmp(name, "avx512_bf16") == 0 || strcmp(name, "avx512_amx") == 0);
    assert_int_equal(kernel_says("avx512f"), strncmp(name, "avx512", 6) == 0);
}

static const char *const pairs[][2] = {{"THORAX_TEST_A", "1"}, {"THORAX_TEST_B", "two"}, {NULL, NULL}};

/* The program starts itself anew in a child, which ends in the branch at the top of main. */
static void missing_variables_start_the_program_anew(void **state) {
    (void)state;
    setenv("THORAX_TEST_A", "mine", 1);
    unsetenv("THORAX_TEST_B");
    char *const arguments[] = {(char *)"cpu_test", (char *)"child", NULL};
    pid_t child = fork();
    if (child == 0) {
        cpu_environment(arguments, pairs, NULL);
        _exit(9); /* it should not have come back */
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static int run_as_child(char **argv) {
    bool kept = strcmp(getenv("THORAX_TEST_A"), "mine") == 0 && strcmp(getenv("THORAX_TEST_B"), "two") == 0;
    return kept && cpu_environment(argv, pairs, NULL) ? 0 : 1;
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "child") == 0)
        return run_as_child(argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nobody_has_more_processors_than_are_online),
        cmocka_unit_test(shares_are_even_and_cover_the_set),
        cmocka_unit_test(more_parts_than_processors_share_in_turn),
        cmocka_unit_test(a_pinned_thread_hands_its_processors_on),
        cmocka_unit_test(no_processors_at_all_are_an_error),
        cmocka_unit_test(the_instruction_set_has_a_name),
        cmocka_unit_test(the_instruction_set_tells_bf16_from_what_came_before),
        cmocka_unit_test(missing_variables_start_the_program_anew),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
