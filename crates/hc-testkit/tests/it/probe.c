// SPDX-License-Identifier: Apache-2.0
//
// Does in a container what its shell cannot:
//
//   probe clock     writes the time of day in nanoseconds for each line that it reads
//   probe sequence  writes, for each of a few TCP connections with itself, whose addresses and ports
//                   are always the same, what its first sequence number owes to a secret

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CONNECTIONS 3
#define SEND_QUEUE 2

static uint64_t now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static int failed(const char *what)
{
    perror(what);
    return 1;
}

static int tell_clock(void)
{
    char line[16];

    setlinebuf(stdout);
    while (fgets(line, sizeof(line), stdin))
        printf("%llu\n", (unsigned long long)now());
    return 0;
}

static int bound(uint16_t port)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(port) };
    int yes = 1, fd = socket(AF_INET, SOCK_STREAM, 0);

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
    return bind(fd, (struct sockaddr *)&address, sizeof(address)) ? -1 : fd;
}

static int tell_sequence(uint16_t from, uint16_t to)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(to) };
    struct linger at_once = { .l_onoff = 1 };
    int yes = 1, queue = SEND_QUEUE, listener = bound(to), fd = bound(from);
    uint32_t sequence;
    socklen_t length = sizeof(sequence);
    uint64_t then;

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (listener < 0 || fd < 0 || listen(listener, 1))
        return failed("listen");
    // So that the ports are free again at once.
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
    then = now();
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)))
        return failed("connect");
    // A connection under repair tells its numbers.
    if (setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &yes, sizeof(yes)) ||
        setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, &queue, sizeof(queue)) ||
        getsockopt(fd, IPPROTO_TCP, TCP_QUEUE_SEQ, &sequence, &length))
        return failed("repair");
    yes = 0;
    setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &yes, sizeof(yes));
    // The kernel adds to the secret's part a clock that counts in units of 64 ns.
    printf("%u\n", sequence - (uint32_t)(then >> 6));
    close(fd);
    close(listener);
    return 0;
}

int main(int count, char **arguments)
{
    int failures = 0;

    if (count == 2 && !strcmp(arguments[1], "clock"))
        return tell_clock();
    if (count != 2 || strcmp(arguments[1], "sequence"))
        return 2;
    for (uint16_t number = 0; number < CONNECTIONS; number++)
        failures += tell_sequence(6000 + number, 7000 + number);
    return failures;
}
