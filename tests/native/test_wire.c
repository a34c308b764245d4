/* The wire: what can be sent and what has come is known at once, the end of it too, and a bell that has been cleared is
 * silent. */
#define _GNU_SOURCE
#include "check.h"

#include <fcntl.h>
#include <string.h>
#include <time.h>

#include "tg_wire.h"

static void test_socket(void)
{
    int pair[2];
    static char data[65536];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    CHECK(tg_wire_receive(pair[1], data, sizeof data) == TG_WIRE_FULL);
    CHECK(tg_wire_listen(pair[1], -1, -1, 0) == 0);

    CHECK(tg_wire_send(pair[0], "token", 5) == 5);
    CHECK(tg_wire_listen(-1, pair[1], -1, -1) == 2);
    CHECK(tg_wire_receive(pair[1], data, 3) == 3);
    CHECK(tg_wire_receive(pair[1], data + 3, sizeof data - 3) == 2);
    CHECK(memcmp(data, "token", 5) == 0);

    int64_t sent, all = 0, back = 0, got;
    while ((sent = tg_wire_send(pair[0], data, sizeof data)) > 0)
        all += sent;
    CHECK(sent == TG_WIRE_FULL && all > 0);
    while ((got = tg_wire_receive(pair[1], data, sizeof data)) > 0)
        back += got;
    CHECK(got == TG_WIRE_FULL && back == all);

    CHECK(tg_wire_send(pair[0], "last", 4) == 4);
    close(pair[0]);
    CHECK(tg_wire_listen(-1, -1, pair[1], -1) == 4);
    CHECK(tg_wire_receive(pair[1], data, sizeof data) == 4); /* what was sent before the end is not lost */
    CHECK(tg_wire_receive(pair[1], data, sizeof data) == 0);
    CHECK(tg_wire_send(pair[1], "x", 1) == TG_WIRE_BROKEN); /* and raises no signal */
    close(pair[1]);
    CHECK(tg_wire_receive(pair[1], data, sizeof data) == TG_WIRE_BROKEN);
}

static void test_bell(void)
{
    int ends[2];
    CHECK(pipe(ends) == 0);
    CHECK(fcntl(ends[0], F_SETFL, O_NONBLOCK) == 0);
    for (int i = 0; i < 3; i++) {
        CHECK(write(ends[1], "12345678", 8) == 8);
        CHECK(write(ends[1], "12345678", 8) == 8);
        CHECK(tg_wire_listen(-1, -1, ends[0], -1) == 4);
        tg_wire_clear(ends[0]);
        CHECK(tg_wire_listen(-1, -1, ends[0], 0) == 0);
        tg_wire_clear(ends[0]); /* nothing to clear: returns at once */
    }
    close(ends[0]);
    close(ends[1]);
}

static void test_patience(void)
{
    struct timespec before, after;
    CHECK(clock_gettime(CLOCK_MONOTONIC, &before) == 0);
    CHECK(tg_wire_listen(-1, -1, -1, 20) == 0);
    CHECK(clock_gettime(CLOCK_MONOTONIC, &after) == 0);
    CHECK((after.tv_sec - before.tv_sec) * 1000000000LL + (after.tv_nsec - before.tv_nsec) >= 19000000LL);
}

int main(void)
{
    test_socket();
    test_bell();
    test_patience();
    return 0;
}
