/* A SOCKS proxy whose dests are connected by threads of this program. usage: connector LISTEN */
#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <seaprox.h>

static int jobs[2]; /* a queue of jobs: clients choose how many dests there are, so all that they take here is bounded */
struct job { seaprox_connect_request *request; char host[256], port[8]; };

static void *work(void *user)
{
    struct timeval wait = {10, 0}; /* connect(2) ends then */
    struct job job;
    while (recv(jobs[0], &job, sizeof job, 0) == sizeof job) {
        struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list = NULL, *at;
        int fd = -1, error = 0, is_known = getaddrinfo(job.host, job.port, &hints, &list) == 0;
        for (at = list; at && fd < 0; at = at->ai_next) {
            fd = socket(at->ai_family, at->ai_socktype | SOCK_CLOEXEC, at->ai_protocol);
            setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof wait);
            if (connect(fd, at->ai_addr, at->ai_addrlen) != 0)
                error = errno, close(fd), fd = -1;
        }
        if (fd < 0)
            seaprox_connector_failed(job.request, !is_known ? SEAPROX_NAME_RESOLUTION_FAILURE
                                     : error == ECONNREFUSED ? SEAPROX_CONNECTION_REFUSED : SEAPROX_OTHER, error);
        else if (seaprox_connector_connected(job.request, fd) < 0)
            close(fd); /* the client is gone */
        if (list)
            freeaddrinfo(list);
    }
    return user;
}

static void on_connect(seaprox_loop *loop, seaprox_connect_request *request, seaprox_id side, const char *host,
                       size_t len, uint16_t port, void *user)
{
    struct job job = {.request = request};
    (void)loop, (void)side, (void)len, (void)user;
    snprintf(job.host, sizeof job.host, "%s", host), snprintf(job.port, sizeof job.port, "%u", (unsigned)port);
    if (send(jobs[1], &job, sizeof job, MSG_DONTWAIT) < 0)
        seaprox_connector_failed(request, SEAPROX_LIMIT_REACHED, 0); /* the queue is full */
}

int main(int argc, char **argv)
{
    seaprox_loop *loop;
    seaprox_id id;
    pthread_t thread;
    if (argc != 2 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, jobs) < 0 ||
        seaprox_new(NULL, &loop) < 0 || seaprox_set_connector(loop, on_connect, NULL) < 0 ||
        seaprox_listen_front_end(loop, SEAPROX_TEXT("socks"), argv[1], strlen(argv[1]), NULL, 0, &id) < 0)
        return 1;
    for (int threads = 0; threads < 8; threads++)
        pthread_create(&thread, NULL, work, NULL);
    printf("listening on port %d\n", seaprox_listener_port(loop, id)), fflush(stdout);
    return seaprox_run(loop) < 0 || seaprox_free(loop) < 0;
}
