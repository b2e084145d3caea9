/* Both ends of a link. They share a secret in the environment, from which both derive the same key.
 *     SECRET=... link serve 0.0.0.0:23232 db:5432
 *     SECRET=... link dial gateway.example.org 127.0.0.1:5432 db:5432
 * The first one permits its peer the one target that it names. The second one listens, and its clients reach the target there. */
#include <seaprox.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *permitted;

static int may_open(const uint8_t *key, const char *target, size_t target_len, void *user)
{
    (void)key, (void)user;
    return target_len == strlen(permitted) && memcmp(target, permitted, target_len) == 0 ? SEAPROX_PERMIT : SEAPROX_REFUSE;
}

static void event(seaprox_loop *loop, const seaprox_link_event *event, void *user)
{
    static const char *words[] = {[SEAPROX_LINK_EVENT_UP] = "up", [SEAPROX_LINK_EVENT_SUSPENDED] = "suspended",
                                  [SEAPROX_LINK_EVENT_RESUMED] = "resumed", [SEAPROX_LINK_EVENT_ENDED] = "ended"};
    (void)loop, (void)user;
    if (event->kind <= SEAPROX_LINK_EVENT_ENDED && words[event->kind])
        printf("link: %s\n", words[event->kind]);
}

static int run(seaprox_loop *loop, int argc, char **argv, const char *secret)
{
    seaprox_link_options options = {.size = sizeof options, .event = event, .address = argv[2]};
    seaprox_policy policy = {.size = sizeof policy, .open = argc == 4 ? may_open : NULL};
    uint8_t key[SEAPROX_KEY_BYTES], public_key[SEAPROX_KEY_BYTES];
    seaprox_id id = 0;
    int result = seaprox_key_derive((const uint8_t *)secret, strlen(secret), key);
    options.address_len = strlen(argv[2]);
    options.key = key, options.peer_key = public_key, options.policy = &policy;
    permitted = argv[argc - 1];
    if (result == 0 && seaprox_key_public(key, public_key) == 0)
        result = argc == 4 ? seaprox_link_serve(loop, &options, &id) : seaprox_link_dial(loop, &options, &id);
    if (result == 0 && argc == 5)
        result = seaprox_forward_local(loop, id, argv[3], strlen(argv[3]), permitted, strlen(permitted), &id);
    if (result == 0)
        printf("listening on port %d\n", argc == 4 ? seaprox_server_port(loop, id) : seaprox_forward_port(loop, id));
    return result ? result : seaprox_run(loop);
}

int main(int argc, char **argv)
{
    seaprox_loop *loop;
    char error[512];
    const char *secret = getenv("SECRET");
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (!secret || argc < 4 || strcmp(argv[1], argc == 4 ? "serve" : "dial") != 0 || seaprox_new(NULL, &loop) != 0)
        return fprintf(stderr, "usage: SECRET=... link serve ADDRESS TARGET | dial HOST LISTEN TARGET\n"), 2;
    if (run(loop, argc, argv, secret) == 0)
        return 0;
    seaprox_last_error(error, sizeof error, NULL);
    return fprintf(stderr, "link: %s\n", error), 1;
}
