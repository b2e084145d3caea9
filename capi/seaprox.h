/*
 * seaprox: a light framework for proxies between sockets.
 *
 * A program makes a loop, opens listeners in it, and runs it:
 *
 *     seaprox_loop *loop;
 *     seaprox_id listener;
 *     seaprox_new(NULL, &loop);
 *     seaprox_listen_front_end(loop, SEAPROX_TEXT("socks"), SEAPROX_TEXT("127.0.0.1:1080"), NULL, 0, &listener);
 *     seaprox_run(loop);
 *     seaprox_free(loop);
 *
 * The program decides what becomes of a connection, and the loop moves the bytes. A connection has two sides: the source, which
 * is the client, and the dest, which the loop connects.
 *
 * Rules for all functions, unless a comment says otherwise:
 *
 *   Results   An int is 0 or more, or the negative number of an error: one of enum seaprox_error, or a negated errno of the
 *             system. seaprox_last_error has the text. A function that returns an id or a pointer returns 0 or NULL instead,
 *             and also if there is none; seaprox_last_error tells which, because it has no text then. After an error nothing has
 *             changed, and results behind pointers are 0.
 *   Threads   A loop belongs to the thread that made it. Another thread gets SEAPROX_ERR_THREAD. "Any thread" marks the
 *             functions that all threads may call.
 *   Callbacks run in the thread of the loop, in seaprox_run, seaprox_run_one, seaprox_apply and seaprox_free. They may call
 *             every function of their loop but these four, which answer SEAPROX_ERR_BUSY there. A callback that must not use
 *             its loop says so. No callback may throw an exception, or leave by longjmp or pthread_exit.
 *   Handles   A seaprox_loop * and a seaprox_connect_request * are numbers and point to nothing. Ids are never given twice in the
 *             life of a loop in practice (an epoch of 32 bits is part of each). A handle of a record that is gone is answered with
 *             SEAPROX_ERR_STALE, or with SEAPROX_ERR_OVER if it was a connection or a side and few others have ended since; an
 *             id of another kind with SEAPROX_ERR_INVALID. So no use of an old handle does harm.
 *   Text      is UTF-8, as a pointer and a length in bytes without a final zero; SEAPROX_TEXT("x") makes both of a literal.
 *             NULL with length 0 is no text.
 *   Buffers   Functions with buf, cap and len write as much text as fits and a final zero, and set *len to the whole length
 *             without the zero. So call once with cap 0 to learn the length. buf may be NULL if cap is 0; len may be NULL.
 *   Structs   begin with their size: set it to sizeof the struct, and all fields that you do not use to 0. So a program runs
 *             with later versions of the library. A size that no version of the struct has is SEAPROX_ERR_INVALID.
 *   Pointers  to data of the caller are used during the call only. Result pointers may be NULL. The user pointers and the data of
 *             sides are kept and given back, and never followed.
 *   Signals   A write to a peer that is gone raises SIGPIPE, which would end the program. So seaprox_new ignores SIGPIPE in the
 *             process if it is at its default then; a handler of the program stays. Programs that are started later inherit this: set
 *             it back to SIG_DFL between fork and exec.
 *
 * All times are in milliseconds and all sizes in bytes.
 */
#ifndef SEAPROX_H
#define SEAPROX_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The version of this header. */
#define SEAPROX_VERSION_MAJOR 0
#define SEAPROX_VERSION_MINOR 1
#define SEAPROX_VERSION_PATCH 0

/* A literal as the two parameters of a text. */
#define SEAPROX_TEXT(literal) ("" literal), (sizeof("" literal) - 1)

/* A loop: an opaque number, never to be followed. */
typedef struct seaprox_loop seaprox_loop;

/* The handle of a connection, a side, a listener and so on. 0 is none. seaprox_kind tells its kind. */
typedef uint64_t seaprox_id;

/* A dest that an external connector is to connect: an opaque number. */
typedef struct seaprox_connect_request seaprox_connect_request;

/* Bytes on their way through a hook: an opaque number, which is good until the callback returns. */
typedef struct seaprox_transit seaprox_transit;

/* The errors. The numbers never change: those that errno has too are its numbers on Linux, negated, on every system. All other
 * negative results are a negated errno of the system, such as -EADDRINUSE. */
enum seaprox_error {
    SEAPROX_OK = 0,
    SEAPROX_ERR_THREAD = -1,    /* EPERM: the loop belongs to another thread */
    SEAPROX_ERR_BUSY = -16,     /* EBUSY: the loop runs, and this function cannot be called here */
    SEAPROX_ERR_INVALID = -22,  /* EINVAL: a parameter cannot be meant, such as an id of another kind */
    SEAPROX_ERR_FULL = -28,     /* ENOSPC: a table or a queue has no room; later there may be some */
    SEAPROX_ERR_STALE = -53,    /* EBADR: the handle names nothing, or nothing any more */
    SEAPROX_ERR_CONFIG = -74,   /* EBADMSG: the configuration is wrong; seaprox_last_error has a line for each problem */
    SEAPROX_ERR_OVER = -108,    /* ESHUTDOWN: the connection is over */
    SEAPROX_ERR_ALREADY = -114, /* EALREADY: it is there or done already */
    SEAPROX_ERR_PANIC = -131    /* ENOTRECOVERABLE: a defect of seaprox; please report it */
};

/* The reasons for which a connection could not be made, or has ended. The numbers never change, and are those of the link
 * protocol. seaprox_reason_name has the word of each, as logs and metrics have it. */
enum seaprox_reason {
    SEAPROX_NAME_RESOLUTION_FAILURE = 1, /* the name has no address */
    SEAPROX_CONNECTION_REFUSED = 2,      /* the target refused: nobody listens there */
    SEAPROX_TIMED_OUT = 3,               /* no answer in time */
    SEAPROX_NETWORK_UNREACHABLE = 4,     /* no route to the network */
    SEAPROX_HOST_UNREACHABLE = 5,        /* no route to the host */
    SEAPROX_NOT_PERMITTED = 6,           /* a rule forbids it */
    SEAPROX_LIMIT_REACHED = 7,           /* a limit of seaprox or of the system */
    SEAPROX_OTHER = 8,                   /* another error, with the text of the system */
    SEAPROX_SOURCE_FIN = 9,              /* the source closed first, in order */
    SEAPROX_DEST_FIN = 10,               /* the dest closed first, in order */
    SEAPROX_SOURCE_RESET = 11,           /* the source reset the connection */
    SEAPROX_DEST_RESET = 12,             /* the dest reset the connection */
    SEAPROX_IDLE_TIMEOUT = 13,           /* no byte moved for the idle timeout */
    SEAPROX_HALF_CLOSED_TIMEOUT = 14,    /* one direction had ended, and no byte moved in the other */
    SEAPROX_HANDSHAKE_TIMEOUT = 15,      /* the client did not send its request in time */
    SEAPROX_PROTOCOL_ERROR = 16,         /* a peer broke the protocol */
    SEAPROX_AUTH_FAILED = 17,            /* the client did not authenticate */
    SEAPROX_LINK_LOST = 18,              /* the link that carried the connection is gone */
    SEAPROX_DRAINED = 19,                /* the loop was finished */
    SEAPROX_KILLED = 20,                 /* the program or an operator ended it */
    SEAPROX_INTERNAL = 21,               /* a defect of seaprox */
    SEAPROX_ADDRESS_IN_USE = 22          /* the address to listen on is in use */
};

/* The kinds of ids. The numbers never change. */
enum seaprox_kind {
    SEAPROX_KIND_NONE = 0,
    SEAPROX_KIND_CONNECTION = 1,
    SEAPROX_KIND_SIDE = 2,
    SEAPROX_KIND_LISTENER = 3,
    SEAPROX_KIND_LINK = 4,
    SEAPROX_KIND_FORWARD = 5,
    SEAPROX_KIND_SERVER = 6,
    SEAPROX_KIND_WATCH = 7,
    SEAPROX_KIND_TIMER = 8,
    SEAPROX_KIND_CARRIER = 9,
    SEAPROX_KIND_GROUP = 10,
    SEAPROX_KIND_FLOW = 11,
    SEAPROX_KIND_ASSOCIATION = 12
};

/* The roles of sides. */
enum seaprox_role {
    SEAPROX_SOURCE = 1, /* the client */
    SEAPROX_DEST = 2    /* the target */
};

/* The states of sides. */
enum seaprox_side_state {
    SEAPROX_IDLE = 0,
    SEAPROX_CONNECTING = 1,
    SEAPROX_CONNECTED = 2
};

/* The stages of connections. */
enum seaprox_stage {
    SEAPROX_STAGE_HANDSHAKE = 1,   /* the client has not said what it wants */
    SEAPROX_STAGE_CONNECTING = 2,  /* the dest is being connected */
    SEAPROX_STAGE_ESTABLISHED = 3, /* bytes are relayed */
    SEAPROX_STAGE_KEEP_ALIVE = 4,  /* the client may send another request */
    SEAPROX_STAGE_CLOSING = 5,     /* the last bytes are being written */
    SEAPROX_STAGE_CLOSED = 6       /* it is over */
};

/* Ends of connections as their peers see them. */
enum seaprox_ending {
    SEAPROX_GRACEFUL = 1, /* both directions were closed in order, and no byte was lost */
    SEAPROX_ABORTED = 2   /* it was cut off; bytes may be lost */
};

/* Parties that cause an end. */
enum seaprox_fault {
    SEAPROX_FAULT_SOURCE = 1,
    SEAPROX_FAULT_DEST = 2,
    SEAPROX_FAULT_PROXY = 3 /* a rule, a limit, a timer, the program, or a stop */
};

/* Ends of the input of one side. */
enum seaprox_cause {
    SEAPROX_CAUSE_FIN = 1,  /* it ended in order; bytes that are sent to the side still arrive */
    SEAPROX_CAUSE_RESET = 2 /* it was reset */
};

/* ---- The library ---- */

/* Returns the version of the library, such as "0.1.0", with a final zero. It lives as long as the program. Any thread. */
const char *seaprox_version(void);

/* Returns a short text for a result, with a final zero. It lives as long as the program. Any thread. */
const char *seaprox_strerror(int error);

/* Gives the text of the last error that a function of this library returned in this thread. Any thread. */
int seaprox_last_error(char *buf, size_t cap, size_t *len);

/* Returns the word of a reason, with a final zero; "" if there is none with this number. It lives as long as the program. Any
 * thread. */
const char *seaprox_reason_name(int reason);

/* Returns the kind of an id, one of enum seaprox_kind; 0 if no id has this number. Any thread. */
int seaprox_kind(seaprox_id id);

/* Levels of the log. */
enum seaprox_log_level {
    SEAPROX_LOG_OFF = 0,
    SEAPROX_LOG_ERROR = 1,
    SEAPROX_LOG_WARN = 2,
    SEAPROX_LOG_INFO = 3, /* with one line for each connection, at its end */
    SEAPROX_LOG_DEBUG = 4,
    SEAPROX_LOG_TRACE = 5
};

/* Is told a line of the log: its level, the part of the library that wrote it, and its text with key=value behind it. Control
 * characters and marks of text direction are escaped, and a value with a blank, a quote, = or \ stands in quotes, in which \ stands
 * before a quote or a \; so what peers send makes no line and no key. The texts live until it returns. Any thread may call it, also two at once. It must not use a
 * loop: functions answer SEAPROX_ERR_BUSY. */
typedef void (*seaprox_log_fn)(int level, const char *target, size_t target_len, const char *text, size_t text_len,
                               void *user);

/* Sets the log of the process, in place of the present one: lines up to a level, one of enum seaprox_log_level. NULL ends it; a
 * call in another thread may be under way then. Any thread.
 * Errors: INVALID if there is no such level. */
int seaprox_set_log(int level, seaprox_log_fn callback, void *user);

/* ---- The loop ---- */

/* The options of a loop. A field that is 0 has its default. */
typedef struct seaprox_options {
    uint32_t size;
    uint32_t max_num_connections;    /* connections at once, 4096; further clients wait; at most 10,000,000 */
    uint32_t num_threads;            /* threads that look names up, 4; at most 1,024 */
    uint32_t handshake_timeout_ms;   /* wait for a client to say what it wants, 10 s */
    uint32_t connect_timeout_ms;     /* wait for a dest, the look-up of its name included, 10 s */
    uint32_t idle_timeout_ms;        /* wait for a byte in either direction, no limit */
    uint32_t half_closed_timeout_ms; /* wait for a byte in the direction that is still open, 1 h */
    uint32_t max_num_timers;         /* timers of seaprox_after, 1024 */
    uint32_t max_num_watches;        /* descriptors of seaprox_poll_add, 1024 */
    uint32_t reserved;
    uint64_t buffer_bytes;           /* memory for bytes under way, 256 MiB; it is taken as it is needed */
} seaprox_options;

/* Makes a loop, which belongs to this thread. options may be NULL. The caller frees it with seaprox_free.
 * Errors: INVALID if an option is out of its range, and others of the system, which lacks descriptors or threads. */
int seaprox_new(const seaprox_options *options, seaprox_loop **loop);

/* Ends all connections of a loop, whose closed callbacks run, and frees the loop. Links are told for at most a second. Nothing can
 * be opened in it meanwhile: functions answer SEAPROX_ERR_OVER.
 * Errors: BUSY in a callback. */
int seaprox_free(seaprox_loop *loop);

/* Runs the loop until it is finished (seaprox_finish). Signals do not end it: to stop on one, watch a descriptor
 * (seaprox_poll_add), because seaprox_finish must not be called in a signal handler.
 * Errors: BUSY in a callback. */
int seaprox_run(seaprox_loop *loop);

/* Runs one turn of the loop: waits for events for at most timeout_ms (-1: without limit), and handles them. Returns 1 if the loop
 * goes on, and 0 if it is finished.
 * Errors: BUSY in a callback. */
int seaprox_run_one(seaprox_loop *loop, int timeout_ms);

/* Finishes the loop: it accepts no more clients, opens no more listeners and adopts no more descriptors, and ends
 * when its last connection is over, or after grace_ms; at once if grace_ms is 0. The shortest time counts. Any thread. */
int seaprox_finish(seaprox_loop *loop, uint32_t grace_ms);

/* Ends the wait of the loop: its present turn, or else the next one, returns without waiting for events. Any thread. */
int seaprox_wake(seaprox_loop *loop);

/* A function that runs in the loop. */
typedef void (*seaprox_post_fn)(seaprox_loop *loop, void *user);

/* Runs a function in the loop soon, in its thread. A loop that has ended takes it and never runs it. Any thread.
 * Errors: FULL if 4096 wait. */
int seaprox_post(seaprox_loop *loop, seaprox_post_fn callback, void *user);

/* Returns a descriptor that is readable when the loop has events, for a loop around this one: poll it, and call
 * seaprox_run_one(loop, 0) after each event and each timeout. The loop owns the descriptor.
 * Errors: BUSY in a callback. */
int seaprox_fd(seaprox_loop *loop);

/* Tells the longest time until seaprox_run_one(loop, 0) is due without an event: -1 if there is none. A function that was called
 * since the last turn may make one due, so ask just before you wait.
 * Errors: BUSY in a callback. */
int seaprox_timeout(seaprox_loop *loop, int *timeout_ms);

/* ---- Descriptors and timers of the program ---- */

/* Readiness of a descriptor, as bits. */
enum seaprox_poll_event {
    SEAPROX_READABLE = 1,
    SEAPROX_WRITABLE = 2,
    SEAPROX_CLOSED = 4, /* the other end is gone or has ended what it sends; only reported */
    SEAPROX_FAILED = 8  /* the descriptor has an error; only reported */
};

/* Is called once in each turn while a descriptor is ready. events has bits of enum seaprox_poll_event. */
typedef void (*seaprox_poll_fn)(seaprox_loop *loop, int fd, int events, void *user);

/* Watches a descriptor of the program: SEAPROX_READABLE, SEAPROX_WRITABLE or both. The program keeps it open until
 * seaprox_poll_remove. A watch does not keep a loop running.
 * Errors: ALREADY if it is watched, whatever for; FULL beyond max_num_watches, INVALID for a regular file, -EBADF if it is not open. */
int seaprox_poll_add(seaprox_loop *loop, int fd, int events, seaprox_poll_fn callback, void *user);

/* Changes the events that a watch waits for.
 * Errors: STALE if the descriptor is not watched. */
int seaprox_poll_modify(seaprox_loop *loop, int fd, int events);

/* Ends a watch. Its callback is not called again. The program may close the descriptor then.
 * Errors: STALE if the descriptor is not watched. */
int seaprox_poll_remove(seaprox_loop *loop, int fd);

/* A function that is called after a time. */
typedef void (*seaprox_timer_fn)(seaprox_loop *loop, void *user);

/* Calls a function once, after ms and never earlier. A timer does not keep a loop running.
 * Errors: FULL beyond max_num_timers. */
int seaprox_after(seaprox_loop *loop, uint64_t ms, seaprox_timer_fn callback, void *user, seaprox_id *timer);

/* Cancels a timer. Its function is not called.
 * Errors: STALE if it has run or was cancelled. */
int seaprox_cancel(seaprox_loop *loop, seaprox_id timer);

/* ---- Front ends by name ---- */

/* Opens a listener with a front end of seaprox: "static", "socks", "http" or "redirect".
 *   address   PORT (loopback), :PORT (all addresses), ADDR:PORT, NAME:PORT or unix:/path; port 0 lets the system choose. A NAME is
 *             looked up before the function returns.
 *   toml      the options of the listener, as the section [[listener]] of a file has them (docs/configuration.md), such as
 *             to = "db:5432", users = "users.txt", deny = ["from:192.0.2.0/24"]; relative paths begin in the current directory
 * An address may stand for several sockets; the id is good for all of them.
 * Errors: CONFIG with a line for each problem, -EADDRINUSE and others of the system. */
int seaprox_listen_front_end(seaprox_loop *loop, const char *front_end, size_t front_end_len, const char *address,
                             size_t address_len, const char *toml, size_t toml_len, seaprox_id *listener);

/* Puts a whole configuration into effect, in the form of the files of `seaprox run` (docs/configuration.md): listeners, links,
 * forwards. Called again, it changes only what differs, and connections go on. What the program itself has opened stays. Limits
 * and threads are those of seaprox_new; timeouts are those of the text, and its defaults where it has none, not those of seaprox_new. A
 * loop has no admin server. The loop runs during the call, so callbacks are called.
 * Errors: CONFIG with a line for each problem. Nothing of a first configuration is in effect then. A later one changes nothing either
 * if its text is wrong, or a part cannot be made or an address cannot be bound; if a loop or a link refuses a part, the other parts are
 * in effect, and the next call tries that part again. BUSY in a callback. */
int seaprox_apply(seaprox_loop *loop, const char *toml, size_t toml_len);

/* Returns the link with this name in the configuration that seaprox_apply has put into effect, or the group of links if it has several
 * servers; 0 if there is none. Forwards, services, datagrams and routes take both ids. */
seaprox_id seaprox_link_named(seaprox_loop *loop, const char *name, size_t name_len);

/* Checks a whole configuration and changes nothing. Any thread.
 * Errors: CONFIG with a line for each problem. */
int seaprox_check(const char *toml, size_t toml_len);

/* ---- Front ends of the program ---- */

/* The end of a connection. */
typedef struct seaprox_end {
    uint32_t size;
    int reason;        /* enum seaprox_reason */
    int ending;        /* enum seaprox_ending */
    int fault;         /* enum seaprox_fault */
    uint64_t sent;     /* bytes relayed from the source to the dest */
    uint64_t received; /* bytes relayed from the dest to the source */
    void *source_data; /* the data of the source (seaprox_side_set_data) */
    void *dest_data;   /* the data of the last dest that was given some */
} seaprox_end;

/* The callbacks of a connection of the program. Each may be NULL. They are called for both sides of the connection; the side or
 * the connection that a call is about is its second parameter. */
typedef struct seaprox_handler {
    uint32_t size;
    uint32_t reserved; /* 0, as in all structs */
    /* A client was accepted. */
    void (*opened)(seaprox_loop *loop, seaprox_id connection, void *user);
    /* A side has sent bytes that are not relayed: all of them that were not consumed yet, which live until the return. Returns the
     * number that are consumed; 0 to wait for more. Bytes that are left when the connection begins to relay are relayed first. A
     * handler that consumes nothing of 16 KiB ends the connection with SEAPROX_PROTOCOL_ERROR. NULL consumes nothing. */
    size_t (*readable)(seaprox_loop *loop, seaprox_id side, const uint8_t *input, size_t len, void *user);
    /* The dest is connected (reason 0), or could not be: a reason, and the text of the system, which may be empty. Another target
     * may be tried then. NULL relays, or closes with the reason. */
    void (*connected)(seaprox_loop *loop, seaprox_id connection, int reason, const char *detail, size_t detail_len,
                      void *user);
    /* All bytes that were sent to a side have been written, after some had to wait. */
    void (*writable)(seaprox_loop *loop, seaprox_id side, void *user);
    /* The handshake timeout has passed. NULL closes the connection. */
    void (*timeout)(seaprox_loop *loop, seaprox_id connection, void *user);
    /* The time of seaprox_connection_wake_after has passed. */
    void (*woken)(seaprox_loop *loop, seaprox_id connection, void *user);
    /* The input of a side has ended while it was not relayed: enum seaprox_cause. NULL closes the connection. A reset of the source
     * ends the connection without this call. */
    void (*ended)(seaprox_loop *loop, seaprox_id side, int cause, void *user);
    /* The connection is over. This is its last callback, and functions answer SEAPROX_ERR_OVER for it. The end lives until the
     * return. Only the handler that the source has at the end is told, once for both sides: other handlers of the connection, those of
     * its dests and earlier ones (seaprox_connection_set_handler), get no callback any more by then, so their user pointers may
     * be freed here. */
    void (*closed)(seaprox_loop *loop, seaprox_id connection, const seaprox_end *end, void *user);
} seaprox_handler;

/* The options of a listener of the program. A field that is 0 has its default. */
typedef struct seaprox_listen_options {
    uint32_t size;
    uint32_t backlog;                /* clients that may wait to be accepted, 4096 */
    const char *address;             /* as for seaprox_listen_front_end; needed */
    size_t address_len;
    const char *name;                /* the name in status and metrics; the address */
    size_t name_len;
    const char *kind;                /* the name of the front end in descriptions, "c" */
    size_t kind_len;
    seaprox_id link;                 /* the link over which dests are reached; none */
    uint32_t handshake_timeout_ms;   /* this timeout and the next ones are those of the loop if they are 0 */
    uint32_t connect_timeout_ms;
    uint32_t idle_timeout_ms;
    uint32_t half_closed_timeout_ms;
} seaprox_listen_options;

/* Opens a listener whose clients get the callbacks of a handler, each with the user pointer. The handler is copied. The user pointer
 * must be good until the listener is closed and its last connection is over.
 * Errors: INVALID, ALREADY if the name is in use, FULL, -EADDRINUSE and others of the system. */
int seaprox_listen(seaprox_loop *loop, const seaprox_listen_options *options, const seaprox_handler *handler, void *user,
                   seaprox_id *listener);

/* Closes a listener. Its connections go on; the system refuses the clients that wait.
 * Errors: STALE, INVALID if a link owns it. */
int seaprox_listener_close(seaprox_loop *loop, seaprox_id listener);

/* Gives the address of a listener, such as 127.0.0.1:1080, with the port that the system chose. */
int seaprox_listener_address(seaprox_loop *loop, seaprox_id listener, char *buf, size_t cap, size_t *len);

/* Returns the port of a listener; 0 for a Unix socket. */
int seaprox_listener_port(seaprox_loop *loop, seaprox_id listener);

/* Makes a connection whose source is a descriptor of the program: a connected socket, a pipe, a terminal or a file. write_fd is the
 * descriptor to write to, if it is another one; -1 otherwise. The loop takes both over, and closes them also after an error; it
 * makes them non-blocking. kind may be empty. The opened callback comes with the next turn.
 * Errors: FULL, OVER if the loop was finished, INVALID if they carry no stream of bytes, -EBADF if one is not open. */
int seaprox_adopt(seaprox_loop *loop, int fd, int write_fd, const char *kind, size_t kind_len,
                  const seaprox_handler *handler, void *user, seaprox_id *connection);

/* ---- Connections ---- */

/* Returns the source of a connection; 0 if it is over. */
seaprox_id seaprox_connection_source(seaprox_loop *loop, seaprox_id connection);

/* Returns the dest of a connection; 0 if it has none, or is over. */
seaprox_id seaprox_connection_dest(seaprox_loop *loop, seaprox_id connection);

/* Returns the listener that accepted a connection; 0 if none did. */
seaprox_id seaprox_connection_listener(seaprox_loop *loop, seaprox_id connection);

/* Gives the description of a connection, such as socks5[ipv4[192.0.2.7:5678]->name[example.org:80]]. */
int seaprox_connection_describe(seaprox_loop *loop, seaprox_id connection, char *buf, size_t cap, size_t *len);

/* Gives the target that a connection has asked for, such as example.org:80; empty before it is known. */
int seaprox_connection_target(seaprox_loop *loop, seaprox_id connection, char *buf, size_t cap, size_t *len);

/* Returns the stage of a connection, one of enum seaprox_stage. */
int seaprox_connection_stage(seaprox_loop *loop, seaprox_id connection);

/* Sets the stage of a connection, and starts the timer of that stage: SEAPROX_STAGE_HANDSHAKE (the handshake timeout),
 * SEAPROX_STAGE_ESTABLISHED (the idle timeout) or SEAPROX_STAGE_KEEP_ALIVE. A program that serves its clients by itself, without a
 * dest, sets ESTABLISHED when it knows them.
 * Errors: INVALID for other stages. */
int seaprox_connection_set_stage(seaprox_loop *loop, seaprox_id connection, int stage);

/* Tells the bytes relayed from the source to the dest, and back. */
int seaprox_connection_bytes(seaprox_loop *loop, seaprox_id connection, uint64_t *sent, uint64_t *received);

/* Connects the dest: HOST:PORT, [IPV6]:PORT or unix:/path. The connected callback tells the result, never before this function
 * returns. Until then nothing is read from the source. Look at a target that a peer has named before you pass it on: unix:/path
 * reaches the sockets of this host that the program may use, and 127.0.0.1 its servers.
 * Errors: ALREADY if there is a dest, INVALID if the target is none. */
int seaprox_connection_connect(seaprox_loop *loop, seaprox_id connection, const char *target, size_t target_len);

/* Makes a descriptor of the program the dest; see seaprox_adopt for the descriptors. The connected callback follows.
 * Errors: ALREADY if there is a dest, INVALID, -EBADF if one is not open. */
int seaprox_connection_connect_fd(seaprox_loop *loop, seaprox_id connection, int fd, int write_fd);

/* Releases the dest, so that another one can be connected. Bytes that wait for it are dropped.
 * Errors: STALE if there is none. */
int seaprox_connection_disconnect(seaprox_loop *loop, seaprox_id connection);

/* Makes a connection reach its dest over a link. Call it before seaprox_connection_connect.
 * Errors: ALREADY if there is a dest, INVALID if the id is not that of a link or a group. */
int seaprox_connection_route(seaprox_loop *loop, seaprox_id connection, seaprox_id link);

/* Relays both directions until the connection ends. No callback but closed runs from then on. */
int seaprox_connection_relay(seaprox_loop *loop, seaprox_id connection);

/* Ends what is sent to the source of a connection without a dest: it gets a FIN after all bytes, and may go on sending.
 * Errors: ALREADY if that has ended, or if there is a dest. */
int seaprox_connection_finish(seaprox_loop *loop, seaprox_id connection);

/* Closes a connection at once. The peers see a reset if the reason implies one, and an orderly close otherwise. */
int seaprox_connection_close(seaprox_loop *loop, seaprox_id connection, int reason);

/* Closes a connection after all bytes for its source were written. */
int seaprox_connection_close_after_flush(seaprox_loop *loop, seaprox_id connection, int reason);

/* Closes a connection at once, with a reset to both peers whatever the reason is. */
int seaprox_connection_abort(seaprox_loop *loop, seaprox_id connection, int reason);

/* Calls woken after ms, unless the connection is over by then. A connection has one such call at most.
 * Errors: ALREADY if there is one. */
int seaprox_connection_wake_after(seaprox_loop *loop, seaprox_id connection, uint64_t ms);

/* Sets the user of a connection, for log and status. */
int seaprox_connection_set_user(seaprox_loop *loop, seaprox_id connection, const char *user, size_t user_len);

/* Sets the name of the front end of a connection, for its description. */
int seaprox_connection_set_kind(seaprox_loop *loop, seaprox_id connection, const char *kind, size_t kind_len);

/* Gives one side of a connection another handler, from when the running callback returns. role is SEAPROX_SOURCE or SEAPROX_DEST. A
 * dest without one has that of its source.
 * Errors: STALE if there is no such side. */
int seaprox_connection_set_handler(seaprox_loop *loop, seaprox_id connection, int role, const seaprox_handler *handler,
                                   void *user);

/* ---- Sides ---- */

/* Returns the connection of a side; 0 if the side is gone. */
seaprox_id seaprox_side_connection(seaprox_loop *loop, seaprox_id side);

/* Returns the other side of the connection; 0 if there is none. */
seaprox_id seaprox_side_other(seaprox_loop *loop, seaprox_id side);

/* Returns the side with this data; 0 if no side has it, and for NULL. If several have it, this is the last one that got it. */
seaprox_id seaprox_side_of_data(seaprox_loop *loop, void *data);

/* Returns the data of a side; NULL if it has none, or is gone. */
void *seaprox_side_data(seaprox_loop *loop, seaprox_id side);

/* Keeps a pointer with a side; NULL removes it. It is never followed; closed and SEAPROX_EVENT_ENDED give it back. */
int seaprox_side_set_data(seaprox_loop *loop, seaprox_id side, void *data);

/* Returns the state of a side, one of enum seaprox_side_state; SEAPROX_IDLE for 0, which is a dest that has no target yet. */
int seaprox_side_state(seaprox_loop *loop, seaprox_id side);

/* Returns the role of a side, one of enum seaprox_role; 0 for 0. */
int seaprox_side_role(seaprox_loop *loop, seaprox_id side);

/* Gives the address of the peer of a side, such as ipv4[192.0.2.7:5678] or unix[/path]. */
int seaprox_side_peer(seaprox_loop *loop, seaprox_id side, char *buf, size_t cap, size_t *len);

/* Gives the local address of a side in the same form. */
int seaprox_side_local(seaprox_loop *loop, seaprox_id side, char *buf, size_t cap, size_t *len);

/* Sends bytes to a side, ahead of all that are relayed to it: all of them or none. At most 32 KiB wait.
 * Errors: FULL if too many wait; writable tells when they are gone. ALREADY if the side was sent a FIN. */
int seaprox_side_send(seaprox_loop *loop, seaprox_id side, const uint8_t *data, size_t len);

/* Tells the number of bytes that wait to be written to a side. */
int seaprox_side_queued(seaprox_loop *loop, seaprox_id side, size_t *bytes);

/* Relays the next count bytes of the input of a side to the other one. Then its input is the handler's again, which is called
 * once even if there is none. */
int seaprox_side_relay(seaprox_loop *loop, seaprox_id side, uint64_t count);

/* Stops reading a side until seaprox_side_resume or seaprox_side_relay. The peer is held back when the system's buffers are full. */
int seaprox_side_pause(seaprox_loop *loop, seaprox_id side);

/* Gives the input of a side to its handler, including what waits. */
int seaprox_side_resume(seaprox_loop *loop, seaprox_id side);

/* ---- The external connector ---- */

/* Is called for each dest that is to be connected. The side is the dest in state CONNECTING; seaprox_side_other is its source; the
 * server of a link is a side of no connection. host is a name, an address, or unix:/path with port 0; it has a final zero and
 * lives until the return. The answer is one call of seaprox_connector_connected or seaprox_connector_failed, now or later, in any
 * thread. Without one the connect timeout ends it. The request is stale then, and when its connection is over. */
typedef void (*seaprox_connect_fn)(seaprox_loop *loop, seaprox_connect_request *request, seaprox_id side, const char *host,
                                   size_t host_len, uint16_t port, void *user);

/* Sets a connector, which connects all dests and the servers of links in place of the loop; dests over links excepted. */
int seaprox_set_connector(seaprox_loop *loop, seaprox_connect_fn callback, void *user);

/* Answers a request with a connected stream socket, or another descriptor that carries bytes. The loop takes it over if the
 * result is 0; after an error it is still the program's. Any thread.
 * Errors: STALE if nobody waits for the answer any more: there was one, the connect timeout has passed, the connection is over, or the
 * loop freed. -EBADF if the descriptor is not open. */
int seaprox_connector_connected(seaprox_connect_request *request, int fd);

/* Answers a request with a failure: a reason, such as SEAPROX_NAME_RESOLUTION_FAILURE, SEAPROX_CONNECTION_REFUSED or SEAPROX_OTHER, and
 * an errno whose text is the detail, or 0. Any thread.
 * Errors: STALE as for seaprox_connector_connected; INVALID if there is no such reason. */
int seaprox_connector_failed(seaprox_connect_request *request, int reason, int os_error);

/* ---- Hooks ---- */

/* The callbacks of a hook, which sees the bytes that a connection relays, and may change them. Each may be NULL. They run in the
 * middle of a turn: they must not block, and must not use the loop, whose functions answer SEAPROX_ERR_BUSY. */
typedef struct seaprox_hook {
    uint32_t size;
    uint32_t reserved;
    /* The connection begins to relay. */
    void (*connected)(seaprox_id connection, void *user);
    /* A side, SEAPROX_SOURCE or SEAPROX_DEST, has sent bytes. What is written to the transit goes to the other side. What is not
     * consumed is shown again with more; a hook that consumes and writes nothing of half a block ends the connection. Returns 0,
     * or a reason that ends the connection. NULL passes all. */
    int (*data)(seaprox_id connection, int from, seaprox_transit *transit, void *user);
    /* A side has sent its FIN; otherwise like data. It is called until all is consumed, or until nothing moves. */
    int (*fin)(seaprox_id connection, int from, seaprox_transit *transit, void *user);
    /* The connection is over. */
    void (*ended)(seaprox_id connection, int reason, void *user);
} seaprox_hook;

/* Sets the hook of a connection. The struct is copied. The bytes of the connection are copied and not spliced from now on.
 * Errors: ALREADY if there is a hook. */
int seaprox_connection_set_hook(seaprox_loop *loop, seaprox_id connection, const seaprox_hook *hook, void *user);

/* Tells the bytes that are not consumed. They live until the callback returns. */
int seaprox_transit_input(seaprox_transit *transit, const uint8_t **input, size_t *len);

/* Tells the number of bytes that may still be written. */
int seaprox_transit_room(seaprox_transit *transit, size_t *room);

/* Consumes bytes of the input, or all if there are fewer. */
int seaprox_transit_consume(seaprox_transit *transit, size_t count);

/* Writes bytes, as many as there is room for, and tells their number. */
int seaprox_transit_write(seaprox_transit *transit, const uint8_t *data, size_t len, size_t *written);

/* Passes input unchanged: writes and consumes it, as much as there is and as there is room for. SIZE_MAX passes all. */
int seaprox_transit_pass(seaprox_transit *transit, size_t count, size_t *passed);

/* Asks for another call when the other side has taken what was written. */
int seaprox_transit_call_again(seaprox_transit *transit);

/* ---- Datagrams ---- */

/* The callbacks for flows of datagrams. A flow is what one client and one target send each other; it ends when it is idle. Each may be
 * NULL. */
typedef struct seaprox_datagram_handler {
    uint32_t size;
    uint32_t reserved;
    /* A client of a listener has sent its first datagram. Returns 0, and the target in its buffer of cap bytes with the length, such
     * as example.org:53: the loop carries all datagrams of the flow there from now on, over the link of the listener if it has one.
     * Without a text the flow ends here, and datagram handles it. Another result is a reason that refuses the client. It must not
     * block, and must not use its loop, whose functions answer SEAPROX_ERR_BUSY. NULL handles all flows. */
    int (*open)(const char *client, size_t client_len, const uint8_t *content, size_t len, char *target, size_t cap,
                size_t *target_len, void *user);
    /* A datagram for the program, which lives until the return. seaprox_datagram_send answers it. */
    void (*datagram)(seaprox_loop *loop, seaprox_id flow, const uint8_t *content, size_t len, void *user);
    /* A flow that the program handled or opened is over: enum seaprox_reason. Its id is stale. */
    void (*ended)(seaprox_loop *loop, seaprox_id flow, int reason, void *user);
} seaprox_datagram_handler;

/* Opens a listener of UDP, whose flows get the callbacks of a handler; otherwise as seaprox_listen. The address needs no udp: in
 * front. seaprox_listener_close and its like are for it, too.
 * Errors: INVALID, ALREADY if the name is in use, FULL, -EADDRINUSE and others of the system. */
int seaprox_listen_datagrams(seaprox_loop *loop, const seaprox_listen_options *options,
                             const seaprox_datagram_handler *handler, void *user, seaprox_id *listener);

/* Opens a flow from the program to a target, HOST:PORT or [IPV6]:PORT: over a link or a group, or from a socket of its own if link is
 * 0. Datagrams that are sent before the target can be reached wait for a while.
 * Errors: INVALID, FULL, STALE, OVER if the loop is stopping. */
int seaprox_datagrams_open(seaprox_loop *loop, seaprox_id link, const char *target, size_t target_len,
                           const seaprox_datagram_handler *handler, void *user, seaprox_id *flow);

/* Sends a datagram to the other end of a flow that the program handles or has opened. What cannot be sent now is dropped, as datagrams
 * are.
 * Errors: INVALID if it is longer than 65,507 bytes, or if the flow does not end at the program. */
int seaprox_datagram_send(seaprox_loop *loop, seaprox_id flow, const uint8_t *content, size_t len);

/* Gives the description of a flow, such as c[ipv4[udp:192.0.2.7:5678]->ipv4[udp:127.0.0.1:53]]. */
int seaprox_flow_describe(seaprox_loop *loop, seaprox_id flow, char *buf, size_t cap, size_t *len);

/* Ends a flow. */
int seaprox_flow_close(seaprox_loop *loop, seaprox_id flow);

/* ---- Keys of nodes ---- */

/* The bytes of a key, private or public: ed25519 (RFC 8032). */
#define SEAPROX_KEY_BYTES 32

/* Makes a private key: SEAPROX_KEY_BYTES random bytes. Any thread. */
int seaprox_key_new(uint8_t *key);

/* Reads the private key in a file as `seaprox keygen` makes it; if there is no file, makes one that only its owner can read. Waits
 * for the disk. Any thread.
 * Errors: CONFIG if the file cannot be used. */
int seaprox_key_load(const char *path, size_t path_len, uint8_t *key);

/* Derives a private key from a secret that several nodes share: all of them have the same key then. It takes some tenths of a
 * second, so do it once. Any thread.
 * Errors: INVALID for less than 16 bytes. */
int seaprox_key_derive(const uint8_t *secret, size_t secret_len, uint8_t *key);

/* Gives the public key of a private key. Any thread. */
int seaprox_key_public(const uint8_t *key, uint8_t *public_key);

/* Reads a public key from its text, such as the output of `seaprox pubkey`. Any thread.
 * Errors: INVALID. */
int seaprox_key_parse(const char *text, size_t text_len, uint8_t *public_key);

/* Gives the text of a public key, as a line of authorized_keys has it. Any thread.
 * Errors: INVALID if no public key has these bytes. */
int seaprox_key_text(const uint8_t *public_key, char *buf, size_t cap, size_t *len);

/* Gives the fingerprint of a public key, such as SHA256:... Any thread.
 * Errors: INVALID if no public key has these bytes. */
int seaprox_key_fingerprint(const uint8_t *public_key, char *buf, size_t cap, size_t *len);

/* ---- Links ---- */

/* The answers of a policy. */
enum seaprox_verdict {
    SEAPROX_REFUSE = 0,
    SEAPROX_PERMIT = 1,     /* the loop connects to the target, or listens on the address */
    SEAPROX_ASK = 2,        /* an event asks the program: a stream waits for seaprox_permit, all else is refused until it is
                             * requested again */
    SEAPROX_BY_ADDRESS = 3, /* of a target: reach decides about each address of its name */
    SEAPROX_HANDLE = 4      /* of a target: the handler of the options gets the stream or the flow, and nothing is connected */
};

/* The policy of a link: which keys may have one, and what their nodes may do here. What no callback permits is refused, and so
 * everything but links if all are NULL. Keys have SEAPROX_KEY_BYTES. The callbacks may be asked several times for one request, and
 * whenever a permission is checked. They run in the middle of a turn: they must not block, and must not use the loop, whose functions
 * answer SEAPROX_ERR_BUSY. */
typedef struct seaprox_policy {
    uint32_t size;
    uint32_t max_num_streams;      /* streams that a peer may have open at once; 0: as many as the link has */
    uint64_t max_bytes_per_second; /* of a peer in each direction, over all its links; 0: no limit */
    /* Returns 0 if the key may have no link. NULL admits peer_key of the options, and the keys of the files that toml names. */
    int (*admit)(const uint8_t *key, void *user);
    /* A peer opens a stream or a flow of datagrams to a target, such as example.org:80 or udp:[::1]:53: enum seaprox_verdict. */
    int (*open)(const uint8_t *key, const char *target, size_t target_len, void *user);
    /* After SEAPROX_BY_ADDRESS: is the target permitted with this IP address of its name? SEAPROX_PERMIT or SEAPROX_REFUSE. */
    int (*reach)(const uint8_t *key, const char *target, size_t target_len, const char *address, size_t address_len,
                 void *user);
    /* A peer wants this node to listen on an address for it: enum seaprox_verdict without the last two. */
    int (*listen)(const uint8_t *key, const char *address, size_t address_len, void *user);
} seaprox_policy;

/* The kinds of events of links. The numbers never change; a later version may have more. */
enum seaprox_link_event_kind {
    SEAPROX_LINK_EVENT_UP = 1,           /* there is a session: key, is_new */
    SEAPROX_LINK_EVENT_SUSPENDED = 2,    /* the last subflow is gone; streams wait, and nothing is lost */
    SEAPROX_LINK_EVENT_RESUMED = 3,      /* the session has a subflow again */
    SEAPROX_LINK_EVENT_DRAINING = 4,     /* the peer is about to stop: new streams get another session */
    SEAPROX_LINK_EVENT_DRAINED = 5,      /* the session with a peer that was about to stop is over */
    SEAPROX_LINK_EVENT_SUBFLOW_UP = 6,   /* a subflow is up: subflow, tries before */
    SEAPROX_LINK_EVENT_SUBFLOW_LOST = 7, /* a subflow failed; it is tried again: subflow, tries, reason, text */
    SEAPROX_LINK_EVENT_WRONG_KEY = 8,    /* the policy does not admit the key of the peer: key */
    SEAPROX_LINK_EVENT_REJECTED = 9,     /* the peer does not admit the key of this node */
    SEAPROX_LINK_EVENT_EXPIRED = 10,     /* the peer does not admit the key any more, because its time is over */
    SEAPROX_LINK_EVENT_ASKED_OPEN = 11,  /* SEAPROX_ASK: key, text is the target; connection waits for seaprox_permit, 0 if it
                                          * was a flow of datagrams, which is refused */
    SEAPROX_LINK_EVENT_ASKED_LISTEN = 12, /* SEAPROX_ASK: key, text is the address; refused for now */
    SEAPROX_LINK_EVENT_MESSAGE = 13,     /* a message of the peer: key, text, which is the peer's: escape it for terminals */
    SEAPROX_LINK_EVENT_CLOSED = 14,      /* this node has closed the link; its id is stale soon */
    SEAPROX_LINK_EVENT_ENDED = 15        /* the session is over, and this node did not close it: reason, text. A link that this
                                          * node dials is dialed again; one that the peer has dialed is gone */
};

/* An event of a link. Fields that do not belong to its kind are 0. */
typedef struct seaprox_link_event {
    uint32_t size;
    int kind;              /* enum seaprox_link_event_kind */
    seaprox_id link;
    seaprox_id connection; /* the stream that waits */
    const uint8_t *key;    /* SEAPROX_KEY_BYTES of the peer's public key; NULL if it is not known */
    const char *text;
    size_t text_len;
    int reason;            /* enum seaprox_reason */
    int is_new;            /* 1 if the session is a new one */
    uint32_t subflow;      /* the number of the subflow, in the order of the paths */
    uint32_t tries;        /* consecutive failures of the subflow */
} seaprox_link_event;

/* Is told an event of a link. The event and what it points to live until the return. */
typedef void (*seaprox_link_event_fn)(seaprox_loop *loop, const seaprox_link_event *event, void *user);

/* The options of links: of one that this node dials, or of all that peers dial to an address of this node. What the structs point
 * to is copied, but for the user pointers. A field that is 0 has its default. */
typedef struct seaprox_link_options {
    uint32_t size;
    uint32_t reserved;
    const char *address;            /* dial: HOST[:PORT], [IPV6]:PORT or unix:/path, port 23232; serve: an address as for
                                     * seaprox_listen_front_end; needed */
    size_t address_len;
    const char *toml;               /* further options, as the section [[link]] or [[serve]] of a file has them
                                     * (docs/configuration.md), such as subflows = 2, local-port = 23232, simultaneous = true,
                                     * peer-key = "SHA256:...", or authorized-keys = "FILE"; files are read once */
    size_t toml_len;
    const uint8_t *key;             /* the private key of this node, SEAPROX_KEY_BYTES; NULL for a new one */
    const uint8_t *peer_key;        /* the public key that the peer must have; NULL if policy or toml says it. If both nodes have
                                     * the key of a secret, this is the public key of that */
    const seaprox_policy *policy;   /* NULL: the keys are peer_key and those of toml, and they may do what the files of toml
                                     * permit */
    seaprox_link_event_fn event;    /* is told the events of the links; NULL if no one is */
    void *user;                     /* for event and policy */
    const seaprox_handler *handler; /* for streams that peers open: those with SEAPROX_HANDLE, without a policy all; may be NULL */
    void *handler_user;             /* for handler */
    const seaprox_datagram_handler *datagram_handler; /* the same for flows of datagrams that peers open, to udp: targets */
    void *datagram_user;            /* for datagram_handler */
} seaprox_link_options;

/* The states of links. The numbers never change. */
enum seaprox_link_state {
    SEAPROX_LINK_CONNECTING = 1, /* there is no session yet, or no more; streams wait */
    SEAPROX_LINK_UP = 2,
    SEAPROX_LINK_SUSPENDED = 3,  /* the session has no subflow now, and resumes without loss */
    SEAPROX_LINK_DRAINING = 4,   /* the peer is about to stop */
    SEAPROX_LINK_ENDED = 5       /* it is being closed */
};

/* Dials a link, and keeps it up until it is closed. Streams and forwards can be opened at once; they wait for the link.
 * Errors: INVALID if nothing says which key the peer must have, CONFIG with a line for each problem, ALREADY if this node has
 * dialed the address with this key, FULL. */
int seaprox_link_dial(seaprox_loop *loop, const seaprox_link_options *options, seaprox_id *link);

/* Takes links that peers dial to an address. The first event of each is SEAPROX_LINK_EVENT_UP.
 * Errors: INVALID if nothing says which keys are admitted, CONFIG with a line for each problem, FULL, -EADDRINUSE and others of the
 * system. */
int seaprox_link_serve(seaprox_loop *loop, const seaprox_link_options *options, seaprox_id *server);

/* Stops taking links. Those that there are go on if closes_links is 0, and are closed otherwise. */
int seaprox_server_close(seaprox_loop *loop, seaprox_id server, int closes_links);

/* Gives the address of a server, with the port that the system chose. */
int seaprox_server_address(seaprox_loop *loop, seaprox_id server, char *buf, size_t cap, size_t *len);

/* Returns the port of a server; 0 for a Unix socket. */
int seaprox_server_port(seaprox_loop *loop, seaprox_id server);

/* Closes a link in order: its streams are reset, its forwards are closed, and the peer is told.
 * Errors: ALREADY if it is being closed. */
int seaprox_link_close(seaprox_loop *loop, seaprox_id link);

/* Returns the state of a link, one of enum seaprox_link_state. */
int seaprox_link_state(seaprox_loop *loop, seaprox_id link);

/* Gives the public key of the peer.
 * Errors: INVALID if it is not known yet. */
int seaprox_link_key(seaprox_loop *loop, seaprox_id link, uint8_t *public_key);

/* Gives the status of a link as JSON: state, key, cipher, subflows with round trips and rates, streams, counts; the member that
 * `seaprox status --json` has of it. */
int seaprox_link_json(seaprox_loop *loop, seaprox_id link, char *buf, size_t cap, size_t *len);

/* Dials the missing subflows of a link at once, and forgets earlier failures.
 * Errors: ALREADY if none is missing, INVALID if the peer dials the link. */
int seaprox_link_redial(seaprox_loop *loop, seaprox_id link);

/* Adds a path to a link: SOURCE[:PORT][%INTERFACE][->ADDR], each part of which may be absent.
 * Errors: ALREADY if the link has it, FULL if it has no room for subflows, INVALID if the peer dials the link. */
int seaprox_link_add_path(seaprox_loop *loop, seaprox_id link, const char *path, size_t path_len);

/* Removes a path of a link, once no data is on its way there. The last path that is up stays until another one is up.
 * Errors: ALREADY if the link does not have it, INVALID if the peer dials the link. */
int seaprox_link_remove_path(seaprox_loop *loop, seaprox_id link, const char *path, size_t path_len);

/* Asks the policies again about all links: those whose keys are not admitted any more end, and listeners that their peers may not
 * have any more are closed. */
int seaprox_recheck_links(seaprox_loop *loop);

/* Decides about a stream of SEAPROX_LINK_EVENT_ASKED_OPEN: 0 refuses it, all else permits it.
 * Errors: STALE if it waits no more. */
int seaprox_permit(seaprox_loop *loop, seaprox_id connection, int may);

/* Sends a message to the program at the other end, of at most 4096 bytes. Messages arrive in order and once; those that wait when the
 * session ends are lost.
 * Errors: INVALID if it is longer, FULL if 64 wait, OVER if the link has no session. */
int seaprox_send_message(seaprox_loop *loop, seaprox_id link, const char *text, size_t text_len);

/* ---- Forwards ---- */

/* The states of forwards. The numbers never change. SEAPROX_EVENT_FORWARD tells changes. */
enum seaprox_forward_state {
    SEAPROX_FORWARD_WAITING = 1,   /* the peer has not answered yet */
    SEAPROX_FORWARD_LISTENING = 2, /* clients are accepted */
    SEAPROX_FORWARD_FAILED = 3,    /* the peer does not listen; it is asked again. seaprox_forward_failure has the reason */
    SEAPROX_FORWARD_CLOSED = 4     /* it was closed, or its link has ended */
};

/* Listens here, and the peer connects each client to the target (ssh -L). link is a link or a group. listen is an address as for
 * seaprox_listen_front_end, target is HOST:PORT or [IPV6]:PORT; with udp: before both the forward carries datagrams.
 * Errors: INVALID, FULL, STALE, OVER, -EADDRINUSE and others of the system. */
int seaprox_forward_local(seaprox_loop *loop, seaprox_id link, const char *listen, size_t listen_len, const char *target,
                          size_t target_len, seaprox_id *forward);

/* The peer listens, and this node connects each client to the target (ssh -R); otherwise as seaprox_forward_local. The peer must
 * permit it.
 * Errors: INVALID, FULL, STALE, OVER. */
int seaprox_forward_remote(seaprox_loop *loop, seaprox_id link, const char *listen, size_t listen_len, const char *target,
                           size_t target_len, seaprox_id *forward);

/* Listens here with a front end, to which clients name their targets: "socks" or "http" (ssh -D). toml has options as for
 * seaprox_listen_front_end. The peer connects.
 * Errors: CONFIG with a line for each problem, INVALID, FULL, STALE, OVER, -EADDRINUSE and others of the system. */
int seaprox_forward_dynamic(seaprox_loop *loop, seaprox_id link, const char *listen, size_t listen_len,
                            const char *front_end, size_t front_end_len, const char *toml, size_t toml_len,
                            seaprox_id *forward);

/* Closes a forward: its address is free, here or at the peer. Its connections go on. */
int seaprox_forward_close(seaprox_loop *loop, seaprox_id forward);

/* Returns the state of a forward, one of enum seaprox_forward_state. */
int seaprox_forward_state(seaprox_loop *loop, seaprox_id forward);

/* Returns the port that a forward listens on, here or at the peer; 0 if it is not known yet. */
int seaprox_forward_port(seaprox_loop *loop, seaprox_id forward);

/* Gives the failure of a forward that does not listen; empty if there is none. */
int seaprox_forward_failure(seaprox_loop *loop, seaprox_id forward, char *buf, size_t cap, size_t *len);

/* Tells the bytes that a forward has relayed from clients, and to them. It looks at all connections of the loop. */
int seaprox_forward_bytes(seaprox_loop *loop, seaprox_id forward, uint64_t *sent, uint64_t *received);

/* ---- Streams of links ---- */

/* Opens a stream to a target, which the peer connects to. The stream is the source of a connection without a dest, whose bytes are
 * those of the handler: connected tells the result, with the reason of the peer; readable, seaprox_side_send,
 * seaprox_side_pause, seaprox_connection_finish and the rest are as for clients. It waits if the link is not up.
 * Errors: INVALID, FULL, STALE, OVER if the link is being closed. */
int seaprox_stream_open(seaprox_loop *loop, seaprox_id link, const char *target, size_t target_len,
                        const seaprox_handler *handler, void *user, seaprox_id *connection);

/* Opens a stream to a service of the program at the other end (seaprox_set_service); otherwise as seaprox_stream_open. link may be a
 * group. A service that is unknown or refused is SEAPROX_NOT_PERMITTED. */
int seaprox_service_open(seaprox_loop *loop, seaprox_id link, const char *service, size_t service_len,
                         const seaprox_handler *handler, void *user, seaprox_id *connection);

/* Says if the peer with this key may use a service: 0 refuses it. As for a policy, it must not use the loop. */
typedef int (*seaprox_service_fn)(const uint8_t *key, const char *service, size_t service_len, void *user);

/* Offers a service to the peers of all links, under a name of at most 255 bytes, in place of another one of this name. Each stream of
 * a peer is the source of a connection with this handler. permit decides about keys; NULL permits all that have a link. Without a
 * handler the service is offered no more, and its streams go on.
 * Errors: STALE if there is no handler and no service. */
int seaprox_set_service(seaprox_loop *loop, const char *service, size_t service_len, const seaprox_handler *handler,
                        seaprox_service_fn permit, void *user);

/* Returns the link that carries a connection: that of its source if it is a stream, or else that of its dest; 0 if none does so
 * far. */
seaprox_id seaprox_connection_link(seaprox_loop *loop, seaprox_id connection);

/* ---- Observation ---- */

/* The kinds of events. The numbers never change; a later version may have more. */
enum seaprox_event_kind {
    SEAPROX_EVENT_OPENED = 1,          /* a connection was accepted; side is its source, in state CONNECTED */
    SEAPROX_EVENT_CONNECTING = 2,      /* a dest is being connected; side is the dest */
    SEAPROX_EVENT_CONNECTED = 3,       /* a dest is connected; side is the dest */
    SEAPROX_EVENT_ENDED = 4,           /* a connection is over; its id is answered with SEAPROX_ERR_OVER */
    SEAPROX_EVENT_LISTENER_OPENED = 5, /* id is the listener */
    SEAPROX_EVENT_LISTENER_CLOSED = 6, /* id is stale */
    SEAPROX_EVENT_LINK = 7,            /* a link has another state */
    SEAPROX_EVENT_FORWARD = 8          /* a forward has another state */
};

/* An event. Fields that do not belong to its kind are 0. */
typedef struct seaprox_event {
    uint32_t size;
    int kind;          /* enum seaprox_event_kind */
    seaprox_id id;     /* the connection, listener, link or forward */
    seaprox_id side;   /* the side that has changed */
    void *data;        /* the data of that side; of a connection that has ended that of its source */
    int state;         /* enum seaprox_side_state, seaprox_link_state or seaprox_forward_state */
    int reason;        /* of ENDED: enum seaprox_reason */
    int ending;        /* of ENDED: enum seaprox_ending */
    int fault;         /* of ENDED: enum seaprox_fault */
    uint64_t sent;     /* of ENDED: bytes from the source to the dest */
    uint64_t received; /* of ENDED: bytes from the dest to the source */
    void *dest_data;   /* of ENDED: the data of the dest */
} seaprox_event;

/* Is told an event, at the end of the turn in which it happened, in their order. The event lives until the return. */
typedef void (*seaprox_event_fn)(seaprox_loop *loop, const seaprox_event *event, void *user);

/* Sets the callback for the events of a loop, in place of the present one; NULL ends it. */
int seaprox_set_events(seaprox_loop *loop, seaprox_event_fn callback, void *user);

/* Gives the status of a loop as JSON, with at most 10,000 connections: the members that `seaprox status --json` has of them. */
int seaprox_status_json(seaprox_loop *loop, char *buf, size_t cap, size_t *len);

/* Gives the metrics of a loop in the text format of Prometheus. */
int seaprox_metrics_text(seaprox_loop *loop, char *buf, size_t cap, size_t *len);

#ifdef __cplusplus
}
#endif

#endif /* SEAPROX_H */
