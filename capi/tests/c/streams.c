/* Checks of the streams of links. usage: streams NAME. Ends with 0 if all of the check is true. */
#include "pair.h"

#include <malloc.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

/* ---- a stream at one of the nodes ---- */

static struct end {
    seaprox_id connection;
    int opened, connected, fins, closed, reason, full, writable;
    size_t received, left;
    char text[64];
    int holds, answers;
} client, peer;

static seaprox_loop *loop_of(const struct end *end)
{
    return end == &client ? here : there;
}

static void end_opened(seaprox_loop *loop, seaprox_id connection, void *user)
{
    struct end *end = user;
    CHECK(loop == loop_of(end));
    if (end == &peer && here)
        IS(seaprox_connection_link(loop, connection), served);
    end->connection = connection;
    end->opened++;
    if (end->holds)
        IS(seaprox_side_pause(loop, seaprox_connection_source(loop, connection)), 0);
}

static size_t end_readable(seaprox_loop *loop, seaprox_id side, const uint8_t *input, size_t len, void *user)
{
    struct end *end = user;
    size_t index, room = sizeof end->text - 1 - strlen(end->text);
    for (index = 0; index < len && !end->answers && room == 0; index++)
        CHECK(input[index] == (uint8_t)(end->received + index)); /* the bytes of send_more */
    strncat(end->text, (const char *)input, len < room ? len : room);
    end->received += len;
    if (end->answers)
        IS(seaprox_side_send(loop, side, input, len), 0);
    return len;
}

static void end_connected(seaprox_loop *loop, seaprox_id connection, int reason, const char *detail, size_t len, void *user)
{
    struct end *end = user;
    (void)loop;
    CHECK(connection == end->connection && (len == 0 || detail));
    end->reason = reason;
    end->connected++;
    if (reason)
        IS(seaprox_connection_close(loop, connection, reason), 0);
}

/* Sends what is left, as far as there is room. */
static void send_more(struct end *end, size_t sent)
{
    uint8_t bytes[8192];
    seaprox_id side = seaprox_connection_source(loop_of(end), end->connection);
    size_t index;
    while (end->left > 0) {
        int result;
        for (index = 0; index < sizeof bytes; index++)
            bytes[index] = (uint8_t)(sent - end->left + index);
        result = seaprox_side_send(loop_of(end), side, bytes, sizeof bytes);
        if (result == SEAPROX_ERR_FULL) {
            end->full++;
            return;
        }
        IS(result, 0);
        end->left -= sizeof bytes;
    }
}

#define MUCH (4u << 20)

static void end_writable(seaprox_loop *loop, seaprox_id side, void *user)
{
    struct end *end = user;
    CHECK(loop == loop_of(end) && side);
    end->writable++;
    send_more(end, MUCH);
}

static void end_ended(seaprox_loop *loop, seaprox_id side, int cause, void *user)
{
    struct end *end = user;
    seaprox_id connection = seaprox_side_connection(loop, side);
    CHECK(connection == end->connection);
    IS(cause, SEAPROX_CAUSE_FIN);
    end->fins++;
    if (end->answers) {
        IS(seaprox_side_send(loop, side, (const uint8_t *)"!", 1), 0); /* the other direction is open */
        IS(seaprox_connection_close_after_flush(loop, connection, SEAPROX_SOURCE_FIN), 0);
    } else {
        IS(seaprox_connection_close(loop, connection, SEAPROX_SOURCE_FIN), 0);
    }
}

static void end_closed(seaprox_loop *loop, seaprox_id connection, const seaprox_end *told_end, void *user)
{
    struct end *end = user;
    CHECK(connection == end->connection || end->connection == 0);
    IS(seaprox_connection_finish(loop, connection), SEAPROX_ERR_OVER);
    end->reason = told_end->reason;
    end->closed++;
}

static seaprox_handler handler_of_ends(void)
{
    seaprox_handler handler = {0};
    handler.size = sizeof handler;
    handler.opened = end_opened;
    handler.readable = end_readable;
    handler.connected = end_connected;
    handler.writable = end_writable;
    handler.ended = end_ended;
    handler.closed = end_closed;
    return handler;
}

static void reset_ends(void)
{
    memset(&client, 0, sizeof client);
    memset(&peer, 0, sizeof peer);
}

static void open_service(const char *name)
{
    seaprox_handler handler = handler_of_ends();
    IS(seaprox_service_open(here, dialed, name, strlen(name), &handler, &client, &client.connection), 0);
    IS(seaprox_kind(client.connection), SEAPROX_KIND_CONNECTION);
}

static int may_use = 1;

static int permit_service(const uint8_t *key, const char *service, size_t len, void *user)
{
    CHECK(memcmp(key, publics[0], SEAPROX_KEY_BYTES) == 0 && user == &peer);
    CHECK(len == 4 && memcmp(service, "echo", 4) == 0);
    return may_use;
}

/* Makes two nodes, the second of which offers a service. */
static void pair_with_service(void)
{
    seaprox_handler handler = handler_of_ends();
    pair(NULL, NULL, NULL);
    reset_ends();
    IS(seaprox_set_service(there, SEAPROX_TEXT("echo"), &handler, permit_service, &peer), 0);
}

static void send_text(const char *text)
{
    seaprox_id side = seaprox_connection_source(here, client.connection);
    IS(seaprox_side_send(here, side, (const uint8_t *)text, strlen(text)), 0);
}

/* ---- services ---- */

static void services(void)
{
    pair_with_service();
    peer.answers = 1;
    open_service("echo");
    until(&client.connected, 1);
    IS(client.reason, 0);
    IS(seaprox_connection_link(here, client.connection), dialed);
    IS(seaprox_connection_stage(here, client.connection), SEAPROX_STAGE_ESTABLISHED);
    send_text("hello");
    while (client.received < 5)
        one_turn();
    CHECK(strcmp(client.text, "hello") == 0 && strcmp(peer.text, "hello") == 0);
    /* Half-closed: the peer has the FIN, and still answers. */
    IS(seaprox_connection_finish(here, client.connection), 0);
    IS(seaprox_connection_finish(here, client.connection), SEAPROX_ERR_ALREADY);
    until(&client.fins, 1);
    CHECK(strcmp(client.text, "hello!") == 0 && peer.fins == 1);
    until(&client.closed, 1);
    until(&peer.closed, 1);
    /* A peer that may not, a service that is not there, and one that is there no more. */
    reset_ends();
    may_use = 0;
    open_service("echo");
    until(&client.connected, 1);
    IS(client.reason, SEAPROX_NOT_PERMITTED);
    until(&client.closed, 1);
    may_use = 1;
    open_service("unknown");
    until(&client.connected, 2);
    IS(client.reason, SEAPROX_NOT_PERMITTED);
    IS(seaprox_set_service(there, SEAPROX_TEXT("echo"), NULL, NULL, NULL), 0);
    IS(seaprox_set_service(there, SEAPROX_TEXT("echo"), NULL, NULL, NULL), SEAPROX_ERR_STALE);
    open_service("echo");
    until(&client.connected, 3);
    IS(client.reason, SEAPROX_NOT_PERMITTED);
    IS(peer.opened, 0);
    free_pair();
}

/* ---- resets ---- */

static void resets(void)
{
    pair_with_service();
    open_service("echo");
    until(&client.connected, 1);
    send_text("x");
    while (peer.received < 1)
        one_turn();
    IS(seaprox_connection_abort(there, peer.connection, SEAPROX_KILLED), 0);
    until(&client.closed, 1);
    IS(client.reason, SEAPROX_SOURCE_RESET);
    until(&peer.closed, 1);
    IS(peer.reason, SEAPROX_KILLED);
    /* The other way round. */
    reset_ends();
    open_service("echo");
    until(&client.connected, 1);
    until(&peer.opened, 1);
    IS(seaprox_connection_abort(here, client.connection, SEAPROX_IDLE_TIMEOUT), 0);
    until(&peer.closed, 1);
    IS(peer.reason, SEAPROX_SOURCE_RESET);
    until(&client.closed, 1);
    IS(client.reason, SEAPROX_IDLE_TIMEOUT);
    /* Links go, and their streams with them. */
    reset_ends();
    open_service("echo");
    until(&client.connected, 1);
    until(&peer.opened, 1);
    IS(seaprox_link_close(here, dialed), 0);
    until(&client.closed, 1);
    until(&peer.closed, 1);
    free_pair();
}

/* ---- flow control ---- */

static void flow(void)
{
    int turns;
    pair_with_service();
    peer.holds = 1;
    open_service("echo");
    until(&client.connected, 1);
    until(&peer.opened, 1);
    client.left = MUCH;
    send_more(&client, MUCH);
    for (turns = 0; turns < 400; turns++)
        one_turn();
    CHECK(peer.received == 0 && client.left > 0); /* what waits is bounded */
    IS(seaprox_side_resume(there, seaprox_connection_source(there, peer.connection)), 0);
    while (peer.received < MUCH)
        one_turn();
    CHECK(client.left == 0 && client.full > 0 && client.writable > 0);
    IS(seaprox_connection_finish(here, client.connection), 0);
    until(&peer.fins, 1);
    IS(peer.received, MUCH);
    until(&client.closed, 1);
    free_pair();
}

/* ---- streams to targets ---- */

static int handle_or_ask(const uint8_t *key, const char *target, size_t len, void *user)
{
    CHECK(key && user == &told[1]);
    if (len == 12 && memcmp(target, "made.up:1234", 12) == 0)
        return SEAPROX_HANDLE;
    return SEAPROX_ASK;
}

static void handled(void)
{
    seaprox_handler handler = handler_of_ends();
    seaprox_policy policy = {0};
    char text[64];
    policy.size = sizeof policy;
    policy.open = handle_or_ask;
    reset_ends();
    pair(&policy, &handler, &peer);
    peer.answers = 1;
    IS(seaprox_stream_open(here, dialed, SEAPROX_TEXT("made.up:1234"), &handler, &client, &client.connection), 0);
    until(&client.connected, 1);
    IS(client.reason, 0);
    until(&peer.opened, 1);
    IS(seaprox_connection_target(there, peer.connection, text, sizeof text, NULL), 0);
    CHECK(strcmp(text, "made.up:1234") == 0);
    IS(seaprox_connection_target(here, client.connection, text, sizeof text, NULL), 0);
    CHECK(strcmp(text, "made.up:1234") == 0);
    send_text("there");
    while (client.received < 5)
        one_turn();
    CHECK(strcmp(client.text, "there") == 0);
    free_pair();
}

static void asked(void)
{
    seaprox_policy policy = {0};
    seaprox_handler handler = {0};
    seaprox_id connection, forward;
    uint16_t port;
    char target[32];
    int listening = listen_here(&port);
    policy.size = sizeof policy;
    policy.open = handle_or_ask;
    policy.listen = handle_or_ask;
    pair(&policy, NULL, NULL);
    snprintf(target, sizeof target, "127.0.0.1:%u", (unsigned)port);
    handler.size = sizeof handler;
    handler.connected = try_connected;
    handler.closed = try_closed;
    IS(seaprox_stream_open(here, dialed, target, strlen(target), &handler, &tried, &connection), 0);
    until(&told[1].counts[SEAPROX_LINK_EVENT_ASKED_OPEN], 1);
    CHECK(strcmp(told[1].text, target) == 0 && told[1].connection);
    IS(seaprox_permit(there, told[1].connection, 1), 0);
    IS(seaprox_permit(there, told[1].connection, 1), SEAPROX_ERR_STALE);
    until(&tried.closed, 1);
    IS(tried.reason, 0);
    IS(seaprox_stream_open(here, dialed, target, strlen(target), &handler, &tried, &connection), 0);
    until(&told[1].counts[SEAPROX_LINK_EVENT_ASKED_OPEN], 2);
    IS(seaprox_permit(there, told[1].connection, 0), 0);
    until(&tried.closed, 2);
    IS(tried.reason, SEAPROX_NOT_PERMITTED);
    IS(seaprox_forward_remote(here, dialed, SEAPROX_TEXT("127.0.0.1:0"), target, strlen(target), &forward), 0);
    until(&told[1].counts[SEAPROX_LINK_EVENT_ASKED_LISTEN], 1);
    /* Without a handler nothing is handled. */
    IS(try_open("made.up:1234"), SEAPROX_NOT_PERMITTED);
    free_pair();
    close(listening);
}

/* ---- a peer that dies ---- */

static void serve_until_killed(int port_to)
{
    seaprox_link_options options = options_of(1);
    seaprox_handler handler = handler_of_ends();
    uint16_t port;
    here = NULL;
    there = new_loop();
    serve(&options);
    IS(seaprox_set_service(there, SEAPROX_TEXT("echo"), &handler, NULL, &peer), 0);
    port = (uint16_t)seaprox_server_port(there, server);
    IS(write(port_to, &port, sizeof port), sizeof port);
    IS(seaprox_run(there), 0);
}

static void killed(void)
{
    seaprox_link_options options;
    uint16_t port;
    int ends[2];
    pid_t child;
    make_keys();
    IS(pipe(ends), 0);
    child = fork();
    if (child == 0) {
        IS(prctl(PR_SET_PDEATHSIG, SIGKILL), 0); /* it does not outlive a check that fails */
        peer.answers = 1;
        serve_until_killed(ends[1]);
        _exit(0);
    }
    CHECK(child > 0);
    IS(read(ends[0], &port, sizeof port), sizeof port);
    here = new_loop();
    options = options_of(0);
    options.toml = "link-hold = \"500ms\"\n";
    options.toml_len = strlen(options.toml);
    dial(&options, port);
    open_service("echo");
    until(&client.connected, 1);
    send_text("alive");
    while (client.received < 5)
        one_turn();
    IS(kill(child, SIGKILL), 0);
    IS(waitpid(child, NULL, 0), child);
    until(&told[0].counts[SEAPROX_LINK_EVENT_SUSPENDED], 1);
    IS(seaprox_link_state(here, dialed), SEAPROX_LINK_SUSPENDED);
    send_text("waits");
    IS(client.closed, 0);
    until(&told[0].counts[SEAPROX_LINK_EVENT_ENDED], 1);
    IS(told[0].reason, SEAPROX_LINK_LOST);
    until(&client.closed, 1);
    IS(client.reason, SEAPROX_LINK_LOST);
    IS(seaprox_link_state(here, dialed), SEAPROX_LINK_CONNECTING);
    IS(seaprox_free(here), 0);
    close(ends[0]);
    close(ends[1]);
}

/* ---- cycles ---- */

static void cycles(void)
{
    const char *wanted = getenv("SEAPROX_CYCLES");
    int count = wanted ? atoi(wanted) : 1000, warm = count / 10, index;
    size_t before = 0, after;
    pair_with_service();
    peer.answers = 1;
    for (index = 0; index < count; index++) {
        client.text[0] = peer.text[0] = 0;
        if (index == warm)
            before = mallinfo2().uordblks;
        open_service("echo");
        send_text("x");
        IS(seaprox_connection_finish(here, client.connection), 0);
        until(&client.closed, index + 1);
        until(&peer.closed, index + 1);
        CHECK(strcmp(client.text, "x!") == 0);
    }
    after = mallinfo2().uordblks;
    CHECK(after < before + (64 << 10));
    IS(client.fins, count);
    free_pair();
}

int main(int argc, char **argv)
{
    static const struct named all[] = {{"services", services}, {"resets", resets}, {"flow", flow}, {"handled", handled},
                                       {"asked", asked}, {"killed", killed}, {"cycles", cycles}};
    return run_named(argc, argv, all, sizeof all / sizeof *all);
}
