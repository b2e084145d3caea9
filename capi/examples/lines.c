/* A front end of one's own: a client sends a line with HOST:PORT, and is told "ok" or the reason. usage: lines LISTEN */
#include <stdio.h>
#include <string.h>
#include <seaprox.h>

static size_t readable(seaprox_loop *loop, seaprox_id side, const uint8_t *input, size_t len, void *user)
{
    seaprox_id connection = seaprox_side_connection(loop, side);
    const uint8_t *end = memchr(input, '\n', len);
    size_t count;
    (void)user;
    if (!end)
        return 0; /* the rest of the line is to come */
    count = (size_t)(end - input);
    /* The peer has chosen the target: the Unix sockets of this host are not for it. */
    if ((count >= 5 && memcmp(input, "unix:", 5) == 0) ||
        seaprox_connection_connect(loop, connection, (const char *)input, count) == SEAPROX_ERR_INVALID) {
        seaprox_side_send(loop, side, (const uint8_t *)"no target\n", 10);
        seaprox_connection_close_after_flush(loop, connection, SEAPROX_PROTOCOL_ERROR);
    }
    return count + 1; /* what stands behind the line is relayed */
}

static void connected(seaprox_loop *loop, seaprox_id connection, int reason, const char *detail, size_t len, void *user)
{
    char line[64];
    int count = snprintf(line, sizeof line, "%s\n", reason ? seaprox_reason_name(reason) : "ok");
    (void)detail, (void)len, (void)user;
    seaprox_side_send(loop, seaprox_connection_source(loop, connection), (const uint8_t *)line, (size_t)count);
    if (reason)
        seaprox_connection_close_after_flush(loop, connection, reason);
    else
        seaprox_connection_relay(loop, connection);
}

int main(int argc, char **argv)
{
    seaprox_handler handler = {0};
    seaprox_listen_options options = {0};
    seaprox_loop *loop;
    seaprox_id listener;
    if (argc != 2)
        return 2;
    handler.size = sizeof handler;
    handler.readable = readable;
    handler.connected = connected;
    options.size = sizeof options;
    options.address = argv[1];
    options.address_len = strlen(argv[1]);
    options.kind = "lines";
    options.kind_len = strlen(options.kind);
    if (seaprox_new(NULL, &loop) < 0 || seaprox_listen(loop, &options, &handler, NULL, &listener) < 0) {
        fprintf(stderr, "lines: cannot listen on %s\n", argv[1]);
        return 1;
    }
    printf("listening on port %d\n", seaprox_listener_port(loop, listener));
    fflush(stdout);
    seaprox_run(loop);
    return seaprox_free(loop) < 0;
}
