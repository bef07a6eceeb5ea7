// Takes the media of established TCP connections and drops it untouched, as a network card would
// that has sent it; `acker.c` acknowledges it.
//
// Attached to the ingress of the clients' interface after they have connected. A segment with
// payload has its end and what an acknowledgement of it needs written down under its client's
// port, and is dropped: neither cut nor pulled together, so that not one byte of its payload is
// read or copied. Everything else (handshakes, plain acknowledgements, resets) goes on to the
// clients' own stack. Only IPv4 without options is looked at, and one address of clients, so that
// the port names the connection.
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>

#include "taken.h"

#define SECTION(name) __attribute__((section(name), used))
#define net16(x) __builtin_bswap16(x)
#define net32(x) __builtin_bswap32(x)

static void *(*const lookup)(void *, const void *) = (void *)BPF_FUNC_map_lookup_elem;

struct {
  int (*type)[BPF_MAP_TYPE_ARRAY];
  int (*max_entries)[TAKEN_ENTRIES];
  int (*map_flags)[BPF_F_MMAPABLE];
  __u32 *key;
  struct taken *value;
} TAKEN_MAP SECTION(".maps");

SECTION("tc") int sink(struct __sk_buff *skb) {
  struct headers *p = (void *)(long)skb->data;
  if ((void *)(p + 1) > (void *)(long)skb->data_end) return TC_ACT_OK;
  if (p->eth.h_proto != net16(ETH_P_IP)) return TC_ACT_OK;
  if (p->ip.protocol != IPPROTO_TCP || p->ip.ihl != 5) return TC_ACT_OK;
  if (p->tcp.syn || p->tcp.rst || p->tcp.fin) return TC_ACT_OK;
  // A large packet that is cut up later states its length nowhere but in the buffer.
  __u32 total = skb->len - sizeof(struct ethhdr);
  if (net16(p->ip.tot_len)) total = net16(p->ip.tot_len);
  __u32 headers = sizeof(struct iphdr) + p->tcp.doff * 4;
  if (total <= headers) return TC_ACT_OK;

  __u32 key = net16(p->tcp.dest);
  struct taken *taken = lookup(&TAKEN_MAP, &key);
  if (!taken) return TC_ACT_OK;
  __u32 end = net32(p->tcp.seq) + total - headers;
  if (!taken->known) {
    taken->headers = *p;
    taken->end = end;
    taken->known = 1;
  } else if ((__s32)(end - taken->end) > 0) {
    taken->end = end;
  } else {
    // Sent again: the acknowledgement was lost.
    taken->again++;
  }
  taken->segments++;
  return TC_ACT_SHOT;
}

char terms[] SECTION("license") = "GPL";
