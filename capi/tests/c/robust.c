/* Checks of what must do no harm: peers that are rude, sizes that no version has, loops that end. usage: robust NAME. Ends with 0
 * if all of the check is true. */
#include "kit.h"
#include <signal.h>
#include <sys/resource.h>

static int closes;

static void count_close(seaprox_loop *loop, seaprox_id connection, const seaprox_end *end, void *user)
{
    (void)loop, (void)connection, (void)user;
    CHECK(end->reason > 0);
    closes++;
}

static seaprox_id listener(seaprox_loop *loop, const seaprox_handler *handler, void *user)
{
    seaprox_listen_options options = {0};
    seaprox_id id;
    options.size = sizeof options;
    options.address = "127.0.0.1:0";
    options.address_len = strlen(options.address);
    IS(seaprox_listen(loop, &options, handler, user, &id), 0);
    return id;
}

/* Adopts one end of a pair. Returns the other end. */
static int adopted(seaprox_loop *loop, const seaprox_handler *handler, void *user, seaprox_id *connection)
{
    int ends[2];
    IS(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    IS(seaprox_adopt(loop, ends[0], -1, NULL, 0, handler, user, connection), 0);
    return ends[1];
}

/* ---- signals: SIGPIPE is at its default, as in any program in C ---- */

static int dest_in, dest_out;

static void connect_pipes(seaprox_loop *loop, seaprox_id connection, void *user)
{
    (void)user;
    IS(seaprox_connection_connect_fd(loop, connection, dest_in, dest_out), 0);
}

static void write_to_a_pipe_without_a_reader(seaprox_loop *loop)
{
    seaprox_handler handler = {0};
    int to[2], from[2], end;
    handler.size = sizeof handler;
    handler.opened = connect_pipes;
    handler.closed = count_close;
    IS(pipe(to), 0);
    IS(pipe(from), 0);
    dest_in = from[0], dest_out = to[1];
    end = adopted(loop, &handler, NULL, NULL);
    close(to[0]);
    IS(write(end, "hello", 5), 5);
    run_until(loop, &closes, 1);
    close(end), close(from[1]);
}

static char target[32];

static void connect_target(seaprox_loop *loop, seaprox_id connection, void *user)
{
    (void)user;
    IS(seaprox_connection_connect(loop, connection, target, strlen(target)), 0);
}

/* A server that sends without an end. */
static void *flood(void *user)
{
    static const char block[65536];
    int client;
    while ((client = accept(*(int *)user, NULL, NULL)) >= 0) {
        while (send(client, block, sizeof block, MSG_NOSIGNAL) > 0)
            ;
        close(client);
    }
    return NULL;
}

static void reset(int fd)
{
    struct linger none = {1, 0};
    IS(setsockopt(fd, SOL_SOCKET, SO_LINGER, &none, sizeof none), 0);
    close(fd);
}

/* Clients that read a part of what they are sent, end what they send, and reset: the loop splices to them then. */
static void *rude_clients(void *user)
{
    static char block[300000];
    int port = *(int *)user, count, reads;
    for (count = 0; count < 12; count++) {
        int fd = connect_to(port);
        CHECK(recv(fd, block, 1000, 0) > 0);
        shutdown(fd, SHUT_WR);
        for (reads = 0; reads < 20; reads++)
            CHECK(recv(fd, block, sizeof block, 0) > 0);
        reset(fd);
    }
    return NULL;
}

static void handle_signal(int number)
{
    (void)number;
}

static void sigpipe(void)
{
    struct sigaction action;
    seaprox_handler handler = {0};
    seaprox_loop *loop;
    uint16_t target_port;
    int server, port;
    pthread_t servers, clients;
    CHECK(signal(SIGPIPE, SIG_DFL) != SIG_ERR);
    loop = new_loop();
    write_to_a_pipe_without_a_reader(loop);
    server = listen_here(&target_port);
    snprintf(target, sizeof target, "127.0.0.1:%u", (unsigned)target_port);
    handler.size = sizeof handler;
    handler.opened = connect_target;
    handler.closed = count_close;
    port = seaprox_listener_port(loop, listener(loop, &handler, NULL));
    IS(pthread_create(&servers, NULL, flood, &server), 0);
    IS(pthread_create(&clients, NULL, rude_clients, &port), 0);
    run_until(loop, &closes, 13);
    IS(pthread_join(clients, NULL), 0);
    shutdown(server, SHUT_RDWR);
    IS(pthread_join(servers, NULL), 0);
    IS(seaprox_free(loop), 0);
    close(server);
    /* A handler of the program stays. */
    CHECK(signal(SIGPIPE, handle_signal) != SIG_ERR);
    IS(seaprox_free(new_loop()), 0);
    IS(sigaction(SIGPIPE, NULL, &action), 0);
    CHECK(action.sa_handler == handle_signal);
}

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
    IS(seaprox_new(&options, NULL), SEAPROX_ERR_INVALID);
    options.reserved = 0;
    options.max_num_connections = UINT32_MAX;
    IS(seaprox_new(&options, NULL), SEAPROX_ERR_INVALID);
    options.max_num_connections = 10000001;
    IS(seaprox_new(&options, NULL), SEAPROX_ERR_INVALID);
    IS(seaprox_free(loop), 0);
}

/* ---- descriptors ---- */

static int is_open(int fd)
{
    return fcntl(fd, F_GETFD) >= 0;
}

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

/* ---- requests of the connector ---- */

static int asked, dialed;
static seaprox_connect_request *request;

static void want(seaprox_loop *loop, seaprox_connect_request *made, seaprox_id side, const char *host, size_t len,
                 uint16_t port, void *user)
{
    (void)user;
    CHECK(seaprox_side_state(loop, side) == SEAPROX_CONNECTING && len == strlen(host) && port == 80);
    request = made;
    asked++;
}

static void dial(seaprox_loop *loop, seaprox_id connection, void *user)
{
    (void)user;
    IS(seaprox_connection_connect(loop, connection, SEAPROX_TEXT("slow.example:80")), 0);
}

static void dialed_out(seaprox_loop *loop, seaprox_id connection, int reason, const char *detail, size_t len, void *user)
{
    (void)loop, (void)connection, (void)detail, (void)len, (void)user;
    IS(reason, SEAPROX_TIMED_OUT);
    dialed++;
}

/* Nobody waits for this answer: the program keeps its descriptor. */
static void answer_late(void)
{
    int fd = dup(1);
    IS(seaprox_connector_connected(request, fd), SEAPROX_ERR_STALE);
    CHECK(is_open(fd));
    close(fd);
    IS(seaprox_connector_failed(request, SEAPROX_OTHER, 0), SEAPROX_ERR_STALE);
}

static void *leave_a_loop(void *user)
{
    seaprox_loop *loop = new_loop();
    seaprox_handler handler = {0};
    int before = asked;
    (void)user;
    handler.size = sizeof handler;
    handler.opened = dial;
    IS(seaprox_set_connector(loop, want, NULL), 0);
    adopted(loop, &handler, NULL, NULL);
    run_until(loop, &asked, before + 1);
    return NULL;
}

static void nothing(seaprox_loop *loop, void *user)
{
    (void)loop, (void)user;
}

static void requests(void)
{
    seaprox_options options = {0};
    seaprox_handler handler = {0};
    seaprox_loop *loop;
    seaprox_id connection;
    pthread_t thread;
    int far, posted = 0;
    options.size = sizeof options;
    options.connect_timeout_ms = 50;
    options.num_threads = 1;
    IS(seaprox_new(&options, &loop), 0);
    IS(seaprox_set_connector(loop, want, NULL), 0);
    handler.size = sizeof handler;
    handler.opened = dial;
    handler.connected = dialed_out;
    handler.closed = count_close;
    far = adopted(loop, &handler, NULL, &connection);
    run_until(loop, &dialed, 1);
    IS(asked, 1);
    answer_late(); /* the connect timeout has passed */
    IS(seaprox_connection_connect(loop, connection, SEAPROX_TEXT("slow.example:80")), 0);
    run_until(loop, &asked, 2);
    IS(seaprox_connection_close(loop, connection, SEAPROX_KILLED), 0);
    run_until(loop, &closes, 1);
    answer_late(); /* the connection is over */
    close(far);
    /* Functions that wait for the loop leave room for its dials. */
    far = adopted(loop, &handler, NULL, &connection);
    while (seaprox_post(loop, nothing, NULL) == 0)
        posted++;
    IS(posted, 4096);
    run_until(loop, &asked, 3);
    IS(dialed, 1);
    IS(seaprox_free(loop), 0);
    answer_late(); /* the loop was freed */
    close(far);
    IS(pthread_create(&thread, NULL, leave_a_loop, NULL), 0);
    IS(pthread_join(thread, NULL), 0);
    answer_late(); /* its thread has ended */
}

/* Memory that grows with each request that nobody answers shows here. */
static void unanswered(void)
{
    seaprox_loop *loop = new_loop();
    seaprox_handler handler = {0};
    struct rusage early, late;
    int index;
    handler.size = sizeof handler;
    handler.opened = dial;
    handler.closed = count_close;
    IS(seaprox_set_connector(loop, want, NULL), 0);
    for (index = 0; index < 20000; index++) {
        seaprox_id connection;
        int far = adopted(loop, &handler, NULL, &connection);
        run_until(loop, &asked, index + 1);
        close(far);
        IS(seaprox_connection_close(loop, connection, SEAPROX_KILLED), 0);
        run_until(loop, &closes, index + 1);
        if (index == 8000)
            IS(getrusage(RUSAGE_SELF, &early), 0);
    }
    IS(getrusage(RUSAGE_SELF, &late), 0);
    CHECK(late.ru_maxrss - early.ru_maxrss < 400);
    IS(seaprox_free(loop), 0);
}

/* ---- log: what peers send makes no key and no line ---- */

static char logged[2048];

static void log_line(int level, const char *target, size_t target_len, const char *text, size_t len, void *user)
{
    (void)level, (void)user;
    if (target_len > 7 && strstr(target, "connection") && len < sizeof logged && strncmp(text, "closed", 6) == 0) {
        memcpy(logged, text, len);
        logged[len] = 0;
    }
}

static void forge(seaprox_loop *loop, seaprox_id connection, void *user)
{
    IS(seaprox_connection_set_user(loop, connection, user, strlen(user)), 0);
    IS(seaprox_connection_close(loop, connection, SEAPROX_OTHER), 0);
}

static void logs(void)
{
    static char forged[] = "bob reason=killed \"end\" \xe2\x80\xae\n";
    seaprox_loop *loop = new_loop();
    seaprox_handler handler = {0};
    handler.size = sizeof handler;
    handler.opened = forge;
    handler.closed = count_close;
    IS(seaprox_set_log(SEAPROX_LOG_INFO, log_line, NULL), 0);
    close(adopted(loop, &handler, forged, NULL));
    run_until(loop, &closes, 1);
    IS(seaprox_free(loop), 0);
    IS(seaprox_set_log(SEAPROX_LOG_OFF, NULL, NULL), 0);
    CHECK(strstr(logged, " user=\"bob reason=killed \\\"end\\\" \\u{202e}\\n\" "));
    CHECK(strstr(logged, " reason=other"));
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

int main(int argc, char **argv)
{
    static const struct named all[] = {{"sigpipe", sigpipe}, {"sizes", sizes}, {"descriptors", descriptors},
                                       {"results", results}, {"ends", ends}, {"requests", requests},
                                       {"unanswered", unanswered}, {"logs", logs}, {"apply", apply}};
    return run_named(argc, argv, all, sizeof all / sizeof *all);
}
