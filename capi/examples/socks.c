/* A SOCKS proxy that ends when its standard input does. usage: socks LISTEN [OPTIONS], such as 'deny = ["*:25"]' */
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <seaprox.h>

static void on_event(seaprox_loop *loop, const seaprox_event *event, void *user)
{
    char text[256] = "";
    (void)user;
    seaprox_connection_describe(loop, event->id, text, sizeof text, NULL);
    if (event->kind == SEAPROX_EVENT_CONNECTED)
        printf("connected: %s\n", text);
    else if (event->kind == SEAPROX_EVENT_ENDED)
        printf("ended: %s\n", seaprox_reason_name(event->reason));
    fflush(stdout);
}

static void on_input(seaprox_loop *loop, int fd, int events, void *user)
{
    char waste[256];
    (void)events, (void)user;
    if (read(fd, waste, sizeof waste) > 0)
        return;
    seaprox_poll_remove(loop, fd);
    seaprox_finish(loop, 1000);
}

int main(int argc, char **argv)
{
    const char *toml = argc > 2 ? argv[2] : "";
    seaprox_loop *loop;
    seaprox_id listener;
    int result;

    if (argc < 2) {
        fprintf(stderr, "usage: socks LISTEN [OPTIONS]\n");
        return 2;
    }
    result = seaprox_new(NULL, &loop);
    if (result == 0)
        result = seaprox_listen_front_end(loop, SEAPROX_TEXT("socks"), argv[1], strlen(argv[1]), toml, strlen(toml),
                                          &listener);
    if (result == 0) {
        printf("listening on port %d\n", seaprox_listener_port(loop, listener));
        fflush(stdout);
        seaprox_set_events(loop, on_event, NULL);
        result = seaprox_poll_add(loop, 0, SEAPROX_READABLE, on_input, NULL);
    }
    if (result == 0)
        result = seaprox_run(loop);
    if (result < 0) {
        char text[512];
        seaprox_last_error(text, sizeof text, NULL);
        fprintf(stderr, "socks: %s\n", text);
    }
    seaprox_free(loop);
    return result < 0;
}
