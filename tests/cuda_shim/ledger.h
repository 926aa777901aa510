// Who touched what: a note for each element, and what is wrong with an access.
//
// A mark names a thread and the time between two barriers of its block. Two accesses of which one
// writes conflict if they are of different blocks, or of different threads at one time. Of readers
// the first is kept, and one other: of another block if there was one, else another thread of the
// same time; whoever writes conflicts with one of these two if with any.
#pragma once

#include <cstdint>
#include <cstdlib>

using Mark = uint64_t;  // block + 1 (34 bits), time (20 bits), thread (10 bits); 0 is nobody

inline Mark mark_of(uint64_t block, uint64_t time, uint64_t thread) {
    return (block + 1) << 30 | (time & 0xfffff) << 10 | thread;
}
inline uint64_t block_of(Mark m) { return (m >> 30) - 1; }
inline uint64_t time_of(Mark m) { return m >> 10 & 0xfffff; }
inline uint64_t thread_of(Mark m) { return m & 0x3ff; }

inline bool same_block(Mark a, Mark b) { return (a >> 30) == (b >> 30); }

inline bool conflict(Mark a, Mark b) {
    if (!a || a == b) return false;
    return !same_block(a, b) || (a >> 10) == (b >> 10);
}

struct Cell {
    Mark writer, reader, second;
    Mark coming;  // of the thread whose copy to here has not completed
    uint64_t shows;  // how often the writer had shown what it wrote to products, then
};

struct Finding {
    enum Kind { NONE, RACE, UNWRITTEN, COMING } kind = NONE;
    Mark other = 0;
    bool wrote = false;
};

// Bytes that a kernel may touch, with notes where somebody writes them.
struct Region {
    char *begin, *end;
    const char *name;
    unsigned granule;  // bytes of an element: a power of two
    bool written;
    bool shared;
    Cell *cells;

    void open() {
        cells = written ? static_cast<Cell *>(calloc((end - begin) / granule + 1, sizeof(Cell)))
                        : nullptr;
    }
    void close() {
        free(cells);
        cells = nullptr;
    }
    Cell *cell(const char *at) const { return cells + (at - begin) / granule; }
};

inline Finding note_read(Region &region, Cell &cell, Mark mine) {
    if (cell.coming) return {Finding::COMING, cell.coming, true};
    if (region.shared && !cell.writer) return {Finding::UNWRITTEN, 0, false};
    if (!cell.reader) {
        cell.reader = mine;
    } else if (!conflict(cell.reader, mine)) {  // of this block, and over: this one takes its place
        if (cell.reader != mine && same_block(cell.second, mine)) cell.second = 0;
        cell.reader = mine;
    } else if (!cell.second ||
               (same_block(cell.second, cell.reader) && !same_block(cell.reader, mine))) {
        cell.second = mine;
    }
    if (conflict(cell.writer, mine)) return {Finding::RACE, cell.writer, true};
    return {};
}

inline Finding note_write(Cell &cell, Mark mine) {
    if (cell.coming) return {Finding::COMING, cell.coming, true};
    Mark writer = cell.writer;
    cell.writer = mine;
    if (conflict(writer, mine)) return {Finding::RACE, writer, true};
    if (conflict(cell.reader, mine)) return {Finding::RACE, cell.reader, false};
    if (conflict(cell.second, mine)) return {Finding::RACE, cell.second, false};
    return {};
}
