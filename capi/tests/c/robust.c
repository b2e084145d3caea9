/* Checks of what must do no harm: sizes that no version has, descriptors that are not open, loops that end. usage: robust NAME. Ends
 * with 0 if all of the check is true. */
#include "sources.h"
#include <sys/un.h>

/* ---- sizes ---- */

static size_t consume(seaprox_loop *loop, seaprox_id side, const uint8_t *input, size_t len, void *user)
{
    (void)loop, (void)side, (void)input, (void)user;
    return len;
}

static void hook_connected(seaprox_id connection, void *user)
{
    CHECK(connection && user == &closes);
}

/* A struct of which the program says that it has so many bytes; there are 64 zeros behind it. */
union sized {
    uint32_t size;
    seaprox_options options;
    seaprox_listen_options listen;
    seaprox_handler handler;
    seaprox_hook hook;
    seaprox_policy policy;
    seaprox_link_options link;
    char bytes[sizeof(seaprox_listen_options) + sizeof(seaprox_handler) + 128];
};

static int expected(uint32_t size, size_t whole)
{
    return size >= whole ? 0 : SEAPROX_ERR_INVALID;
}

static void size_of_options(uint32_t size)
{
    union sized it = {0};
    seaprox_loop *loop;
    int result;
    it.options.max_num_connections = 4;
    it.options.num_threads = 1;
    it.size = size;
    result = seaprox_new(&it.options, &loop);
    IS(result, expected(size, sizeof it.options));
    CHECK((result == 0) == (loop != NULL));
    if (loop)
        IS(seaprox_free(loop), 0);
}

static void size_of_listen_options(seaprox_loop *loop, uint32_t size)
{
    union sized it = {0};
    seaprox_id id;
    it.listen.address = "127.0.0.1:0";
    it.listen.address_len = 11;
    it.listen.kind = "sized";
    it.listen.kind_len = 5;
    it.size = size;
    IS(seaprox_listen(loop, &it.listen, NULL, NULL, &id), expected(size, sizeof it.listen));
    if (id)
        IS(seaprox_listener_close(loop, id), 0);
}

static void size_of_handler(seaprox_loop *loop, uint32_t size)
{
    union sized it = {0};
    seaprox_id connection;
    int ends[2], result;
    IS(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    it.handler.readable = consume;
    it.handler.closed = count_close;
    it.size = size;
    result = seaprox_adopt(loop, ends[0], -1, NULL, 0, &it.handler, NULL, &connection);
    IS(result, expected(size, sizeof it.handler));
    if (result == 0) {
        int before = closes;
        IS(write(ends[1], "x", 1), 1);
        close(ends[1]);
        run_until(loop, &closes, before + 1);
    } else
        close(ends[1]);
}

static void size_of_hook(seaprox_loop *loop, uint32_t size)
{
    seaprox_handler handler = {0};
    union sized it = {0};
    seaprox_id connection;
    int near, far[2], before = closes;
    handler.size = sizeof handler;
    handler.closed = count_close;
    near = adopted(loop, &handler, NULL, &connection);
    IS(seaprox_run_one(loop, 0), 1);
    it.hook.connected = hook_connected;
    it.size = size;
    IS(seaprox_connection_set_hook(loop, connection, &it.hook, &closes), expected(size, sizeof it.hook));
    IS(socketpair(AF_UNIX, SOCK_STREAM, 0, far), 0);
    IS(seaprox_connection_connect_fd(loop, connection, far[0], -1), 0);
    IS(seaprox_run_one(loop, 0), 1);
    close(near), close(far[1]);
    run_until(loop, &closes, before + 1);
}

static void serve(seaprox_loop *loop, const union sized *options, int wanted)
{
    seaprox_id server;
    IS(seaprox_link_serve(loop, &options->link, &server), wanted);
    if (server)
        IS(seaprox_server_close(loop, server, 1), 0);
}

static int admit_nobody(const uint8_t *key, void *user)
{
    (void)key, (void)user;
    return SEAPROX_REFUSE;
}

static void sizes_of_links(seaprox_loop *loop)
{
    union sized options = {0}, policy = {0};
    uint32_t size;
    options.link.address = "127.0.0.1:0";
    options.link.address_len = 11;
    options.link.policy = &policy.policy;
    policy.policy.admit = admit_nobody;
    options.size = sizeof(seaprox_link_options);
    for (size = 0; size <= sizeof(seaprox_policy) + 64; size++) {
        policy.size = size;
        serve(loop, &options, expected(size, sizeof(seaprox_policy)));
    }
    policy.size = sizeof(seaprox_policy);
    for (size = 0; size <= sizeof(seaprox_link_options) + 64; size++) {
        options.size = size;
        serve(loop, &options, expected(size, sizeof(seaprox_link_options)));
    }
    options.size = sizeof(seaprox_link_options);
    options.link.reserved = 1;
    serve(loop, &options, SEAPROX_ERR_INVALID);
}

static void sizes(void)
{
    seaprox_loop *loop = new_loop();
    seaprox_handler handler = {0};
    seaprox_hook hook = {0};
    seaprox_options options = {0};
    uint32_t size;
    for (size = 0; size <= sizeof(seaprox_options) + 64; size++)
        size_of_options(size);
    for (size = 0; size <= sizeof(seaprox_listen_options) + 64; size++)
        size_of_listen_options(loop, size);
    for (size = 0; size <= sizeof(seaprox_handler) + 64; size++)
        size_of_handler(loop, size);
    for (size = 0; size <= sizeof(seaprox_hook) + 64; size++)
        size_of_hook(loop, size);
    sizes_of_links(loop);
    handler.size = sizeof handler;
    handler.reserved = 1;
    IS(seaprox_adopt(loop, dup(1), -1, NULL, 0, &handler, NULL, NULL), SEAPROX_ERR_INVALID);
    hook.size = sizeof hook;
    hook.reserved = 1;
    IS(seaprox_connection_set_hook(loop, 0, &hook, NULL), SEAPROX_ERR_INVALID);
    options.size = sizeof options;
    options.reserved = 1;
    seaprox_loop *other = NULL;
    IS(seaprox_new(&options, &other), SEAPROX_ERR_INVALID);
    options.reserved = 0;
    options.max_num_connections = UINT32_MAX;
    IS(seaprox_new(&options, &other), SEAPROX_ERR_INVALID);
    options.max_num_connections = 10000001;
    IS(seaprox_new(&options, &other), SEAPROX_ERR_INVALID);
    options.max_num_connections = 4;
    options.num_threads = 1025;
    IS(seaprox_new(&options, &other), SEAPROX_ERR_INVALID);
    options.num_threads = 1;
    IS(seaprox_new(&options, &other), 0);
    IS(seaprox_free(other), 0);
    IS(seaprox_free(loop), 0);
}

/* ---- descriptors ---- */

static void ready(seaprox_loop *loop, int fd, int events, void *user)
{
    (void)loop, (void)fd;
    *(int *)user |= events;
}

static void descriptors(void)
{
    seaprox_loop *loop = new_loop();
    seaprox_handler handler = {0};
    seaprox_id connection;
    int pipes[2], ends[2], seen = 0, other = 0;
    handler.size = sizeof handler;
    IS(seaprox_adopt(loop, 999, -1, NULL, 0, &handler, NULL, &connection), -EBADF);
    IS(connection, 0);
    IS(pipe(pipes), 0);
    IS(seaprox_adopt(loop, -1, pipes[1], NULL, 0, &handler, NULL, &connection), SEAPROX_ERR_INVALID);
    CHECK(!is_open(pipes[1]));
    IS(seaprox_adopt(loop, pipes[0], 999, NULL, 0, &handler, NULL, &connection), -EBADF);
    CHECK(!is_open(pipes[0]));
    close(adopted(loop, &handler, NULL, &connection));
    IS(seaprox_connection_connect_fd(loop, connection, 999, -1), -EBADF);
    IS(seaprox_connector_connected(NULL, 999), -EBADF);
    /* An add that is refused leaves the watch as it was. */
    IS(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    IS(seaprox_poll_add(loop, ends[0], SEAPROX_READABLE, ready, &seen), 0);
    IS(seaprox_poll_add(loop, ends[0], SEAPROX_WRITABLE, ready, &other), SEAPROX_ERR_ALREADY);
    IS(seaprox_run_one(loop, 10), 1);
    IS(seaprox_run_one(loop, 10), 1);
    CHECK(seen == 0 && other == 0);
    IS(write(ends[1], "x", 1), 1);
    while (!seen)
        IS(seaprox_run_one(loop, 100), 1);
    CHECK(seen == SEAPROX_READABLE && other == 0);
    IS(seaprox_free(loop), 0);
}

/* ---- results: what stands behind pointers after an error, and the errors of functions that return ids ---- */

static int has_text(void)
{
    size_t len = 7;
    IS(seaprox_last_error(NULL, 0, &len), 0);
    return len > 0;
}

static struct {
    seaprox_loop *loop;
    seaprox_id connection;
} elsewhere;

static void *ask_elsewhere(void *user)
{
    CHECK(!user && !has_text());
    IS(seaprox_connection_source(elsewhere.loop, elsewhere.connection), 0);
    CHECK(has_text());
    IS(seaprox_side_state(elsewhere.loop, 0), SEAPROX_ERR_THREAD);
    IS(seaprox_side_role(elsewhere.loop, 0), SEAPROX_ERR_THREAD);
    CHECK(!seaprox_side_data(elsewhere.loop, 0) && has_text());
    return NULL;
}

static void results(void)
{
    seaprox_loop *loop = new_loop();
    seaprox_handler handler = {0};
    seaprox_id id;
    pthread_t thread;
    uint64_t sent = 7, received = 7;
    size_t bytes = 7;
    int timeout = 7;
    handler.size = sizeof handler;
    IS(seaprox_connection_bytes(loop, 0, &sent, &received), SEAPROX_ERR_STALE);
    IS(seaprox_side_queued(loop, 0, &bytes), SEAPROX_ERR_STALE);
    IS(seaprox_timeout(NULL, &timeout), SEAPROX_ERR_INVALID);
    CHECK(sent == 0 && received == 0 && bytes == 0 && timeout == 0);
    close(adopted(loop, &handler, NULL, &id));
    IS(seaprox_connection_source(loop, 12345), 0);
    CHECK(has_text());
    IS(seaprox_connection_dest(loop, id), 0); /* there is none */
    CHECK(!has_text());
    elsewhere.loop = loop;
    elsewhere.connection = id;
    IS(pthread_create(&thread, NULL, ask_elsewhere, NULL), 0);
    IS(pthread_join(thread, NULL), 0);
    IS(seaprox_free(loop), 0);
}

/* ---- ends: what comes to a loop that ends ---- */

static int refused;

static void adopt_refused(seaprox_loop *loop, const seaprox_handler *handler)
{
    seaprox_id id = 7;
    int pair[2];
    IS(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    IS(seaprox_adopt(loop, pair[0], -1, NULL, 0, handler, NULL, &id), SEAPROX_ERR_OVER);
    CHECK(id == 0 && !is_open(pair[0]));
    close(pair[1]);
    refused++;
}

static void adopt_again(seaprox_loop *loop, seaprox_id connection, const seaprox_end *end, void *user)
{
    seaprox_handler handler = {0};
    (void)connection, (void)end, (void)user;
    handler.size = sizeof handler;
    handler.closed = adopt_again;
    closes++;
    adopt_refused(loop, &handler);
}

static void ends(void)
{
    seaprox_loop *loop = new_loop();
    seaprox_handler handler = {0};
    int far;
    handler.size = sizeof handler;
    handler.closed = adopt_again;
    far = adopted(loop, &handler, NULL, NULL);
    IS(seaprox_free(loop), 0);
    CHECK(closes == 1 && refused == 1);
    close(far);
    loop = new_loop();
    handler.closed = count_close;
    IS(seaprox_finish(loop, 0), 0);
    IS(seaprox_run(loop), 0);
    adopt_refused(loop, &handler);
    IS(seaprox_free(loop), 0);
    IS(closes, 1);
}

/* ---- handlers: closed is for the handler that the source has at the end, and once for both sides ---- */

static int dest_in, dest_out;

static void connect_pair(seaprox_loop *loop, seaprox_id connection, void *user)
{
    (void)user;
    IS(seaprox_connection_connect_fd(loop, connection, dest_in, dest_out), 0);
}

static char told[32];

static void tell_close(seaprox_loop *loop, seaprox_id connection, const seaprox_end *end, void *user)
{
    (void)loop, (void)connection, (void)end;
    strcat(told, user);
    closes++;
}

static void replace_handlers(seaprox_loop *loop, seaprox_id connection, int reason, const char *detail, size_t len, void *user)
{
    seaprox_handler handler = {0};
    (void)detail, (void)len;
    IS(reason, 0);
    CHECK(strcmp(user, "first ") == 0);
    handler.size = sizeof handler;
    handler.closed = tell_close;
    IS(seaprox_connection_set_handler(loop, connection, SEAPROX_DEST, &handler, "dest "), 0);
    IS(seaprox_connection_set_handler(loop, connection, SEAPROX_SOURCE, &handler, "source "), 0);
    IS(seaprox_connection_relay(loop, connection), 0);
}

static void handlers(void)
{
    seaprox_loop *loop = new_loop();
    seaprox_handler handler = {0};
    int near, pair[2];
    IS(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    dest_in = pair[0], dest_out = -1;
    handler.size = sizeof handler;
    handler.opened = connect_pair;
    handler.connected = replace_handlers;
    handler.closed = tell_close;
    near = adopted(loop, &handler, "first ", NULL);
    IS(write(near, "x", 1), 1);
    IS(receive(loop, pair[1], told, 1), 1);
    told[0] = 0;
    close(near), close(pair[1]);
    run_until(loop, &closes, 1);
    IS(seaprox_free(loop), 0);
    CHECK(strcmp(told, "source ") == 0);
}

/* ---- apply ---- */

static int has(seaprox_loop *loop, const char *text)
{
    static char status[200000];
    IS(seaprox_status_json(loop, status, sizeof status, NULL), 0);
    return strstr(status, text) != NULL;
}

static void apply(void)
{
    static const char first[] = "[[listener]]\nfront = \"socks\"\nname = \"first\"\nlisten = \"127.0.0.1:0\"\n";
    seaprox_loop *loop = new_loop();
    char text[512];
    seaprox_id id;
    uint16_t port;
    int taken = listen_here(&port);
    snprintf(text, sizeof text,
             "[[listener]]\nfront = \"socks\"\nname = \"good\"\nlisten = \"127.0.0.1:0\"\n"
             "[[listener]]\nfront = \"socks\"\nname = \"bad\"\nlisten = \"127.0.0.1:%u\"\n",
             (unsigned)port);
    IS(seaprox_apply(loop, text, strlen(text)), SEAPROX_ERR_CONFIG);
    CHECK(!has(loop, "\"good\"") && !has(loop, "\"bad\""));
    IS(seaprox_apply(loop, first, strlen(first)), 0);
    IS(seaprox_apply(loop, text, strlen(text)), SEAPROX_ERR_CONFIG);
    CHECK(has(loop, "\"first\"") && !has(loop, "\"good\""));
    /* A text for one listener has no other section, which would be without effect. */
    IS(seaprox_listen_front_end(loop, SEAPROX_TEXT("socks"), SEAPROX_TEXT("127.0.0.1:0"),
                                SEAPROX_TEXT("name = \"named\"\n[admin]\nlisten = \"127.0.0.1:0\"\n"), &id),
       SEAPROX_ERR_CONFIG);
    IS(seaprox_listen_front_end(loop, SEAPROX_TEXT("socks"), SEAPROX_TEXT("127.0.0.1:0"),
                                SEAPROX_TEXT("name = \"named\"\n[defaults]\nconnect-timeout = \"1s\"\n"), &id),
       SEAPROX_ERR_CONFIG);
    IS(seaprox_listen_front_end(loop, SEAPROX_TEXT("socks"), SEAPROX_TEXT("127.0.0.1:0"),
                                SEAPROX_TEXT("name = \"named\"\nconnect-timeout = \"1s\"\n"), &id), 0);
    close(taken);
    IS(seaprox_free(loop), 0);
}

/* The timeouts of seaprox_new are those of listeners by name, and not those of a configuration. */
static void timeouts(void)
{
    static const char text[] = "[[listener]]\nfront = \"socks\"\nlisten = \"unix:robust.sock\"\n";
    struct sockaddr_un address = {AF_UNIX, "robust.sock"};
    seaprox_options options = {0};
    seaprox_loop *loop;
    seaprox_id id;
    int named, applied = socket(AF_UNIX, SOCK_STREAM, 0);
    char byte;
    options.size = sizeof options;
    options.num_threads = 1;
    options.handshake_timeout_ms = 50;
    IS(seaprox_new(&options, &loop), 0);
    IS(seaprox_apply(loop, text, strlen(text)), 0);
    IS(seaprox_listen_front_end(loop, SEAPROX_TEXT("socks"), SEAPROX_TEXT("127.0.0.1:0"), NULL, 0, &id), 0);
    IS(connect(applied, (struct sockaddr *)&address, sizeof address), 0);
    named = connect_to(seaprox_listener_port(loop, id));
    IS(receive(loop, named, &byte, 1), 0); /* closed, after the timeout */
    IS(recv(applied, &byte, 1, MSG_DONTWAIT), -1);
    IS(errno, EAGAIN);
    IS(seaprox_free(loop), 0);
    close(named), close(applied);
}

int main(int argc, char **argv)
{
    static const struct named all[] = {{"sizes", sizes}, {"descriptors", descriptors}, {"results", results}, {"ends", ends},
                                       {"handlers", handlers}, {"apply", apply}, {"timeouts", timeouts}};
    return run_named(argc, argv, all, sizeof all / sizeof *all);
}
