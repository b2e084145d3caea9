/* Adopted sources for the checks of the C interface, and the count of their ends. */
#include "kit.h"

static int closes;

static inline void count_close(seaprox_loop *loop, seaprox_id connection, const seaprox_end *end, void *user)
{
    (void)loop, (void)connection, (void)user;
    CHECK(end->reason > 0);
    closes++;
}

/* Adopts one end of a pair. Returns the other end. */
static inline int adopted(seaprox_loop *loop, const seaprox_handler *handler, void *user, seaprox_id *connection)
{
    int ends[2];
    IS(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    IS(seaprox_adopt(loop, ends[0], -1, NULL, 0, handler, user, connection), 0);
    return ends[1];
}

static inline int is_open(int fd)
{
    return fcntl(fd, F_GETFD) >= 0;
}
