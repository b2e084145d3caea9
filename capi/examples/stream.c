/* Opens a stream of a link to a target behind the peer, sends a line, and prints the answer, or the reason why there is none:
 *     SECRET=... stream gateway.example.org:23232 db:5432 "a line"
 * The peer is `link serve` of link.c, or any node with the same secret that permits the target. */
#include <seaprox.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int result = 1;

static void connected(seaprox_loop *loop, seaprox_id stream, int reason, const char *detail, size_t len, void *line)
{
    if (reason == 0) {
        seaprox_side_send(loop, seaprox_connection_source(loop, stream), line, strlen(line));
        seaprox_connection_finish(loop, stream); /* a FIN; the other direction goes on */
        result = 0;
        return;
    }
    fprintf(stderr, "stream: %s (%.*s)\n", seaprox_reason_name(reason), (int)len, detail);
    seaprox_connection_close(loop, stream, reason);
}

static size_t readable(seaprox_loop *loop, seaprox_id side, const uint8_t *input, size_t len, void *line)
{
    (void)loop, (void)side, (void)line;
    return fwrite(input, 1, len, stdout);
}

static void closed(seaprox_loop *loop, seaprox_id stream, const seaprox_end *end, void *line)
{
    (void)stream, (void)end, (void)line;
    seaprox_finish(loop, 0);
}

int main(int argc, char **argv)
{
    seaprox_link_options options = {.size = sizeof options};
    seaprox_handler handler = {.size = sizeof handler, .connected = connected, .readable = readable, .closed = closed};
    uint8_t key[SEAPROX_KEY_BYTES], public_key[SEAPROX_KEY_BYTES];
    const char *secret = getenv("SECRET");
    seaprox_loop *loop;
    seaprox_id link, stream;
    char error[512];
    if (argc != 4 || !secret)
        return fprintf(stderr, "usage: SECRET=... stream HOST:PORT TARGET LINE\n"), 2;
    options.address = argv[1], options.address_len = strlen(argv[1]);
    options.key = key, options.peer_key = public_key;
    if (seaprox_key_derive((const uint8_t *)secret, strlen(secret), key) != 0 || seaprox_key_public(key, public_key) != 0
        || seaprox_new(NULL, &loop) != 0 || seaprox_link_dial(loop, &options, &link) != 0
        || seaprox_stream_open(loop, link, argv[2], strlen(argv[2]), &handler, argv[3], &stream) != 0) {
        seaprox_last_error(error, sizeof error, NULL);
        return fprintf(stderr, "stream: %s\n", error), 1;
    }
    seaprox_run(loop);
    seaprox_free(loop);
    return result;
}
