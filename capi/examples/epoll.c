/* seaprox as a part of another loop, which also reads lines of standard input. usage: epoll LISTEN TARGET */
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>
#include <seaprox.h>

int main(int argc, char **argv)
{
    struct epoll_event wanted = {0}, seen[8];
    char toml[300], line[256];
    seaprox_loop *loop;
    seaprox_id listener;
    int epoll = epoll_create1(EPOLL_CLOEXEC), goes_on = 1;

    if (argc != 3 || epoll < 0 || seaprox_new(NULL, &loop) < 0)
        return 2;
    snprintf(toml, sizeof toml, "to = \"%s\"", argv[2]);
    if (seaprox_listen_front_end(loop, SEAPROX_TEXT("static"), argv[1], strlen(argv[1]), toml, strlen(toml),
                                 &listener) < 0) {
        seaprox_last_error(toml, sizeof toml, NULL);
        fprintf(stderr, "epoll: %s\n", toml);
        return 1;
    }
    printf("listening on port %d\n", seaprox_listener_port(loop, listener));
    fflush(stdout);
    wanted.events = EPOLLIN;
    wanted.data.fd = seaprox_fd(loop);
    epoll_ctl(epoll, EPOLL_CTL_ADD, wanted.data.fd, &wanted);
    wanted.data.fd = 0;
    epoll_ctl(epoll, EPOLL_CTL_ADD, 0, &wanted);
    while (goes_on == 1) {
        int timeout = -1, count, index;
        seaprox_timeout(loop, &timeout);
        count = epoll_wait(epoll, seen, 8, timeout);
        for (index = 0; index < count; index++) {
            ssize_t got;
            if (seen[index].data.fd != 0)
                continue; /* the loop has events, which the turn below takes */
            got = read(0, line, sizeof line - 1);
            if (got > 0) {
                line[got] = 0;
                printf("read: %s", line);
                fflush(stdout);
            } else {
                epoll_ctl(epoll, EPOLL_CTL_DEL, 0, NULL);
                seaprox_finish(loop, 0);
            }
        }
        goes_on = seaprox_run_one(loop, 0);
    }
    close(epoll);
    return seaprox_free(loop) < 0;
}
