/* What the checks of the C interface share. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <seaprox.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define CHECK(truth) check(!!(truth), #truth, __LINE__)
#define IS(value, wanted) is((long long)(value), (long long)(wanted), #value, __LINE__)

static inline void check(int truth, const char *text, int line)
{
    char error[512] = "";
    if (truth)
        return;
    seaprox_last_error(error, sizeof error, NULL);
    fprintf(stderr, "line %d: not true: %s (last error: %s)\n", line, text, error);
    exit(1);
}

static inline void is(long long value, long long wanted, const char *text, int line)
{
    if (value != wanted)
        fprintf(stderr, "line %d: %s is %lld, not %lld\n", line, text, value, wanted);
    check(value == wanted, text, line);
}

static inline seaprox_loop *new_loop(void)
{
    seaprox_options options = {0};
    seaprox_loop *loop;
    options.size = sizeof options;
    options.max_num_connections = 64;
    options.num_threads = 1;
    options.max_num_timers = 2;
    IS(seaprox_new(&options, &loop), 0);
    return loop;
}

/* Runs turns until *what is at least so much; a watchdog ends a check that hangs. */
static inline void run_until(seaprox_loop *loop, int *what, int count)
{
    while (*what < count)
        IS(seaprox_run_one(loop, 100), 1);
}

/* ---- sockets ---- */

static inline int listen_here(uint16_t *port)
{
    struct sockaddr_in address = {0};
    socklen_t len = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    IS(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    IS(listen(fd, 128), 0);
    IS(getsockname(fd, (struct sockaddr *)&address, &len), 0);
    *port = ntohs(address.sin_port);
    return fd;
}

static inline int connect_to(int port)
{
    struct sockaddr_in address = {0};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons((uint16_t)port);
    IS(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

/* Reads while the loop runs. Returns the number of bytes. */
static inline size_t receive(seaprox_loop *loop, int fd, char *buf, size_t len)
{
    size_t got = 0;
    while (got < len) {
        ssize_t count = recv(fd, buf + got, len - got, MSG_DONTWAIT);
        if (count == 0)
            break;
        if (count > 0)
            got += (size_t)count;
        else
            IS(seaprox_run_one(loop, 10), 1);
    }
    return got;
}

/* ---- checks by name ---- */

struct named {
    const char *name;
    void (*run)(void);
};

/* Runs the check that the first argument names. */
static inline int run_named(int argc, char **argv, const struct named *all, size_t count)
{
    size_t index;
    alarm(900); /* a check that hangs is killed */
    for (index = 0; index < count; index++)
        if (argc == 2 && strcmp(argv[1], all[index].name) == 0)
            return all[index].run(), 0;
    return 2;
}
