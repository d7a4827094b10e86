#include "common/base/file.h"
#include "common/base/memory.h"
#include "tests/unit/base/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A machine made of files: what /proc and /sys/fs/cgroup would say. */

struct machine {
    char root[64];
};

static int setup(void **state) {
    struct machine *machine = calloc(1, sizeof *machine);
    snprintf(machine->root, sizeof machine->root, "/tmp/thorax-memory-XXXXXX");
    *state = machine;
    return mkdtemp(machine->root) ? 0 : -1;
}

static int teardown(void **state) {
    struct machine *machine = *state;
    bool ok = file_remove_tree(machine->root, NULL);
    free(machine);
    return ok ? 0 : -1;
}

static void put(const struct machine *machine, const char *path, const char *text) {
    char full[256];
    snprintf(full, sizeof full, "%s/%s", machine->root, path);
    char *slash = strrchr(full, '/');
    *slash = '\0';
    assert_true(file_make_folders(full, NULL));
    *slash = '/';
    assert_true(file_write_atomic(full, text, strlen(text), NULL));
}

static void nothing_to_read_is_no_bound(void **state) {
    struct machine *machine = *state;
    assert_int_equal(memory_group_limit_at(machine->root), INT64_MAX);
    assert_int_equal(memory_available_at(machine->root), INT64_MAX);
}

static void the_system_says_what_is_available(void **state) {
    struct machine *machine = *state;
    put(machine, "proc/meminfo",
        "MemTotal: 9000 kB\nMemFree: 100 kB\nMemAvailable:    3000 kB\nBuffers: 1 kB\n");
    assert_int_equal(memory_available_at(machine->root), 3000 * 1024);
}

static void the_tightest_group_on_the_way_up_counts(void **state) {
    struct machine *machine = *state;
    put(machine, "proc/meminfo", "MemAvailable: 3000 kB\n");
    put(machine, "proc/self/cgroup", "1:name=systemd:/other\n0::/pool/member\n");
    put(machine, "sys/fs/cgroup/pool/member/memory.max", "2000000\n");
    put(machine, "sys/fs/cgroup/pool/member/memory.current", "500000\n");
    put(machine, "sys/fs/cgroup/pool/memory.max", "2500000\n");
    put(machine, "sys/fs/cgroup/pool/memory.current", "2400000\n");
    assert_int_equal(memory_group_limit_at(machine->root), 2000000);
    assert_int_equal(memory_available_at(machine->root), 100000); /* its neighbours took the rest */
}

/* In a container our group is the root of what we see. */
static void the_group_at_the_top_counts(void **state) {
    struct machine *machine = *state;
    put(machine, "proc/self/cgroup", "0::/\n");
    put(machine, "sys/fs/cgroup/memory.max", "4096\n");
    put(machine, "sys/fs/cgroup/memory.current", "5000\n");
    assert_int_equal(memory_group_limit_at(machine->root), 4096);
    assert_int_equal(memory_available_at(machine->root), 0);
}

static void a_group_without_a_limit_is_no_bound(void **state) {
    struct machine *machine = *state;
    put(machine, "proc/self/cgroup", "0::/free\n");
    put(machine, "sys/fs/cgroup/free/memory.max", "max\n");
    put(machine, "sys/fs/cgroup/free/memory.current", "500000\n");
    put(machine, "proc/meminfo", "MemAvailable: 3000 kB\n");
    assert_int_equal(memory_group_limit_at(machine->root), INT64_MAX);
    assert_int_equal(memory_available_at(machine->root), 3000 * 1024);
}

static void this_machine_has_memory(void **state) {
    (void)state;
    assert_true(memory_limit_bytes() > 1 << 20);
    assert_true(memory_available() > 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(nothing_to_read_is_no_bound, setup, teardown),
        cmocka_unit_test_setup_teardown(the_system_says_what_is_available, setup, teardown),
        cmocka_unit_test_setup_teardown(the_tightest_group_on_the_way_up_counts, setup, teardown),
        cmocka_unit_test_setup_teardown(the_group_at_the_top_counts, setup, teardown),
        cmocka_unit_test_setup_teardown(a_group_without_a_limit_is_no_bound, setup, teardown),
        cmocka_unit_test(this_machine_has_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
