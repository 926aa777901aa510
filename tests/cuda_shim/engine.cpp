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

// A product that was begun: what was read for it, and its sums.
struct Taken {
    const char *at;
    unsigned bytes;
    char found[16];
};
struct Product {
    float *sums;
    std::vector<float> made;
    std::vector<Taken> taken;
    bool at_once;
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
    std::vector<std::vector<Product>> products;  // committed groups
    std::vector<Product> begun;
    std::vector<Taken> taking;               // for the product that comes next
    std::vector<std::vector<float>> known;   // sums that products left, the latest ones
    bool opened;
    std::vector<uint64_t> shows;             // times at which it has shown what it wrote
};

constexpr size_t GUARD = 4096;    // bytes around each declaration of shared memory
constexpr size_t ALIGNED = 1024;  // what it begins at: lines of products change places within that

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
extern "C" char __ehdr_start, _end;  // this library, and its bounds
const char *module_begin, *module_end;  // the kernels' own: constants, and what the compiler keeps there

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
        if (at >= module_begin && at < module_end) return nullptr;
        if (at >= &__ehdr_start && at < &_end) return nullptr;  // where a thread stands
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
        if (write) cell->shows = current->shows.size();
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

// Products

constexpr size_t KNOWN = 8;
constexpr uint32_t FLYING = 0xffc0ffee;  // a NaN that nothing computes

// What a product reads has been shown by who wrote it, before a barrier.
void shown(const char *at, unsigned bytes) {
    if (!launch->noted) return;
    Region *region = find_region(at);
    const Cell *end = region->cell(at + bytes - 1) + 1;
    for (Cell *cell = region->cell(at); cell != end; cell++) {
        const Fiber &writer = block->fibers[thread_of(cell->writer)];
        if (writer.shows.size() > cell->shows && writer.shows[cell->shows] < block->time) continue;
        report("not shown", "%s multiplies %s[%ld], which %s has not shown to products",
               name(mark(*current)).text, region->name, static_cast<long>(cell - region->cells),
               name(cell->writer).text);
        stop();
    }
}

void land(const Product &product, bool last) {
    for (const Taken &taken : product.taken) {
        note(taken.at, taken.bytes, false);
        if (!memcmp(taken.at, taken.found, taken.bytes)) continue;
        report("product in flight", "%s has multiplied what was written meanwhile",
               name(mark(*current)).text);
        stop();
    }
    if (product.at_once) return;
    for (size_t i = 0; i < product.made.size(); i++) {
        uint32_t bits;
        memcpy(&bits, product.sums + i, sizeof bits);
        if (bits != FLYING) {
            report("product in flight", "%s sets sums that are added to", name(mark(*current)).text);
            stop();
        }
    }
    if (last) memcpy(product.sums, product.made.data(), product.made.size() * sizeof(float));
}

const Product *flying(const float *sums) {
    const Product *found = nullptr;
    for (const auto &group : current->products)
        for (const Product &product : group)
            if (product.sums == sums && !product.at_once) found = &product;
    for (const Product &product : current->begun)
        if (product.sums == sums && !product.at_once) found = &product;
    return found;
}

// Blocks

void entry() {
    launch->kernel(launch->arguments);
    bool waited = current->open.empty();
    for (const auto &group : current->committed) waited = waited && group.empty();
    if (!waited)
        report("copy in flight", "%s ends before its copies", name(mark(*current)).text);
    if (!current->begun.empty() || !current->products.empty())
        report("product in flight", "%s ends before its products", name(mark(*current)).text);
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
        fiber.products.clear();
        fiber.begun.clear();
        fiber.taking.clear();
        fiber.known.clear();
        fiber.opened = false;
        fiber.shows.clear();
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
    size_t room = (bytes + ALIGNED - 1) / ALIGNED * ALIGNED + 2 * GUARD;
    char *memory = static_cast<char *>(aligned_alloc(ALIGNED, room));
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

void convdsl_take(const void *at, unsigned bytes, void *out) {
    note(static_cast<const char *>(at), bytes, false, bytes);
    shown(static_cast<const char *>(at), bytes);
    Taken taken{static_cast<const char *>(at), bytes, {}};
    memcpy(taken.found, at, bytes);
    memcpy(out, at, bytes);
    current->taking.push_back(taken);
}

void convdsl_sums(const float *sums, unsigned count, float *out) {
    if (const Product *product = flying(sums)) {
        memcpy(out, product->made.data(), count * sizeof(float));
        return;
    }
    memcpy(out, sums, count * sizeof(float));
    if (current->opened) return;
    for (const auto &known : current->known)
        if (known.size() == count && !memcmp(known.data(), out, count * sizeof(float))) return;
    report("not opened", "%s has set sums, and not opened products since", name(mark(*current)).text);
    stop();
}

void convdsl_begun(float *sums, unsigned count, const float *made, int at_once) {
    Product product{sums, std::vector<float>(made, made + count), std::move(current->taking),
                    at_once || !launch->late};
    current->taking.clear();
    if (current->known.size() == KNOWN) current->known.erase(current->known.begin());
    current->known.push_back(product.made);
    for (unsigned i = 0; i < count; i++)
        memcpy(sums + i, product.at_once ? reinterpret_cast<const char *>(made + i)
                                         : reinterpret_cast<const char *>(&FLYING), sizeof *sums);
    current->begun.push_back(std::move(product));
}

void convdsl_open_products(void) { current->opened = true; }

void convdsl_commit_products(void) {
    current->products.push_back(std::move(current->begun));
    current->begun.clear();
    current->opened = false;
}

void convdsl_wait_products(unsigned left) {
    auto &groups = current->products;
    while (groups.size() > left) {
        std::vector<Product> done = std::move(groups.front());
        groups.erase(groups.begin());
        for (size_t i = 0; i < done.size(); i++) {
            bool last = !flying(done[i].sums);
            for (size_t j = i + 1; j < done.size(); j++) last = last && done[j].sums != done[i].sums;
            land(done[i], last);
        }
    }
}

void convdsl_show_products(void) { current->shows.push_back(block->time); }

unsigned convdsl_warp(void) { return current->number / 32; }

void convdsl_touch(const void *at, unsigned bytes, int write) {
    note(static_cast<const char *>(at), bytes, write, bytes);
}

void convdsl_fail(const char *what) {
    report("shim", "%s: %s", name(mark(*current)).text, what);
    stop();
}

int convdsl_launch_of(const void *asked, const char *begin, const char *end) {
    const Launch *given = static_cast<const Launch *>(asked);
    launch = given;
    module_begin = begin;
    module_end = end;
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
