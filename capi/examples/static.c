/* A static proxy: relays each client to one target. usage: static LISTEN TARGET, such as static 8080 example.org:80 */
#include <stdio.h>
#include <string.h>
#include <seaprox.h>

static void opened(seaprox_loop *loop, seaprox_id connection, void *user)
{
    const char *target = user;
    seaprox_connection_connect(loop, connection, target, strlen(target));
}

static void closed(seaprox_loop *loop, seaprox_id connection, const seaprox_end *end, void *user)
{
    (void)loop, (void)connection, (void)user;
    printf("closed: %s, %llu bytes sent, %llu received\n", seaprox_reason_name(end->reason),
           (unsigned long long)end->sent, (unsigned long long)end->received);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    seaprox_loop *loop;
    seaprox_id listener;
    seaprox_handler handler = {0};
    seaprox_listen_options options = {0};
    int result;

    if (argc != 3) {
        fprintf(stderr, "usage: static LISTEN TARGET\n");
        return 2;
    }
    handler.size = sizeof handler;
    handler.opened = opened; /* without the callback connected, the loop relays or closes */
    handler.closed = closed;
    options.size = sizeof options;
    options.address = argv[1];
    options.address_len = strlen(argv[1]);
    options.kind = "static";
    options.kind_len = strlen(options.kind);
    result = seaprox_new(NULL, &loop);
    if (result == 0)
        result = seaprox_listen(loop, &options, &handler, argv[2], &listener);
    if (result == 0) {
        printf("listening on port %d\n", seaprox_listener_port(loop, listener));
        fflush(stdout);
        result = seaprox_run(loop);
    }
    if (result < 0) {
        char text[512];
        seaprox_last_error(text, sizeof text, NULL);
        fprintf(stderr, "static: %s\n", text);
    }
    seaprox_free(loop);
    return result < 0;
}
