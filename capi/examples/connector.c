/* A SOCKS proxy whose dests are connected by threads of this program. usage: connector LISTEN */
#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <seaprox.h>

struct job {
    seaprox_connect_request *request;
    char host[256], port[8];
};

static void *work(void *user)
{
    struct job *job = user;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list = NULL, *at;
    int fd = -1, error = 0, is_unknown = getaddrinfo(job->host, job->port, &hints, &list) != 0;
    for (at = list; at; at = at->ai_next) {
        fd = socket(at->ai_family, at->ai_socktype, at->ai_protocol);
        if (connect(fd, at->ai_addr, at->ai_addrlen) == 0)
            break;
        error = errno, close(fd), fd = -1;
    }
    if (is_unknown)
        seaprox_connector_failed(job->request, SEAPROX_NAME_RESOLUTION_FAILURE, 0);
    else if (fd < 0)
        seaprox_connector_failed(job->request, error == ECONNREFUSED ? SEAPROX_CONNECTION_REFUSED : SEAPROX_OTHER, error);
    else if (seaprox_connector_connected(job->request, fd) < 0)
        close(fd); /* the loop is gone */
    if (list)
        freeaddrinfo(list);
    return free(job), NULL;
}

static void on_connect(seaprox_loop *loop, seaprox_connect_request *request, seaprox_id side, const char *host,
                       size_t len, uint16_t port, void *user)
{
    struct job *job = calloc(1, sizeof *job);
    pthread_t thread; /* without a thread, or without an answer, the connect timeout ends the attempt */
    (void)loop, (void)side, (void)len, (void)user;
    job->request = request;
    snprintf(job->host, sizeof job->host, "%s", host);
    snprintf(job->port, sizeof job->port, "%u", (unsigned)port);
    if (pthread_create(&thread, NULL, work, job) == 0)
        pthread_detach(thread);
}

int main(int argc, char **argv)
{
    seaprox_loop *loop;
    seaprox_id id;
    if (argc != 2 || seaprox_new(NULL, &loop) < 0 || seaprox_set_connector(loop, on_connect, NULL) < 0 ||
        seaprox_listen_front_end(loop, SEAPROX_TEXT("socks"), argv[1], strlen(argv[1]), NULL, 0, &id) < 0)
        return 1;
    printf("listening on port %d\n", seaprox_listener_port(loop, id)), fflush(stdout);
    return seaprox_run(loop) < 0 || seaprox_free(loop) < 0;
}
