// SPDX-License-Identifier: Apache-2.0
//
// Writes a byte every two milliseconds, for as long as somebody reads.

#include <time.h>
#include <unistd.h>

int main(void)
{
    const struct timespec pause = { .tv_nsec = 2 * 1000 * 1000 };

    while (write(1, ".", 1) == 1)
        nanosleep(&pause, NULL);
    return 0;
}
