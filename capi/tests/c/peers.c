/* Checks of what peers do: they reset, leave, and send names that look like keys. usage: peers NAME. Ends with 0 if all of the check
 * is true. */
#include "sources.h"
#include <signal.h>
#include <sys/resource.h>

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

int main(int argc, char **argv)
{
    static const struct named all[] = {
        {"sigpipe", sigpipe}, {"requests", requests}, {"unanswered", unanswered}, {"logs", logs}};
    return run_named(argc, argv, all, sizeof all / sizeof *all);
}
