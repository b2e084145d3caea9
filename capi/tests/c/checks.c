/* Checks of the C interface. usage: checks NAME. Ends with 0 if all of the check is true. */
#include "kit.h"

/* ---- loops ---- */

static int calls;

static void nested(seaprox_loop *loop, void *user)
{
    seaprox_id timer;
    int timeout;
    CHECK(user == &calls);
    IS(seaprox_run(loop), SEAPROX_ERR_BUSY);
    IS(seaprox_run_one(loop, 0), SEAPROX_ERR_BUSY);
    IS(seaprox_free(loop), SEAPROX_ERR_BUSY);
    IS(seaprox_apply(loop, NULL, 0), SEAPROX_ERR_BUSY);
    IS(seaprox_timeout(loop, &timeout), SEAPROX_ERR_BUSY);
    IS(seaprox_after(loop, 100000, nested, NULL, &timer), 0);
    IS(seaprox_cancel(loop, timer), 0);
    calls++;
}

static void *elsewhere(void *user)
{
    seaprox_loop *loop = user;
    char text[64];
    size_t len;
    IS(seaprox_run_one(loop, 0), SEAPROX_ERR_THREAD);
    IS(seaprox_free(loop), SEAPROX_ERR_THREAD);
    IS(seaprox_fd(loop), SEAPROX_ERR_THREAD);
    IS(seaprox_status_json(loop, NULL, 0, NULL), SEAPROX_ERR_THREAD);
    IS(seaprox_last_error(text, sizeof text, &len), 0);
    CHECK(strstr(text, "another thread") && len == strlen(text));
    IS(seaprox_side_of_data(loop, text), 0);
    IS(seaprox_post(loop, nested, &calls), 0);
    IS(seaprox_wake(loop), 0);
    return NULL;
}

static void loops(void)
{
    seaprox_loop *loop = new_loop(), *other = new_loop();
    pthread_t thread;
    CHECK(loop != other && strcmp(seaprox_version(), "0.1.0") == 0);
    IS(pthread_create(&thread, NULL, elsewhere, loop), 0);
    IS(pthread_join(thread, NULL), 0);
    run_until(loop, &calls, 1);
    IS(seaprox_free(loop), 0);
    IS(seaprox_free(loop), SEAPROX_ERR_STALE);
    IS(seaprox_run(loop), SEAPROX_ERR_STALE);
    IS(seaprox_finish(loop, 0), SEAPROX_ERR_STALE);
    IS(seaprox_post(loop, nested, &calls), SEAPROX_ERR_STALE);
    IS(seaprox_run(NULL), SEAPROX_ERR_INVALID);
    IS(seaprox_free(NULL), SEAPROX_ERR_INVALID);
    IS(seaprox_run_one((seaprox_loop *)(uintptr_t)12345, 0), SEAPROX_ERR_STALE);
    IS(seaprox_finish(other, 0), 0);
    IS(seaprox_run(other), 0);
    IS(seaprox_run_one(other, 0), 0);
    IS(seaprox_free(other), 0);
    CHECK(strcmp(seaprox_strerror(SEAPROX_ERR_STALE), "the handle names nothing") == 0);
    CHECK(strcmp(seaprox_reason_name(SEAPROX_CONNECTION_REFUSED), "connection_refused") == 0);
    CHECK(*seaprox_reason_name(0) == 0 && *seaprox_reason_name(-1) == 0 && *seaprox_reason_name(99) == 0);
}

/* ---- polls ---- */

static int seen;

static void ready(seaprox_loop *loop, int fd, int events, void *user)
{
    char byte;
    (void)loop;
    CHECK(user == &seen && (events & (SEAPROX_READABLE | SEAPROX_WRITABLE)));
    if (events & SEAPROX_READABLE)
        IS(read(fd, &byte, 1), 1);
    seen++;
}

static void polls(void)
{
    seaprox_loop *loop = new_loop();
    int ends[2], other;
    FILE *file = tmpfile();
    IS(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    IS(seaprox_poll_add(loop, ends[0], SEAPROX_READABLE, ready, &seen), 0);
    IS(seaprox_poll_add(loop, ends[0], SEAPROX_READABLE, ready, &seen), SEAPROX_ERR_ALREADY);
    IS(seaprox_run_one(loop, 0), 1);
    IS(seen, 0);
    IS(write(ends[1], "ab", 2), 2);
    run_until(loop, &seen, 2); /* once in each turn while there is something to read */
    IS(seaprox_poll_modify(loop, ends[0], SEAPROX_WRITABLE), 0);
    run_until(loop, &seen, 4);
    IS(seaprox_poll_remove(loop, ends[0]), 0);
    IS(seaprox_poll_remove(loop, ends[0]), SEAPROX_ERR_STALE);
    IS(seaprox_poll_modify(loop, ends[0], SEAPROX_READABLE), SEAPROX_ERR_STALE);
    IS(seaprox_poll_add(loop, ends[0], SEAPROX_WRITABLE, ready, &seen), 0);
    run_until(loop, &seen, 5);
    IS(seaprox_poll_add(loop, -1, SEAPROX_READABLE, ready, &seen), SEAPROX_ERR_INVALID);
    IS(seaprox_poll_add(loop, ends[1], 0, ready, &seen), SEAPROX_ERR_INVALID);
    IS(seaprox_poll_add(loop, ends[1], 64, ready, &seen), SEAPROX_ERR_INVALID);
    IS(seaprox_poll_add(loop, ends[1], SEAPROX_READABLE, NULL, &seen), SEAPROX_ERR_INVALID);
    IS(seaprox_poll_add(loop, 999, SEAPROX_READABLE, ready, &seen), -EBADF);
    IS(seaprox_poll_add(loop, fileno(file), SEAPROX_READABLE, ready, &seen), SEAPROX_ERR_INVALID);
    /* A descriptor that the program closed without a word is in nobody's way. */
    close(ends[0]);
    IS(dup2(ends[1], ends[0]), ends[0]);
    other = seen;
    IS(seaprox_poll_add(loop, ends[0], SEAPROX_WRITABLE, ready, &seen), 0);
    run_until(loop, &seen, other + 1);
    IS(seaprox_free(loop), 0);
    close(ends[0]);
    close(ends[1]);
    fclose(file);
}

/* ---- finish ---- */

static void *finish_later(void *user)
{
    usleep(50000);
    IS(seaprox_finish(user, 0), 0);
    return NULL;
}

static void finish(void)
{
    seaprox_loop *loop = new_loop();
    pthread_t thread;
    int timeout = 7;
    IS(seaprox_run_one(loop, 0), 1);
    CHECK(seaprox_fd(loop) >= 0);
    IS(seaprox_timeout(loop, &timeout), 0);
    IS(timeout, -1);
    IS(pthread_create(&thread, NULL, finish_later, loop), 0);
    IS(seaprox_run(loop), 0);
    IS(pthread_join(thread, NULL), 0);
    IS(seaprox_run_one(loop, -1), 0);
    IS(seaprox_free(loop), 0);
}

/* ---- timers ---- */

static void tick(seaprox_loop *loop, void *user)
{
    (void)loop;
    ++*(int *)user;
}

static void timers(void)
{
    seaprox_loop *loop = new_loop();
    seaprox_id first, second, third;
    int one = 0, two = 0, timeout;
    IS(seaprox_after(loop, 1, tick, &one, &first), 0);
    IS(seaprox_after(loop, 60000, tick, &two, &second), 0);
    IS(seaprox_after(loop, 1, tick, &two, &third), SEAPROX_ERR_FULL);
    IS(third, 0);
    IS(seaprox_kind(first), SEAPROX_KIND_TIMER);
    IS(seaprox_timeout(loop, &timeout), 0);
    CHECK(timeout >= 0 && timeout < 1000);
    run_until(loop, &one, 1);
    IS(seaprox_cancel(loop, first), SEAPROX_ERR_STALE);
    IS(seaprox_cancel(loop, second), 0);
    IS(seaprox_cancel(loop, second), SEAPROX_ERR_STALE);
    IS(seaprox_after(loop, 1, NULL, NULL, NULL), SEAPROX_ERR_INVALID);
    IS(seaprox_free(loop), 0);
    CHECK(one == 1 && two == 0);
}

/* ---- handles ---- */

static void garbage(seaprox_loop *loop, seaprox_id id, int wanted)
{
    seaprox_handler handler = {0};
    seaprox_hook hook = {0};
    size_t len = 7;
    handler.size = sizeof handler;
    hook.size = sizeof hook;
    IS(seaprox_connection_source(loop, id), 0);
    IS(seaprox_connection_dest(loop, id), 0);
    IS(seaprox_connection_listener(loop, id), 0);
    IS(seaprox_connection_describe(loop, id, NULL, 0, &len), wanted);
    IS(len, 0);
    IS(seaprox_connection_stage(loop, id), wanted);
    IS(seaprox_connection_relay(loop, id), wanted);
    IS(seaprox_connection_close(loop, id, SEAPROX_KILLED), wanted);
    IS(seaprox_connection_abort(loop, id, SEAPROX_KILLED), wanted);
    IS(seaprox_connection_connect(loop, id, SEAPROX_TEXT("127.0.0.1:9")), wanted);
    IS(seaprox_connection_connect_fd(loop, id, dup(1), -1), wanted);
    IS(seaprox_connection_finish(loop, id), wanted);
    IS(seaprox_connection_set_hook(loop, id, &hook, NULL), wanted);
    IS(seaprox_connection_set_handler(loop, id, SEAPROX_SOURCE, &handler, NULL), wanted);
    IS(seaprox_connection_wake_after(loop, id, 1), wanted);
}

static void garbage_sides(seaprox_loop *loop, seaprox_id id, int wanted)
{
    size_t bytes;
    IS(seaprox_side_connection(loop, id), 0);
    IS(seaprox_side_other(loop, id), 0);
    CHECK(!seaprox_side_data(loop, id));
    IS(seaprox_side_set_data(loop, id, &bytes), wanted);
    IS(seaprox_side_of_data(loop, &bytes), 0);
    IS(seaprox_side_state(loop, id), id == 0 ? SEAPROX_IDLE : wanted);
    IS(seaprox_side_send(loop, id, (const uint8_t *)"x", 1), wanted);
    IS(seaprox_side_pause(loop, id), wanted);
    IS(seaprox_side_resume(loop, id), wanted);
    IS(seaprox_side_relay(loop, id, 1), wanted);
    IS(seaprox_side_queued(loop, id, &bytes), wanted);
}

static void sizes(seaprox_loop *loop)
{
    struct {
        seaprox_listen_options options;
        char more[64];
    } later = {0};
    seaprox_listen_options options = {0};
    seaprox_id listener = 7, again;
    options.address = "127.0.0.1:0";
    options.address_len = strlen(options.address);
    IS(seaprox_listen(loop, &options, NULL, NULL, &listener), SEAPROX_ERR_INVALID); /* no size */
    IS(listener, 0);
    options.size = 3;
    IS(seaprox_listen(loop, &options, NULL, NULL, &listener), SEAPROX_ERR_INVALID);
    options.size = 1000000;
    IS(seaprox_listen(loop, &options, NULL, NULL, &listener), SEAPROX_ERR_INVALID);
    options.size = 24; /* no version had the address alone */
    IS(seaprox_listen(loop, &options, NULL, NULL, &listener), SEAPROX_ERR_INVALID);
    options.size = sizeof options;
    IS(seaprox_listen(loop, &options, NULL, NULL, &listener), 0);
    IS(seaprox_kind(listener), SEAPROX_KIND_LISTENER);
    later.options = options;
    later.options.size = sizeof later;
    IS(seaprox_listen(loop, &later.options, NULL, NULL, &again), 0);
    later.more[3] = 1; /* a field that this version does not know */
    IS(seaprox_listen(loop, &later.options, NULL, NULL, NULL), SEAPROX_ERR_INVALID);
    options.size = sizeof options;
    options.name = "twice";
    options.name_len = 5;
    IS(seaprox_listener_close(loop, again), 0);
    IS(seaprox_listen(loop, &options, NULL, NULL, &again), 0);
    IS(seaprox_listen(loop, &options, NULL, NULL, NULL), SEAPROX_ERR_ALREADY);
    options.name = "\xff\xfe";
    options.name_len = 2;
    IS(seaprox_listen(loop, &options, NULL, NULL, NULL), SEAPROX_ERR_INVALID);
    IS(seaprox_listen(loop, NULL, NULL, NULL, NULL), SEAPROX_ERR_INVALID);
    garbage(loop, listener, SEAPROX_ERR_INVALID);
    IS(seaprox_listener_close(loop, listener), 0);
    IS(seaprox_listener_close(loop, listener), SEAPROX_ERR_OVER);
}

static void handles(void)
{
    seaprox_loop *loop = new_loop();
    seaprox_id id, timer;
    unsigned seed = 1, count;
    char text[8] = "xxxxxxx";
    size_t len;
    garbage(loop, 0, SEAPROX_ERR_STALE);
    garbage_sides(loop, 0, SEAPROX_ERR_STALE);
    garbage(loop, UINT64_MAX, SEAPROX_ERR_STALE);
    IS(seaprox_after(loop, 60000, tick, NULL, &timer), 0);
    garbage(loop, timer, SEAPROX_ERR_INVALID);
    garbage_sides(loop, timer, SEAPROX_ERR_INVALID);
    IS(seaprox_listener_close(loop, timer), SEAPROX_ERR_INVALID);
    IS(seaprox_side_role(loop, 0), 0);
    for (count = 0; count < 2000; count++) {
        id = (seaprox_id)rand_r(&seed) << 32 | (seaprox_id)rand_r(&seed) << 3;
        CHECK(seaprox_connection_relay(loop, id) < 0 && seaprox_side_pause(loop, id) < 0 && seaprox_cancel(loop, id) < 0);
        CHECK(seaprox_listener_port(loop, id) < 0 && seaprox_kind(id) >= 0 && seaprox_side_of_data(loop, &id) == 0);
    }
    sizes(loop);
    IS(seaprox_set_log(99, NULL, NULL), SEAPROX_ERR_INVALID);
    IS(seaprox_last_error(text, 4, &len), 0);
    CHECK(text[3] == 0 && text[4] == 'x' && len > 4);
    IS(seaprox_set_connector(loop, NULL, NULL), SEAPROX_ERR_INVALID);
    IS(seaprox_connector_failed(NULL, SEAPROX_OTHER, 0), SEAPROX_ERR_STALE);
    IS(seaprox_connector_connected((seaprox_connect_request *)&len, 1), SEAPROX_ERR_STALE);
    IS(seaprox_transit_consume(NULL, 1), SEAPROX_ERR_STALE);
    IS(seaprox_transit_consume((seaprox_transit *)&len, 1), SEAPROX_ERR_STALE);
    IS(seaprox_listen_front_end(loop, NULL, 5, NULL, 0, NULL, 0, &id), SEAPROX_ERR_INVALID);
    IS(seaprox_listen_front_end(loop, SEAPROX_TEXT("nothing"), SEAPROX_TEXT("0"), NULL, 0, &id), SEAPROX_ERR_CONFIG);
    IS(seaprox_listen_front_end(loop, SEAPROX_TEXT("socks"), SEAPROX_TEXT("a b"), NULL, 0, &id), SEAPROX_ERR_CONFIG);
    IS(seaprox_adopt(loop, -1, -1, NULL, 0, NULL, NULL, &id), SEAPROX_ERR_INVALID);
    IS(seaprox_free(loop), 0);
}

/* ---- sides ---- */

static struct {
    seaprox_id connection;
    int opened, connecting, connected, ended, closed, source, dest;
} story;

static void tell(seaprox_loop *loop, const seaprox_event *event, void *user)
{
    CHECK(user == &story && event->size == sizeof *event);
    if (event->kind == SEAPROX_EVENT_OPENED) {
        story.connection = event->id;
        story.opened++;
        IS(seaprox_side_role(loop, event->side), SEAPROX_SOURCE);
        IS(seaprox_side_state(loop, event->side), SEAPROX_CONNECTED);
    } else if (event->kind == SEAPROX_EVENT_CONNECTING) {
        story.connecting++;
        IS(event->state, SEAPROX_CONNECTING);
        IS(seaprox_side_set_data(loop, event->side, &story.dest), 0);
    } else if (event->kind == SEAPROX_EVENT_CONNECTED) {
        story.connected++;
        IS(event->state, SEAPROX_CONNECTED);
        CHECK(event->data == &story.dest);
    } else if (event->kind == SEAPROX_EVENT_ENDED) {
        story.ended++;
        CHECK(event->id == story.connection && event->data == &story.source && event->dest_data == &story.dest);
        IS(event->reason, SEAPROX_KILLED);
        IS(seaprox_connection_stage(loop, event->id), SEAPROX_ERR_OVER);
    }
}

static seaprox_connect_request *asked;

static void want(seaprox_loop *loop, seaprox_connect_request *request, seaprox_id side, const char *host, size_t len,
                 uint16_t port, void *user)
{
    seaprox_id source = seaprox_side_other(loop, side);
    CHECK(user == &story && strcmp(host, "slow.example") == 0 && len == strlen(host) && port == 80);
    IS(seaprox_side_state(loop, side), SEAPROX_CONNECTING);
    CHECK(seaprox_side_data(loop, source) == &story.source);
    asked = request;
}

static void *answer(void *user)
{
    IS(seaprox_connector_connected(asked, *(int *)user), 0);
    IS(seaprox_connector_failed(asked, SEAPROX_OTHER, 0), SEAPROX_ERR_STALE);
    return NULL;
}

static void side_opened(seaprox_loop *loop, seaprox_id connection, void *user)
{
    seaprox_id source = seaprox_connection_source(loop, connection);
    char text[128];
    (void)user;
    IS(seaprox_connection_dest(loop, connection), 0);
    IS(seaprox_side_state(loop, seaprox_connection_dest(loop, connection)), SEAPROX_IDLE);
    IS(seaprox_side_set_data(loop, source, &story.source), 0);
    IS(seaprox_connection_connect(loop, connection, SEAPROX_TEXT("slow.example:80")), 0);
    IS(seaprox_connection_connect(loop, connection, SEAPROX_TEXT("slow.example:80")), SEAPROX_ERR_ALREADY);
    IS(seaprox_connection_stage(loop, connection), SEAPROX_STAGE_CONNECTING);
    IS(seaprox_connection_describe(loop, connection, text, sizeof text, NULL), 0);
    CHECK(strncmp(text, "test[ipv4[127.0.0.1:", 20) == 0 && strstr(text, "->name[slow.example:80]]"));
    IS(seaprox_connection_target(loop, connection, text, sizeof text, NULL), 0);
    CHECK(strcmp(text, "slow.example:80") == 0);
}

static void side_closed(seaprox_loop *loop, seaprox_id connection, const seaprox_end *end, void *user)
{
    (void)user;
    IS(seaprox_connection_relay(loop, connection), SEAPROX_ERR_OVER);
    CHECK(end->size == sizeof *end && end->source_data == &story.source && end->dest_data == &story.dest);
    IS(end->reason, SEAPROX_KILLED);
    IS(end->sent, 5);
    story.closed++;
}

static void look_at_sides(seaprox_loop *loop)
{
    seaprox_id connection = story.connection;
    seaprox_id source = seaprox_connection_source(loop, connection), dest = seaprox_connection_dest(loop, connection);
    uint64_t sent, received;
    CHECK(source && dest && source != dest && seaprox_kind(source) == SEAPROX_KIND_SIDE);
    CHECK(seaprox_side_other(loop, source) == dest && seaprox_side_other(loop, dest) == source);
    CHECK(seaprox_side_connection(loop, source) == connection && seaprox_side_connection(loop, dest) == connection);
    CHECK(seaprox_side_of_data(loop, seaprox_side_data(loop, source)) == source);
    CHECK(seaprox_side_of_data(loop, seaprox_side_data(loop, dest)) == dest);
    CHECK(!seaprox_side_of_data(loop, NULL) && !seaprox_side_connection(loop, 0) && !seaprox_side_other(loop, 0));
    IS(seaprox_side_role(loop, dest), SEAPROX_DEST);
    IS(seaprox_side_state(loop, dest), SEAPROX_CONNECTED);
    IS(seaprox_connection_bytes(loop, connection, &sent, &received), 0);
    CHECK(sent == 5 && received == 0);
    IS(seaprox_connection_close(loop, connection, 0), SEAPROX_ERR_INVALID);
    IS(seaprox_connection_close(loop, connection, SEAPROX_KILLED), 0);
}

static seaprox_id test_listener(seaprox_loop *loop, const seaprox_handler *handler, void *user)
{
    seaprox_listen_options options = {0};
    seaprox_id listener;
    options.size = sizeof options;
    options.address = "127.0.0.1:0";
    options.address_len = strlen(options.address);
    options.kind = "test";
    options.kind_len = 4;
    IS(seaprox_listen(loop, &options, handler, user, &listener), 0);
    return listener;
}

static void sides(void)
{
    seaprox_loop *loop = new_loop();
    seaprox_handler handler = {0};
    pthread_t thread;
    int client, ends[2];
    char text[8];
    handler.size = sizeof handler;
    handler.opened = side_opened;
    handler.closed = side_closed;
    IS(seaprox_set_events(loop, tell, &story), 0);
    IS(seaprox_set_connector(loop, want, &story), 0);
    client = connect_to(seaprox_listener_port(loop, test_listener(loop, &handler, NULL)));
    while (!asked)
        IS(seaprox_run_one(loop, 100), 1);
    CHECK(story.opened == 1 && story.connecting == 1 && story.connected == 0);
    IS(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    IS(pthread_create(&thread, NULL, answer, &ends[0]), 0);
    IS(pthread_join(thread, NULL), 0);
    run_until(loop, &story.connected, 1);
    IS(write(client, "bytes", 5), 5);
    IS(receive(loop, ends[1], text, 5), 5);
    look_at_sides(loop);
    run_until(loop, &story.ended, 1);
    IS(story.closed, 1);
    IS(seaprox_side_of_data(loop, &story.source), 0);
    IS(seaprox_free(loop), 0);
    close(client);
    close(ends[1]);
}

/* ---- hooks ---- */

static char order[64];
static seaprox_transit *old;
static seaprox_loop *hooked_loop;

static void note(const char *what)
{
    if (!strstr(order, what))
        strcat(order, what);
}

static void hook_connected(seaprox_id connection, void *user)
{
    CHECK(connection && user == order);
    note("connected ");
}

static int hook_data(seaprox_id connection, int from, seaprox_transit *transit, void *user)
{
    const uint8_t *input;
    size_t len, index, room, written;
    CHECK(connection && user == order);
    note(from == SEAPROX_SOURCE ? "out " : "in ");
    IS(seaprox_connection_relay(hooked_loop, connection), SEAPROX_ERR_BUSY);
    IS(seaprox_transit_input(transit, &input, &len), 0);
    IS(seaprox_transit_room(transit, &room), 0);
    CHECK(room >= len);
    for (index = 0; index < len; index++) {
        uint8_t byte = (uint8_t)(input[index] ^ 0x20);
        IS(seaprox_transit_write(transit, &byte, 1, &written), 0);
    }
    IS(seaprox_transit_consume(transit, len), 0);
    old = transit;
    return 0;
}

static void hook_ended(seaprox_id connection, int reason, void *user)
{
    CHECK(connection && reason > 0 && user == order);
    note("ended");
}

static void hook_opened(seaprox_loop *loop, seaprox_id connection, void *user)
{
    seaprox_hook hook = {0};
    char target[32];
    hook.size = sizeof hook;
    hook.connected = hook_connected;
    hook.data = hook_data;
    hook.ended = hook_ended;
    snprintf(target, sizeof target, "127.0.0.1:%u", (unsigned)*(uint16_t *)user);
    IS(seaprox_connection_set_hook(loop, connection, &hook, order), 0);
    IS(seaprox_connection_set_hook(loop, connection, &hook, order), SEAPROX_ERR_ALREADY);
    IS(seaprox_connection_connect(loop, connection, target, strlen(target)), 0);
}

static int closes;

static void count_close(seaprox_loop *loop, seaprox_id connection, const seaprox_end *end, void *user)
{
    (void)loop, (void)connection, (void)end, (void)user;
    closes++;
}

static void hooks(void)
{
    seaprox_handler handler = {0};
    uint16_t port;
    int target = listen_here(&port), client, server;
    char text[8] = "";
    hooked_loop = new_loop();
    handler.size = sizeof handler;
    handler.opened = hook_opened;
    handler.closed = count_close;
    client = connect_to(seaprox_listener_port(hooked_loop, test_listener(hooked_loop, &handler, &port)));
    IS(write(client, "hello", 5), 5);
    IS(fcntl(target, F_SETFL, O_NONBLOCK), 0);
    while ((server = accept4(target, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) < 0)
        IS(seaprox_run_one(hooked_loop, 10), 1);
    IS(receive(hooked_loop, server, text, 5), 5);
    CHECK(strcmp(text, "HELLO") == 0);
    IS(write(server, "ANSWR", 5), 5);
    IS(receive(hooked_loop, client, text, 5), 5);
    CHECK(strcmp(text, "answr") == 0);
    IS(seaprox_transit_consume(old, 1), SEAPROX_ERR_STALE);
    close(client);
    close(server);
    run_until(hooked_loop, &closes, 1);
    IS(seaprox_run_one(hooked_loop, 0), 1);
    IS(strcmp(order, "connected out in ended"), 0);
    IS(seaprox_free(hooked_loop), 0);
    close(target);
}

/* ---- adopt ---- */

static void adopt_opened(seaprox_loop *loop, seaprox_id connection, void *user)
{
    IS(seaprox_connection_connect_fd(loop, connection, *(int *)user, -1), 0);
}

static void adopt(void)
{
    seaprox_loop *loop = new_loop();
    seaprox_handler handler = {0};
    seaprox_id connection;
    int left[2], right[2], done = closes;
    char text[8] = "";
    handler.size = sizeof handler;
    handler.opened = adopt_opened;
    handler.closed = count_close;
    IS(socketpair(AF_UNIX, SOCK_STREAM, 0, left), 0);
    IS(socketpair(AF_UNIX, SOCK_STREAM, 0, right), 0);
    IS(seaprox_adopt(loop, left[0], -1, SEAPROX_TEXT("pair"), &handler, &right[0], &connection), 0);
    IS(seaprox_kind(connection), SEAPROX_KIND_CONNECTION);
    IS(write(left[1], "there", 5), 5);
    IS(receive(loop, right[1], text, 5), 5);
    CHECK(strcmp(text, "there") == 0);
    IS(write(right[1], "back!", 5), 5);
    IS(receive(loop, left[1], text, 5), 5);
    CHECK(strcmp(text, "back!") == 0);
    close(left[1]);
    IS(receive(loop, right[1], text, 1), 0);
    close(right[1]);
    run_until(loop, &closes, done + 1);
    IS(seaprox_free(loop), 0);
}

/* ---- config ---- */

static char *status_of(seaprox_loop *loop)
{
    size_t len;
    char *text;
    IS(seaprox_status_json(loop, NULL, 0, &len), 0);
    CHECK(len > 0);
    text = malloc(len + 4096);
    IS(seaprox_status_json(loop, text, len + 4096, &len), 0);
    CHECK(strlen(text) == len);
    return text;
}

static int apply(seaprox_loop *loop, const char *toml)
{
    return seaprox_apply(loop, toml, strlen(toml));
}

static void config(void)
{
    seaprox_loop *loop = new_loop();
    char text[1024], *status;
    IS(apply(loop, "[[listener]]\nfront = \"socks\"\nlisten = \"127.0.0.1:0\"\nname = \"one\"\n"), 0);
    status = status_of(loop);
    CHECK(strstr(status, "\"name\":\"one\""));
    free(status);
    IS(apply(loop, "[[listener]]\nfront = \"http\"\nlisten = \"127.0.0.1:0\"\nname = \"two\"\n"), 0);
    status = status_of(loop);
    CHECK(strstr(status, "\"name\":\"two\"") && !strstr(status, "\"name\":\"one\""));
    free(status);
    IS(apply(loop, "wrong = 1\n\n[[listener]]\nfront = \"socks\"\nlisten = \"a b\"\n"), SEAPROX_ERR_CONFIG);
    IS(seaprox_last_error(text, sizeof text, NULL), 0);
    CHECK(strstr(text, "configuration:1:1: ") && strstr(text, "configuration:5:10: "));
    IS(seaprox_check(text, strlen(text)), SEAPROX_ERR_CONFIG);
    IS(seaprox_check(SEAPROX_TEXT("")), 0);
    IS(apply(loop, "admin = \"127.0.0.1:0\"\n"), SEAPROX_ERR_CONFIG);
    IS(seaprox_listen_front_end(loop, SEAPROX_TEXT("static"), SEAPROX_TEXT("127.0.0.1:0"), SEAPROX_TEXT("to = true\n"), NULL),
       SEAPROX_ERR_CONFIG);
    IS(seaprox_last_error(text, sizeof text, NULL), 0);
    CHECK(strstr(text, "configuration:1:6: "));
    IS(seaprox_listen_front_end(loop, SEAPROX_TEXT("static"), SEAPROX_TEXT("127.0.0.1:0"), NULL, 0, NULL), SEAPROX_ERR_CONFIG);
    status = status_of(loop);
    CHECK(strstr(status, "\"name\":\"two\"")); /* what was wrong has changed nothing */
    free(status);
    IS(apply(loop, ""), 0);
    IS(seaprox_finish(loop, 0), 0);
    IS(seaprox_run(loop), 0);
    CHECK(apply(loop, "[[listener]]\nfront = \"socks\"\nlisten = \"127.0.0.1:0\"\n") < 0);
    IS(seaprox_free(loop), 0);
}

/* ---- status ---- */

static int lines;

static void log_line(int level, const char *target, size_t target_len, const char *text, size_t text_len, void *user)
{
    CHECK(user == &lines && level >= SEAPROX_LOG_ERROR && level <= SEAPROX_LOG_DEBUG);
    CHECK(target_len >= 7 && memcmp(target, "seaprox", 7) == 0 && text && text_len > 0);
    lines++;
}

static void status(void)
{
    seaprox_loop *loop = new_loop();
    seaprox_handler handler = {0};
    seaprox_id listener;
    char *text, address[64];
    size_t len;
    handler.size = sizeof handler;
    IS(seaprox_set_log(SEAPROX_LOG_DEBUG, log_line, &lines), 0);
    listener = test_listener(loop, &handler, NULL);
    CHECK(lines > 0);
    IS(seaprox_set_log(SEAPROX_LOG_OFF, NULL, NULL), 0);
    IS(seaprox_listener_address(loop, listener, address, sizeof address, NULL), 0);
    text = status_of(loop);
    CHECK(strstr(text, address) != NULL && strstr(text, "\"kind\":\"test\"") && strstr(text, "\"connections\":["));
    free(text);
    IS(seaprox_metrics_text(loop, NULL, 0, &len), 0);
    text = malloc(len + 4096);
    IS(seaprox_metrics_text(loop, text, len + 4096, &len), 0);
    CHECK(strstr(text, "seaprox_connections_opened_total") && strstr(text, "seaprox_build_info"));
    free(text);
    IS(seaprox_free(loop), 0);
}

/* ---- cycles ---- */

static void cycles(void)
{
    const char *wanted = getenv("SEAPROX_CYCLES");
    int count = wanted ? atoi(wanted) : 10000, index, dest;
    seaprox_loop *loop = new_loop();
    seaprox_handler handler = {0};
    seaprox_id connection, timer;
    handler.size = sizeof handler;
    handler.opened = adopt_opened;
    handler.closed = count_close;
    closes = 0;
    for (index = 0; index < count; index++) {
        int left[2], right[2];
        char byte;
        IS(socketpair(AF_UNIX, SOCK_STREAM, 0, left), 0);
        IS(socketpair(AF_UNIX, SOCK_STREAM, 0, right), 0);
        dest = right[0];
        IS(seaprox_adopt(loop, left[0], -1, NULL, 0, &handler, &dest, &connection), 0);
        IS(seaprox_side_set_data(loop, seaprox_connection_source(loop, connection), &closes), 0);
        IS(seaprox_after(loop, 60000, tick, NULL, &timer), 0);
        IS(write(left[1], "x", 1), 1);
        IS(receive(loop, right[1], &byte, 1), 1);
        close(left[1]);
        close(right[1]);
        run_until(loop, &closes, index + 1);
        IS(seaprox_cancel(loop, timer), 0);
    }
    IS(seaprox_side_of_data(loop, &closes), 0);
    dest = open("/dev/null", O_RDONLY);
    CHECK(dest < 40); /* all descriptors were closed */
    close(dest);
    IS(seaprox_free(loop), 0);
    for (index = 0; index < count / 100; index++)
        IS(seaprox_free(new_loop()), 0);
}

int main(int argc, char **argv)
{
    static const struct named all[] = {{"loops", loops}, {"polls", polls}, {"finish", finish}, {"timers", timers},
                                       {"handles", handles}, {"sides", sides}, {"hooks", hooks}, {"adopt", adopt},
                                       {"config", config}, {"status", status}, {"cycles", cycles}};
    return run_named(argc, argv, all, sizeof all / sizeof *all);
}
