// Acknowledges what the dropping sink (`drop.c`) has taken: once a millisecond, one bare
// acknowledgement for each connection that has moved, from the clients' side of the link.
//
// Runs as root inside the clients' network namespace, on a core the server does not run on:
//   acker INTERFACE [MICROSECONDS]
// The packet socket is for sending only (protocol 0): one that received would make the kernel copy
// every zero-copy packet for it before the sink is reached.
//
// Timestamps and selective acknowledgements have to be off, because the answer has no options.
#define _GNU_SOURCE
#include <errno.h>
#include <arpa/inet.h>
#include <linux/bpf.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "taken.h"

#define TEXT(x) #x
#define NAME(x) TEXT(x)

enum { BATCH = 256, MICROSECONDS = 1000, LOOK_EVERY = 20 };

static void fail(const char *what) {
  fprintf(stderr, "acker: %s: %s\n", what, strerror(errno));
  exit(1);
}

static int bpf(int command, union bpf_attr *attr) {
  return (int)syscall(SYS_bpf, command, attr, sizeof *attr);
}

/// The newest map with the sink's name, as memory.
static volatile struct taken *find(void) {
  int found = -1;
  __u32 id = 0;
  for (;;) {
    union bpf_attr next = {.start_id = id};
    if (bpf(BPF_MAP_GET_NEXT_ID, &next)) break;
    id = next.next_id;
    union bpf_attr get = {.map_id = id};
    int fd = bpf(BPF_MAP_GET_FD_BY_ID, &get);
    if (fd < 0) continue;
    struct bpf_map_info info = {0};
    union bpf_attr ask = {
        .info = {.bpf_fd = (__u32)fd, .info_len = sizeof info, .info = (__u64)(long)&info}};
    if (!bpf(BPF_OBJ_GET_INFO_BY_FD, &ask) && !strcmp(info.name, NAME(TAKEN_MAP))) {
      if (found >= 0) close(found);
      found = fd;
    } else {
      close(fd);
    }
  }
  if (found < 0) {
    errno = ENOENT;
    fail("the sink's map");
  }
  size_t length = sizeof(struct taken) * TAKEN_ENTRIES;
  void *memory = mmap(NULL, length, PROT_READ, MAP_SHARED, found, 0);
  if (memory == MAP_FAILED) fail("mmap of the sink's map");
  return memory;
}

static __u32 add(const void *bytes, size_t length, __u32 sum) {
  const __u8 *byte = bytes;
  for (size_t i = 0; i + 1 < length; i += 2) sum += (__u32)byte[i] << 8 | byte[i + 1];
  return sum;
}

static __u16 fold(__u32 sum) {
  while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
  return htons((__u16)~sum);
}

/// The acknowledgement up to `end` by the receiver of a segment with the headers `of`.
static void answer(struct headers *to, const struct headers *of, __u32 end) {
  memset(to, 0, sizeof *to);
  memcpy(to->eth.h_dest, of->eth.h_source, ETH_ALEN);
  memcpy(to->eth.h_source, of->eth.h_dest, ETH_ALEN);
  to->eth.h_proto = of->eth.h_proto;
  to->ip.version = 4;
  to->ip.ihl = 5;
  to->ip.ttl = 64;
  to->ip.protocol = of->ip.protocol;
  to->ip.tot_len = htons(sizeof to->ip + sizeof to->tcp);
  to->ip.saddr = of->ip.daddr;
  to->ip.daddr = of->ip.saddr;
  to->ip.check = fold(add(&to->ip, sizeof to->ip, 0));
  to->tcp.source = of->tcp.dest;
  to->tcp.dest = of->tcp.source;
  to->tcp.seq = of->tcp.ack_seq;
  to->tcp.ack_seq = htonl(end);
  to->tcp.doff = sizeof to->tcp / 4;
  to->tcp.ack = 1;
  to->tcp.window = 0xffff;
  __u32 sum = add(&to->ip.saddr, 8, to->ip.protocol + sizeof to->tcp);
  to->tcp.check = fold(add(&to->tcp, sizeof to->tcp, sum));
}

int main(int count, char **words) {
  if (count < 2) {
    fprintf(stderr, "usage: acker INTERFACE [MICROSECONDS]\n");
    return 2;
  }
  long pause = (count > 2 ? atol(words[2]) : MICROSECONDS) * 1000;
  volatile struct taken *taken = find();
  int out = socket(AF_PACKET, SOCK_RAW, 0);
  if (out < 0) fail("packet socket");
  struct sockaddr_ll link = {.sll_family = AF_PACKET, .sll_ifindex = (int)if_nametoindex(words[1])};
  if (bind(out, (struct sockaddr *)&link, sizeof link)) fail("bind");

  static struct {
    __u32 port, acked, again;
  } known[TAKEN_ENTRIES];
  static __u8 seen[TAKEN_ENTRIES];
  static struct headers frames[BATCH];
  static struct iovec vectors[BATCH];
  static struct mmsghdr messages[BATCH];
  for (int i = 0; i < BATCH; i++) {
    vectors[i] = (struct iovec){&frames[i], sizeof frames[i]};
    messages[i].msg_hdr = (struct msghdr){.msg_iov = &vectors[i], .msg_iovlen = 1};
  }
  size_t connections = 0;
  for (unsigned long turn = 0;; turn++) {
    if (turn % LOOK_EVERY == 0) {
      for (__u32 port = 0; port < TAKEN_ENTRIES; port++) {
        if (seen[port] || !taken[port].known) continue;
        seen[port] = 1;
        known[connections].port = port;
        known[connections++].acked = taken[port].end - 1;
      }
    }
    unsigned batch = 0;
    for (size_t i = 0; i <= connections; i++) {
      if (batch == BATCH || (i == connections && batch)) {
        if (sendmmsg(out, messages, batch, 0) < 0 && errno != ENOBUFS) fail("sendmmsg");
        batch = 0;
      }
      if (i == connections) break;
      volatile struct taken *it = &taken[known[i].port];
      __u32 end = it->end, again = it->again;
      if (end == known[i].acked && again == known[i].again) continue;
      known[i].acked = end;
      known[i].again = again;
      struct headers of;
      memcpy(&of, (const void *)&it->headers, sizeof of);
      answer(&frames[batch++], &of, end);
    }
    struct timespec rest = {0, pause};
    nanosleep(&rest, NULL);
  }
}
