/* Runs the object code of a compiled network, linked into this program.

   run_object THREADS STEPS ARENA_BYTES WEIGHTS INPUT... -- OUTPUT=BYTES...

   The numbers of the context table's slots come from convdsl/kernel/cpu_abi.py, by -D. Exits with
   3 where the caller's floating-point mode was not restored. */

#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 32, STAY = 100 };

extern void convdsl_run(void **context, int64_t stay);

static void *context[MOST];
static int64_t board[BOARD_WORDS];

static void *memory(size_t bytes) {
    void *place = aligned_alloc(64, (bytes + 127) / 64 * 64);
    if (!place) exit(2);
    return place;
}

static void *read_whole(const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END)) exit(2);
    long size = ftell(file);
    rewind(file);
    void *data = memory(size);
    if (fread(data, 1, size, file) != (size_t)size) exit(2);
    fclose(file);
    return data;
}

static uint64_t float_mode(void) {
#if defined(__aarch64__)
    uint64_t mode;
    __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
    return mode;
#else
    return 0;
#endif
}

static void *enter(void *stay) {
    uint64_t mode = float_mode();
    convdsl_run(context, (int64_t)(intptr_t)stay);
    if (float_mode() != mode) exit(3);
    return NULL;
}

int main(int count, char **words) {
    int threads = atoi(words[1]), slot = PORTS, word = 5;
    size_t counters = (size_t)atol(words[2]) * COUNTERS_PER_STEP * 8;
    context[YIELD] = (void *)sched_yield;
    context[TEAM_SIZE] = (void *)(intptr_t)threads;
    context[BOARD] = board;
    board[BOARD_SEATS] = threads - 1;
    context[TICKET] = (void *)(intptr_t)1;
    context[ARENA] = memory(atol(words[3]));
    memset(context[ARENA], 0xFF, atol(words[3])); /* NaN: what is read before it is written shows */
    context[WEIGHTS] = read_whole(words[4]);
    context[COUNTERS] = memset(memory(counters), 0, counters);
    for (; strcmp(words[word], "--"); word++) context[slot++] = read_whole(words[word]);
    int first = slot;
    for (int w = word + 1; w < count; w++) {
        char *bytes = strrchr(words[w], '=');
        *bytes = 0;
        context[slot++] = memory(atol(bytes + 1));
        *bytes = '=';
    }
    pthread_t helpers[8];
    for (int t = 1; t < threads; t++)
        if (pthread_create(&helpers[t], NULL, enter, (void *)(intptr_t)STAY)) return 2;
    enter(NULL);
    for (int t = 1; t < threads; t++) pthread_join(helpers[t], NULL);
    for (int w = word + 1; w < count; w++) {
        char *bytes = strrchr(words[w], '=');
        *bytes = 0;
        FILE *file = fopen(words[w], "wb");
        size_t size = atol(bytes + 1);
        if (!file || fwrite(context[first + w - word - 1], 1, size, file) != size) return 2;
        fclose(file);
    }
    return 0;
}
