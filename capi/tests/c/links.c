/* Checks of links: two nodes, each with a loop, in one thread. usage: links NAME. Ends with 0 if all of the check is true. */
#include "pair.h"

/* ---- keys ---- */

static void key_checks(void)
{
    uint8_t key[SEAPROX_KEY_BYTES], other[SEAPROX_KEY_BYTES], public_key[SEAPROX_KEY_BYTES], parsed[SEAPROX_KEY_BYTES];
    char text[128], path[64], folder[] = "/tmp/seaprox-keys-XXXXXX";
    size_t len;
    IS(seaprox_key_new(key), 0);
    IS(seaprox_key_new(other), 0);
    CHECK(memcmp(key, other, sizeof key) != 0);
    IS(seaprox_key_public(key, public_key), 0);
    IS(seaprox_key_text(public_key, text, sizeof text, &len), 0);
    CHECK(len == strlen(text) && strncmp(text, "seaprox-ed25519 ", 15 + 1) == 0);
    IS(seaprox_key_parse(text, len, parsed), 0);
    IS(memcmp(parsed, public_key, sizeof parsed), 0);
    IS(seaprox_key_fingerprint(public_key, text, sizeof text, NULL), 0);
    CHECK(strncmp(text, "SHA256:", 7) == 0);
    IS(seaprox_key_parse(SEAPROX_TEXT("seaprox-ed25519 x"), parsed), SEAPROX_ERR_INVALID);
    memset(other, 0, sizeof other);
    IS(seaprox_key_text(other, text, sizeof text, NULL), SEAPROX_ERR_INVALID);
    IS(seaprox_key_text(NULL, text, sizeof text, NULL), SEAPROX_ERR_INVALID);
    IS(seaprox_key_public(NULL, public_key), SEAPROX_ERR_INVALID);
    IS(seaprox_key_derive((const uint8_t *)"too short", 9, key), SEAPROX_ERR_INVALID);
    IS(seaprox_key_derive((const uint8_t *)"a secret of both nodes", 22, key), 0);
    IS(seaprox_key_derive((const uint8_t *)"a secret of both nodes", 22, other), 0);
    IS(memcmp(key, other, sizeof key), 0);
    CHECK(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/key", folder);
    IS(seaprox_key_load(path, strlen(path), key), 0);
    IS(seaprox_key_load(path, strlen(path), other), 0);
    IS(memcmp(key, other, sizeof key), 0);
    IS(seaprox_key_load(folder, strlen(folder), other), SEAPROX_ERR_CONFIG);
    IS(seaprox_key_load(NULL, 0, other), SEAPROX_ERR_INVALID);
    IS(unlink(path), 0);
    IS(rmdir(folder), 0);
}

/* ---- links and forwards ---- */

static int asked_to_open;

static int open_loopback(const uint8_t *key, const char *target, size_t len, void *user)
{
    CHECK(memcmp(key, publics[0], SEAPROX_KEY_BYTES) == 0 && user == &told[1] && len > 10);
    IS(seaprox_link_close(there, served), SEAPROX_ERR_BUSY); /* a policy has no loop */
    asked_to_open++;
    if (memcmp(target, "localhost:", 10) == 0)
        return SEAPROX_BY_ADDRESS;
    if (memcmp(target, "udp:", 4) == 0)
        target += 4;
    return memcmp(target, "127.0.0.1:", 10) == 0 ? SEAPROX_PERMIT : SEAPROX_REFUSE;
}

static int reach_none(const uint8_t *key, const char *target, size_t target_len, const char *address, size_t address_len,
                      void *user)
{
    CHECK(key && target && target_len > 0 && user == &told[1]);
    CHECK(address_len >= 3 && (memchr(address, '.', address_len) || memchr(address, ':', address_len)));
    return SEAPROX_REFUSE;
}

static int listen_all(const uint8_t *key, const char *address, size_t len, void *user)
{
    CHECK(key && address && len > 0 && user == &told[1]);
    return SEAPROX_PERMIT;
}

/* Sends bytes over a port of this host to a listening socket, and back. */
static void through(int port, int target)
{
    char text[8] = "";
    int client = connect_to(port), end;
    IS(write(client, "hello", 5), 5);
    IS(fcntl(target, F_SETFL, O_NONBLOCK), 0);
    while ((end = accept4(target, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) < 0)
        one_turn();
    while (recv(end, text, sizeof text, MSG_DONTWAIT) < 5)
        one_turn();
    CHECK(strcmp(text, "hello") == 0);
    IS(write(end, "answer", 6), 6);
    while (recv(client, text, sizeof text, MSG_DONTWAIT) < 6)
        one_turn();
    CHECK(memcmp(text, "answer", 6) == 0);
    close(client);
    close(end);
}

static void await_forward(seaprox_id forward, int state)
{
    while (seaprox_forward_state(here, forward) != state)
        one_turn();
}

static void forwards(void)
{
    seaprox_policy policy = {0};
    seaprox_id local, remote, dynamic;
    uint16_t port;
    char target[32], text[256];
    uint64_t sent, received;
    int listening = listen_here(&port);
    policy.size = sizeof policy;
    policy.open = open_loopback;
    policy.reach = reach_none;
    policy.listen = listen_all;
    pair(&policy, NULL, NULL);
    snprintf(target, sizeof target, "127.0.0.1:%u", (unsigned)port);
    IS(seaprox_forward_local(here, dialed, SEAPROX_TEXT("127.0.0.1:0"), target, strlen(target), &local), 0);
    IS(seaprox_kind(local), SEAPROX_KIND_FORWARD);
    IS(seaprox_forward_state(here, local), SEAPROX_FORWARD_LISTENING);
    through(seaprox_forward_port(here, local), listening);
    IS(seaprox_forward_bytes(here, local, &sent, &received), 0);
    CHECK(sent == 5 && received == 6);
    IS(seaprox_forward_remote(here, dialed, SEAPROX_TEXT("127.0.0.1:0"), target, strlen(target), &remote), 0);
    await_forward(remote, SEAPROX_FORWARD_LISTENING);
    through(seaprox_forward_port(here, remote), listening);
    IS(seaprox_forward_failure(here, remote, text, sizeof text, NULL), 0);
    CHECK(*text == 0);
    IS(seaprox_forward_dynamic(here, dialed, SEAPROX_TEXT("localhost:0"), SEAPROX_TEXT("socks"), NULL, 0, &dynamic), 0);
    CHECK(seaprox_forward_port(here, dynamic) > 0);
    IS(seaprox_forward_dynamic(here, dialed, SEAPROX_TEXT("127.0.0.1:0"), SEAPROX_TEXT("gopher"), NULL, 0, NULL),
       SEAPROX_ERR_CONFIG);
    IS(seaprox_forward_local(here, dialed, SEAPROX_TEXT("127.0.0.1:0"), SEAPROX_TEXT("nowhere"), NULL), SEAPROX_ERR_INVALID);
    IS(seaprox_forward_local(here, dialed, SEAPROX_TEXT("udp:127.0.0.1:0"), target, strlen(target), NULL), SEAPROX_ERR_INVALID);
    IS(seaprox_forward_close(here, local), 0);
    IS(seaprox_forward_close(here, local), SEAPROX_ERR_OVER);
    /* A forward goes with its link. */
    IS(seaprox_link_close(here, dialed), 0);
    IS(seaprox_link_close(here, dialed), SEAPROX_ERR_ALREADY);
    until(&told[0].counts[SEAPROX_LINK_EVENT_CLOSED], 1);
    until(&told[1].counts[SEAPROX_LINK_EVENT_ENDED], 1);
    IS(told[1].reason, SEAPROX_DRAINED);
    IS(seaprox_forward_state(here, remote), SEAPROX_ERR_OVER);
    IS(seaprox_link_state(there, served), SEAPROX_ERR_OVER);
    free_pair();
    close(listening);
}

/* Sends a datagram over a forward of UDP, and its answer back. */
static void datagrams(void)
{
    seaprox_policy policy = {0};
    struct sockaddr_in address = {0};
    socklen_t len = sizeof address;
    seaprox_id forward;
    char target[40], text[8] = "";
    int end = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int client = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    IS(bind(end, (struct sockaddr *)&address, sizeof address), 0);
    IS(getsockname(end, (struct sockaddr *)&address, &len), 0);
    policy.size = sizeof policy;
    policy.open = open_loopback;
    pair(&policy, NULL, NULL);
    snprintf(target, sizeof target, "udp:127.0.0.1:%u", (unsigned)ntohs(address.sin_port));
    IS(seaprox_forward_local(here, dialed, SEAPROX_TEXT("udp:127.0.0.1:0"), target, strlen(target), &forward), 0);
    address.sin_port = htons((uint16_t)seaprox_forward_port(here, forward));
    IS(sendto(client, "one", 3, 0, (struct sockaddr *)&address, sizeof address), 3);
    while (recvfrom(end, text, sizeof text, 0, (struct sockaddr *)&address, &len) < 3)
        one_turn();
    CHECK(memcmp(text, "one", 3) == 0);
    IS(sendto(end, "two", 3, 0, (struct sockaddr *)&address, len), 3);
    while (recv(client, text, sizeof text, 0) < 3)
        one_turn();
    CHECK(memcmp(text, "two", 3) == 0);
    free_pair();
    close(end);
    close(client);
}

static void refusals(void)
{
    seaprox_policy policy = {0};
    seaprox_id forward;
    uint16_t port;
    char text[256];
    int listening = listen_here(&port);
    policy.size = sizeof policy;
    policy.open = open_loopback;
    policy.reach = reach_none;
    pair(&policy, NULL, NULL);
    snprintf(text, sizeof text, "127.0.0.1:%u", (unsigned)port);
    IS(try_open(text), 0);
    IS(try_open("192.0.2.1:80"), SEAPROX_NOT_PERMITTED);
    IS(try_open("localhost:80"), SEAPROX_NOT_PERMITTED); /* by its address */
    CHECK(asked_to_open >= 3);
    /* No callback permits the peer to listen. */
    IS(seaprox_forward_remote(here, dialed, SEAPROX_TEXT("127.0.0.1:0"), text, strlen(text), &forward), 0);
    await_forward(forward, SEAPROX_FORWARD_FAILED);
    IS(seaprox_forward_failure(here, forward, text, sizeof text, NULL), 0);
    CHECK(strncmp(text, "not_permitted", 13) == 0);
    free_pair();
    /* A policy without callbacks refuses everything but links. */
    memset(told, 0, sizeof told);
    pair(NULL, NULL, NULL);
    IS(try_open("127.0.0.1:80"), SEAPROX_NOT_PERMITTED);
    free_pair();
    close(listening);
}

/* ---- events ---- */

static int admit_some(const uint8_t *key, void *user)
{
    CHECK(user == &told[1] && key);
    return told[1].counts[0]; /* what the check says */
}

static void keys_are_checked(void)
{
    seaprox_link_options options;
    seaprox_policy policy = {0};
    char address[32];
    uint8_t key[SEAPROX_KEY_BYTES];
    seaprox_id again;
    make_keys();
    here = new_loop();
    there = new_loop();
    policy.size = sizeof policy;
    policy.admit = admit_some;
    options = options_of(1);
    options.peer_key = NULL;
    options.policy = &policy;
    serve(&options);
    options = options_of(0);
    dial(&options, seaprox_server_port(there, server));
    until(&told[0].counts[SEAPROX_LINK_EVENT_REJECTED], 1);
    IS(seaprox_link_key(there, server, key), SEAPROX_ERR_INVALID);
    told[1].counts[0] = 1;
    IS(seaprox_link_redial(here, dialed), 0);
    until(&told[0].counts[SEAPROX_LINK_EVENT_UP], 1);
    IS(seaprox_link_key(here, dialed, key), 0);
    IS(memcmp(key, publics[1], sizeof key), 0);
    IS(seaprox_link_redial(here, dialed), SEAPROX_ERR_ALREADY);
    /* A second link to the same place is the first one. */
    snprintf(address, sizeof address, "127.0.0.1:%d", seaprox_server_port(there, server));
    options.address = address;
    options.address_len = strlen(address);
    IS(seaprox_link_dial(here, &options, &again), SEAPROX_ERR_ALREADY);
    IS(again, 0);
    /* The key is admitted no more. */
    told[1].counts[0] = 0;
    IS(seaprox_recheck_links(there), 0);
    until(&told[0].counts[SEAPROX_LINK_EVENT_ENDED], 1);
    IS(told[0].reason, SEAPROX_NOT_PERMITTED);
    IS(seaprox_link_close(here, dialed), 0);
    until(&told[0].counts[SEAPROX_LINK_EVENT_CLOSED], 1);
    /* The peer has another key than the one that this node expects. */
    told[1].counts[0] = 1;
    options.peer_key = publics[0];
    IS(seaprox_link_dial(here, &options, &dialed), 0);
    until(&told[0].counts[SEAPROX_LINK_EVENT_WRONG_KEY], 1);
    options.peer_key = NULL;
    IS(seaprox_link_dial(here, &options, &dialed), SEAPROX_ERR_INVALID);
    IS(seaprox_link_serve(here, &options, &dialed), SEAPROX_ERR_INVALID);
    IS(seaprox_server_close(there, server, 1), 0);
    IS(seaprox_server_port(there, server), SEAPROX_ERR_OVER);
    free_pair();
}

static void messages(void)
{
    char text[5000], *status;
    size_t len;
    pair(NULL, NULL, NULL);
    IS(seaprox_send_message(here, dialed, SEAPROX_TEXT("good evening")), 0);
    until(&told[1].counts[SEAPROX_LINK_EVENT_MESSAGE], 1);
    CHECK(strcmp(told[1].text, "good evening") == 0);
    IS(seaprox_send_message(there, served, SEAPROX_TEXT("and to you")), 0);
    until(&told[0].counts[SEAPROX_LINK_EVENT_MESSAGE], 1);
    CHECK(strcmp(told[0].text, "and to you") == 0);
    memset(text, 'x', sizeof text);
    IS(seaprox_send_message(here, dialed, text, sizeof text), SEAPROX_ERR_INVALID);
    IS(seaprox_send_message(here, dialed, "\xff", 1), SEAPROX_ERR_INVALID);
    IS(seaprox_link_json(here, dialed, NULL, 0, &len), 0);
    status = malloc(len + 1024);
    IS(seaprox_link_json(here, dialed, status, len + 1024, &len), 0);
    CHECK(strstr(status, "\"state\":\"up\"") && strstr(status, "\"cipher\":\"") && strstr(status, "\"subflows\":[{"));
    free(status);
    free_pair();
}

/* ---- handles and sizes ---- */

/* Calls every function of links with an id, which is none of theirs. */
static void garbage(seaprox_loop *loop, seaprox_id id, int wanted)
{
    seaprox_handler handler = {0};
    seaprox_id made = 7;
    uint64_t sent, received;
    uint8_t key[SEAPROX_KEY_BYTES];
    size_t len = 7;
    handler.size = sizeof handler;
    IS(seaprox_link_state(loop, id), wanted);
    IS(seaprox_link_close(loop, id), wanted);
    IS(seaprox_link_key(loop, id, key), wanted);
    IS(seaprox_link_json(loop, id, NULL, 0, &len), wanted);
    IS(len, 0);
    IS(seaprox_link_redial(loop, id), wanted);
    IS(seaprox_link_add_path(loop, id, SEAPROX_TEXT("127.0.0.1")), wanted);
    IS(seaprox_link_remove_path(loop, id, SEAPROX_TEXT("127.0.0.1")), wanted);
    IS(seaprox_send_message(loop, id, SEAPROX_TEXT("x")), wanted);
    IS(seaprox_stream_open(loop, id, SEAPROX_TEXT("127.0.0.1:9"), &handler, NULL, &made), wanted);
    IS(made, 0);
    IS(seaprox_service_open(loop, id, SEAPROX_TEXT("echo"), &handler, NULL, &made), wanted);
    IS(seaprox_forward_local(loop, id, SEAPROX_TEXT("127.0.0.1:0"), SEAPROX_TEXT("a:1"), &made), wanted);
    IS(seaprox_forward_remote(loop, id, SEAPROX_TEXT("127.0.0.1:0"), SEAPROX_TEXT("127.0.0.1:9"), &made), wanted);
    IS(seaprox_forward_dynamic(loop, id, SEAPROX_TEXT("127.0.0.1:0"), SEAPROX_TEXT("socks"), NULL, 0, &made), wanted);
    IS(made, 0);
    IS(seaprox_forward_close(loop, id), wanted);
    IS(seaprox_forward_state(loop, id), wanted);
    IS(seaprox_forward_port(loop, id), wanted);
    IS(seaprox_forward_failure(loop, id, NULL, 0, &len), wanted);
    IS(seaprox_forward_bytes(loop, id, &sent, &received), wanted);
    IS(seaprox_server_close(loop, id, 1), wanted);
    IS(seaprox_server_port(loop, id), wanted);
    IS(seaprox_server_address(loop, id, NULL, 0, &len), wanted);
    IS(seaprox_permit(loop, id, 1), wanted == SEAPROX_ERR_INVALID ? SEAPROX_ERR_STALE : wanted);
    IS(seaprox_connection_link(loop, id), 0);
}

static void *elsewhere(void *user)
{
    seaprox_link_options options = {0};
    seaprox_id id;
    options.size = sizeof options;
    garbage(user, 1, SEAPROX_ERR_THREAD);
    IS(seaprox_link_dial(user, &options, &id), SEAPROX_ERR_CONFIG);
    IS(seaprox_link_serve(user, &options, &id), SEAPROX_ERR_THREAD);
    IS(seaprox_recheck_links(user), SEAPROX_ERR_THREAD);
    return NULL;
}

static void option_sizes(seaprox_loop *loop)
{
    struct {
        seaprox_link_options options;
        char more[64];
    } later = {0};
    seaprox_link_options options = options_of(0);
    seaprox_policy policy = {0};
    seaprox_handler handler = {0};
    seaprox_id link = 7;
    options.address = "127.0.0.1:9";
    options.address_len = strlen(options.address);
    options.policy = &policy;
    IS(seaprox_link_dial(loop, &options, &link), SEAPROX_ERR_INVALID); /* a policy without a size */
    IS(link, 0);
    policy.size = sizeof policy;
    options.handler = &handler;
    IS(seaprox_link_dial(loop, &options, &link), SEAPROX_ERR_INVALID); /* a handler without one */
    options.handler = NULL;
    options.size = 0;
    IS(seaprox_link_dial(loop, &options, &link), SEAPROX_ERR_INVALID);
    options.size = 5000;
    IS(seaprox_link_dial(loop, &options, &link), SEAPROX_ERR_INVALID);
    options.size = 24; /* an early version: the address alone, and no key that the peer must have */
    IS(seaprox_link_dial(loop, &options, &link), SEAPROX_ERR_INVALID);
    later.options = options;
    later.options.size = sizeof later;
    later.more[60] = 1;
    IS(seaprox_link_dial(loop, &later.options, &link), SEAPROX_ERR_INVALID);
    options.size = sizeof options;
    options.toml = "subflows = true\n";
    options.toml_len = strlen(options.toml);
    IS(seaprox_link_dial(loop, &options, &link), SEAPROX_ERR_CONFIG);
    options.toml = "[[listener]]\nfront = \"socks\"\n";
    options.toml_len = strlen(options.toml);
    IS(seaprox_link_dial(loop, &options, &link), SEAPROX_ERR_CONFIG);
    IS(seaprox_link_serve(loop, &options, &link), SEAPROX_ERR_CONFIG);
    options.toml = "forward = [{ local = \"1:a:1\" }]\n";
    options.toml_len = strlen(options.toml);
    IS(seaprox_link_dial(loop, &options, &link), SEAPROX_ERR_CONFIG);
    options.toml = "\xff";
    options.toml_len = 1;
    IS(seaprox_link_dial(loop, &options, &link), SEAPROX_ERR_INVALID);
    options.toml = "simultaneous = true\nlocal-port = 23232\nsubflows = 2\n";
    options.toml_len = strlen(options.toml);
    CHECK(seaprox_link_dial(loop, &options, &link) < 0); /* one port, two subflows */
    options.toml = "simultaneous = true\nlocal-port = 23232\nlink-hold = \"5s\"\n";
    options.toml_len = strlen(options.toml);
    IS(seaprox_link_dial(loop, &options, &link), 0);
    IS(seaprox_link_state(loop, link), SEAPROX_LINK_CONNECTING);
    IS(seaprox_link_close(loop, link), 0);
    options.toml_len = 0;
    IS(seaprox_link_dial(loop, &options, NULL), 0); /* nobody wants the id */
}

static void handles(void)
{
    seaprox_loop *loop = new_loop();
    seaprox_handler handler = {0};
    seaprox_id timer, id;
    unsigned seed = 2, count;
    pthread_t thread;
    here = loop;
    make_keys();
    garbage(loop, 0, SEAPROX_ERR_STALE);
    garbage(loop, UINT64_MAX, SEAPROX_ERR_STALE);
    IS(seaprox_after(loop, 60000, NULL, NULL, &timer), SEAPROX_ERR_INVALID);
    IS(seaprox_poll_remove(loop, 1), SEAPROX_ERR_STALE);
    for (count = 0; count < 2000; count++) {
        id = (seaprox_id)rand_r(&seed) << 32 | (seaprox_id)rand_r(&seed) << 3;
        CHECK(seaprox_link_state(loop, id) < 0 && seaprox_forward_state(loop, id) < 0 && seaprox_server_port(loop, id) < 0);
        CHECK(seaprox_link_close(loop, id) < 0 && seaprox_forward_close(loop, id) < 0 && seaprox_permit(loop, id, 1) < 0);
    }
    IS(pthread_create(&thread, NULL, elsewhere, loop), 0);
    IS(pthread_join(thread, NULL), 0);
    handler.size = sizeof handler;
    IS(seaprox_set_service(loop, NULL, 0, &handler, NULL, NULL), SEAPROX_ERR_INVALID);
    IS(seaprox_set_service(loop, SEAPROX_TEXT("x"), NULL, NULL, NULL), SEAPROX_ERR_STALE);
    option_sizes(loop);
    IS(seaprox_free(loop), 0);
    garbage(loop, 1, SEAPROX_ERR_STALE);
    IS(seaprox_recheck_links(loop), SEAPROX_ERR_STALE);
}

/* ---- links of a configuration ---- */

static void named(void)
{
    seaprox_link_options options;
    seaprox_id link, group;
    char toml[1024], text[160], file[] = "/tmp/seaprox-named-XXXXXX", fingerprint[64];
    int port, fd = mkstemp(file);
    make_keys();
    CHECK(fd >= 0 && unlink(file) == 0);
    close(fd);
    IS(seaprox_key_load(file, strlen(file), keys[0]), 0);
    IS(seaprox_key_public(keys[0], publics[0]), 0);
    IS(seaprox_key_fingerprint(publics[1], fingerprint, sizeof fingerprint, NULL), 0);
    there = new_loop();
    options = options_of(1);
    serve(&options);
    port = seaprox_server_port(there, server);
    here = new_loop();
    snprintf(toml, sizeof toml,
             "key = \"%s\"\n[[link]]\nname = \"one\"\nconnect = \"127.0.0.1:%d\"\npeer-key = \"%s\"\n"
             "[[link]]\nname = \"two\"\nconnect = [\"127.0.0.2:%d\", \"127.0.0.3:%d\"]\npeer-key = \"%s\"\n",
             file, port, fingerprint, port, port, fingerprint);
    IS(seaprox_link_named(here, SEAPROX_TEXT("one")), 0);
    IS(seaprox_apply(here, toml, strlen(toml)), 0);
    link = seaprox_link_named(here, SEAPROX_TEXT("one"));
    group = seaprox_link_named(here, SEAPROX_TEXT("two"));
    IS(seaprox_kind(link), SEAPROX_KIND_LINK);
    IS(seaprox_kind(group), SEAPROX_KIND_GROUP);
    IS(seaprox_link_named(here, SEAPROX_TEXT("three")), 0);
    IS(seaprox_last_error(text, sizeof text, NULL), 0);
    CHECK(*text == 0);
    while (seaprox_link_state(here, link) != SEAPROX_LINK_UP)
        one_turn();
    IS(seaprox_send_message(here, link, SEAPROX_TEXT("by name")), 0);
    until(&told[1].counts[SEAPROX_LINK_EVENT_MESSAGE], 1);
    IS(seaprox_apply(here, NULL, 0), 0);
    IS(seaprox_link_named(here, SEAPROX_TEXT("one")), 0);
    free_pair();
    unlink(file);
}

/* ---- limits ---- */

static void hold_connected(seaprox_loop *loop, seaprox_id connection, int reason, const char *detail, size_t len, void *user)
{
    (void)loop, (void)connection, (void)detail, (void)len;
    ((int *)user)[reason == 0 ? 0 : 1]++;
    IS(reason == 0 || reason == SEAPROX_LIMIT_REACHED, 1);
}

/* A peer may have two streams at once. */
static void limits(void)
{
    seaprox_policy policy = {0};
    seaprox_handler handler = {0};
    seaprox_id connection;
    uint16_t port;
    char target[32];
    int listening = listen_here(&port), counts[2] = {0, 0}, index;
    policy.size = sizeof policy;
    policy.open = open_loopback;
    policy.max_num_streams = 2;
    pair(&policy, NULL, NULL);
    snprintf(target, sizeof target, "127.0.0.1:%u", (unsigned)port);
    handler.size = sizeof handler;
    handler.connected = hold_connected;
    for (index = 0; index < 3; index++)
        IS(seaprox_stream_open(here, dialed, target, strlen(target), &handler, counts, &connection), 0);
    until(&counts[0], 2);
    for (index = 0; index < 100; index++)
        one_turn();
    IS(counts[0], 2); /* the third one waits, or is refused */
    free_pair();
    close(listening);
}

int main(int argc, char **argv)
{
    static const struct named all[] = {{"keys", key_checks}, {"forwards", forwards}, {"datagrams", datagrams},
                                       {"refusals", refusals}, {"admission", keys_are_checked}, {"messages", messages},
                                       {"handles", handles}, {"named", named}, {"limits", limits}};
    return run_named(argc, argv, all, sizeof all / sizeof *all);
}
