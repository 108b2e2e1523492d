/* The clocks of a real process, moved: LD_PRELOAD this and name a file in VAULTD_MOVED_CLOCK that begins with a native double
 * (seconds). CLOCK_REALTIME, time() and gettimeofday() are that much ahead. Monotonic and boot time stay, so that
 * sleeps, select() and event loops go on as they are (libfaketime 0.9.10 breaks Python's time.sleep).
 *
 * With VAULTD_MOVED_CLOCK_ALL set, the process lives through the time instead: monotonic and boot time move along, and no
 * epoll call of the main thread, which runs the event loop, sleeps longer than 10 ms, so that each timer fires soon
 * after the step that passes it. Other threads' are left alone: to a blocking client an early return is a time-out.
 * The calls are counted in the file's second eight bytes: that is how a test knows that the loop has turned. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define LONGEST_SLEEP_MS 10

struct shared {
    volatile double ahead;
    volatile uint64_t turns;
};

static struct shared *shared;
static int all, counts;

/* Of daemon and keeper, two loops in two processes, the daemon's is the one that a test waits for. */
static int is_keeper(void) {
    char line[4096] = {0};
    int fd = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
    ssize_t size = fd < 0 ? 0 : read(fd, line, sizeof line - 1);
    if (fd >= 0) close(fd);
    for (ssize_t at = 0; at < size; at += (ssize_t)strlen(line + at) + 1)
        if (strcmp(line + at, "vaultd.keeper") == 0) return 1;
    return 0;
}

__attribute__((constructor)) static void open_offset(void) {
    const char *path = getenv("VAULTD_MOVED_CLOCK");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0) return;
    void *mapped = mmap(NULL, sizeof(struct shared), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (mapped != MAP_FAILED) shared = mapped;
    const char *wanted = getenv("VAULTD_MOVED_CLOCK_ALL");
    all = wanted && *wanted;
    counts = all && !is_keeper();
}

static void move(struct timespec *t) {
    double whole = 0, part = shared ? modf(shared->ahead, &whole) : 0;
    t->tv_sec += (time_t)whole;
    t->tv_nsec += (long)(part * 1e9);
    if (t->tv_nsec >= 1000000000L) { t->tv_nsec -= 1000000000L; t->tv_sec += 1; }
}

static int moves(clockid_t id) {
    switch (id) {
    case CLOCK_REALTIME: case CLOCK_REALTIME_COARSE: return 1;
    case CLOCK_MONOTONIC: case CLOCK_MONOTONIC_COARSE: case CLOCK_MONOTONIC_RAW: case CLOCK_BOOTTIME: return all;
    default: return 0;
    }
}

int clock_gettime(clockid_t id, struct timespec *t) {
    int status = (int)syscall(SYS_clock_gettime, id, t);
    if (status == 0 && moves(id)) move(t);
    return status;
}

time_t time(time_t *out) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    if (out) *out = t.tv_sec;
    return t.tv_sec;
}

int gettimeofday(struct timeval *restrict tv, void *restrict zone) {
    struct timespec t;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &t);
    tv->tv_sec = t.tv_sec;
    tv->tv_usec = t.tv_nsec / 1000;
    return 0;
}

static int shortened(int timeout) {
    if (!all || syscall(SYS_gettid) != getpid()) return timeout;
    if (shared && counts) __sync_fetch_and_add(&shared->turns, 1);
    return timeout < 0 || timeout > LONGEST_SLEEP_MS ? LONGEST_SLEEP_MS : timeout;
}

int epoll_wait(int fd, struct epoll_event *events, int most, int timeout) {
    return (int)syscall(SYS_epoll_pwait, fd, events, most, shortened(timeout), NULL, 8);
}

int epoll_pwait(int fd, struct epoll_event *events, int most, int timeout, const sigset_t *mask) {
    return (int)syscall(SYS_epoll_pwait, fd, events, most, shortened(timeout), mask, 8);
}
