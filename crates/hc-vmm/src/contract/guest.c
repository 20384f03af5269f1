// SPDX-License-Identifier: Apache-2.0
//
// The guest of the contract suite: PID 1 of an initramfs, which does what the lines on its channel
// ask for. `contract/guest.rs` documents the requests.

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <time.h>
#include <unistd.h>

#define BLOCK 4096
#define CHANNEL "org.hyper.channel.0"

// Older C libraries lack these, and the kernel's header cannot stand beside <sys/mount.h>.
#ifndef BLKROSET
#define BLKROSET _IO(0x12, 93)
#define BLKGETSIZE64 _IOR(0x12, 114, size_t)
#endif
#ifndef BLKDISCARD
#define BLKDISCARD _IO(0x12, 119)
#endif

static int channel_fd = -1;
static char kept[64];
static char block[BLOCK] __attribute__((aligned(BLOCK)));

// Ends PID 1, which panics the kernel.
static void fail(const char *what)
{
	dprintf(2, "contract guest: %s: %s\n", what, strerror(errno));
	_exit(1);
}

static void write_all(int fd, const char *bytes, size_t len)
{
	while (len > 0) {
		ssize_t written = write(fd, bytes, len);
		if (written < 0)
			fail("write");
		bytes += written;
		len -= (size_t)written;
	}
}

// Answers with one line.
static void answer(const char *format, ...)
{
	char line[256];
	va_list values;
	va_start(values, format);
	int len = vsnprintf(line, sizeof(line) - 1, format, values);
	va_end(values);
	line[len] = '\n';
	write_all(channel_fd, line, (size_t)len + 1);
}

// Reads the one-line file at dir/name/leaf.
static bool read_attribute(const char *dir, const char *name, const char *leaf, char *value, size_t len)
{
	char path[512];
	snprintf(path, sizeof(path), "%s/%s/%s", dir, name, leaf);
	int fd = open(path, O_RDONLY);
	if (fd < 0)
		return false;
	ssize_t got = read(fd, value, len - 1);
	close(fd);
	value[got < 0 ? 0 : got] = 0;
	value[strcspn(value, "\n")] = 0;
	return true;
}

// Finds the folder below dir whose file leaf says wanted, and opens the device of that name.
static int open_device(const char *dir, const char *leaf, const char *wanted, int flags)
{
	DIR *entries = opendir(dir);
	struct dirent *entry;
	int fd = -1;
	errno = ENODEV;
	while (entries != NULL && (entry = readdir(entries)) != NULL) {
		char value[64], path[300];
		if (!read_attribute(dir, entry->d_name, leaf, value, sizeof(value)))
			continue;
		if (strcmp(value, wanted) != 0)
			continue;
		snprintf(path, sizeof(path), "/dev/%s", entry->d_name);
		fd = open(path, flags);
		break;
	}
	int kept = errno;
	if (entries != NULL)
		closedir(entries);
	errno = kept;
	return fd;
}

static int open_disk(const char *id, int flags)
{
	return open_device("/sys/block", "serial", id, flags | O_DIRECT);
}

static void disk_read(const char *id)
{
	int fd = open_disk(id, O_RDONLY);
	ssize_t got = fd < 0 ? -1 : pread(fd, block, BLOCK, 0);
	if (got < 0) {
		answer("error %d", errno);
	} else {
		block[BLOCK - 1] = 0;
		block[strcspn(block, "\n")] = 0;
		answer("ok %.100s", block);
	}
	if (fd >= 0)
		close(fd);
}

// Writes text to the start of a disk, also to one that the guest has been told not to write to.
static void disk_write(const char *id, const char *text)
{
	int writable = 0;
	int fd = open_disk(id, O_RDONLY);
	if (fd >= 0) {
		ioctl(fd, BLKROSET, &writable);
		close(fd);
	}
	fd = open_disk(id, O_RDWR);
	memset(block, 0, BLOCK);
	snprintf(block, BLOCK, "%s\n", text);
	if (fd < 0 || pwrite(fd, block, BLOCK, 0) < 0 || fsync(fd) < 0)
		answer("error %d", errno);
	else
		answer("ok");
	if (fd >= 0)
		close(fd);
}

static void disk_size(const char *id)
{
	size_t size = 0;
	int fd = open_disk(id, O_RDONLY);
	if (fd < 0 || ioctl(fd, BLKGETSIZE64, &size) < 0)
		answer("error %d", errno);
	else
		answer("%zu", size);
	if (fd >= 0)
		close(fd);
}

// Parts the driver of disks from all its devices, or joins them, by the file of this name.
static void disk_driver(const char *verb)
{
	static char devices[16][64];
	static int count;
	char path[300];
	if (strcmp(verb, "unbind") == 0) {
		DIR *entries = opendir("/sys/bus/virtio/drivers/virtio_blk");
		struct dirent *entry;
		for (count = 0; entries != NULL && (entry = readdir(entries)) != NULL;)
			if (strncmp(entry->d_name, "virtio", 6) == 0 && count < 16)
				snprintf(devices[count++], sizeof(devices[0]), "%.60s", entry->d_name);
		if (entries != NULL)
			closedir(entries);
	}
	snprintf(path, sizeof(path), "/sys/bus/virtio/drivers/virtio_blk/%s", verb);
	for (int i = 0; i < count; i++) {
		int fd = open(path, O_WRONLY);
		if (fd < 0 || write(fd, devices[i], strlen(devices[i])) < 0) {
			answer("error %d", errno);
			return;
		}
		close(fd);
	}
	answer("ok");
}

// Writes a disk from start to end.
static void disk_fill(const char *id)
{
	static char chunk[64 * BLOCK] __attribute__((aligned(BLOCK)));
	size_t size = 0;
	int fd = open_disk(id, O_RDWR);
	if (fd < 0 || ioctl(fd, BLKGETSIZE64, &size) < 0) {
		answer("error %d", errno);
		return;
	}
	memset(chunk, 'x', sizeof(chunk));
	for (size_t offset = 0; offset < size; offset += sizeof(chunk)) {
		if (pwrite(fd, chunk, sizeof(chunk), (off_t)offset) < 0) {
			answer("error %d", errno);
			close(fd);
			return;
		}
	}
	answer("ok");
	close(fd);
}

static void disk_trim(const char *id)
{
	unsigned long long range[2] = {0, 0};
	int fd = open_disk(id, O_RDWR);
	if (fd < 0 || ioctl(fd, BLKGETSIZE64, &range[1]) < 0 || ioctl(fd, BLKDISCARD, range) < 0)
		answer("error %d", errno);
	else
		answer("ok");
	if (fd >= 0)
		close(fd);
}

// Mounts the shared folder of this tag.
static void share_mount(const char *tag)
{
	mkdir("/share", 0755);
	if (mount(tag, "/share", "virtiofs", 0, NULL) < 0)
		answer("error %d", errno);
	else
		answer("ok");
}

// Opens a file of the shared folder, or answers why not.
static int share_open(const char *name, int flags)
{
	char path[256];
	snprintf(path, sizeof(path), "/share/%s", name);
	int fd = open(path, flags, 0644);
	if (fd < 0)
		answer("error %d", errno);
	return fd;
}

static void share_get(const char *name)
{
	int fd = share_open(name, O_RDONLY);
	if (fd < 0)
		return;
	ssize_t got = read(fd, block, BLOCK - 1);
	if (got < 0) {
		answer("error %d", errno);
	} else {
		block[got] = 0;
		block[strcspn(block, "\n")] = 0;
		answer("ok %.100s", block);
	}
	close(fd);
}

static void share_put(const char *name, const char *text)
{
	int fd = share_open(name, O_WRONLY | O_CREAT | O_TRUNC);
	if (fd < 0)
		return;
	if (dprintf(fd, "%s\n", text) < 0 || fsync(fd) < 0)
		answer("error %d", errno);
	else
		answer("ok");
	close(fd);
}

static void share_sum(const char *name)
{
	static unsigned char chunk[256 * BLOCK];
	int fd = share_open(name, O_RDONLY);
	if (fd < 0)
		return;
	size_t len = 0;
	unsigned int sum = 0;
	ssize_t got;
	while ((got = read(fd, chunk, sizeof(chunk))) > 0) {
		for (ssize_t i = 0; i < got; i++)
			sum = sum * 31 + chunk[i];
		len += (size_t)got;
	}
	if (got < 0)
		answer("error %d", errno);
	else
		answer("%zu %u", len, sum);
	close(fd);
}

// Sends back the bytes that follow the request.
static void echo(size_t len)
{
	static char bytes[16384];
	while (len > 0) {
		ssize_t got = read(channel_fd, bytes, len < sizeof(bytes) ? len : sizeof(bytes));
		if (got <= 0)
			fail("echo");
		write_all(channel_fd, bytes, (size_t)got);
		len -= (size_t)got;
	}
}

// Sends the next frames back to where they came from, after it has made its card take large ones.
static void bounce(size_t count)
{
	int fd = socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL));
	struct ifreq card = {.ifr_name = "eth0"};
	if (fd < 0 || ioctl(fd, SIOCGIFINDEX, &card) < 0) {
		answer("error %d", errno);
		return;
	}
	struct sockaddr_ll address = {
		.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL), .sll_ifindex = card.ifr_ifindex};
	card.ifr_mtu = 65520;
	bool sized = ioctl(fd, SIOCSIFMTU, &card) == 0;
	card.ifr_flags = IFF_UP | IFF_PROMISC;
	if (!sized || ioctl(fd, SIOCSIFFLAGS, &card) < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
		answer("error %d", errno);
		return;
	}
	answer("ok");
	while (count > 0) {
		static unsigned char frame[65536];
		struct sockaddr_ll from;
		socklen_t from_len = sizeof(from);
		ssize_t len = recvfrom(fd, frame, sizeof(frame), 0, (struct sockaddr *)&from, &from_len);
		if (len < 14)
			fail("receive");
		// Frames of its own, such as router solicitations, are of other types.
		if (from.sll_pkttype == PACKET_OUTGOING || frame[12] != 0x88 || frame[13] != 0xb5)
			continue;
		unsigned char sender[6];
		memcpy(sender, frame + 6, 6);
		memcpy(frame + 6, frame, 6);
		memcpy(frame, sender, 6);
		if (send(fd, frame, (size_t)len, 0) < 0)
			fail("send");
		count--;
	}
	close(fd);
}

static void flood_console(size_t kibibytes)
{
	static char line[1024];
	memset(line, 'f', sizeof(line));
	line[sizeof(line) - 1] = '\n';
	for (size_t i = 0; i < kibibytes; i++)
		write_all(1, line, sizeof(line));
	answer("ok");
}

static void tick(void)
{
	struct timespec pause = {.tv_nsec = 2 * 1000 * 1000};
	for (;;) {
		answer("tick");
		nanosleep(&pause, NULL);
	}
}

static void serve(char *request)
{
	char *verb = strtok(request, " ");
	char *subject = strtok(NULL, " ");
	char *object = strtok(NULL, " ");
	size_t number = subject == NULL ? 0 : strtoul(subject, NULL, 10);
	struct sysinfo system;
	struct timespec now;

	if (verb == NULL)
		return;
	if (strcmp(verb, "echo") == 0) {
		echo(number);
	} else if (strcmp(verb, "cpus") == 0) {
		answer("%ld", sysconf(_SC_NPROCESSORS_ONLN));
	} else if (strcmp(verb, "memory") == 0) {
		sysinfo(&system);
		answer("%lu", system.totalram * system.mem_unit >> 20);
	} else if (strcmp(verb, "clock") == 0) {
		clock_gettime(CLOCK_MONOTONIC, &now);
		answer("%lld", now.tv_sec * 1000000000LL + now.tv_nsec);
	} else if (strcmp(verb, "read") == 0) {
		disk_read(subject);
	} else if (strcmp(verb, "write") == 0) {
		disk_write(subject, object);
	} else if (strcmp(verb, "size") == 0) {
		disk_size(subject);
	} else if (strcmp(verb, "unbind") == 0 || strcmp(verb, "bind") == 0) {
		disk_driver(verb);
	} else if (strcmp(verb, "keep") == 0) {
		snprintf(kept, sizeof(kept), "%s", subject);
		answer("ok");
	} else if (strcmp(verb, "kept") == 0) {
		answer("%s", kept);
	} else if (strcmp(verb, "fill") == 0) {
		disk_fill(subject);
	} else if (strcmp(verb, "trim") == 0) {
		disk_trim(subject);
	} else if (strcmp(verb, "mount") == 0) {
		share_mount(subject);
	} else if (strcmp(verb, "get") == 0) {
		share_get(subject);
	} else if (strcmp(verb, "put") == 0) {
		share_put(subject, object);
	} else if (strcmp(verb, "sum") == 0) {
		share_sum(subject);
	} else if (strcmp(verb, "bounce") == 0) {
		bounce(number);
	} else if (strcmp(verb, "say") == 0) {
		dprintf(1, "%s\n", subject);
		answer("ok");
	} else if (strcmp(verb, "flood") == 0) {
		flood_console(number);
	} else if (strcmp(verb, "tick") == 0) {
		tick();
	} else if (strcmp(verb, "stop") == 0) {
		reboot(RB_AUTOBOOT);
	} else if (strcmp(verb, "panic") == 0) {
		errno = 0;
		fail("asked to panic");
	} else {
		answer("what is %s?", verb);
	}
}

int main(void)
{
	char request[256];
	size_t len = 0;

	mount("dev", "/dev", "devtmpfs", 0, NULL);
	mount("proc", "/proc", "proc", 0, NULL);
	mount("sys", "/sys", "sysfs", 0, NULL);
	channel_fd = open_device("/sys/class/virtio-ports", "name", CHANNEL, O_RDWR);
	if (channel_fd < 0)
		fail("no channel");
	answer("ready");
	for (;;) {
		// One byte at a time, since what follows a line may be the bytes of an echo.
		if (read(channel_fd, request + len, 1) != 1)
			fail("read");
		if (request[len] != '\n' && len < sizeof(request) - 1) {
			len++;
			continue;
		}
		request[len] = 0;
		len = 0;
		serve(request);
	}
}
