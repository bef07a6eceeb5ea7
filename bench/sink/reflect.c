// Takes the media of established TCP connections on behalf of their clients, so that a sender
// pays for sending and for nothing else, as it does with a network card.
//
// Attached to the ingress of the clients' interface after they have connected. A segment with
// payload is turned into the acknowledgement its receiver would send, and goes straight back out;
// the payload is cut off unread. Everything else (handshakes, plain acknowledgements, resets)
// goes on to the clients' own stack.
//
// Only IPv4 without options is looked at. Timestamps and selective acknowledgements have to be
// off in both namespaces, because the answer carries no options.
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>

#define SECTION(name) __attribute__((section(name), used))
#define net16(x) __builtin_bswap16(x)
#define net32(x) __builtin_bswap32(x)

static long (*const change_tail)(void *, __u32, __u64) = (void *)BPF_FUNC_skb_change_tail;
static long (*const redirect)(__u32, __u64) = (void *)BPF_FUNC_redirect;

enum { HEADERS = sizeof(struct ethhdr) + sizeof(struct iphdr) + sizeof(struct tcphdr) };

struct packet {
  struct ethhdr eth;
  struct iphdr ip;
  struct tcphdr tcp;
} __attribute__((packed));

static __always_inline struct packet *look(struct __sk_buff *skb) {
  void *start = (void *)(long)skb->data;
  void *end = (void *)(long)skb->data_end;
  return start + sizeof(struct packet) <= end ? start : 0;
}

SECTION("tc") int sink(struct __sk_buff *skb) {
  struct packet *p = look(skb);
  if (!p || p->eth.h_proto != net16(ETH_P_IP)) return TC_ACT_OK;
  if (p->ip.protocol != IPPROTO_TCP || p->ip.ihl != 5) return TC_ACT_OK;
  if (p->tcp.syn || p->tcp.rst || p->tcp.fin) return TC_ACT_OK;
  // A large packet that is cut up later states its length nowhere but in the buffer.
  __u32 total = skb->len - sizeof(struct ethhdr);
  if (net16(p->ip.tot_len)) total = net16(p->ip.tot_len);
  __u32 headers = sizeof(struct iphdr) + p->tcp.doff * 4;
  if (total <= headers) return TC_ACT_OK;
  __u32 payload = total - headers;

  if (change_tail(skb, HEADERS, 0)) return TC_ACT_SHOT;
  p = look(skb);
  if (!p) return TC_ACT_SHOT;
  for (int i = 0; i < ETH_ALEN; i++) {
    __u8 mac = p->eth.h_dest[i];
    p->eth.h_dest[i] = p->eth.h_source[i];
    p->eth.h_source[i] = mac;
  }
  __u32 address = p->ip.saddr;
  p->ip.saddr = p->ip.daddr;
  p->ip.daddr = address;
  __u16 port = p->tcp.source;
  p->tcp.source = p->tcp.dest;
  p->tcp.dest = port;
  __u32 taken = net32(p->tcp.seq) + payload;
  p->tcp.seq = p->tcp.ack_seq;
  p->tcp.ack_seq = net32(taken);
  p->tcp.psh = 0;
  p->tcp.doff = sizeof(struct tcphdr) / 4;
  p->tcp.window = 0xffff;
  p->ip.tot_len = net16(HEADERS - sizeof(struct ethhdr));
  // The veth pair does not check TCP's checksum; IP's is.
  p->ip.check = 0;
  __u32 sum = 0;
  __u16 *word = (void *)p + sizeof(struct ethhdr);
#pragma unroll
  for (int i = 0; i < 10; i++) sum += word[i];
  sum = (sum & 0xffff) + (sum >> 16);
  p->ip.check = ~(sum + (sum >> 16));
  return redirect(skb->ifindex, 0);
}

char terms[] SECTION("license") = "GPL";
