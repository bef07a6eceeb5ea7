// What the dropping sink (`drop.c`) tells the program that acknowledges for it (`acker.c`): a map
// indexed by the clients' ports, which both see as plain memory.
#pragma once
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/tcp.h>
#include <linux/types.h>

enum { TAKEN_ENTRIES = 65536 };

/// Name of the map; the kernel keeps 15 characters.
#define TAKEN_MAP ringcast_taken

struct headers {
  struct ethhdr eth;
  struct iphdr ip;
  struct tcphdr tcp;
} __attribute__((packed));

struct taken {
  /// Sequence number after the last byte taken.
  __u32 end;
  /// Set when a segment of this connection has been seen.
  __u32 known;
  /// Segments taken, and those that brought nothing new.
  __u32 segments;
  __u32 again;
  /// Headers of the first segment.
  struct headers headers;
  __u8 padding[2];
};
