/* Two nodes, each with a loop, in one thread, and a link between them. */
#include "kit.h"

/* ---- two nodes ---- */

/* The node that dials, and the node that serves. */
static seaprox_loop *here, *there;
static seaprox_id dialed, served, server;
static uint8_t keys[2][SEAPROX_KEY_BYTES], publics[2][SEAPROX_KEY_BYTES];

/* What the events have told, of the link that is dialed and of the one that is served. */
static struct story {
    int counts[16];
    char text[128];
    int reason;
    seaprox_id connection;
} told[2];

static inline void tell(seaprox_loop *loop, const seaprox_link_event *event, void *user)
{
    struct story *story = user;
    int is_here = story == &told[0];
    CHECK(event->size == sizeof *event && event->kind > 0 && event->kind < 16);
    CHECK(loop == (is_here ? here : there) && seaprox_kind(event->link) == SEAPROX_KIND_LINK);
    if (event->kind == SEAPROX_LINK_EVENT_UP || event->kind == SEAPROX_LINK_EVENT_MESSAGE)
        CHECK(event->key && memcmp(event->key, publics[is_here], SEAPROX_KEY_BYTES) == 0);
    if (event->kind == SEAPROX_LINK_EVENT_UP && !is_here)
        served = event->link;
    if (event->text_len > 0)
        snprintf(story->text, sizeof story->text, "%.*s", (int)event->text_len, event->text);
    story->reason = event->reason;
    if (event->connection)
        story->connection = event->connection;
    story->counts[event->kind]++;
}

static inline void one_turn(void)
{
    if (here)
        IS(seaprox_run_one(here, 1), 1);
    if (there)
        IS(seaprox_run_one(there, 1), 1);
}

static inline void until(const int *what, int count)
{
    while (*what < count)
        one_turn();
}

static inline seaprox_link_options options_of(int node)
{
    seaprox_link_options options = {0};
    options.size = sizeof options;
    options.key = keys[node];
    options.peer_key = publics[!node];
    options.event = tell;
    options.user = &told[node];
    return options;
}

static inline void dial(const seaprox_link_options *options, int port)
{
    char address[32];
    seaprox_link_options with_address = *options;
    snprintf(address, sizeof address, "127.0.0.1:%d", port);
    with_address.address = address;
    with_address.address_len = strlen(address);
    IS(seaprox_link_dial(here, &with_address, &dialed), 0);
    IS(seaprox_kind(dialed), SEAPROX_KIND_LINK);
}

static inline void serve(const seaprox_link_options *options)
{
    seaprox_link_options with_address = *options;
    with_address.address = "127.0.0.1:0";
    with_address.address_len = strlen(with_address.address);
    IS(seaprox_link_serve(there, &with_address, &server), 0);
    IS(seaprox_kind(server), SEAPROX_KIND_SERVER);
}

static inline void make_keys(void)
{
    int node;
    for (node = 0; node < 2; node++) {
        IS(seaprox_key_new(keys[node]), 0);
        IS(seaprox_key_public(keys[node], publics[node]), 0);
    }
}

/* Makes two nodes with a link that is up. The serving one has this policy and this handler. */
static inline void pair(const seaprox_policy *policy, const seaprox_handler *handler, void *handler_user)
{
    seaprox_link_options options;
    make_keys();
    here = new_loop();
    there = new_loop();
    options = options_of(1);
    options.policy = policy;
    options.handler = handler;
    options.handler_user = handler_user;
    serve(&options);
    options = options_of(0);
    dial(&options, seaprox_server_port(there, server));
    IS(seaprox_link_state(here, dialed), SEAPROX_LINK_CONNECTING);
    until(&told[0].counts[SEAPROX_LINK_EVENT_UP], 1);
    until(&told[1].counts[SEAPROX_LINK_EVENT_UP], 1);
    IS(seaprox_link_state(here, dialed), SEAPROX_LINK_UP);
    IS(seaprox_link_state(there, served), SEAPROX_LINK_UP);
}

static inline void free_pair(void)
{
    seaprox_loop *first = here, *second = there;
    IS(seaprox_free(first), 0);
    here = NULL;
    IS(seaprox_free(second), 0);
    there = NULL;
}

/* ---- streams that are tried ---- */

static struct {
    int connected, closed, reason;
} tried;

static inline void try_connected(seaprox_loop *loop, seaprox_id connection, int reason, const char *detail, size_t len, void *user)
{
    CHECK(user == &tried && (len == 0 || detail));
    tried.reason = reason;
    tried.connected++;
    IS(seaprox_connection_close(loop, connection, reason ? reason : SEAPROX_KILLED), 0);
}

static inline void try_closed(seaprox_loop *loop, seaprox_id connection, const seaprox_end *end, void *user)
{
    (void)loop, (void)connection, (void)end;
    CHECK(user == &tried);
    tried.closed++;
}

/* Opens a stream to a target. Returns the reason for which it could not be opened. */
static inline int try_open(const char *target)
{
    seaprox_handler handler = {0};
    seaprox_id connection;
    int before = tried.closed;
    handler.size = sizeof handler;
    handler.connected = try_connected;
    handler.closed = try_closed;
    IS(seaprox_stream_open(here, dialed, target, strlen(target), &handler, &tried, &connection), 0);
    IS(seaprox_kind(connection), SEAPROX_KIND_CONNECTION);
    until(&tried.closed, before + 1);
    return tried.reason;
}
