/*
 * A disk that misbehaves on demand and remembers everything: a library for LD_PRELOAD (Linux, glibc or musl).
 *
 *   cc -shared -fPIC -O2 -o disk.so disk.c -lpthread
 *   LD_PRELOAD=./disk.so WINDLASS_SHIM_DIR=/data WINDLASS_SHIM_CONTROL=/run/control windlass-hub serve ...
 *
 * It looks at what a program does to the files and folders below one directory, and never touches anything else. It
 * sees calls that go through the C library, which is how Rust's standard library and the hub's database write.
 *
 *   WINDLASS_SHIM_DIR      the directory (must exist when the program starts); without it the library does nothing
 *   WINDLASS_SHIM_TRACE    append every change and every sync to this file (outside of the directory), in order
 *   WINDLASS_SHIM_CONTROL  a text file (outside of the directory) that is read before each call, so that faults can be
 *                          switched while the program runs; replace it by rename. One `key=value` a line:
 *     fsync_ms=1000          fsync and fdatasync take so much longer
 *     fsync_fail=1           fsync and fdatasync fail with EIO
 *     full=all               every write and every creation fails with ENOSPC
 *     full=growth            only what makes a file larger, and creations, fail with ENOSPC
 *     full_after=65536       after so many more bytes, counted from this change of the file: short write, then ENOSPC
 *   WINDLASS_SHIM_FAULTS   the same, separated by blanks, used while there is no control file
 *
 * Trace: records of `kind (1), file (8), a (8), b (8), path bytes (4), other path bytes (4), data bytes (4)`, then path,
 * other path, data; integers in the machine's order. A file is its inode number. Others may append marks (kind 'M'):
 * each record is one write to a file opened for appending. Kinds:
 *   C create (path)          T truncate at open      W write at a: data        Z set length a
 *   A allocate a..a+b        S sync of a file        D sync of a folder (path) R rename path to other
 *   U unlink path            K make folder path      X remove folder path      L link path to other
 * sync_file_range is passed on and not recorded: it promises nothing. A record is written when the call has returned
 * and before its caller sees that, under one lock, so the order of the trace is an order that happened.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char directory[PATH_MAX];
static size_t directory_bytes;
static char control[PATH_MAX];
static char initial[512];
static int trace = -1;

enum { FULL_NOT, FULL_GROWTH, FULL_ALL };

static struct {
	char text[512];
	long fsync_ms;
	int fsync_fail;
	int full;
	long long budget; /* bytes until the disk is full, -1 for no bound */
} faults = { .budget = -1 };

static void parse(const char *text) {
	faults.fsync_ms = 0;
	faults.fsync_fail = 0;
	faults.full = FULL_NOT;
	faults.budget = -1;
	char copy[sizeof faults.text], *rest = copy, *word;
	snprintf(copy, sizeof copy, "%s", text);
	while ((word = strsep(&rest, " \t\n")) != NULL) {
		if (sscanf(word, "fsync_ms=%ld", &faults.fsync_ms) == 1) continue;
		if (sscanf(word, "fsync_fail=%d", &faults.fsync_fail) == 1) continue;
		if (sscanf(word, "full_after=%lld", &faults.budget) == 1) continue;
		if (strcmp(word, "full=all") == 0) faults.full = FULL_ALL;
		if (strcmp(word, "full=growth") == 0) faults.full = FULL_GROWTH;
	}
}

__attribute__((constructor)) static void start(void) {
	const char *dir = getenv("WINDLASS_SHIM_DIR"), *to = getenv("WINDLASS_SHIM_TRACE");
	const char *from = getenv("WINDLASS_SHIM_CONTROL"), *first = getenv("WINDLASS_SHIM_FAULTS");
	if (dir == NULL || realpath(dir, directory) == NULL) return;
	directory_bytes = strlen(directory);
	if (from != NULL) snprintf(control, sizeof control, "%s", from);
	if (first != NULL) snprintf(initial, sizeof initial, "%s", first);
	snprintf(faults.text, sizeof faults.text, "%s", initial);
	parse(initial);
	if (to == NULL) return;
	int fd = (int)syscall(SYS_openat, AT_FDCWD, to, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (fd < 0) {
		fprintf(stderr, "disk shim: cannot open the trace %s: %s\n", to, strerror(errno));
		abort();
	}
	trace = fcntl(fd, F_DUPFD_CLOEXEC, 900);
	if (trace < 0) trace = fd;
	else syscall(SYS_close, fd);
}

/* Reads the control file again. The caller holds the lock. */
static void look(void) {
	if (control[0] == 0) return;
	char text[sizeof faults.text];
	int saved = errno;
	int fd = (int)syscall(SYS_openat, AT_FDCWD, control, O_RDONLY | O_CLOEXEC, 0);
	if (fd < 0) {
		snprintf(text, sizeof text, "%s", initial);
	} else {
		ssize_t got = syscall(SYS_read, fd, text, sizeof text - 1);
		text[got < 0 ? 0 : got] = 0;
		syscall(SYS_close, fd);
	}
	errno = saved;
	/* Only a change starts a new budget. */
	if (strcmp(text, faults.text) == 0) return;
	snprintf(faults.text, sizeof faults.text, "%s", text);
	parse(text);
}

static int below(const char *path) {
	return directory_bytes != 0 && strncmp(path, directory, directory_bytes) == 0
		&& (path[directory_bytes] == '/' || path[directory_bytes] == 0);
}

/* The path of an open file, when it lies below the directory. */
static int watched(int fd, char path[PATH_MAX]) {
	if (directory_bytes == 0) return 0;
	char link[64];
	int saved = errno;
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	ssize_t got = syscall(SYS_readlinkat, AT_FDCWD, link, path, PATH_MAX - 1);
	errno = saved;
	if (got <= 0) return 0;
	path[got] = 0;
	return below(path);
}

/* The resolved path of something that need not exist yet, when it lies below the directory. */
static int watched_name(int at, const char *name, char path[PATH_MAX]) {
	if (directory_bytes == 0 || name == NULL) return 0;
	int saved = errno, found = 0;
	char given[PATH_MAX], parent[PATH_MAX];
	if (name[0] == '/' || at == AT_FDCWD) {
		snprintf(given, sizeof given, "%s", name);
	} else {
		char link[64], base[PATH_MAX];
		snprintf(link, sizeof link, "/proc/self/fd/%d", at);
		ssize_t got = syscall(SYS_readlinkat, AT_FDCWD, link, base, sizeof base - 1);
		if (got <= 0) goto out;
		base[got] = 0;
		if (snprintf(given, sizeof given, "%s/%s", base, name) >= (int)sizeof given) goto out;
	}
	size_t end = strlen(given);
	while (end > 1 && given[end - 1] == '/') given[--end] = 0;
	char *slash = strrchr(given, '/');
	const char *last = slash == NULL ? given : slash + 1;
	const char *folder = slash == NULL ? "." : slash == given ? "/" : given;
	char kept[NAME_MAX + 1];
	if (strlen(last) > NAME_MAX) goto out;
	strcpy(kept, last);
	if (slash != NULL && slash != given) *slash = 0;
	if (realpath(folder, parent) == NULL) goto out;
	if (snprintf(path, PATH_MAX, "%s/%s", parent, kept) >= PATH_MAX) goto out;
	found = below(path);
out:
	errno = saved;
	return found;
}

static void record(char kind, uint64_t file, uint64_t a, uint64_t b, const char *path, const char *other,
                   const struct iovec *data, int parts, size_t bytes) {
	if (trace < 0) return;
	int saved = errno;
	uint32_t path_bytes = path == NULL ? 0 : (uint32_t)strlen(path);
	uint32_t other_bytes = other == NULL ? 0 : (uint32_t)strlen(other);
	uint32_t data_bytes = (uint32_t)bytes;
	size_t total = 1 + 3 * 8 + 3 * 4 + path_bytes + other_bytes + data_bytes;
	char *buffer = malloc(total), *to = buffer;
	if (buffer == NULL) abort();
#define PUT(from, size) do { if (size) { memcpy(to, from, size); to += size; } } while (0)
	PUT(&kind, 1);
	PUT(&file, 8);
	PUT(&a, 8);
	PUT(&b, 8);
	PUT(&path_bytes, 4);
	PUT(&other_bytes, 4);
	PUT(&data_bytes, 4);
	PUT(path, path_bytes);
	PUT(other, other_bytes);
	for (int part = 0; part < parts && bytes > 0; part++) {
		size_t some = data[part].iov_len < bytes ? data[part].iov_len : bytes;
		PUT(data[part].iov_base, some);
		bytes -= some;
	}
	/* Appended at once, so that marks of other processes never land inside of a record. */
	if (syscall(SYS_write, trace, buffer, total) != (long)total) {
		fprintf(stderr, "disk shim: the trace cannot be written\n");
		abort();
	}
	free(buffer);
	errno = saved;
}

static void record_path(char kind, uint64_t file, const char *path, const char *other) {
	record(kind, file, 0, 0, path, other, NULL, 0, 0);
}

static int full_for_creation(void) {
	look();
	if (faults.full != FULL_NOT || faults.budget == 0) {
		errno = ENOSPC;
		return 1;
	}
	return 0;
}

/* How many of `bytes` at `offset` still fit; -1 with errno when none does. */
static ssize_t room(const struct stat *file, off_t offset, size_t bytes) {
	look();
	int grows = offset + (off_t)bytes > file->st_size;
	if (faults.full == FULL_ALL || (faults.full == FULL_GROWTH && grows)) {
		errno = ENOSPC;
		return -1;
	}
	if (faults.budget < 0) return (ssize_t)bytes;
	if (faults.budget == 0 && bytes > 0) {
		errno = ENOSPC;
		return -1;
	}
	if ((long long)bytes > faults.budget) bytes = (size_t)faults.budget;
	faults.budget -= (long long)bytes;
	return (ssize_t)bytes;
}

static int regular(int fd, struct stat *file) {
	int saved = errno;
	int is = directory_bytes != 0 && fstat(fd, file) == 0 && S_ISREG(file->st_mode);
	errno = saved;
	return is;
}

static int open_at(int at, const char *name, int flags, mode_t mode) {
	int changes = (flags & O_CREAT) || ((flags & O_TRUNC) && (flags & O_ACCMODE) != O_RDONLY);
	char path[PATH_MAX];
	if (!changes || !watched_name(at, name, path)) return (int)syscall(SYS_openat, at, name, flags, mode);
	pthread_mutex_lock(&lock);
	struct stat before, after;
	int saved = errno;
	int existed = fstatat(at, name, &before, 0) == 0;
	errno = saved;
	int fd = -1;
	if (existed || !full_for_creation()) fd = (int)syscall(SYS_openat, at, name, flags, mode);
	if (fd >= 0 && regular(fd, &after)) {
		char real[PATH_MAX];
		if (watched(fd, real)) {
			if (!existed) record_path('C', after.st_ino, real, NULL);
			else if (flags & O_TRUNC) record_path('T', after.st_ino, real, NULL);
		}
	}
	pthread_mutex_unlock(&lock);
	return fd;
}

#define MODE(flags) \
	mode_t mode = 0; \
	if ((flags) & (O_CREAT | O_TMPFILE)) { \
		va_list rest; \
		va_start(rest, flags); \
		mode = va_arg(rest, mode_t); \
		va_end(rest); \
	}

int open(const char *name, int flags, ...) { MODE(flags) return open_at(AT_FDCWD, name, flags, mode); }
int open64(const char *name, int flags, ...) { MODE(flags) return open_at(AT_FDCWD, name, flags, mode); }
int openat(int at, const char *name, int flags, ...) { MODE(flags) return open_at(at, name, flags, mode); }
int openat64(int at, const char *name, int flags, ...) { MODE(flags) return open_at(at, name, flags, mode); }
int creat(const char *name, mode_t mode) { return open_at(AT_FDCWD, name, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *name, mode_t mode) { return open_at(AT_FDCWD, name, O_CREAT | O_WRONLY | O_TRUNC, mode); }

/* All writes: at `offset`, or where the file stands (-1). */
static ssize_t write_at(int fd, const struct iovec *data, int parts, off_t offset) {
	struct stat file;
	char path[PATH_MAX];
	if (!regular(fd, &file) || !watched(fd, path)) {
		if (offset < 0) {
			if (parts == 1) return syscall(SYS_write, fd, data->iov_base, data->iov_len);
			return syscall(SYS_writev, fd, data, parts);
		}
		if (parts == 1) return syscall(SYS_pwrite64, fd, data->iov_base, data->iov_len, offset);
		return syscall(SYS_pwritev, fd, data, parts, (long)offset, 0L);
	}
	size_t bytes = 0;
	for (int part = 0; part < parts; part++) bytes += data[part].iov_len;
	pthread_mutex_lock(&lock);
	fstat(fd, &file);
	off_t at = offset;
	int flags = fcntl(fd, F_GETFL);
	if (offset < 0) at = lseek(fd, 0, SEEK_CUR);
	if (flags & O_APPEND) at = file.st_size;
	ssize_t done = room(&file, at, bytes);
	if (done >= 0) {
		size_t left = (size_t)done;
		ssize_t written = 0;
		for (int part = 0; part < parts && left > 0; part++) {
			size_t some = data[part].iov_len < left ? data[part].iov_len : left;
			ssize_t got = offset < 0 || (flags & O_APPEND)
				? syscall(SYS_write, fd, data[part].iov_base, some)
				: syscall(SYS_pwrite64, fd, data[part].iov_base, some, at + written);
			if (got < 0) {
				if (written == 0) written = -1;
				break;
			}
			written += got;
			left -= (size_t)got;
			if ((size_t)got < some) break;
		}
		done = written;
	}
	if (done > 0) record('W', file.st_ino, (uint64_t)at, 0, path, NULL, data, parts, (size_t)done);
	pthread_mutex_unlock(&lock);
	return done;
}

ssize_t write(int fd, const void *data, size_t bytes) {
	struct iovec one = { (void *)data, bytes };
	return write_at(fd, &one, 1, -1);
}
ssize_t pwrite(int fd, const void *data, size_t bytes, off_t offset) {
	struct iovec one = { (void *)data, bytes };
	return write_at(fd, &one, 1, offset);
}
ssize_t pwrite64(int fd, const void *data, size_t bytes, off_t offset) { return pwrite(fd, data, bytes, offset); }
ssize_t writev(int fd, const struct iovec *data, int parts) { return write_at(fd, data, parts, -1); }
ssize_t pwritev(int fd, const struct iovec *data, int parts, off_t offset) {
	return write_at(fd, data, parts, offset);
}
ssize_t pwritev64(int fd, const struct iovec *data, int parts, off_t offset) {
	return write_at(fd, data, parts, offset);
}

static int set_length(int fd, off_t length) {
	struct stat file;
	char path[PATH_MAX];
	if (!regular(fd, &file) || !watched(fd, path)) return (int)syscall(SYS_ftruncate, fd, length);
	pthread_mutex_lock(&lock);
	int result = (int)syscall(SYS_ftruncate, fd, length);
	if (result == 0) record('Z', file.st_ino, (uint64_t)length, 0, path, NULL, NULL, 0, 0);
	pthread_mutex_unlock(&lock);
	return result;
}
int ftruncate(int fd, off_t length) { return set_length(fd, length); }
int ftruncate64(int fd, off_t length) { return set_length(fd, length); }

static int allocate(int fd, int mode, off_t offset, off_t bytes) {
	struct stat file;
	char path[PATH_MAX];
	if (!regular(fd, &file) || !watched(fd, path)) return (int)syscall(SYS_fallocate, fd, mode, offset, bytes);
	/* Holes and shifted ranges are not modelled: say so instead of recording something else. */
	if (mode & ~1) {
		errno = EOPNOTSUPP;
		return -1;
	}
	pthread_mutex_lock(&lock);
	int result = -1;
	if (room(&file, offset, (size_t)bytes) == (ssize_t)bytes) {
		result = (int)syscall(SYS_fallocate, fd, mode, offset, bytes);
	} else {
		errno = ENOSPC;
	}
	if (result == 0 && mode == 0) {
		record('A', file.st_ino, (uint64_t)offset, (uint64_t)bytes, path, NULL, NULL, 0, 0);
	}
	pthread_mutex_unlock(&lock);
	return result;
}
int fallocate(int fd, int mode, off_t offset, off_t bytes) { return allocate(fd, mode, offset, bytes); }
int fallocate64(int fd, int mode, off_t offset, off_t bytes) { return allocate(fd, mode, offset, bytes); }
int posix_fallocate(int fd, off_t offset, off_t bytes) { return allocate(fd, 0, offset, bytes) == 0 ? 0 : errno; }
int posix_fallocate64(int fd, off_t offset, off_t bytes) { return posix_fallocate(fd, offset, bytes); }

/* The kernel's copies would pass unseen: callers fall back to reading and writing. */
ssize_t copy_file_range(int from, off_t *from_at, int to, off_t *to_at, size_t bytes, unsigned flags) {
	char path[PATH_MAX];
	if (watched(to, path)) {
		errno = ENOSYS;
		return -1;
	}
	return syscall(SYS_copy_file_range, from, from_at, to, to_at, bytes, flags);
}
ssize_t sendfile(int to, int from, off_t *offset, size_t bytes) {
	char path[PATH_MAX];
	if (watched(to, path)) {
		errno = EINVAL;
		return -1;
	}
	return syscall(SYS_sendfile, to, from, offset, bytes);
}
ssize_t sendfile64(int to, int from, off_t *offset, size_t bytes) { return sendfile(to, from, offset, bytes); }

static int sync_file(int fd, long call) {
	struct stat file;
	char path[PATH_MAX];
	if (directory_bytes == 0 || fstat(fd, &file) != 0 || !watched(fd, path)) return (int)syscall(call, fd);
	pthread_mutex_lock(&lock);
	look();
	long wait = faults.fsync_ms;
	int fail = faults.fsync_fail;
	pthread_mutex_unlock(&lock);
	/* Without the lock: a slow sync of one file holds up nobody else. */
	struct timespec pause = { wait / 1000, (wait % 1000) * 1000000L };
	while (wait > 0 && nanosleep(&pause, &pause) != 0 && errno == EINTR) {}
	if (fail) {
		errno = EIO;
		return -1;
	}
	pthread_mutex_lock(&lock);
	/* When it is recorded, what counts is the record: nothing was written since it began, thanks to the lock. */
	int result = (int)syscall(call, fd);
	if (result == 0) record_path(S_ISDIR(file.st_mode) ? 'D' : 'S', file.st_ino, path, NULL);
	pthread_mutex_unlock(&lock);
	return result;
}
int fsync(int fd) { return sync_file(fd, SYS_fsync); }
int fdatasync(int fd) { return sync_file(fd, SYS_fdatasync); }

static int rename_at(int from_at, const char *from, int to_at, const char *to, unsigned flags) {
	char old[PATH_MAX], new[PATH_MAX];
	int is_old = watched_name(from_at, from, old), is_new = watched_name(to_at, to, new);
	if (!is_old && !is_new) return (int)syscall(SYS_renameat2, from_at, from, to_at, to, flags);
	pthread_mutex_lock(&lock);
	struct stat file;
	int result = (int)syscall(SYS_renameat2, from_at, from, to_at, to, flags);
	if (result == 0 && fstatat(to_at, to, &file, AT_SYMLINK_NOFOLLOW) == 0) record_path('R', file.st_ino, old, new);
	pthread_mutex_unlock(&lock);
	return result;
}
int rename(const char *from, const char *to) { return rename_at(AT_FDCWD, from, AT_FDCWD, to, 0); }
int renameat(int from_at, const char *from, int to_at, const char *to) {
	return rename_at(from_at, from, to_at, to, 0);
}
int renameat2(int from_at, const char *from, int to_at, const char *to, unsigned flags) {
	return rename_at(from_at, from, to_at, to, flags);
}

static int unlink_at(int at, const char *name, int flags) {
	char path[PATH_MAX];
	if (!watched_name(at, name, path)) return (int)syscall(SYS_unlinkat, at, name, flags);
	pthread_mutex_lock(&lock);
	int result = (int)syscall(SYS_unlinkat, at, name, flags);
	if (result == 0) record_path(flags & AT_REMOVEDIR ? 'X' : 'U', 0, path, NULL);
	pthread_mutex_unlock(&lock);
	return result;
}
int unlink(const char *name) { return unlink_at(AT_FDCWD, name, 0); }
int unlinkat(int at, const char *name, int flags) { return unlink_at(at, name, flags); }
int rmdir(const char *name) { return unlink_at(AT_FDCWD, name, AT_REMOVEDIR); }
int remove(const char *name) {
	struct stat file;
	int is_folder = fstatat(AT_FDCWD, name, &file, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(file.st_mode);
	return unlink_at(AT_FDCWD, name, is_folder ? AT_REMOVEDIR : 0);
}

static int make_folder(int at, const char *name, mode_t mode) {
	char path[PATH_MAX];
	if (!watched_name(at, name, path)) return (int)syscall(SYS_mkdirat, at, name, mode);
	pthread_mutex_lock(&lock);
	struct stat before;
	int saved = errno, result = -1;
	int existed = fstatat(at, name, &before, 0) == 0;
	errno = saved;
	if (existed || !full_for_creation()) result = (int)syscall(SYS_mkdirat, at, name, mode);
	if (result == 0) record_path('K', 0, path, NULL);
	pthread_mutex_unlock(&lock);
	return result;
}
int mkdir(const char *name, mode_t mode) { return make_folder(AT_FDCWD, name, mode); }
int mkdirat(int at, const char *name, mode_t mode) { return make_folder(at, name, mode); }

static int link_at(int from_at, const char *from, int to_at, const char *to, int flags) {
	char old[PATH_MAX], new[PATH_MAX];
	if (!watched_name(from_at, from, old) || !watched_name(to_at, to, new)) {
		return (int)syscall(SYS_linkat, from_at, from, to_at, to, flags);
	}
	pthread_mutex_lock(&lock);
	int result = -1;
	if (!full_for_creation()) result = (int)syscall(SYS_linkat, from_at, from, to_at, to, flags);
	if (result == 0) record_path('L', 0, old, new);
	pthread_mutex_unlock(&lock);
	return result;
}
int link(const char *from, const char *to) { return link_at(AT_FDCWD, from, AT_FDCWD, to, 0); }
int linkat(int from_at, const char *from, int to_at, const char *to, int flags) {
	return link_at(from_at, from, to_at, to, flags);
}
