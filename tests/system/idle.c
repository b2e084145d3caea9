/* Holds idle TCP connections of a relay, and measures one event beside them. In the guest of scripts/check-idle.
 *
 *   idle serve PORT...             echoes bytes on these ports of loopback
 *   idle hold PID COUNTS PORT...   opens connections to these ports in turn, up to each of the COUNTS (separated by commas), and prints
 *                                  a line for each: the private memory of the process PID, and its CPU time for a ping
 */
#include <arpa/inet.h>
#include <dirent.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PINGS = 2000, DESCRIPTORS = 300000, SETTLE_S = 3 };

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static struct sockaddr_in loopback(const char *port)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(port))};
    addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return addr;
}

static void watch(int epoll, int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0)
        fail("epoll_ctl");
}

static void serve(char **ports)
{
    int epoll = epoll_create1(0), listeners = 0, first = -1;
    for (; *ports; ports++, listeners++) {
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        struct sockaddr_in addr = loopback(*ports);
        if (bind(fd, (struct sockaddr *)&addr, sizeof addr) < 0 || listen(fd, 4096) < 0)
            fail("listen");
        first = first < 0 ? fd : first;
        watch(epoll, fd);
    }
    for (;;) {
        struct epoll_event events[64];
        int count = epoll_wait(epoll, events, 64, -1);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            char bytes[64];
            if (fd >= first && fd < first + listeners) {
                int client = accept(fd, NULL, NULL);
                if (client < 0)
                    fail("accept");
                watch(epoll, client);
                continue;
            }
            ssize_t read = recv(fd, bytes, sizeof bytes, 0);
            if (read <= 0)
                close(fd);
            else if (send(fd, bytes, (size_t)read, MSG_NOSIGNAL) != read)
                fail("send");
        }
    }
}

static void ping(int fd)
{
    char byte = 'x';
    if (send(fd, &byte, 1, MSG_NOSIGNAL) != 1 || recv(fd, &byte, 1, 0) != 1)
        fail("ping");
}

static int open_connection(const char *port)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    struct sockaddr_in addr = loopback(port);
    if (fd < 0 || connect(fd, (struct sockaddr *)&addr, sizeof addr) < 0)
        fail("connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    ping(fd);
    return fd;
}

/* Returns the sum of the numbers behind `name` in a file of /proc. */
static long sum_of(const char *path, const char *name)
{
    FILE *file = fopen(path, "r");
    char line[256];
    long sum = 0;
    if (!file)
        fail(path);
    while (fgets(line, sizeof line, file))
        if (!strncmp(line, name, strlen(name)))
            sum += atol(line + strlen(name));
    fclose(file);
    return sum;
}

/* Returns the CPU time of all threads of a process in nanoseconds. */
static long cpu_ns(const char *pid)
{
    char path[300];
    long sum = 0;
    snprintf(path, sizeof path, "/proc/%s/task", pid);
    DIR *tasks = opendir(path);
    if (!tasks)
        fail(path);
    for (struct dirent *task; (task = readdir(tasks));)
        if (task->d_name[0] != '.') {
            snprintf(path, sizeof path, "/proc/%s/task/%s/schedstat", pid, task->d_name);
            sum += sum_of(path, "");
        }
    closedir(tasks);
    return sum;
}

static void hold(const char *pid, char *counts, char **ports)
{
    char memory[64];
    long held = 0, before = 0, kernel_before = 0, first = 0;
    int active = open_connection(ports[0]), lines = 0;
    snprintf(memory, sizeof memory, "/proc/%s/smaps_rollup", pid);
    printf("connections  private bytes each  all memory each  CPU us of an event\n");
    for (char *count = strtok(counts, ","); count; count = strtok(NULL, ","), lines++) {
        int ports_count = 0;
        while (ports[ports_count])
            ports_count++;
        for (; held < atol(count); held++)
            open_connection(ports[held % ports_count]);
        sleep(SETTLE_S); /* A relay returns buffers after a while. */
        long private_kb = sum_of(memory, "Private_Clean:") + sum_of(memory, "Private_Dirty:");
        long used_kb = sum_of("/proc/meminfo", "MemTotal:") - sum_of("/proc/meminfo", "MemAvailable:");
        for (int i = 0; i < PINGS; i++)
            ping(active);
        long start = cpu_ns(pid);
        for (int i = 0; i < PINGS; i++)
            ping(active);
        double event_us = (double)(cpu_ns(pid) - start) / 1000 / PINGS;
        if (lines == 0) {
            before = private_kb, kernel_before = used_kb, first = held;
            printf("%11ld  %18s  %15s  %18.1f\n", held, "-", "-", event_us);
        } else {
            double more = (double)(held - first);
            printf("%11ld  %18.0f  %15.0f  %18.1f\n", held, (double)(private_kb - before) * 1024 / more,
                   (double)(used_kb - kernel_before) * 1024 / more, event_us);
        }
        fflush(stdout);
    }
}

int main(int count, char **args)
{
    struct rlimit limit = {DESCRIPTORS, DESCRIPTORS};
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
        fail("setrlimit");
    if (count > 2 && !strcmp(args[1], "serve"))
        serve(args + 2);
    else if (count > 4 && !strcmp(args[1], "hold"))
        hold(args[2], args[3], args + 4);
    else
        return 2;
    return 0;
}
