/* Checks of datagrams. usage: datagrams NAME. Ends with 0 if all of the check is true. */
#include "pair.h"

/* ---- flows that end at the program ---- */

static struct flows {
    int opened, got, ended, reason;
    seaprox_id flow;
    char text[64];
    const char *target;
    int refuses, answers;
} listening, asking, remote;

static int flow_open(const char *client, size_t client_len, const uint8_t *content, size_t len, char *target, size_t cap,
                     size_t *target_len, void *user)
{
    struct flows *flows = user;
    CHECK(client_len > 10 && memcmp(client, "127.0.0.1:", 10) == 0 && content && len == 5 && cap > 255);
    flows->opened++;
    if (flows->target) {
        *target_len = strlen(flows->target);
        memcpy(target, flows->target, *target_len);
    }
    return flows->refuses;
}

static void flow_datagram(seaprox_loop *loop, seaprox_id flow, const uint8_t *content, size_t len, void *user)
{
    struct flows *flows = user;
    IS(seaprox_kind(flow), SEAPROX_KIND_FLOW);
    snprintf(flows->text, sizeof flows->text, "%.*s", (int)len, (const char *)content);
    flows->flow = flow;
    flows->got++;
    if (flows->answers)
        IS(seaprox_datagram_send(loop, flow, (const uint8_t *)"again", 5), 0);
}

static void flow_ended(seaprox_loop *loop, seaprox_id flow, int reason, void *user)
{
    struct flows *flows = user;
    IS(seaprox_datagram_send(loop, flow, NULL, 0), SEAPROX_ERR_OVER);
    flows->reason = reason;
    flows->ended++;
}

static seaprox_datagram_handler handler_of_flows(void)
{
    seaprox_datagram_handler handler = {0};
    handler.size = sizeof handler;
    handler.open = flow_open;
    handler.datagram = flow_datagram;
    handler.ended = flow_ended;
    return handler;
}

static seaprox_id listen_for(struct flows *flows)
{
    seaprox_datagram_handler handler = handler_of_flows();
    seaprox_listen_options options = {0};
    seaprox_id listener;
    options.size = sizeof options;
    options.address = "127.0.0.1:0";
    options.address_len = strlen(options.address);
    IS(seaprox_listen_datagrams(here, &options, &handler, flows, &listener), 0);
    IS(seaprox_kind(listener), SEAPROX_KIND_LISTENER);
    return listener;
}

/* Makes a socket that sends to a port of this host. */
static int socket_to(int port)
{
    struct sockaddr_in address = {0};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons((uint16_t)port);
    IS(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

static void get(int fd, const char *wanted)
{
    char text[64] = "";
    while (recv(fd, text, sizeof text - 1, 0) < 0)
        one_turn();
    IS(strcmp(text, wanted), 0);
}

static void direct(void)
{
    seaprox_datagram_handler handler = handler_of_flows();
    seaprox_id listener, other, flow;
    char text[128];
    int client;
    here = new_loop();
    listener = listen_for(&listening);
    listening.answers = 1;
    client = socket_to(seaprox_listener_port(here, listener));
    IS(send(client, "hello", 5, 0), 5);
    get(client, "again");
    CHECK(listening.opened == 1 && listening.got == 1 && strcmp(listening.text, "hello") == 0);
    IS(seaprox_flow_describe(here, listening.flow, text, sizeof text, NULL), 0);
    CHECK(strncmp(text, "c[ipv4[udp:127.0.0.1:", 21) == 0 && strstr(text, "->ipv4[udp:127.0.0.1:"));
    IS(send(client, "again", 5, 0), 5);
    get(client, "again");
    CHECK(listening.opened == 1 && listening.got == 2);
    /* The program may speak first from now on. */
    IS(seaprox_datagram_send(here, listening.flow, (const uint8_t *)"by itself", 9), 0);
    get(client, "by itself");
    IS(seaprox_flow_close(here, listening.flow), 0);
    until(&listening.ended, 1);
    IS(listening.reason, SEAPROX_KILLED);
    IS(seaprox_flow_close(here, listening.flow), SEAPROX_ERR_OVER);
    /* A flow of the program to that listener. */
    snprintf(text, sizeof text, "127.0.0.1:%d", seaprox_listener_port(here, listener));
    IS(seaprox_datagrams_open(here, 0, text, strlen(text), &handler, &asking, &flow), 0);
    IS(seaprox_datagram_send(here, flow, (const uint8_t *)"first", 5), 0);
    until(&asking.got, 1);
    CHECK(asking.flow == flow && strcmp(asking.text, "again") == 0 && listening.got == 3);
    /* A listener whose flows the loop carries to that one, and one that refuses. */
    remote.target = text;
    other = listen_for(&remote);
    close(client);
    client = socket_to(seaprox_listener_port(here, other));
    IS(send(client, "relay", 5, 0), 5);
    get(client, "again");
    CHECK(remote.opened == 1 && remote.got == 0 && strcmp(listening.text, "relay") == 0);
    remote.refuses = SEAPROX_NOT_PERMITTED;
    close(client);
    client = socket_to(seaprox_listener_port(here, other));
    IS(send(client, "never", 5, 0), 5);
    until(&remote.opened, 2);
    IS(seaprox_listener_close(here, listener), 0);
    IS(seaprox_listener_close(here, other), 0);
    IS(seaprox_free(here), 0);
    CHECK(asking.ended == 1);
    close(client);
}

/* ---- over links ---- */

static int handle_udp(const uint8_t *key, const char *target, size_t len, void *user)
{
    CHECK(key && user == &told[1]);
    return len == 16 && memcmp(target, "udp:made.up:1234", 16) == 0 ? SEAPROX_HANDLE : SEAPROX_REFUSE;
}

static void linked(void)
{
    seaprox_datagram_handler handler = handler_of_flows();
    seaprox_link_options options;
    seaprox_policy policy = {0};
    seaprox_id flow, other;
    int turns;
    make_keys();
    here = new_loop();
    there = new_loop();
    policy.size = sizeof policy;
    policy.open = handle_udp;
    options = options_of(1);
    options.policy = &policy;
    options.datagram_handler = &handler;
    options.datagram_user = &remote;
    serve(&options);
    options = options_of(0);
    dial(&options, seaprox_server_port(there, server));
    remote.answers = 1;
    IS(seaprox_datagrams_open(here, dialed, SEAPROX_TEXT("made.up:1234"), &handler, &asking, &flow), 0);
    /* It waits for the link, but not for long. */
    for (turns = 0; asking.got == 0; turns++) {
        if (turns % 1000 == 0)
            IS(seaprox_datagram_send(here, flow, (const uint8_t *)"early", 5), 0);
        one_turn();
    }
    CHECK(strcmp(remote.text, "early") == 0 && strcmp(asking.text, "again") == 0 && remote.opened == 0);
    /* A datagram that would come late is discarded, and under Valgrind one may be late. */
    for (turns = 0; strcmp(asking.text, "by itself") != 0; turns++) {
        if (turns % 1000 == 0)
            IS(seaprox_datagram_send(there, remote.flow, (const uint8_t *)"by itself", 9), 0);
        one_turn();
    }
    IS(seaprox_flow_close(here, flow), 0);
    until(&asking.ended, 1);
    until(&remote.ended, 1);
    /* A target that the peer refuses. */
    IS(seaprox_datagrams_open(here, dialed, SEAPROX_TEXT("other:1"), &handler, &asking, &other), 0);
    IS(seaprox_datagram_send(here, other, (const uint8_t *)"early", 5), 0);
    until(&asking.ended, 2);
    IS(asking.reason, SEAPROX_NOT_PERMITTED);
    free_pair();
}

/* ---- handles and sizes ---- */

static void handles(void)
{
    seaprox_datagram_handler handler = handler_of_flows();
    seaprox_listen_options options = {0};
    seaprox_id id = 7, timer;
    uint8_t long_one[65508] = {0};
    unsigned seed = 3, count;
    here = new_loop();
    IS(seaprox_datagram_send(here, 0, long_one, 1), SEAPROX_ERR_STALE);
    IS(seaprox_datagram_send(here, UINT64_MAX, long_one, 1), SEAPROX_ERR_STALE);
    IS(seaprox_after(here, 60000, (seaprox_timer_fn)NULL, NULL, &timer), SEAPROX_ERR_INVALID);
    for (count = 0; count < 2000; count++) {
        id = (seaprox_id)rand_r(&seed) << 32 | (seaprox_id)rand_r(&seed) << 3;
        CHECK(seaprox_datagram_send(here, id, long_one, 1) < 0 && seaprox_flow_close(here, id) < 0);
        CHECK(seaprox_flow_describe(here, id, NULL, 0, NULL) < 0);
    }
    IS(seaprox_datagrams_open(here, 0, SEAPROX_TEXT("nowhere"), &handler, &asking, &id), SEAPROX_ERR_INVALID);
    IS(seaprox_datagrams_open(here, UINT64_MAX, SEAPROX_TEXT("a:1"), &handler, &asking, &id), SEAPROX_ERR_STALE);
    handler.size = 2;
    IS(seaprox_datagrams_open(here, 0, SEAPROX_TEXT("127.0.0.1:9"), &handler, &asking, &id), SEAPROX_ERR_INVALID);
    IS(id, 0);
    handler.size = sizeof handler;
    IS(seaprox_datagrams_open(here, 0, SEAPROX_TEXT("127.0.0.1:9"), NULL, NULL, &id), 0);
    IS(seaprox_datagrams_open(here, id, SEAPROX_TEXT("127.0.0.1:9"), &handler, &asking, NULL), SEAPROX_ERR_INVALID);
    IS(seaprox_datagram_send(here, id, long_one, sizeof long_one), SEAPROX_ERR_INVALID);
    IS(seaprox_datagram_send(here, id, NULL, 1), SEAPROX_ERR_INVALID);
    IS(seaprox_datagram_send(here, id, NULL, 0), 0); /* an empty one */
    options.size = sizeof options;
    IS(seaprox_listen_datagrams(here, &options, &handler, &asking, &id), SEAPROX_ERR_INVALID);
    IS(seaprox_free(here), 0);
}

int main(int argc, char **argv)
{
    static const struct named all[] = {{"direct", direct}, {"linked", linked}, {"handles", handles}};
    return run_named(argc, argv, all, sizeof all / sizeof *all);
}
