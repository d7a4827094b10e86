#include "tests/emulation/runtime/state.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/*
 * Allocations end at a guard page, so that a CPU body which leaves the ranges that were declared for it faults. What was
 * freed stays reserved, without access, until so many others were freed that an address may come again.
 */
enum { PAGE_BYTES = 4096, MOST_FREED = 4096 };

struct freed {
    char *memory;
    size_t bytes;
    void *mapping;
    size_t mapping_bytes;
};

static struct freed freed[MOST_FREED]; /* a ring */
static unsigned freed_next;

static size_t round_up(size_t bytes, size_t unit) {
    return (bytes + unit - 1) / unit * unit;
}

/* --- making and unmaking --- */

struct allocation *memory_register(void *memory, size_t bytes, int device) {
    struct state *state = state_held();
    struct allocation *allocation = calloc(1, sizeof *allocation);
    if (!allocation)
        return NULL;
    *allocation = (struct allocation){
        .next = state->allocations, .memory = memory, .bytes = bytes, .kind = MEMORY_HOST, .device = device};
    state->allocations = allocation;
    return allocation;
}

struct allocation *memory_create(size_t bytes, enum memory_kind kind, int device) {
    size_t inside = round_up(bytes, PAGE_BYTES), whole = inside + (size_t)2 * PAGE_BYTES;
    char *mapping = mmap(NULL, whole, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapping == MAP_FAILED)
        return NULL;
    char *memory = mapping + PAGE_BYTES + inside - round_up(bytes, ALLOCATION_ALIGNMENT);
    struct allocation *allocation = NULL;
    if (mprotect(mapping + PAGE_BYTES, inside, PROT_READ | PROT_WRITE) == 0)
        allocation = memory_register(memory, bytes, device);
    if (!allocation) {
        munmap(mapping, whole);
        return NULL;
    }
    allocation->kind = kind;
    allocation->mapping = mapping;
    allocation->mapping_bytes = whole;
    memset(memory, POISON, bytes);
    return allocation;
}

static void keep_freed(const struct allocation *allocation) {
    struct freed *row = &freed[freed_next++ % MOST_FREED];
    if (row->mapping)
        munmap(row->mapping, row->mapping_bytes);
    *row = (struct freed){allocation->memory, allocation->bytes, allocation->mapping, allocation->mapping_bytes};
    mmap(row->mapping, row->mapping_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
}

void memory_destroy(struct allocation *allocation) {
    struct allocation **at = &state_held()->allocations;
    while (*at != allocation)
        at = &(*at)->next;
    *at = allocation->next;
    if (allocation->mapping)
        keep_freed(allocation);
    free(allocation->accesses);
    free(allocation);
}

/* --- finding --- */

static bool holds(const char *memory, size_t bytes, const void *byte) {
    return (const char *)byte >= memory && (const char *)byte < memory + bytes;
}

struct allocation *memory_find(const void *memory) {
    struct allocation *allocation = state_held()->allocations;
    while (allocation && !holds(allocation->memory, allocation->bytes, memory))
        allocation = allocation->next;
    return allocation;
}

static bool was_freed(const void *memory) {
    for (int i = 0; i < MOST_FREED; i++)
        if (freed[i].mapping && holds(freed[i].memory, freed[i].bytes, memory))
            return true;
    return false;
}

struct allocation *memory_use(int device, const char *who, const struct emulation_range *range) {
    struct allocation *allocation = memory_find(range->memory);
    const char *verb = range->written ? "writes" : "reads";
    size_t offset = allocation ? (size_t)((const char *)range->memory - allocation->memory) : 0;
    if (!range->memory)
        emulation_finding("%s %s %zu bytes at NULL", who, verb, range->bytes);
    else if (!allocation && was_freed(range->memory))
        emulation_finding("%s %s %zu bytes at %p, which was freed", who, verb, range->bytes, range->memory);
    else if (!allocation)
        emulation_finding("%s %s %zu bytes at %p, which is no memory of a device", who, verb, range->bytes, range->memory);
    else if (range->bytes > allocation->bytes - offset)
        emulation_finding("%s %s %zu bytes at %zu of an allocation of %zu: out of bounds", who, verb, range->bytes, offset,
                          allocation->bytes);
    else if (allocation->kind == MEMORY_DEVICE && allocation->device != device)
        emulation_finding("%s, on device %d, %s memory of device %d", who, device, verb, allocation->device);
    else
        return allocation;
    return NULL;
}

bool emulation_check_range(int device, const char *who, const struct emulation_range *range) {
    state_lock();
    bool ok = range->bytes == 0 || memory_use(device, who, range) != NULL;
    state_unlock();
    return ok;
}

bool emulation_check_alignment(const char *who, const void *memory, size_t alignment) {
    if ((uintptr_t)memory % alignment == 0)
        return true;
    emulation_finding("%s: %p is not a multiple of %zu", who, memory, alignment);
    return false;
}

size_t memory_used(int device) {
    size_t sum = 0;
    for (struct allocation *at = state_held()->allocations; at; at = at->next)
        sum += at->kind == MEMORY_DEVICE && at->device == device ? at->bytes : 0;
    return sum;
}

void memory_report_leaks(void) {
    for (struct allocation *at = state_lock()->allocations; at; at = at->next)
        emulation_finding("%zu bytes of %s were never freed (device %d)", at->bytes,
                          at->kind == MEMORY_HOST ? "page-locked memory" : "device memory", at->device);
    state_unlock();
}

/* --- who uses it when --- */

static bool overlap(const struct access *a, size_t offset, size_t bytes) {
    return a->offset < offset + bytes && offset < a->offset + a->bytes;
}

static bool covers(const struct access *outer, const struct access *inner) {
    return outer->offset <= inner->offset && inner->offset + inner->bytes <= outer->offset + outer->bytes;
}

bool memory_is_busy(const void *memory, size_t bytes, bool only_writes) {
    const struct state *state = state_held();
    const struct allocation *allocation = memory_find(memory);
    for (int i = 0; allocation && i < allocation->access_count; i++) {
        const struct access *access = &allocation->accesses[i];
        bool done = access->tick <= state->slots[access->slot]->completed;
        if (!done && (access->written || !only_writes) &&
            overlap(access, (size_t)((const char *)memory - allocation->memory), bytes))
            return true;
    }
    return false;
}

static void report_race(const struct access *old, const struct access *access) {
    emulation_finding("%s %s bytes %zu to %zu of an allocation that %s %s on another stream, and nothing orders the two",
                      access->name, access->written ? "writes" : "reads", access->offset, access->offset + access->bytes,
                      old->name, old->written ? "writes" : "reads");
}

static void keep_access(struct allocation *allocation, const struct access *access) {
    if (allocation->access_count == allocation->access_capacity) {
        int capacity = allocation->access_capacity ? 2 * allocation->access_capacity : 16;
        struct access *grown = realloc(allocation->accesses, (size_t)capacity * sizeof *grown);
        if (!grown)
            abort();
        allocation->accesses = grown;
        allocation->access_capacity = capacity;
    }
    allocation->accesses[allocation->access_count++] = *access;
}

/* A write stands for all before it that it covers, a read for those of its own stream. */
void race_check(struct allocation *allocation, const struct access *access, const struct vector_clock *now) {
    int kept = 0;
    for (int i = 0; i < allocation->access_count; i++) {
        const struct access *old = &allocation->accesses[i];
        bool conflict = (old->written || access->written) && overlap(old, access->offset, access->bytes);
        if (conflict && old->tick > now->tick[old->slot])
            report_race(old, access);
        bool replaced = covers(access, old) && (access->written || (!old->written && old->slot == access->slot));
        if (!replaced)
            allocation->accesses[kept++] = *old;
    }
    allocation->access_count = kept;
    keep_access(allocation, access);
}
