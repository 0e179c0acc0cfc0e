/* Has the system calls of a process fail now and then, as a bad disk does: an LD_PRELOAD shim.

   FAULT_BELOW   the folder whose files are hit, by the paths that they are open at
   FAULT_CALL    write, open, fsync, rename or read
   FAULT_ERRNO   what it fails with; 0 only takes time
   FAULT_AFTER   how many calls go well before, in each process
   FAULT_TIMES   how many fail then
   FAULT_SLEEP   microseconds that each takes longer

   FAULT_CLOCK_AT     when somebody sets the clock back, in seconds since 1970
   FAULT_CLOCK_BACK   by how many seconds */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static atomic_long calls;

static long number(const char *name, long otherwise) {
  const char *text = getenv(name);
  return text ? atol(text) : otherwise;
}

static int is_below(const char *path) {
  const char *folder = getenv("FAULT_BELOW");
  return folder && path && strncmp(path, folder, strlen(folder)) == 0;
}

static int is_open_below(int descriptor) {
  char link[64], path[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length < 0) return 0;
  path[length] = 0;
  return is_below(path);
}

static int fails(const char *call) {
  const char *asked = getenv("FAULT_CALL");
  if (!asked || strcmp(asked, call)) return 0;
  long sleep = number("FAULT_SLEEP", 0);
  if (sleep) usleep(sleep);
  long after = number("FAULT_AFTER", 0), count = atomic_fetch_add(&calls, 1);
  if (count < after || count >= after + number("FAULT_TIMES", 1000000000)) return 0;
  int code = number("FAULT_ERRNO", 0);
  errno = code;
  return code != 0;
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t write(int fd, const void *data, size_t size) {
  if (is_open_below(fd) && fails("write")) return -1;
  return NEXT(write)(fd, data, size);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
  if (is_open_below(fd) && fails("write")) return -1;
  return NEXT(writev)(fd, parts, count);
}

size_t fwrite(const void *data, size_t size, size_t count, FILE *file) {
  if (is_open_below(fileno(file)) && fails("write")) return 0;
  return NEXT(fwrite)(data, size, count, file);
}

ssize_t read(int fd, void *data, size_t size) {
  if (is_open_below(fd) && fails("read")) return -1;
  return NEXT(read)(fd, data, size);
}

ssize_t pread(int fd, void *data, size_t size, off_t at) {
  if (is_open_below(fd) && fails("read")) return -1;
  return NEXT(pread)(fd, data, size, at);
}

int fsync(int fd) {
  if (is_open_below(fd) && fails("fsync")) return -1;
  return NEXT(fsync)(fd);
}

int rename(const char *from, const char *to) {
  if (is_below(to) && fails("rename")) return -1;
  return NEXT(rename)(from, to);
}

static time_t set_back(time_t now) {
  long at = number("FAULT_CLOCK_AT", 0);
  return at && now >= at ? now - number("FAULT_CLOCK_BACK", 0) : now;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
  int code = NEXT(clock_gettime)(clock, now);
  if (!code && clock == CLOCK_REALTIME) now->tv_sec = set_back(now->tv_sec);
  return code;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
  int code = NEXT(gettimeofday)(now, zone);
  if (!code) now->tv_sec = set_back(now->tv_sec);
  return code;
}

time_t time(time_t *place) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (place) *place = now.tv_sec;
  return now.tv_sec;
}

static mode_t mode_of(int flags, va_list rest) {
  return flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
}

int open(const char *path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  mode_t mode = mode_of(flags, rest);
  va_end(rest);
  if (is_below(path) && fails("open")) return -1;
  return NEXT(open)(path, flags, mode);
}

int open64(const char *path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  mode_t mode = mode_of(flags, rest);
  va_end(rest);
  if (is_below(path) && fails("open")) return -1;
  return NEXT(open64)(path, flags, mode);
}
