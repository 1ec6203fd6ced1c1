/*
 * A wall clock that can be set while a program runs: a library for LD_PRELOAD (Linux, glibc or musl).
 *
 *   cc -shared -fPIC -O2 -o clock.so clock.c
 *   LD_PRELOAD=./clock.so WINDLASS_SHIM_CLOCK=/run/offset windlass-hub serve ...
 *
 * WINDLASS_SHIM_CLOCK names a file of 8 bytes: seconds, signed, in the machine's order, added to CLOCK_REALTIME as
 * seen through clock_gettime, gettimeofday and time. The file is mapped: a change of its content is seen at once.
 * Monotonic clocks, timers and timeouts are left alone, as they are when an administrator sets the clock.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile const int64_t *offset;

__attribute__((constructor)) static void start(void) {
	const char *path = getenv("WINDLASS_SHIM_CLOCK");
	if (path == NULL) return;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) return;
	void *map = mmap(NULL, sizeof *offset, PROT_READ, MAP_SHARED, fd, 0);
	if (map != MAP_FAILED) offset = map;
	close(fd);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
	int result = (int)syscall(SYS_clock_gettime, clock, now);
	if (result == 0 && offset != NULL && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
		now->tv_sec += *offset;
	}
	return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
	(void)zone;
	struct timespec precise;
	if (clock_gettime(CLOCK_REALTIME, &precise) != 0) return -1;
	if (now != NULL) {
		now->tv_sec = precise.tv_sec;
		now->tv_usec = precise.tv_nsec / 1000;
	}
	return 0;
}

time_t time(time_t *to) {
	struct timespec precise;
	if (clock_gettime(CLOCK_REALTIME, &precise) != 0) return -1;
	if (to != NULL) *to = precise.tv_sec;
	return precise.tv_sec;
}
