/* Moves the wall clock of a worker, and of nothing else, by the seconds that a file holds.
 * Preloaded, as the machine's own clock is everybody's; clocks that never jump are left alone. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static int is_worker(void) {
    static int known = -1;
    char line[4096];
    int file;
    ssize_t length;
    if (known >= 0) return known;
    if ((file = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC)) < 0) return 0;
    length = read(file, line, sizeof line);
    close(file);
    /* Its arguments, each ended by a zero byte. */
    known = length > 0 && memmem(line, length, "imagewire\0worker", 17) != NULL;
    return known;
}

static long shift(void) {
    const char *path = getenv("SHIFTED_CLOCK_FILE");
    char text[32];
    int file;
    ssize_t length;
    if (!is_worker() || path == NULL || (file = open(path, O_RDONLY | O_CLOEXEC)) < 0) return 0;
    length = read(file, text, sizeof text - 1);
    close(file);
    if (length <= 0) return 0;
    text[length] = 0;
    return atol(text);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    int answer;
    if (real == NULL) real = dlsym(RTLD_NEXT, "clock_gettime");
    answer = real(clock, now);
    if (answer == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += shift();
    return answer;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec precise;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &precise);
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *seconds) {
    struct timespec precise;
    clock_gettime(CLOCK_REALTIME, &precise);
    if (seconds != NULL) *seconds = precise.tv_sec;
    return precise.tv_sec;
}
