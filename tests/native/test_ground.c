/* The ground: a change of any file, of its length, of its being there, and of the affinity is seen; nothing else is. */
#define _GNU_SOURCE
#include "check.h"

#include <sched.h>

#include "tg_ground.h"

#define PATH_A "tg_ground_test_a.tmp"
#define PATH_B "tg_ground_test_b.tmp"

static const char paths[] = PATH_A "\0" PATH_B "\0";

static void put(const char *path, const char *text, size_t size)
{
    FILE *file = fopen(path, "wb");
    CHECK(file != NULL);
    CHECK(fwrite(text, 1, size, file) == size);
    CHECK(fclose(file) == 0);
}

static uint64_t with(const char *a, const char *b)
{
    remove(PATH_A);
    remove(PATH_B);
    if (a != NULL)
        put(PATH_A, a, strlen(a));
    if (b != NULL)
        put(PATH_B, b, strlen(b));
    CHECK(tg_ground_print(paths) == tg_ground_print(paths)); /* nothing has changed */
    return tg_ground_print(paths);
}

static void test_files(void)
{
    const uint64_t prints[] = {
        with("max 100000", "-1"), with("50000 100000", "-1"), with("max 100000", "1"), with("max 100000", NULL),
        with(NULL, "-1"),         with(NULL, NULL),           with("", ""),            with("", NULL),
        with("ab", "c"),          with("a", "bc"),            with("abc", ""),         with("", "abc"),
    };
    size_t n = sizeof prints / sizeof *prints;
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < i; j++)
            CHECK(prints[i] != prints[j]);
    CHECK(with("max 100000", "-1") == prints[0]); /* and back again */
}

static void test_long_file(void)
{
    static char text[3 * TG_GROUND_BYTES];
    memset(text, 'x', sizeof text);
    put(PATH_A, text, sizeof text);
    put(PATH_B, text, TG_GROUND_BYTES);
    uint64_t before = tg_ground_print(paths);
    text[TG_GROUND_BYTES - 1] = 'y';
    put(PATH_A, text, sizeof text);
    CHECK(tg_ground_print(paths) != before);
}

static void test_affinity(void)
{
    cpu_set_t all, one;
    CHECK(sched_getaffinity(0, sizeof all, &all) == 0);
    if (CPU_COUNT(&all) < 2)
        return; /* nothing to take away here */
    int first = 0;
    while (!CPU_ISSET(first, &all))
        first++;
    CPU_ZERO(&one);
    CPU_SET(first, &one);
    uint64_t before = tg_ground_print("\0");
    CHECK(sched_setaffinity(0, sizeof one, &one) == 0);
    CHECK(tg_ground_print("\0") != before);
    CHECK(sched_setaffinity(0, sizeof all, &all) == 0);
    CHECK(tg_ground_print("\0") == before);
}

int main(void)
{
    test_files();
    test_long_file();
    test_affinity();
    remove(PATH_A);
    remove(PATH_B);
    return 0;
}
