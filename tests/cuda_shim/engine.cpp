// Runs grids of blocks of threads on one processor, in any order, and notes what they touch.
//
// A thread runs until it meets others: at a barrier, or with lanes of its warp. A few blocks are in
// flight at once, and each change of block happens at a barrier: blocks that run one after the
// other hide races between them. With notes (the module is compiled with -fsanitize=thread, whose
// calls end here) every access is held against the bounds, and against what others do meanwhile.
#define CONVDSL_ENGINE
#include "engine.h"

#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <vector>

#include "fibers.h"
#include "ledger.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace {

// What Python hands over; running.py has the same.
struct RegionGiven {
    char *begin;
    uint64_t bytes;
    const char *name;
    int32_t granule, written;
};
struct Launch {
    void (*kernel)(void **);
    void **arguments;
    uint32_t grid[3], block[3];
    uint32_t shared_bytes, shared_granule;
    uint32_t block_order, thread_order;  // 0 ascending, 1 descending, else a seed
    uint32_t in_flight;                  // blocks at a time
    int32_t late;                        // copies complete at the wait, not at once
    int32_t noted;
    const RegionGiven *regions;
    uint32_t region_count, message_bytes;
    char *message;
};

struct Copy {
    char *to;
    const char *from;
    unsigned size, valid;
};

enum class State { READY, LANES, BARRIER, DONE };

struct Fiber {
    Context context;
    size_t stack;
    uint3 index;
    uint32_t number;  // in its block
    State state;
    int site;
    unsigned mask;
    void *brought;
    std::vector<std::vector<Copy>> committed;
    std::vector<Copy> open;
};

constexpr size_t GUARD = 4096;  // bytes around each declaration of shared memory

struct Declared {
    int declaration;
    char *memory;  // guards included
    Region region;
};

struct Block {
    uint3 index;
    uint64_t number;
    uint64_t time;  // barriers so far
    std::vector<Fiber> fibers;
    std::vector<Declared> shared;
    std::vector<void *> lanes;
};

const Launch *launch;
std::vector<Region> regions;
Region *last_region;
Stacks stacks;
Context scheduler;
Block *block;    // that of the thread that runs
Fiber *current;  // null while none runs
bool failed;
extern "C" char __ehdr_start, _end;  // this library: constants, and what the compiler keeps there

void report(const char *detector, const char *format, ...) {
    if (failed) return;
    failed = true;
    char what[512];
    va_list rest;
    va_start(rest, format);
    vsnprintf(what, sizeof what, format, rest);
    va_end(rest);
    snprintf(launch->message, launch->message_bytes, "%s: %s", detector, what);
}

void leave() { Context::change(current->context, scheduler); }

[[noreturn]] void stop() {
    leave();
    abort();  // a thread that has failed is not entered again
}

Mark mark(const Fiber &fiber) { return mark_of(block->number, block->time, fiber.number); }

struct Name {
    char text[96];
};

Name name(Mark mark) {
    Name made;
    const uint32_t *grid = launch->grid, *threads = launch->block;
    unsigned long b = block_of(mark), t = thread_of(mark);
    snprintf(made.text, sizeof made.text, "thread (%lu, %lu, %lu) of block (%lu, %lu, %lu)",
             t % threads[0], t / threads[0] % threads[1], t / threads[0] / threads[1],
             b % grid[0], b / grid[0] % grid[1], b / grid[0] / grid[1]);
    return made;
}

// The order of `count` things: ascending, descending, or shuffled anew each time.
struct Turns {
    uint32_t order;
    uint64_t state;

    explicit Turns(uint32_t order) : order(order), state(order * 0x9e3779b97f4a7c15ull + 1) {}

    void draw(std::vector<uint32_t> &out, uint32_t count) {
        out.resize(count);
        for (uint32_t i = 0; i < count; i++) out[i] = order == 1 ? count - 1 - i : i;
        if (order < 2) return;
        for (uint32_t i = count; i > 1; i--) {
            state = state * 6364136223846793005ull + 1442695040888963407ull;
            std::swap(out[i - 1], out[(state >> 33) % i]);
        }
    }
};

// Notes

Region *find_region(const char *at) {
    if (last_region && at >= last_region->begin && at < last_region->end) return last_region;
    for (Declared &d : block->shared)
        if (at >= d.region.begin && at < d.region.end) return last_region = &d.region;
    for (Region &region : regions)
        if (at >= region.begin && at < region.end) return last_region = &region;
    return nullptr;
}

const Region *nearest(const char *at) {
    const Region *best = nullptr;
    auto distance = [&](const Region &r) {
        return static_cast<uint64_t>(at < r.begin ? r.begin - at : at - r.end);
    };
    for (const Region &region : regions)
        if (!best || distance(region) < distance(*best)) best = &region;
    for (const Declared &d : block->shared)
        if (!best || distance(d.region) < distance(*best)) best = &d.region;
    return best;
}

[[noreturn]] void out_of_bounds(const char *at, unsigned bytes, bool write) {
    const Region *region = nearest(at);
    const char *where = region ? region->name : "nothing";
    long offset = region ? (at - region->begin) / static_cast<long>(region->granule) : 0;
    if (region && at < region->begin) offset = -((region->begin - at) / region->granule);
    long size = region ? (region->end - region->begin) / region->granule : 0;
    report("bounds", "%s %s %u bytes at %s[%ld], which has %ld elements",
           name(mark(*current)).text, write ? "writes" : "reads", bytes, where, offset, size);
    stop();
}

[[noreturn]] void found(const Finding &finding, const Region &region, const char *at, bool write) {
    Name own = name(mark(*current)), other = name(finding.other);
    const char *verb = write ? "writes" : "reads";
    long place = (at - region.begin) / region.granule;
    switch (finding.kind) {
        case Finding::UNWRITTEN:
            report("unwritten", "%s reads %s[%ld], where nothing is stored yet", own.text,
                   region.name, place);
            break;
        case Finding::COMING:
            report("copy in flight", "%s %s %s[%ld], to which a copy of %s is on its way", own.text,
                   verb, region.name, place, other.text);
            break;
        default: {
            bool blocks = block_of(finding.other) != block->number;
            report(blocks ? "race of blocks" : "race of threads",
                   "%s %s %s[%ld], which %s has %s%s", own.text, verb, region.name, place,
                   other.text, finding.wrote ? "written" : "read",
                   blocks ? "" : " with no barrier between");
        }
    }
    stop();
}

// The region of an access that may be, at a multiple of `step` bytes; null where it is of nobody
// else's business.
Region *admitted(const char *at, unsigned bytes, bool write, unsigned step) {
    if (at >= stacks.base && at < stacks.base + stacks.count * STACK) return nullptr;
    Region *region = find_region(at);
    if (!region) {
        if (at >= &__ehdr_start && at < &_end) return nullptr;
        out_of_bounds(at, bytes, write);
    }
    if (at + bytes > region->end) out_of_bounds(at, bytes, write);
    if (write && !region->written) {
        report("bounds", "%s writes %s, which it may only read", name(mark(*current)).text,
               region->name);
        stop();
    }
    if (reinterpret_cast<uintptr_t>(at) % step) {
        report("alignment", "%s %s %u bytes at byte %ld of %s", name(mark(*current)).text,
               write ? "writes" : "reads", bytes, static_cast<long>(at - region->begin),
               region->name);
        stop();
    }
    return region;
}

void note(const char *at, unsigned bytes, bool write, unsigned step = 1) {
    if (!current || !launch->noted) return;
    Region *region = admitted(at, bytes, write, step);
    if (!region || !region->cells) return;
    Mark mine = mark(*current);
    const Cell *end = region->cell(at + bytes - 1) + 1;
    for (Cell *cell = region->cell(at); cell != end; cell++) {
        Finding finding = write ? note_write(*cell, mine) : note_read(*region, *cell, mine);
        if (finding.kind == Finding::NONE) continue;
        found(finding, *region, region->begin + (cell - region->cells) * region->granule, write);
    }
}

// Copies

void mark_coming(const Copy &copy, Mark coming) {
    if (!launch->noted) return;
    Region *region = find_region(copy.to);
    const Cell *end = region->cell(copy.to + copy.size - 1) + 1;
    for (Cell *cell = region->cell(copy.to); cell != end; cell++) cell->coming = coming;
}

void move(const Copy &copy) {
    memcpy(copy.to, copy.from, copy.valid);
    memset(copy.to + copy.valid, 0, copy.size - copy.valid);
}

// Noted as a write when it is asked for and when it completes, and may happen at any time between.
void complete(const Copy &copy) {
    mark_coming(copy, 0);
    if (copy.valid) note(copy.from, copy.valid, false);
    note(copy.to, copy.size, true);
    if (launch->late) move(copy);
}

// Blocks

void entry() {
    launch->kernel(launch->arguments);
    bool waited = current->open.empty();
    for (const auto &group : current->committed) waited = waited && group.empty();
    if (!waited)
        report("copy in flight", "%s ends before its copies", name(mark(*current)).text);
    current->state = State::DONE;
    stop();
}

void close(Block &done) {
    for (Declared &d : done.shared) {
        d.region.close();
        free(d.memory);
    }
    done.shared.clear();
    last_region = nullptr;
}

void begin(Block &made, uint64_t number, size_t slot) {
    const uint32_t *grid = launch->grid, *threads = launch->block;
    uint32_t count = threads[0] * threads[1] * threads[2];
    made.number = number;
    made.time = 0;
    made.index = {static_cast<unsigned>(number % grid[0]),
                  static_cast<unsigned>(number / grid[0] % grid[1]),
                  static_cast<unsigned>(number / grid[0] / grid[1])};
    made.fibers.resize(count);
    for (uint32_t t = 0; t < count; t++) {
        Fiber &fiber = made.fibers[t];
        fiber.stack = slot * count + t;
        fiber.number = t;
        fiber.index = {t % threads[0], t / threads[0] % threads[1], t / threads[0] / threads[1]};
        fiber.state = State::READY;
        fiber.committed.clear();
        fiber.open.clear();
        stacks.mark(fiber.stack);
        fiber.context.begin(stacks.at(fiber.stack), entry);
    }
}

void enter(Fiber &fiber) {
    current = &fiber;
    threadIdx = fiber.index;
    Context::change(scheduler, fiber.context);
    current = nullptr;
    if (stacks.overrun(fiber.stack)) report("stack", "a thread needs more than its stack");
}

// Some thread waits where another does not come.
void stuck() {
    const Fiber *waiting = nullptr, *other = nullptr;
    for (const Fiber &f : block->fibers)
        if (!waiting && f.state != State::DONE) waiting = &f;
    for (const Fiber &f : block->fibers)
        if (!other && (f.state != waiting->state || f.site != waiting->site)) other = &f;
    if (!other) other = waiting;
    report("divergence", "%s waits at line %d, where %s does not come", name(mark(*waiting)).text,
           waiting->site, name(mark(*other)).text);
}

// Runs the block until all its threads meet, or have ended; whether they have ended.
bool advance(Block &running, Turns &turns) {
    static std::vector<uint32_t> order;
    block = &running;
    blockIdx = running.index;
    last_region = nullptr;
    bool moved = true;
    while (moved) {
        moved = false;
        turns.draw(order, running.fibers.size());
        for (uint32_t t : order) {
            Fiber &fiber = running.fibers[t];
            if (fiber.state != State::READY) continue;
            enter(fiber);
            if (failed) return true;
            moved = true;
        }
    }
    size_t done = 0, met = 0;
    for (const Fiber &f : running.fibers) {
        done += f.state == State::DONE;
        met += f.state == State::BARRIER && f.site == running.fibers[0].site;
    }
    if (done == running.fibers.size()) return true;
    if (met < running.fibers.size()) {
        stuck();
        return true;
    }
    for (Fiber &f : running.fibers) f.state = State::READY;
    running.time++;
    return false;
}

void run() {
    const uint32_t *grid = launch->grid;
    uint32_t count = grid[0] * grid[1] * grid[2], next = 0;
    uint32_t threads = launch->block[0] * launch->block[1] * launch->block[2];
    Turns blocks(launch->block_order), turns(launch->thread_order);
    std::vector<uint32_t> order;
    blocks.draw(order, count);
    std::vector<Block> flight(launch->in_flight < count ? launch->in_flight : count);
    stacks.reserve(flight.size() * threads);
    size_t live = flight.size();
    std::vector<bool> ended(flight.size(), false);
    for (size_t slot = 0; slot < flight.size(); slot++) begin(flight[slot], order[next++], slot);
    while (live && !failed) {
        for (size_t slot = 0; slot < flight.size() && !failed; slot++) {
            if (ended[slot] || !advance(flight[slot], turns)) continue;
            close(flight[slot]);
            if (next < count) {
                begin(flight[slot], order[next++], slot);
            } else {
                ended[slot] = true;
                live--;
            }
        }
    }
    for (Block &left : flight) close(left);
}

}  // namespace

extern "C" {

void convdsl_barrier(int site) {
    current->state = State::BARRIER;
    current->site = site;
    leave();
}

void convdsl_meet(unsigned mask, int site, void *mine, void (*act)(void *const *lanes)) {
    uint32_t first = current->number / 32 * 32;
    uint32_t count = block->fibers.size() - first;
    unsigned present = mask & (count < 32 ? (1u << count) - 1 : ~0u);
    if (!(present >> (current->number - first) & 1)) {
        report("divergence", "%s is not of the lanes %#x", name(mark(*current)).text, mask);
        stop();
    }
    current->state = State::LANES;
    current->site = site;
    current->mask = mask;
    current->brought = mine;
    void *lanes[32] = {};
    for (unsigned lane = 0; lane < 32; lane++) {
        if (!(present >> lane & 1)) continue;
        const Fiber &other = block->fibers[first + lane];
        if (other.state != State::LANES || other.site != site || other.mask != mask) {
            leave();
            return;  // somebody came last, and has acted for all
        }
        lanes[lane] = other.brought;
    }
    act(lanes);
    for (unsigned lane = 0; lane < 32; lane++)
        if (lanes[lane]) block->fibers[first + lane].state = State::READY;
}

void *convdsl_shared(int declaration, const char *name, unsigned bytes, unsigned granule) {
    for (Declared &d : block->shared)
        if (d.declaration == declaration) return d.region.begin;
    size_t room = (bytes + 127) / 128 * 128 + 2 * GUARD;
    char *memory = static_cast<char *>(aligned_alloc(128, room));
    memset(memory, 0xff, room);
    Region region{memory + GUARD, memory + GUARD + bytes, name, granule, true, true, nullptr};
    if (launch->noted) region.open();
    last_region = nullptr;  // the vector may move
    block->shared.push_back({declaration, memory, region});
    return region.begin;
}

void *convdsl_dynamic_shared(void) {
    return convdsl_shared(-1, "shared memory", launch->shared_bytes, launch->shared_granule);
}

void convdsl_copy(void *to, const void *from, unsigned size, unsigned valid) {
    Copy copy{static_cast<char *>(to), static_cast<const char *>(from), size, valid};
    if (valid) note(copy.from, valid, false, size);
    note(copy.to, size, true, size);
    mark_coming(copy, mark(*current));
    if (!launch->late) move(copy);
    current->open.push_back(copy);
}

void convdsl_commit(void) {
    current->committed.push_back(std::move(current->open));
    current->open.clear();
}

void convdsl_wait(unsigned left) {
    auto &groups = current->committed;
    while (groups.size() > left) {
        for (const Copy &copy : groups.front()) complete(copy);
        groups.erase(groups.begin());
    }
}

void convdsl_touch(const void *at, unsigned bytes, int write) {
    note(static_cast<const char *>(at), bytes, write, bytes);
}

void convdsl_fail(const char *what) {
    report("shim", "%s: %s", name(mark(*current)).text, what);
    stop();
}

// Runs one launch; 0, or 1 with a message.
__attribute__((visibility("default"))) int convdsl_launch(const Launch *given) {
    launch = given;
    failed = false;
    current = nullptr;
    blockDim = {given->block[0], given->block[1], given->block[2]};
    gridDim = {given->grid[0], given->grid[1], given->grid[2]};
    for (uint32_t i = 0; i < given->region_count; i++) {
        const RegionGiven &r = given->regions[i];
        regions.push_back({r.begin, r.begin + r.bytes, r.name, static_cast<unsigned>(r.granule),
                           r.written != 0, false, nullptr});
        if (given->noted) regions.back().open();
    }
    run();
    for (Region &region : regions) region.close();
    regions.clear();
    return failed;
}

// What -fsanitize=thread calls before every access.
#define NOTE(name, bytes, write, aligned) \
    void __tsan_##name##bytes(void *at) { note(static_cast<char *>(at), bytes, write, aligned ? bytes : 1); }
#define NOTES(bytes)                         \
    NOTE(read, bytes, false, true)           \
    NOTE(write, bytes, true, true)           \
    NOTE(unaligned_read, bytes, false, false) \
    NOTE(unaligned_write, bytes, true, false)
NOTES(1)
NOTES(2)
NOTES(4)
NOTES(8)
NOTES(16)
void __tsan_read_range(void *at, size_t bytes) { note(static_cast<char *>(at), bytes, false); }
void __tsan_write_range(void *at, size_t bytes) { note(static_cast<char *>(at), bytes, true); }
void __tsan_init(void) {}
void __tsan_func_entry(void *) {}
void __tsan_func_exit(void) {}
}
